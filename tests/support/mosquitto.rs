//! Debian's mosquitto as a broker that is not ours, and its own subscriber as a witness.
//!
//! One listener is plain; another, when asked for, is TLS with a certificate from an authority made on the spot. The
//! witness always sits on the plain one, directly, so that no trouble made on the agent's way reaches it.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use crate::arrivals::{Arrival, of_message};
use crate::wait;

/// Topic and text of each message, as the witness prints them.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// The broker and its witness.
pub struct Mosquitto {
    dir: TempDir,
    broker: Child,
    witness: Child,
    seen: Seen,
    /// The plain listener.
    pub port: u16,
    /// The TLS listener; 0 when there is none.
    pub tls_port: u16,
}

impl Mosquitto {
    /// A broker without TLS.
    pub fn start() -> Mosquitto {
        Mosquitto::launch(None)
    }

    /// A broker with TLS too, whose certificate `authority` vouches for.
    pub fn start_tls(authority: &Authority) -> Mosquitto {
        Mosquitto::launch(Some(authority))
    }

    fn launch(authority: Option<&Authority>) -> Mosquitto {
        let dir = TempDir::new().unwrap();
        // A port found free may be taken by somebody else a moment later; then the broker ends and another is tried.
        for _ in 0..10 {
            let (port, tls_port) = (free_port(), if authority.is_some() { free_port() } else { 0 });
            std::fs::write(dir.path().join("conf"), configuration(port, tls_port, authority)).unwrap();
            let log = std::fs::File::create(dir.path().join("log")).unwrap();
            let mut broker = command("mosquitto")
                .arg("-c")
                .arg(dir.path().join("conf"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("mosquitto runs; scripts/setup-test.sh installs it");
            let up = wait::until("mosquitto to listen", || {
                if broker.try_wait().unwrap().is_some() {
                    return Ok(false);
                }
                let all = [port, tls_port].into_iter().filter(|port| *port != 0);
                match all.map(|port| TcpStream::connect(("127.0.0.1", port))).find_map(Result::err) {
                    None => Ok(true),
                    Some(error) => Err(error.to_string()),
                }
            });
            if up {
                let (witness, seen) = witness(port);
                return Mosquitto { dir, broker, witness, seen, port, tls_port };
            }
        }
        panic!("mosquitto found no port:\n{}", std::fs::read_to_string(dir.path().join("log")).unwrap_or_default());
    }

    /// Topic and message, in the order of arrival, redeliveries included.
    pub fn messages(&self) -> Vec<(String, Value)> {
        let seen = self.seen.lock().unwrap().clone();
        seen.into_iter()
            .map(|(topic, text)| {
                let message: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
                assert_eq!(message.to_string(), text, "a message is compact JSON");
                (topic, message)
            })
            .collect()
    }

    /// Everything that has arrived so far, redeliveries included.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.messages().iter().flat_map(|(_, message)| of_message(message)).collect()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        for child in [&mut self.witness, &mut self.broker] {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("--- log of mosquitto\n{log}");
        }
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn configuration(port: u16, tls_port: u16, authority: Option<&Authority>) -> String {
    // Nothing may be dropped for the witness: without the zero mosquitto forgets what exceeds 1000 waiting messages.
    let mut text =
        format!("allow_anonymous true\npersistence false\nmax_queued_messages 0\nlistener {port} 127.0.0.1\n");
    if let Some(authority) = authority {
        text += &format!(
            "listener {tls_port} 127.0.0.1\ncertfile {}\nkeyfile {}\n",
            authority.path("server.pem").display(),
            authority.path("server.key").display()
        );
    }
    if nix::unistd::Uid::effective().is_root() {
        // As root it would become the user mosquitto, who cannot read a private temporary directory.
        text += "user root\n";
    }
    text
}

/// Starts the subscriber and returns once a message published by a third party has gone through it.
fn witness(port: u16) -> (Child, Seen) {
    let mut child = command("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-v"])
        .args(["-t", "edgewarden/+/security", "-t", "probe"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto_sub runs; scripts/setup-test.sh installs it");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let probed = Arc::new(Mutex::new(false));
    let (into, mark) = (Arc::clone(&seen), Arc::clone(&probed));
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("probe", _)) => *mark.lock().unwrap() = true,
                Some((topic, text)) => into.lock().unwrap().push((topic.to_owned(), text.to_owned())),
                None => into.lock().unwrap().push((line, String::new())),
            }
        }
    });
    wait::until_true("the witness to see a probe", || {
        let sent = command("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-t", "probe", "-m", "x"])
            .status()
            .unwrap();
        sent.success() && *probed.lock().unwrap()
    });
    (child, seen)
}

/// Debian keeps daemons in /usr/sbin, which is not on an ordinary user's path.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    command
}

/// A certificate authority and a server certificate for this machine's loopback address, made by openssl.
pub struct Authority {
    dir: TempDir,
}

impl Authority {
    /// Makes a new one; no other vouches for its certificate.
    pub fn new() -> Authority {
        let dir = TempDir::new().unwrap();
        std::fs::write(
            dir.path().join("server.ext"),
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n",
        )
        .unwrap();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        openssl(
            dir.path(),
            &[
                &["req", "-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem"],
                &key[..],
            ]
            .concat(),
        );
        openssl(
            dir.path(),
            &[&["req", "-subj", "/CN=test broker", "-keyout", "server.key", "-out", "server.csr"], &key[..]].concat(),
        );
        openssl(
            dir.path(),
            &[
                "x509",
                "-req",
                "-days",
                "2",
                "-in",
                "server.csr",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-extfile",
                "server.ext",
                "-out",
                "server.pem",
            ],
        );
        Authority { dir }
    }

    /// One of its files: `ca.pem`, `server.pem`, `server.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn openssl(dir: &Path, args: &[&str]) {
    let out = command("openssl").current_dir(dir).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The tools of the other stories must work, or those would test nothing: the witness sees what is published, a
/// certificate counts only for its own authority, and a cut link delivers nothing.
#[test]
fn the_witness_sees_what_gets_through_and_nothing_else() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let broker = Mosquitto::start_tls(&authority);
    let proxy = crate::proxy::Proxy::start(broker.port);
    let publish = |port: u16, text: &str, ca: Option<&Authority>| {
        let mut command = command("mosquitto_pub");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-q",
            "1",
            "-t",
            "edgewarden/x/security",
            "-m",
            text,
        ]);
        if let Some(ca) = ca {
            command.arg("--cafile").arg(ca.path("ca.pem"));
        }
        command.stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(publish(broker.tls_port, r#"{"by":"tls"}"#, Some(&authority)));
    assert!(!publish(broker.tls_port, r#"{"by":"stranger"}"#, Some(&stranger)));
    assert!(publish(proxy.port, r#"{"by":"proxy"}"#, None));
    proxy.refuse();
    assert!(!publish(proxy.port, r#"{"by":"refused"}"#, None));
    proxy.relay();
    assert!(publish(proxy.port, r#"{"by":"proxy again"}"#, None));
    wait::until_true("three messages", || broker.messages().len() == 3);
    let seen: Vec<_> = broker.messages().into_iter().map(|(_, message)| message["by"].to_string()).collect();
    assert_eq!(seen, [r#""tls""#, r#""proxy""#, r#""proxy again""#]);
    assert_eq!(proxy.accepted(), 3);
}
