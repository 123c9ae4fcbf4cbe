//! The commands for somebody with one suspicious device and no hub.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::agent::{Agent, cli, connection};
use crate::{hub, mosquitto, schema};

/// Runs `collect` and gives its lines, each of which must be a JSON object.
fn collect(args: &[&str]) -> Vec<Value> {
    let out = cli(&[&["collect"], args].concat());
    assert!(out.status.success(), "{args:?}: {} {}", out.status, String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert_eq!(value.to_string(), line, "compact JSON");
            assert!(value.is_object(), "{line}");
            value
        })
        .collect();
    assert!(!lines.is_empty(), "{args:?} printed nothing: {}", String::from_utf8_lossy(&out.stderr));
    lines
}

#[test]
fn collected_messages_keep_to_the_published_schema() {
    let messages = collect(&["LocalUsers", "ListeningPorts", "--for", "2s", "--format", "envelope"]);
    let mut names = BTreeSet::new();
    for message in &messages {
        assert_eq!(schema::faults(message), Vec::<String>::new(), "{message}");
        for event in message["Events"].as_array().unwrap() {
            names.insert(event["Name"].as_str().unwrap().to_owned());
        }
    }
    assert!(names.contains("LocalUsers") && names.contains("ListeningPorts"), "{names:?}");
    validate_against_published_files(&messages);
}

/// The published files themselves, through an independent validator, where both are at hand.
fn validate_against_published_files(messages: &[Value]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let schemas = root.join("../shared/schemas/security_message/schemas");
    let has_validator = Command::new("python3")
        .args(["-c", "import jsonschema, referencing"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !schemas.join("messageRoot.json").exists() || !has_validator {
        eprintln!(
            "left out: the published schema files in {} or python3 with jsonschema are not there",
            schemas.display()
        );
        return;
    }
    let mut child = Command::new("python3")
        .arg(root.join("tests/support/validate.py"))
        .arg(&schemas)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text: String = messages.iter().map(|message| format!("{message}\n")).collect();
    child.stdin.take().expect("piped").write_all(text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn what_is_collected_without_a_network_can_be_imported_at_the_hub() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("case.db");
    let accounts = collect(&["LocalUsers", "--for", "1s"]).len();
    for (format, more) in [("envelope", &[][..]), ("row", &[]), ("details", &["--name", "LocalUsers"])] {
        let out = cli(&["collect", "LocalUsers", "--for", "1s", "--format", format]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let file = dir.path().join(format);
        std::fs::write(&file, out.stdout).unwrap();
        let import = || {
            let mut import = Command::new(hub::binary());
            import.args(["import", "--hub", "Case", "--db"]).arg(&db).args(more).arg(&file);
            // A row names its device itself.
            let out = if format == "row" { import.output() } else { import.args(["--device", "press-17"]).output() };
            let out = out.unwrap();
            assert!(out.status.success(), "{format}: {}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        };
        let first = import();
        assert!(first.contains(&format!(": {accounts} stored, 0 known")), "{format}: {first} of {accounts} accounts");
        assert!(import().contains(&format!(": 0 stored, {accounts} known")), "{format}: a second import adds nothing");
    }
}

#[test]
fn rows_are_details_with_the_columns_of_the_table_around_them() {
    let users = collect(&["LocalUsers", "--for", "1s"]);
    let root = users.iter().find(|user| user["UserName"] == "root").expect("there is a root");
    assert_eq!(root["UserId"], "0");
    let rows = collect(&["LocalUsers", "--for", "1s", "--format", "row"]);
    assert_eq!(rows.len(), users.len(), "a row for each");
    for row in rows {
        assert_eq!(row["RawEventName"], "LocalUsers");
        let details: Value = serde_json::from_str(row["EventDetails"].as_str().unwrap()).unwrap();
        assert!(details["UserName"].is_string() && details["EventId"].is_string(), "{details}");
    }
}

/// Protocol, address and port.
type Socket = (String, String, String);

/// `ss -H -tuln`: Netid State Recv-Q Send-Q Local:Port Peer:Port. An address may carry `%interface` and brackets; `*`
/// is an IPv6 socket that serves IPv4 too.
fn sockets_by_ss() -> BTreeSet<Socket> {
    let out = mosquitto::command("ss").args(["-H", "-tuln"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (address, port) = fields[4].rsplit_once(':').unwrap();
        let address = address.trim_start_matches('[');
        let address = address.split(['%', ']']).next().unwrap();
        let address = if address == "*" { "::" } else { address };
        found.insert((fields[0].to_uppercase(), address.to_owned(), port.to_owned()));
    }
    found
}

/// Other tests open and close sockets meanwhile, so `ss` is asked before and after: what it saw both times must be
/// reported, and nothing may be reported that it saw neither time.
#[test]
fn listening_ports_agree_with_ss() {
    let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let tcp6 = TcpListener::bind(("::1", 0)).ok();
    let any6 = TcpListener::bind(("::", 0)).ok();
    let udp = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    let mut own = vec![("TCP", tcp.local_addr().unwrap()), ("UDP", udp.local_addr().unwrap())];
    own.extend(tcp6.iter().chain(&any6).map(|listener| ("TCP", listener.local_addr().unwrap())));

    let before = sockets_by_ss();
    let rows = collect(&["ListeningPorts", "--for", "1s"]);
    let after = sockets_by_ss();
    let found: BTreeSet<Socket> = rows
        .iter()
        .filter(|row| row["RemotePort"] == "*" && (row["Protocol"] == "TCP" || row["Protocol"] == "UDP"))
        .filter(|row| row["ExtraDetails"]["NetworkNamespace"].is_null())
        .map(|row| {
            let [protocol, address, port] =
                ["Protocol", "LocalAddress", "LocalPort"].map(|key| row[key].as_str().unwrap().to_owned());
            (protocol, address, port)
        })
        .collect();

    for (protocol, address) in own {
        let socket = (protocol.to_owned(), address.ip().to_string(), address.port().to_string());
        assert!(before.contains(&socket) && found.contains(&socket), "{socket:?} is missing: {found:?}");
    }
    let missing: Vec<_> = before.intersection(&after).filter(|socket| !found.contains(socket)).collect();
    assert!(missing.is_empty(), "ss has, the agent has not: {missing:?}");
    let extra: Vec<_> = found.iter().filter(|socket| !before.contains(*socket) && !after.contains(*socket)).collect();
    assert!(extra.is_empty(), "the agent has, ss has not: {extra:?}");
}

#[test]
fn status_without_a_daemon_says_so() {
    let mut agent = Agent::new("press-60", connection(1));
    agent.write_twin();
    let told = agent.status().expect_err("no daemon runs");
    assert!(told.len() > "status: exit status: 1 ".len(), "an operator needs a sentence: {told}");
}
