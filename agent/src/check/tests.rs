use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use collector_common::collector::{Context, Running, Settings, Survey};
use collector_common::event::kind::Kind;

use super::*;
use crate::config::load;

const CERTIFICATE: &[u8] = include_bytes!("../../../tests/fixtures/certificates/press-17.pem");

/// A collector that can say what it would do.
struct Told(Kind, &'static [&'static str]);

impl Collector for Told {
    fn kind(&self) -> Kind {
        self.0
    }

    fn survey(&self, _: &Root, settings: &Settings) -> Survey {
        let lacks = self.1.iter().map(|lack| (*lack).to_owned()).collect();
        Survey { backend: format!("snapshot every {:?}", settings.snapshot_interval), lacks }
    }

    fn run(&self, _: Context) -> Running {
        Box::pin(async { Ok(()) })
    }
}

fn checked(text: &str, root: &Root) -> (String, u8) {
    let users = Told(Kind::LocalUsers, &["/etc/shadow cannot be read: run as root"]);
    let logins = Told(Kind::Login, &[]);
    report(&load("twin.json", text, None), root, &[&users, &logins])
}

#[test]
fn a_good_file_shows_values_origins_and_collectors() {
    let text = "{\"properties\": {\"desired\": {\"ms_iotn:urn_azureiot_Security_SecurityAgentConfiguration\": {\n\
                \"snapshotFrequency\": {\"value\": \"PT60S\"},\n\"eventPriorityLogin\": {\"value\": \"Off\"},\n\
                \"eventPriorityLogins\": {\"value\": \"Off\"}}}}}";
    let (report, exit_code) = checked(text, &Root::host());
    assert_eq!(exit_code, 0);
    let has = |line: &str| assert!(report.lines().any(|other| other == line), "{line}\nis not a line of\n{report}");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let squeezed: Vec<String> = report.lines().map(words).collect();
    for line in [
        "deviceId = null # default",
        "stateDirectory = \"/var/lib/edgewarden\" # default",
        "connection = null # default",
        "edgewarden.loginSource = \"auto\" # default",
        "snapshotFrequency = \"PT1M\" # twin.json:2",
        "eventPriorityLogin = \"Off\" # twin.json:3",
        "maxMessageSizeInBytes = 8192 # default",
    ] {
        assert!(squeezed.iter().any(|other| other == line), "{line}\nis not a line of\n{report}");
    }
    has("  LocalUsers: snapshot every 60s");
    has("  LocalUsers: lacks: /etc/shadow cannot be read: run as root");
    has("  Login: off");
    has("warnings");
    has(
        "  twin.json:4:1: eventPriorityLogins: expected a published key (did you mean \"eventPriorityLogin\"?), found \
         an unknown key; it is ignored",
    );
}

#[test]
fn a_file_that_stops_the_agent_gives_the_places_and_78() {
    let (report, exit_code) = checked("{\"conection\": {}}", &Root::host());
    assert_eq!(exit_code, 78);
    assert_eq!(
        report,
        "\nerrors: the agent does not start with this configuration\n  twin.json:1:2: conection: expected a known key \
         (did you mean \"connection\"?), found an unknown key\n"
    );
}

#[test]
fn a_connection_without_an_id_is_told_with_its_remedy() {
    let (report, exit_code) = checked("{\"connection\": {\"url\": \"mqtt://localhost\"}}", &Root::host());
    assert_eq!(exit_code, 78);
    assert!(report.contains("twin.json: deviceId: a connection needs a deviceId"), "{report}");
}

#[test]
fn files_that_cannot_be_used_leave_the_agent_degraded() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::at(directory.path());
    fs::write(root.path("/c.pem"), CERTIFICATE).unwrap();
    fs::write(root.path("/bad.pem"), "nothing").unwrap();
    fs::write(root.path("/password"), "hunter2\n").unwrap();
    for secret in ["/bad.pem", "/password"] {
        fs::set_permissions(root.path(secret), Permissions::from_mode(0o600)).unwrap();
    }
    let text = |key: &str, id: &str| {
        format!(
            "{{\"deviceId\": \"{id}\", \"connection\": {{\"url\": \"mqtts://h\", \"caFile\": \"/ca.pem\", \"certFile\": \
             \"/c.pem\", \"keyFile\": \"{key}\", \"username\": \"u\", \"passwordFile\": \"/password\"}}}}"
        )
    };
    let (report, exit_code) = checked(&text("/bad.pem", "{certCN}"), &root);
    assert_eq!(exit_code, 0);
    assert!(
        report.contains(
            "\ndegraded: collects and spools, cannot connect\n  connection.caFile: cannot read the file /ca.pem: No such file or \
             directory (os error 2)\n  connection.keyFile: /bad.pem holds no private key in PEM form\n"
        ),
        "{report}"
    );
    assert!(
        report
            .contains("\nconnection to mqtts://h:8883\n  device id: press-17\n  topic: edgewarden/press-17/security\n")
    );
    assert!(!report.contains("hunter2") && report.contains("/password"), "{report}");
    let (report, exit_code) = checked(&text("/bad.pem", "{serial}"), &root);
    assert!(exit_code == 0 && report.contains("tells no serial number"), "{report}");
}

#[test]
fn secrets_for_everybody_and_a_key_of_another_certificate_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::at(directory.path());
    fs::write(root.path("/c.pem"), CERTIFICATE).unwrap();
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out"])
        .arg(root.path("/k.pem"))
        .status();
    assert!(made.unwrap().success());
    let pin = "0".repeat(64);
    let text = format!(
        "{{\"deviceId\": \"x\", \"connection\": {{\"profile\": \"iothub\", \"url\": \"mqtts://h\", \
         \"pinnedCertificate\": \"{pin}\", \"certFile\": \"/c.pem\", \"keyFile\": \"/k.pem\"}}}}"
    );
    for (mode, words) in [
        (0o604, "connection.keyFile: the secret /k.pem is open to everybody (mode 0604) and is not used"),
        (0o600, "/c.pem and /k.pem do not make an identity"),
    ] {
        fs::set_permissions(root.path("/k.pem"), Permissions::from_mode(mode)).unwrap();
        let (report, exit_code) = checked(&text, &root);
        assert!(exit_code == 0 && report.contains(words), "{report}");
    }
}
