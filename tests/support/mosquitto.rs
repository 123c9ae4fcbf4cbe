//! Debian's mosquitto as a broker that is not ours, and its own subscriber as a witness.
//!
//! One listener is plain; another, when asked for, is TLS with a certificate from an authority made on the spot. The
//! witness always sits on the plain one, directly, so that no trouble made on the agent's way reaches it.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::arrivals::{Arrival, of_message};
use crate::wait;

/// Topic and text of each message, as the witness prints them.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// The text of the last probe the witness has seen.
type Probed = Arc<Mutex<String>>;

/// What a restarted broker still knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Nothing.
    Nothing,
    /// The witness's session and what waits in it, as of its last second.
    Sessions,
}

/// The broker and its witness.
pub struct Mosquitto {
    dir: TempDir,
    broker: Child,
    witness: Child,
    seen: Seen,
    probed: Probed,
    probes: usize,
    /// The plain listener.
    pub port: u16,
    /// The TLS listener; 0 when there is none.
    pub tls_port: u16,
    listen: IpAddr,
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The listener with TLS.
struct Secure<'a> {
    authority: &'a Authority,
    listen: IpAddr,
    port: u16,
}

impl Mosquitto {
    /// A broker without TLS.
    pub fn start() -> Mosquitto {
        Mosquitto::launch(None, Keeps::Nothing)
    }

    /// A broker with TLS too, whose certificate `authority` vouches for.
    pub fn start_tls(authority: &Authority) -> Mosquitto {
        Mosquitto::launch(Some(authority), Keeps::Nothing)
    }

    /// A broker with TLS that other machines reach at an address of this one, and that can be restarted.
    pub fn start_tls_at(authority: &Authority, listen: IpAddr) -> Mosquitto {
        Mosquitto::launch_in(TempDir::new().unwrap(), Some(authority), listen, Keeps::Sessions)
    }

    /// A broker without TLS that can be restarted.
    pub fn start_with(keeps: Keeps) -> Mosquitto {
        Mosquitto::launch(None, keeps)
    }

