use super::*;

const CERTIFICATE: &[u8] = include_bytes!("../../../tests/fixtures/certificates/press-17.pem");
const NAMELESS: &[u8] = include_bytes!("../../../tests/fixtures/certificates/nameless.pem");

/// A machine with these files.
fn machine(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::at(directory.path());
    for (path, bytes) in files {
        let path = root.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    (directory, root)
}

#[test]
fn templates_are_filled_in_from_the_machine() {
    let (_keep, root) = machine(&[
        (MACHINE_ID, b"0123456789ABCDEF0123456789abcdef\n"),
        (DEVICE_TREE_SERIAL, b"10000000abcdef12\0"),
        (DMI_SERIAL, b"another\n"),
        ("/etc/press.pem", CERTIFICATE),
    ]);
    let cert = Source::Path("/etc/press.pem".into());
    for (template, id) in [
        ("press-17", "press-17"),
        ("{machineId}", "0123456789abcdef0123456789abcdef"),
        ("{serial}", "10000000abcdef12"),
        ("{certCN}", "press-17"),
        ("a-{serial}-{certCN}.z", "a-10000000abcdef12-press-17.z"),
    ] {
        assert_eq!(resolve(template, Some(&cert), &root).as_deref(), Ok(id), "{template}");
    }
}

#[test]
fn a_source_that_gives_no_id_is_named() {
    let cert = Source::Path("/etc/press.pem".into());
    for (template, files, words) in [
        ("{machineId}", &[][..], "cannot read /etc/machine-id: No such file"),
        ("{machineId}", &[(MACHINE_ID, &b"uninitialized\n"[..])], "run systemd-machine-id-setup"),
        ("{machineId}", &[(MACHINE_ID, b"")], "/etc/machine-id is empty"),
        ("{machineId}", &[(MACHINE_ID, b"00000000000000000000000000000000")], "holds no machine id"),
        ("{serial}", &[], "tells no serial number: cannot read /sys/firmware/devicetree/base/serial-number"),
        ("{serial}", &[(DEVICE_TREE_SERIAL, b"0000000000000000\0")], "holds \"0000000000000000\", which is no number"),
        ("{serial}", &[(DMI_SERIAL, b"To Be Filled By O.E.M.\n")], "which is no number"),
        ("{serial}", &[(DMI_SERIAL, b"a/b\n")], "gives \"a/b\" on this machine, which cannot be used"),
        ("{serial}", &[(DMI_SERIAL, &[b'7'; 129])], "at most 128 bytes"),
        ("{certCN}", &[], "cannot read the certificate /etc/press.pem: No such file"),
        ("{certCN}", &[("/etc/press.pem", b"no pem")], "/etc/press.pem holds no certificate in PEM form"),
        ("{certCN}", &[("/etc/press.pem", NAMELESS)], "has no common name"),
        (
            "{certCN}",
            &[("/etc/press.pem", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")],
            "the first certificate in /etc/press.pem cannot be read",
        ),
    ] {
        let (_keep, root) = machine(files);
        let error = resolve(template, Some(&cert), &root).unwrap_err();
        assert!(error.contains(words), "{template}: {error}");
    }
    assert!(resolve("{certCN}", None, &Root::host()).unwrap_err().contains("connection.certFile"));
}

#[test]
fn ids_are_fit_for_a_topic() {
    let longest = "x".repeat(MAX_ID_BYTES);
    for id in ["press-17", "a:b@c.d_e~f$", "größe", longest.as_str()] {
        assert_eq!(check_id(id), Ok(()), "{id}");
    }
    let longer = "x".repeat(MAX_ID_BYTES + 1);
    for id in ["", " ", "a ", "a/b", "+", "#", "a\0b", "a\nb", "a\u{9b}b", longer.as_str()] {
        assert!(check_id(id).is_err(), "{id:?}");
    }
    for template in ["{machineId}", "x{serial}", "{certCN}-{machineId}"] {
        assert_eq!(check_template(template), Ok(()), "{template}");
    }
    for template in ["{hostname}", "{", "{machineid}", "{serial}}", "a/{serial}", "{{serial}"] {
        assert!(check_template(template).is_err(), "{template}");
    }
}

#[test]
fn a_connection_wants_an_id_and_a_missing_certificate_is_no_reason_to_stop() {
    let (_keep, root) = machine(&[]);
    let mut local = Local::new(None);
    let error = device_id(&local, &root).unwrap_err();
    assert!(matches!(&error, NoIdentity::NotConfigured(reason) if reason.contains("{machineId}, {serial}, {certCN}")));
    local.device_id = Some("{certCN}".to_owned());
    assert!(matches!(device_id(&local, &root), Err(NoIdentity::Unavailable(_))));
    local.device_id = Some("press-17".to_owned());
    assert_eq!(device_id(&local, &root).as_deref(), Ok("press-17"));
}

#[test]
fn the_host_name_is_read_for_a_single_shot() {
    let (_keep, root) = machine(&[("/proc/sys/kernel/hostname", b"board\n")]);
    assert_eq!(host_name(&root).as_deref(), Ok("board"));
    let (_keep, root) = machine(&[("/proc/sys/kernel/hostname", b"a/b\n")]);
    assert!(host_name(&root).unwrap_err().contains("cannot be a device id"));
}

#[test]
fn mangled_certificates_never_panic() {
    let mut random = fastrand::Rng::with_seed(3);
    let (_keep, root) = machine(&[("/c.pem", CERTIFICATE)]);
    for _ in 0..500 {
        let mut bytes = CERTIFICATE.to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = b"ABCxyz059+/=\n-"[random.usize(..14)];
        }
        fs::write(root.path("/c.pem"), &bytes).unwrap();
        if let Ok(id) = resolve("{certCN}", Some(&Source::Path("/c.pem".into())), &root) {
            assert_eq!(check_id(&id), Ok(()));
        }
    }
}
