use super::*;

fn path(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("devices")
}

#[test]
fn an_added_device_logs_in_with_the_printed_password_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(&dir);
    let password = add(&file, "aa:bb:cc").unwrap();
    assert_eq!(password.len(), 40);
    let mut devices = Devices::open(&file).unwrap();
    assert!(devices.find("aa:bb:cc").unwrap().is_of(password.as_bytes()));
    assert!(!devices.find("aa:bb:cc").unwrap().is_of(b"wrong"));
    assert!(devices.find("aa:bb").is_none());
    let other = add(&file, "press 18").unwrap();
    assert_ne!(password, other);
    assert!(devices.find("press 18").unwrap().is_of(other.as_bytes()));
    assert_eq!(list(&file).unwrap(), ["aa:bb:cc", "press 18"]);
    assert!(add(&file, "press 18").unwrap_err().contains("remove it first"));
    remove(&file, "aa:bb:cc").unwrap();
    assert!(devices.find("aa:bb:cc").is_none());
    assert!(remove(&file, "aa:bb:cc").unwrap_err().contains("is not in"));
    assert!(devices.find("press 18").is_some());
}

#[test]
fn the_file_is_for_its_owner_and_keeps_what_others_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(&dir);
    add(&file, "a").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&file), 0o600);
    fs::write(&file, format!("# hall 3\n\n{}", fs::read_to_string(&file).unwrap())).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    add(&file, "b").unwrap();
    remove(&file, "a").unwrap();
    assert_eq!(mode(&file), 0o640);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# hall 3\n\nb:$7$101$") && text.lines().count() == 3, "{text}");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert!(add(&file, "c").unwrap_err().contains("open to everybody (mode 0644)"));
    assert!(Devices::open(&file).err().unwrap().contains("open to everybody"));
}

#[test]
fn a_garbled_line_is_named_and_the_last_good_content_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(&dir);
    let password = add(&file, "a").unwrap();
    let good = fs::read_to_string(&file).unwrap();
    let hash = good.trim().strip_prefix("a:").unwrap();
    let mut devices = Devices::open(&file).unwrap();
    for (line, why) in [
        ("b", ":2: expected DEVICE:$7$"),
        ("b:hunter2", ":2: expected DEVICE:$7$"),
        ("b:$6$AAAA$AAAA", ":2: expected DEVICE:$7$"),
        ("b:$7$101$AAAA$AAAA", ":2: expected DEVICE:$7$"),
        ("b:$7$0$AAAA$AAAA", ":2: expected DEVICE:$7$"),
        (&format!("b/c:{hash}"), ":2: a device id has"),
        (&format!("a:{hash}"), ":2: a has an entry further up"),
        (&format!("b:{}", hash.replace("101", "1000000")), ":2: 1000000 rounds are more than"),
    ] {
        fs::write(&file, format!("{good}{line}\n")).unwrap();
        let error = Devices::open(&file).err().unwrap();
        assert!(error.contains(&format!("devices{why}")), "{line}: {error}");
        assert!(devices.find("a").is_some_and(|hash| hash.is_of(password.as_bytes())), "{line}");
        assert!(add(&file, "c").unwrap_err().contains(why));
    }
    fs::remove_file(&file).unwrap();
    assert!(devices.find("a").is_some());
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert!(devices.find("a").is_none());
}

#[test]
fn what_can_be_no_topic_level_is_no_device() {
    for bad in ["", " a", "a/b", "a\\b", "+", "#", "a\nb", &"x".repeat(129)] {
        assert!(check_id(bad).is_err(), "{bad:?}");
        assert!(add(Path::new("/nowhere/devices"), bad).unwrap_err().contains("cannot be added"));
    }
    assert!(check_id("press-17 (hall ü):3").is_ok());
}

#[test]
fn the_file_is_that_of_mosquitto() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(&dir);
    let mut command = std::process::Command::new("mosquitto_passwd");
    let status = command.args(["-c", "-b"]).arg(&file).args(["press-17", "hunter2"]).status().unwrap();
    assert!(status.success());
    // Debian's mosquitto_passwd leaves it open to everybody.
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let mut devices = Devices::open(&file).unwrap();
    assert!(devices.find("press-17").unwrap().is_of(b"hunter2"));
    assert!(!devices.find("press-17").unwrap().is_of(b"hunter3"));
}
