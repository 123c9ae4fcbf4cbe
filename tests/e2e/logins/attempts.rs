//! The table of attempts: how each is made, and the rows it must become.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::login_lab::Lab;
use crate::wait;

/// An attempt to get in, from one port of one client.
pub struct Attempt {
    /// In words.
    what: &'static str,
    from: From,
    /// The port of the daemon on the device.
    to: u16,
    how: How,
    /// What it becomes, in this order.
    rows: Vec<Row>,
    /// The port it is made from, which no other attempt has.
    port: u16,
}

/// A row of the hub, without what differs from run to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    result: String,
    user: String,
    uid: Option<String>,
    handler: String,
    method: Option<String>,
    typed: Option<String>,
    has_key: bool,
    has_port: bool,
}

/// An address of a client, and the one it goes to.
#[derive(Clone, Copy)]
struct From {
    client: u8,
    local: &'static str,
    device: &'static str,
}

/// The program, and what is typed into it.
enum How {
    /// OpenSSH's client: arguments before the host and behind it, and what it is told at each prompt.
    Ssh { user: &'static str, options: &'static [&'static str], answers: &'static [&'static str] },
    /// Its `scp` or `sftp`, with the known key.
    Copy { program: &'static str, options: &'static [&'static str] },
    /// Dropbear's client, which answers every prompt with this password.
    Dbclient { user: &'static str, password: &'static str },
    /// This text and nothing else, before the connection is closed.
    Text(&'static str),
    /// Nothing, until the daemon closes the connection.
    Silence,
}

use How::{Copy, Dbclient, Silence, Ssh, Text};

const fn from(client: u8, local: &'static str, device: &'static str) -> From {
    From { client, local, device }
}

const ONE: From = from(1, "192.0.2.2", "192.0.2.1");
const TWO: From = from(2, "198.51.100.2", "198.51.100.1");
const THREE: From = from(3, "203.0.113.2", "203.0.113.1");
const ONE_V6: From = from(1, "2001:db8:1::2", "2001:db8:1::1");
const TWO_V6: From = from(2, "2001:db8:2::2", "2001:db8:2::1");
const THREE_V6: From = from(3, "2001:db8:3::2", "2001:db8:3::1");
const LOOPBACK: From = from(0, "127.0.0.1", "127.0.0.1");
const LOOPBACK_V6: From = from(0, "::1", "::1");

/// `PermitRootLogin prohibit-password`, `DenyUsers denied`, `MaxAuthTries 3`, no keyboard-interactive.
const SSHD: u16 = 22;
/// `PermitRootLogin no`, `AllowUsers alice root`, keyboard-interactive instead of passwords.
const STRICT_SSHD: u16 = 23;
/// `LoginGraceTime 8`.
const HASTY_SSHD: u16 = 24;
/// `-T 3`: at most three tries.
const DROPBEAR: u16 = 30;
/// `-w`: no root.
const STRICT_DROPBEAR: u16 = 31;

const PASSWORD: &[&str] = &["-o", "PreferredAuthentications=password"];
const KEYBOARD: &[&str] = &["-o", "PreferredAuthentications=keyboard-interactive"];
const NO_METHOD: &[&str] = &["-o", "PreferredAuthentications=none"];
const KNOWN_KEY: &[&str] = &["-o", "PreferredAuthentications=publickey", "-i", "KEYS/known"];
const FOREIGN_KEY: &[&str] = &["-o", "PreferredAuthentications=publickey", "-i", "KEYS/foreign"];

/// OpenSSH's client without the settings of whoever runs the test. The newer key exchanges cost much and change nothing
/// here.
#[rustfmt::skip]
pub const QUIET_OPENSSH: &[&str] = &[
    "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes",
    "-o", "IdentityAgent=none", "-o", "LogLevel=ERROR", "-o", "KexAlgorithms=curve25519-sha256", "-o", "RequestTTY=no",
];

fn uid(name: &str) -> Option<String> {
    let accounts = ["alice", "bob", "denied", "locked", "shellless"].into_iter().zip(1001..);
    let mut accounts = std::iter::once(("root", 0)).chain(accounts);
    accounts.find(|(account, _)| *account == name).map(|(_, uid)| uid.to_string())
}

fn row(result: &str, user: &str, method: &str) -> Row {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Row {
        result: result.to_owned(),
        user: user.to_owned(),
        uid: uid(user),
        handler: String::new(),
        method: some(method),
        typed: None,
        has_key: result == "Success" && method == "publickey",
        has_port: true,
    }
}

fn came_in(user: &str, method: &str) -> Row {
    row("Success", user, method)
}

fn failed(user: &str, method: &str) -> Row {
    row("Fail", user, method)
}

/// For a name that is let in by nobody; dropbear does not write it.
fn invalid(typed: &str, method: &str) -> Row {
    let name = (!typed.is_empty()).then(|| typed.to_owned());
    Row { uid: uid(typed), typed: name, ..row("Fail", "(invalid user)", method) }
}

/// Of an account at the keyboard: the line that tells it, PAM's, has the address and no port.
fn failed_at_keyboard(user: &str) -> Row {
    without_port(failed(user, "keyboard-interactive/pam"))
}

fn without_port(row: Row) -> Row {
    Row { has_port: false, ..row }
}

/// By a peer who named nobody.
fn nobody() -> Row {
    failed("(unknown user)", "")
}

/// For a connection that lasts until the grace time is over. Before 9.8 sshd says so from within a signal handler, and
/// Debian's do not since that was found to be a hole (CVE-2024-6387): there it leaves no row, or one minutes later, for
/// a name that got no answer.
fn late(row: Row) -> Vec<Row> {
    let out = Command::new("ssh").arg("-V").output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let version = text.strip_prefix("OpenSSH_").and_then(|rest| rest.split_once('p')).map(|(version, _)| version);
    let (major, minor) = version.and_then(|version| version.split_once('.')).unwrap_or_else(|| panic!("{text}"));
    let says_so = (major.parse::<u32>().unwrap(), minor.parse::<u32>().unwrap()) >= (9, 8);
    if says_so { vec![row] } else { Vec::new() }
}

/// All attempts. The last ends after all others are made.
#[rustfmt::skip]
pub fn attempts() -> Vec<Attempt> {
    let password = |user, answers| Ssh { user, options: PASSWORD, answers };
    let ssh = |user, options| Ssh { user, options, answers: &[] };
    let table: Vec<(&str, From, u16, How, Vec<Row>)> = vec![
        // Those that take longest come first.
        ("nothing is said until the grace time is over", ONE, HASTY_SSHD, Silence, late(without_port(nobody()))),
        ("an unknown user's password is not typed in time", TWO, HASTY_SSHD, password("slow", &["hang"]),
            late(invalid("slow", ""))),
        // The line about the end of the grace time names neither account nor port, and no line before it does.
        ("an account's password is not typed in time", THREE_V6, HASTY_SSHD, password("alice", &["hang"]),
            late(without_port(nobody()))),

        ("the right password", ONE, SSHD, password("alice", &["right"]), vec![came_in("alice", "password")]),
        ("a wrong password", ONE, SSHD, password("alice", &["wrong"]), vec![failed("alice", "password")]),
        ("the right password at the third prompt", TWO_V6, SSHD, password("alice", &["wrong", "worse", "right"]),
            vec![failed("alice", "password"), failed("alice", "password"), came_in("alice", "password")]),
        ("more wrong passwords than MaxAuthTries", THREE, SSHD, password("bob", &["a", "b", "c", "d"]),
            vec![failed("bob", "password"); 3]),
        ("the right key", ONE_V6, SSHD, ssh("alice", KNOWN_KEY), vec![came_in("alice", "publickey")]),
        // At the default log level only the end of the connection tells of it.
        ("a wrong key", TWO, SSHD, ssh("alice", FOREIGN_KEY), vec![failed("alice", "")]),
        ("no method at all for an account", THREE, SSHD, ssh("alice", NO_METHOD), vec![failed("alice", "")]),
        ("an unknown user with a password", TWO, SSHD, password("oracle", &["right"]),
            vec![invalid("oracle", "password")]),
        ("an unknown user with two passwords", TWO_V6, SSHD, password("oracle", &["right", "wrong"]),
            vec![invalid("oracle", "password"), invalid("oracle", "password")]),
        ("an unknown user with a key", THREE_V6, SSHD, ssh("oracle", KNOWN_KEY), vec![invalid("oracle", "")]),
        ("an unknown user who goes away", THREE, SSHD, ssh("oracle", NO_METHOD), vec![invalid("oracle", "")]),
        ("a denied user with the right password", ONE, SSHD, password("denied", &["right"]),
            vec![invalid("denied", "password")]),
        ("a denied user with the right key", ONE_V6, SSHD, ssh("denied", KNOWN_KEY), vec![invalid("denied", "")]),
        ("a user who is not among the allowed", TWO, STRICT_SSHD, ssh("bob", KNOWN_KEY), vec![invalid("bob", "")]),
        ("root with the right password", TWO, SSHD, password("root", &["right"]), vec![failed("root", "password")]),
        ("root with the right key", TWO_V6, SSHD, ssh("root", KNOWN_KEY), vec![came_in("root", "publickey")]),
        // `ROOT LOGIN REFUSED` does not say by which method he would have come in.
        ("root with the right key where there is no root", THREE, STRICT_SSHD, ssh("root", KNOWN_KEY),
            vec![failed("root", "")]),
        ("a locked account", ONE, SSHD, password("locked", &["right"]), vec![failed("locked", "password")]),
        ("the right password at the keyboard", ONE, STRICT_SSHD, Ssh { user: "alice", options: KEYBOARD, answers: &["right"] },
            vec![came_in("alice", "keyboard-interactive/pam")]),
        ("the right password at the keyboard after a wrong one", ONE_V6, STRICT_SSHD,
            Ssh { user: "alice", options: KEYBOARD, answers: &["wrong", "right"] },
            vec![failed_at_keyboard("alice"), came_in("alice", "keyboard-interactive/pam")]),
        ("an unknown user at the keyboard", THREE, STRICT_SSHD,
            Ssh { user: "guest", options: KEYBOARD, answers: &["wrong"] }, vec![invalid("guest", "keyboard-interactive/pam")]),
        ("scp", ONE, SSHD, Copy { program: "scp", options: &[] }, vec![came_in("alice", "publickey")]),
        ("scp as it was before it used sftp", TWO, SSHD, Copy { program: "scp", options: &["-O"] },
            vec![came_in("alice", "publickey")]),
        ("sftp", THREE_V6, SSHD, Copy { program: "sftp", options: &["-b", "/dev/null"] }, vec![came_in("alice", "publickey")]),
        ("dropbear's client with the right password", THREE, SSHD, Dbclient { user: "bob", password: "right" },
            vec![came_in("bob", "password")]),
        ("a name that looks like the rest of the line", ONE, SSHD,
            password("root from 8.8.8.8 port 22 ssh2", &["wrong"]), vec![invalid("root from 8.8.8.8 port 22 ssh2", "password")]),
        ("a name that looks like the whole line", TWO_V6, SSHD,
            ssh("root 8.8.8.8 port 22 [preauth]", KNOWN_KEY), vec![invalid("root 8.8.8.8 port 22 [preauth]", "")]),
        ("a look whether the port is open", THREE, SSHD, Text(""), vec![nobody()]),
        ("another protocol", TWO_V6, SSHD, Text("GET / HTTP/1.0\r\n\r\n"), vec![nobody()]),
        ("a protocol of the past", THREE_V6, SSHD, Text("SSH-1.5-old\r\n"), vec![nobody()]),
        ("a greeting and no more", ONE, SSHD, Text("SSH-2.0-scan\r\n"), vec![nobody()]),
        ("over loopback, right", LOOPBACK, SSHD, ssh("alice", KNOWN_KEY), vec![came_in("alice", "publickey")]),
        ("over loopback, wrong", LOOPBACK_V6, SSHD, password("alice", &["wrong"]), vec![failed("alice", "password")]),

        ("dropbear: the right password", ONE, DROPBEAR, password("alice", &["right"]), vec![came_in("alice", "password")]),
        ("dropbear: a wrong password", TWO, DROPBEAR, password("alice", &["wrong"]), vec![failed("alice", "password")]),
        ("dropbear: the right password at the second prompt", THREE_V6, DROPBEAR, password("alice", &["wrong", "right"]),
            vec![failed("alice", "password"), came_in("alice", "password")]),
        ("dropbear: the right key", ONE_V6, DROPBEAR, ssh("alice", KNOWN_KEY), vec![came_in("alice", "publickey")]),
        ("dropbear: a wrong key", TWO_V6, DROPBEAR, ssh("alice", FOREIGN_KEY), vec![failed("alice", "")]),
        ("dropbear: an unknown user", THREE, DROPBEAR, password("oracle", &["wrong"]), vec![invalid("", "")]),
        ("dropbear: an unknown user with a key", THREE_V6, DROPBEAR, ssh("oracle", KNOWN_KEY), vec![invalid("", "")]),
        ("dropbear: root with the right password", ONE, DROPBEAR, password("root", &["right"]),
            vec![came_in("root", "password")]),
        ("dropbear: root where there is no root", TWO, STRICT_DROPBEAR, password("root", &["right"]),
            vec![failed("root", "")]),
        ("dropbear: a user without a shell", THREE, DROPBEAR, password("shellless", &["right"]),
            vec![failed("shellless", "")]),
        ("dropbear: its client with too many wrong passwords", ONE_V6, DROPBEAR, Dbclient { user: "bob", password: "wrong" },
            vec![failed("bob", "password"); 3]),
        ("dropbear: a look whether the port is open", TWO, DROPBEAR, Text(""), vec![nobody()]),
        ("dropbear: another protocol", ONE_V6, DROPBEAR, Text("GET / HTTP/1.0\r\n\r\n"), vec![nobody()]),
        ("dropbear: over loopback", LOOPBACK_V6, DROPBEAR, ssh("alice", KNOWN_KEY), vec![came_in("alice", "publickey")]),
        ("the last of all", ONE, SSHD, ssh("alice", KNOWN_KEY), vec![came_in("alice", "publickey")]),
    ];
    let attempts = table.into_iter().zip(41_000..).map(|((what, from, to, how, rows), port)| {
        let handler = if to < DROPBEAR { "/usr/sbin/sshd" } else { "/usr/sbin/dropbear" };
        let rows = rows.into_iter().map(|row| Row { handler: handler.to_owned(), ..row }).collect();
        Attempt { what, from, to, how, rows, port }
    });
    attempts.collect()
}

impl Row {
    /// The row of `EventDetails`.
    pub fn of(details: &Value) -> Row {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let expected = match &details["Result"] {
            Value::String(result) if result == "Success" => "Login",
            _ => "LoginFailed",
        };
        assert_eq!(details["Operation"], expected, "{details}");
        Row {
            result: text(&details["Result"]).unwrap_or_default(),
            user: text(&details["UserName"]).unwrap_or_default(),
            uid: text(&details["UserId"]),
            handler: text(&details["Executable"]).unwrap_or_default(),
            method: text(&details["ExtraDetails"]["Method"]),
            typed: text(&details["ExtraDetails"]["AttemptedUserName"]),
            has_key: details["ExtraDetails"]["KeyFingerprint"].is_string(),
            has_port: details["RemotePort"].is_string(),
        }
    }
}

impl Attempt {
    /// Whether it may become a row only after all others.
    pub fn is_left_open(&self) -> bool {
        self.rows.is_empty()
    }

    /// The port it is made from.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its rows, each with the address and the port it is told with; 0 is none.
    pub fn told(&self) -> impl Iterator<Item = ((String, u16), Row)> {
        let address = if self.from.client == 0 { "127.0.0.1" } else { self.from.local };
        let peer = move |row: &Row| (address.to_owned(), if row.has_port { self.port } else { 0 });
        self.rows.iter().map(move |row| (peer(row), row.clone()))
    }

    /// Makes it, and waits until its client has ended.
    pub fn make(&self, device: &Lab) {
        let mut command = self.command(device);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = child.stdin.take().expect("piped");
        if let Text(text) = self.how {
            input.write_all(text.as_bytes()).ok();
        }
        // Silence keeps it open.
        let _open = matches!(self.how, Silence).then_some(input);
        let status = wait::end(self.what, &mut child);
        let comes_in = self.rows.iter().any(|row| row.result == "Success");
        if !matches!(self.how, Text(_) | Silence) {
            assert_eq!(status.success(), comes_in, "{} (port {}): {status}", self.what, self.port);
        }
    }

    fn command(&self, device: &Lab) -> Command {
        let bracketed = |address: &str| if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let (local, remote) = (bracketed(self.from.local), bracketed(self.from.device));
        let dial = format!("TCP:{remote}:{},bind={local}:{},reuseaddr", self.to, self.port);
        let proxy = format!("ProxyCommand=socat - {dial}");
        let openssh = |program: &str, options: &[&str]| {
            let mut command = device.run(self.from.client, program);
            command.args(QUIET_OPENSSH).args(["-o", &proxy]);
            let keys = device.path("");
            command.args(options.iter().map(|option| option.replace("KEYS", keys.to_str().unwrap())));
            command
        };
        match self.how {
            Ssh { user, options, answers } => {
                let file = device.path(&format!("answers.{}", self.port));
                std::fs::write(&file, answers.iter().map(|answer| format!("{answer}\n")).collect::<String>()).unwrap();
                let mut command = openssh("ssh", options);
                let prompts = format!("NumberOfPasswordPrompts={}", answers.len().max(1));
                command.env("ANSWERS", file).args(["-o", &prompts, "-l", user, "device", "true"]);
                command
            }
            Copy { program, options } => {
                let mut command = openssh(program, KNOWN_KEY);
                command.args(options);
                match program {
                    "scp" => command.args(["/etc/hostname", "alice@device:copied"]),
                    _ => command.arg("alice@device"),
                };
                command
            }
            Dbclient { user, password } => {
                let mut command = device.run(self.from.client, "dbclient");
                command.env("DROPBEAR_PASSWORD", password).env("HOME", device.path("")).args(["-y", "-y", "-l", user]);
                command.args(["-J", &format!("socat - {dial}"), "device", "true"]);
                command
            }
            Text(_) | Silence => {
                let mut command = device.run(self.from.client, "socat");
                command.args(["-", &dial]);
                command
            }
        }
    }
}
