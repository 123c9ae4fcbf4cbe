//! The files of a connection: read anew for each, refused when they are open to everybody, and never shown.

use std::fs::Permissions;
use std::path::Path;

use super::*;
use crate::agent::cli;

/// A secret that is wrong and must not be shown either.
const WRONG: &str = "d3Jvbmctc2VjcmV0LW9mLXByZXNzLTE3";
const PASSWORD: &str = "correct horse battery";

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Everything the agent has written or shown so far, its secret files left out.
fn shown(agent: &Agent) -> Vec<(String, Vec<u8>)> {
    let mut shown = vec![("cmdline".to_owned(), agent.proc("cmdline").into_bytes())];
    shown.push(("environ".to_owned(), agent.proc("environ").into_bytes()));
    let config = agent.config();
    for words in [&["status"][..], &["status", "--json"], &["check"]] {
        let out = cli(&[words, &["--config", config.to_str().unwrap()]].concat());
        shown.push((words.join(" "), [out.stdout, out.stderr].concat()));
    }
    let mut directories = vec![agent.path("")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.is_file() && path != agent.path("secret") {
                shown.push((path.display().to_string(), std::fs::read(path).unwrap()));
            }
        }
    }
    shown
}

fn assert_shows_none(agent: &Agent, secrets: &[&str]) {
    let shown = shown(agent);
    assert!(agent.log().contains("connected to"), "a log that says nothing proves nothing");
    for (place, bytes) in &shown {
        for secret in secrets {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{secret} is in {place}");
        }
    }
}

/// Each kind of secret is first open to everybody, then wrong, then right; the agent is not restarted in between.
#[test]
fn secrets_are_read_anew_refused_when_open_and_never_shown() {
    let authority = Authority::new();
    authority.client("client");
    let private_key = std::fs::read_to_string(authority.path("client.key")).unwrap();
    let wrong_private_key = std::fs::read_to_string(authority.path("server.key")).unwrap();
    let string = |key: &str| format!("HostName={HUB};DeviceId=press-91;SharedAccessKey={key}");
    let plain = |device: &str, username: Option<&str>, proof, topic: &str| {
        Rules::of(device, username.map(str::to_owned), String::new(), proof, topic.to_owned())
    };
    let by_key = || Proof::Key(KEY.to_owned());
    let password =
        plain("press-92", Some("board"), Proof::Password(PASSWORD.to_owned()), "hall/press-92/azureiotsecurity/x");
    let certificate = plain("press-93", None, Proof::Certificate, "edgewarden/press-93/security");
    let own_topic = json!({ "profile": "mqtt", "username": "board", "topic": "hall/{deviceId}/{moduleId}/x" });
    let certificates = json!({ "profile": "aws", "certFile": authority.path("client.pem") });
    let refusal = "is the shared access key that of";
    let mut stories = [
        ("sasKeyFile", module_rules("press-90", "localhost", by_key()), json!({}), WRONG.into(), KEY.into(), refusal),
        (
            "connectionStringFile",
            device_rules("press-91", HUB, by_key()),
            json!({}),
            string(WRONG),
            string(KEY),
            refusal,
        ),
        ("passwordFile", password, own_topic, WRONG.into(), PASSWORD.into(), "are the user name and password"),
        ("keyFile", certificate, certificates, wrong_private_key, private_key, "do not make an identity"),
    ]
    .map(|(key, rules, more, wrong, right, words): (_, Rules, _, String, String, _)| {
        let device = rules.client_id.split('/').next().unwrap().to_owned();
        let hub = IotHub::start(&authority, rules);
        let mut agent = agent(&device, &hub, &authority, key, &wrong, more);
        agent.options = vec!["-vv".to_owned()];
        set_mode(&agent.path("secret"), 0o644);
        agent.start();
        agent.wait_collecting();
        agent.fail_logins(30_000..30_020);
        (agent, hub, wrong, right, words)
    });
    for (agent, ..) in &mut stories {
        let open = format!("{} is open to everybody (mode 0644) and is not used", agent.path("secret").display());
        agent.wait_status("the mode", has_trouble(&open));
        set_mode(&agent.path("secret"), 0o600);
    }
    for (agent, hub, _, right, words) in &mut stories {
        agent.wait_status("the refusal", has_trouble(words));
        assert_eq!(hub.accepted(), 0);
        std::fs::write(agent.path("secret"), right).unwrap();
    }
    for (agent, hub, wrong, right, _) in &mut stories {
        wait_ports("every line", 30_000..30_020, || hub.arrivals());
        assert_each_once(30_000..30_020, &hub.arrivals());
        // Of a key file its first line of base64.
        let [wrong, right] = [&*wrong, &*right].map(|secret| secret.lines().nth(1).unwrap_or(secret));
        let decoded = ["secret-key-of-press-17", "wrong-secret-of-press-17", "SharedAccessSignature", "sig="];
        assert_shows_none(agent, &[&[wrong, right, KEY, WRONG, PASSWORD], &decoded[..]].concat());
    }
}