    /// A broker with an access list. User names are taken as they come, without a password.
    pub fn start_guarded(access_list: &str) -> Mosquitto {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("acl"), access_list).unwrap();
        Mosquitto::launch_in(dir, None, LOOPBACK, Keeps::Nothing)
    }

    fn launch(authority: Option<&Authority>, keeps: Keeps) -> Mosquitto {
        Mosquitto::launch_in(TempDir::new().unwrap(), authority, LOOPBACK, keeps)
    }

    fn launch_in(dir: TempDir, authority: Option<&Authority>, listen: IpAddr, keeps: Keeps) -> Mosquitto {
        // A port found free may be taken by somebody else a moment later; then the broker ends and another is tried.
        for _ in 0..10 {
            let (port, tls_port) = (free_port(), if authority.is_some() { free_port() } else { 0 });
            let secure = authority.map(|authority| Secure { authority, listen, port: tls_port });
            let mut broker = run(dir.path(), &configuration(dir.path(), port, secure, keeps));
            let up = wait::until("mosquitto to listen", || {
                if broker.try_wait().unwrap().is_some() {
                    return Ok(false);
                }
                let all = [(LOOPBACK, port), (listen, tls_port)].into_iter().filter(|(_, port)| *port != 0);
                match all.map(answers).find_map(Result::err) {
                    None => Ok(true),
                    Some(error) => Err(error.to_string()),
                }
            });
            if up {
                let (witness, seen, probed) = witness(port);
                let mut broker = Mosquitto { dir, broker, witness, seen, probed, probes: 0, port, tls_port, listen };
                broker.catch_up();
                return broker;
            }
        }
        panic!("mosquitto found no port:\n{}", std::fs::read_to_string(dir.path().join("log")).unwrap_or_default());
    }

    /// What the power cut does.
    pub fn kill_9(&mut self) {
        assert!(self.broker.try_wait().unwrap().is_none(), "mosquitto ended by itself");
        self.broker.kill().unwrap();
        wait::end("the killed mosquitto", &mut self.broker);
    }

    /// SIGTERM, after which it writes down what it keeps.
    pub fn terminate(&mut self) {
        kill(Pid::from_raw(i32::try_from(self.broker.id()).unwrap()), Signal::SIGTERM).unwrap();
        wait::end("mosquitto after SIGTERM", &mut self.broker);
    }

    /// Starts it again on its plain port. Returns when the witness is back: what is published from now on is seen.
    pub fn start_again(&mut self, keeps: Keeps) {
        self.start_again_with(None, keeps);
    }

    /// Starts it again on both its ports. Whoever connects before the witness does is heard by it all the same.
    pub fn start_again_tls(&mut self, authority: &Authority) {
        let secure = Secure { authority, listen: self.listen, port: self.tls_port };
        self.start_again_with(Some(secure), Keeps::Sessions);
    }

    fn start_again_with(&mut self, secure: Option<Secure>, keeps: Keeps) {
        if keeps == Keeps::Nothing {
            // What an earlier broker wrote down would come back out of order later.
            std::fs::remove_file(self.dir.path().join("mosquitto.db")).ok();
        }
        self.broker = run(self.dir.path(), &configuration(self.dir.path(), self.port, secure, keeps));
        self.catch_up();
    }

    /// Waits until a message published by a third party has gone through to the witness: what was acknowledged before
    /// has, too.
    pub fn catch_up(&mut self) {
        self.probes += 1;
        let text = self.probes.to_string();
        wait::until("the witness to see a probe", || {
            if let Some(ended) = self.broker.try_wait().unwrap() {
                panic!("mosquitto ended by itself: {ended}");
            }
            if let Some(ended) = self.witness.try_wait().unwrap() {
                panic!("the witness of mosquitto ended by itself: {ended}");
            }
            let mut publish = command("mosquitto_pub");
            publish.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-t", "probe", "-m", &text]);
            let sent = wait::output("mosquitto_pub", &mut publish);
            let seen = self.probed.lock().unwrap().clone();
            match (sent.status.success(), seen == text) {
                (true, true) => Ok(()),
                (true, false) => Err(format!("it has seen {seen:?}, not {text}")),
                (false, _) => Err(String::from_utf8_lossy(&sent.stderr).into_owned()),
            }
        });
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

/// Whether somebody else listens: nobody does yet where TCP connected a port of the ephemeral range to itself.
fn answers(listener: (IpAddr, u16)) -> std::io::Result<()> {
    let stream = TcpStream::connect(listener)?;
    if stream.local_addr()? == stream.peer_addr()? { Err(std::io::Error::other("connected to itself")) } else { Ok(()) }
}

/// Starts the broker with a configuration.
fn run(dir: &Path, configuration: &str) -> Child {
    std::fs::write(dir.join("conf"), configuration).unwrap();
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    command("mosquitto")
        .arg("-c")
        .arg(dir.join("conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("mosquitto runs; scripts/setup-test.sh installs it")
}

fn configuration(dir: &Path, port: u16, secure: Option<Secure>, keeps: Keeps) -> String {
    // Nothing may be dropped for the witness: without the zero mosquitto forgets what exceeds 1000 waiting messages.
    let mut text = "allow_anonymous true\nmax_queued_messages 0\n".to_owned();
    text += &match keeps {
        Keeps::Nothing => "persistence false\n".to_owned(),
        Keeps::Sessions => {
            format!("persistence true\npersistence_location {}/\nautosave_interval 1\n", dir.display())
        }
    };
    text += &format!("listener {port} 127.0.0.1\n");
    if let Some(Secure { authority, listen, port }) = secure {
        text += &format!(
            "listener {port} {listen}\ncertfile {}\nkeyfile {}\n",
            authority.path("server.pem").display(),
            authority.path("server.key").display()
        );
    }
    if dir.join("acl").exists() {
        text += &format!("acl_file {}\n", dir.join("acl").display());
    }
    if nix::unistd::Uid::effective().is_root() {
        // As root it would become the user mosquitto, who cannot read a private temporary directory.
        text += "user root\n";
    }
    text
}

/// Starts the subscriber. It has a session, and comes back by itself to a broker that was restarted.
fn witness(port: u16) -> (Child, Seen, Probed) {
    let mut child = command("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-v", "-c", "-i", "witness"])
        .args(["-t", "edgewarden/+/security", "-t", "probe"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto_sub runs; scripts/setup-test.sh installs it");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let (seen, probed) = (Seen::default(), Probed::default());
    let (into, mark) = (Arc::clone(&seen), Arc::clone(&probed));
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("probe", text)) => text.clone_into(&mut mark.lock().unwrap()),
                Some((topic, text)) => into.lock().unwrap().push((topic.to_owned(), text.to_owned())),
                None => into.lock().unwrap().push((line, String::new())),
            }
        }
    });
    (child, seen, probed)
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
        Authority::of_broker("IP:127.0.0.1,DNS:localhost")
    }

    /// One for a broker that other machines reach at an address.
    pub fn for_address(address: IpAddr) -> Authority {
        Authority::of_broker(&format!("IP:{address}"))
    }

    /// `names`: what the broker is reached as, in the words of openssl's subjectAltName.
    fn of_broker(names: &str) -> Authority {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("server.ext"), format!("subjectAltName={names}\nextendedKeyUsage=serverAuth\n"))
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

    /// Makes `NAME.pem` and `NAME.key` for a device of this name, signed by the authority.
    pub fn client(&self, name: &str) {
        let dir = self.dir.path();
        std::fs::write(dir.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
        let (subject, key, request) = (format!("/CN={name}"), format!("{name}.key"), format!("{name}.csr"));
        let certificate = format!("{name}.pem");
        let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", &subject];
        openssl(dir, &[&new[..], &["-keyout", &key, "-out", &request]].concat());
        let sign = ["x509", "-req", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        openssl(dir, &[&sign[..], &["-in", &request, "-extfile", "client.ext", "-out", &certificate]].concat());
    }

    /// Makes `crl.pem`, a list of the certificates that are taken back, with this one or without any.
    pub fn revoke(&self, name: Option<&str>) {
        let dir = self.dir.path();
        if !dir.join("ca.cnf").exists() {
            let options = "database=index.txt\ndefault_md=sha256\ndefault_crl_days=2\ncrlnumber=crlnumber\n";
            std::fs::write(dir.join("ca.cnf"), format!("[ca]\ndefault_ca=one\n[one]\n{options}")).unwrap();
            std::fs::write(dir.join("index.txt"), "").unwrap();
            std::fs::write(dir.join("crlnumber"), "01\n").unwrap();
        }
        let ca = ["ca", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem"];
        if let Some(name) = name {
            openssl(dir, &[&ca[..], &["-revoke", &format!("{name}.pem")]].concat());
        }
        openssl(dir, &[&ca[..], &["-gencrl", "-out", "crl.pem"]].concat());
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
