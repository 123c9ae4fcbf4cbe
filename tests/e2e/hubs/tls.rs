//! What TLS has to be: 1.2 or newer, verified, and on port 443 with the protocol's name.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use nix::unistd::Uid;

use super::*;
use crate::agent::cli;
use crate::mosquitto::free_port;

const TLS_1_2: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

#[test]
fn tls_1_2_is_enough_with_an_authority_and_with_a_pinned_certificate() {
    let authority = Authority::new();
    let pinned = json!({ "caFile": null, "pinnedCertificate": fingerprint(&authority) });
    for (device, more) in [("press-100", json!({})), ("press-101", pinned)] {
        let rules = module_rules(device, "localhost", Proof::Key(KEY.to_owned()));
        let hub = IotHub::start(&authority, Rules { tls: TLS_1_2, ..rules });
        deliver(&mut agent(device, &hub, &authority, "sasKeyFile", KEY, more), &hub);
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// openssl speaks TLS 1.1 when it is told to forget its principles; we do not.
#[test]
fn a_hub_that_speaks_tls_1_1_is_not_spoken_to() {
    let authority = Authority::new();
    let port = free_port();
    let server = command("openssl")
        .args(["s_server", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0", "-quiet", "-accept", &port.to_string()])
        .args(["-cert", authority.path("server.pem").to_str().unwrap()])
        .args(["-key", authority.path("server.key").to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(server);
    // A client without principles gets through, or the story tested nothing.
    wait::until_true("the server", || {
        let mut client = command("openssl");
        client.args(["s_client", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0", "-connect", &format!("127.0.0.1:{port}")]);
        client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    });
    let url = format!("mqtts://127.0.0.1:{port}");
    let mut agent = Agent::new("press-102", json!({ "url": url, "caFile": authority.path("ca.pem") }));
    agent.start();
    let status = agent.wait_status("the refusal", |status| status["trouble"].is_string());
    assert!(status["trouble"].to_string().to_lowercase().contains("protocol"), "{status}");
}

#[test]
fn verification_cannot_be_switched_off() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("twin.json");
    for key in ["insecure", "verify", "skipVerification", "allowInvalidCertificates", "rejectUnauthorized"] {
        for value in [json!(true), json!(false)] {
            let twin = json!({ "deviceId": "a", "connection": { "url": "mqtts://127.0.0.1:1", key: value } });
            std::fs::write(&file, twin.to_string()).unwrap();
            let out = cli(&["run", "--config", file.to_str().unwrap()]);
            assert_eq!(out.status.code(), Some(78), "{key}");
        }
    }
    // Neither is leaving the authority away a way to it.
    let mut agent = Agent::new("press-103", json!({ "url": "mqtts://127.0.0.1:1" }));
    agent.start();
    agent.wait_status("what is missing", has_trouble("mqtts:// needs connection.caFile"));
}

/// Port 443 belongs to root, and something may listen on it: the test runs itself again in a network of its own.
#[test]
fn aws_on_port_443_is_told_the_protocol_without_being_asked_to() {
    const INSIDE: &str = "EDGEWARDEN_TEST_IN_OWN_NETWORK";
    if std::env::var_os(INSIDE).is_none() {
        let map_root: &[&str] = if Uid::effective().is_root() { &[] } else { &["--map-root-user"] };
        let out = Command::new("unshare")
            .args(map_root)
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "hubs::tls::aws_on_port_443_is_told_the_protocol_without_being_asked_to"])
            .env(INSIDE, "1")
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()))
            .output()
            .expect("unshare is there");
        let told = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(out.status.success() && told.contains("1 passed"), "{told}");
        return;
    }
    assert!(TcpListener::bind("127.0.0.1:443").is_ok(), "this network is not our own");
    let authority = Authority::new();
    authority.client("client");
    let topic = "edgewarden/press-104/security".to_owned();
    let rules = Rules::of("press-104", None, String::new(), Proof::Certificate, topic);
    let rules = Rules { alpn: Some("x-amzn-mqtt-ca".to_owned()), max_bytes: 128 * 1024 + 64, ..rules };
    let hub = IotHub::start_on(443, &authority, rules);
    let more = json!({ "profile": "aws", "certFile": authority.path("client.pem"),
                       "keyFile": authority.path("client.key") });
    deliver(&mut agent("press-104", &hub, &authority, "", "", more), &hub);
}