#[test]
fn no_secret_can_be_given_on_the_command_line() {
    for option in ["--password", "--sas-key", "--connection-string", "--key", "--secret", "--token"] {
        // 2: the command line is wrong.
        let out = cli(&["run", option, WRONG]);
        assert_eq!(out.status.code(), Some(2), "{option}");
        assert!(!String::from_utf8_lossy(&out.stderr).contains(WRONG), "{option}");
    }
}

#[test]
fn certificates_and_authorities_are_read_anew() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.client("client");
    stranger.client("client");
    let topic = "edgewarden/press-94/security".to_owned();
    let hub = IotHub::start(&authority, Rules::of("press-94", None, String::new(), Proof::Certificate, topic));
    let mut agent = agent("press-94", &hub, &authority, "", "", json!({ "profile": "mqtt" }));
    for (key, name) in [("caFile", "ca.pem"), ("certFile", "client.pem"), ("keyFile", "client.key")] {
        std::fs::copy(stranger.path(name), agent.path(name)).unwrap();
        agent.twin["connection"][key] = json!(agent.path(name));
    }
    set_mode(&agent.path("client.key"), 0o600);
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(30_000..30_020);
    agent.wait_status("another authority", has_trouble("invalid peer certificate"));
    std::fs::copy(authority.path("ca.pem"), agent.path("ca.pem")).unwrap();
    agent.wait_status("the hub's word on our certificate", has_trouble("alert"));
    assert_eq!(hub.accepted(), 0);
    for name in ["client.pem", "client.key"] {
        std::fs::copy(authority.path(name), agent.path(name)).unwrap();
    }
    wait_ports("every line", 30_000..30_020, || hub.arrivals());
    assert_each_once(30_000..30_020, &hub.arrivals());
    assert_eq!(hub.faults(), [""; 0]);
}

#[test]
fn a_credential_of_systemd_is_used() {
    let authority = Authority::new();
    let hub = IotHub::start(&authority, module_rules("press-95", "localhost", Proof::Key(KEY.to_owned())));
    let mut agent = agent("press-95", &hub, &authority, "", "", json!({ "sasKeyFile": "credential:hub-key" }));
    std::fs::write(agent.path("hub-key"), KEY).unwrap();
    // As systemd leaves it: read by the owner, and by whom the access list names.
    set_mode(&agent.path("hub-key"), 0o440);
    let directory = agent.path("").display().to_string();
    agent.environment = vec![("CREDENTIALS_DIRECTORY".to_owned(), directory)];
    deliver(&mut agent, &hub);
}

#[test]
fn a_module_with_a_certificate_may_mark_its_messages_for_defender() {
    let authority = Authority::new();
    authority.client("client");
    let mut rules = module_rules("press-96", "localhost", Proof::Certificate);
    rules.topic += "&%24.ifid=urn%3Aazureiot%3ASecurity%3ASecurityAgent%3A1";
    let hub = IotHub::start(&authority, rules);
    let files = json!({ "certFile": authority.path("client.pem"), "keyFile": authority.path("client.key"),
                        "interfaceId": true });
    let mut agent = agent("press-96", &hub, &authority, "", "", files);
    deliver(&mut agent, &hub);
}
