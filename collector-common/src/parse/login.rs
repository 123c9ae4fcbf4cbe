//! What the programs that let people in say about it, one message at a time.
//!
//! A message becomes a [`Remark`]. Most attempts have a line that tells how they ended, a [`Remark::Verdict`]; some are
//! seen only because their connection closes without one. Which is which needs the other lines of the same process, so
//! [`attempts::Attempts`] turns remarks into verdicts.
//!
//! Names are chosen by whoever knocks. They may look like the rest of the line (`root from 8.8.8.8 port 22 ssh2`), so
//! every reader begins at the fixed words on the left and takes address and port from the right end.

use std::net::{IpAddr, Ipv4Addr};

use crate::event::payload::LoginResult;

pub mod attempts;

mod console;
mod dropbear;
mod openssh;
mod pam;

/// A program that lets people in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Handler {
    /// OpenSSH's daemon.
    OpenSsh,
    /// Dropbear's daemon.
    Dropbear,
    /// `login(1)` of shadow, util-linux or busybox.
    Console,
    /// GNOME's display manager.
    Gdm,
    /// LightDM.
    LightDm,
    /// KDE's display manager.
    Sddm,
    /// Cockpit's web console.
    Cockpit,
}

/// What PAM before 0.99 puts behind the name of the program it speaks for.
const OLD_PAM: &str = "(pam_unix)";

/// Whose account an attempt was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// An account, by the handler's word.
    Known(String),
    /// What somebody typed, where the handler does not say whether it is an account.
    Typed(String),
    /// No account, by the handler's word.
    Invalid {
        /// What somebody typed, if the handler wrote it.
        typed: Option<String>,
    },
    /// Nobody was named.
    Unknown,
}

/// The other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its address: IPv4 where it is mapped, 127.0.0.1 for every loopback, without a zone.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// What the line has instead of an address, such as a host name. It may be the attacker's own choice.
    pub name: Option<String>,
}

/// A public key that was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// `RSA`, `ssh-ed25519` and the like, if the handler wrote it.
    pub kind: Option<String>,
    /// `SHA256:...` or the older forms.
    pub fingerprint: String,
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// In or not.
    pub result: LoginResult,
    /// For whom.
    pub account: Account,
    /// From where.
    pub peer: Peer,
    /// `password`, `publickey` and the like, if the handler wrote it.
    pub method: Option<String>,
    /// The key, if the handler wrote it.
    pub key: Option<Key>,
    /// The terminal of a console login.
    pub terminal: Option<String>,
}

/// What one message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// An attempt ended.
    Verdict(Verdict),
    /// A connection came, or is known to be one that has not named anybody yet.
    Opened(Peer),
    /// Somebody was named; how it ends is still to come.
    Named {
        /// The name.
        account: Account,
        /// From where.
        peer: Peer,
    },
    /// A connection ended before anybody was let in. This is an attempt of its own unless one was told before.
    Closed {
        /// For whom, if the line says so.
        account: Account,
        /// From where.
        peer: Peer,
        /// The process that served it, where another one writes the line.
        pid: Option<u32>,
        /// The line can only be about a connection that was not let in. Without this it counts only after `Opened`.
        certain: bool,
    },
    /// PAM refused somebody. That is an attempt where the handler itself does not say how attempts end.
    Refused(Verdict),
    /// PAM began a session. That is an attempt under the same condition.
    LetIn {
        /// Who it was.
        verdict: Verdict,
        /// By the service of `login -h HOST`, which telnetd calls.
        is_remote: bool,
    },
    /// PAM refused somebody several times more, and says so at the end only.
    RefusedMore(u64),
    /// The handler says that it keeps attempts to itself.
    Hidden(Hidden),
    /// Nothing about an attempt.
    Nothing,
}

/// How many attempts a handler keeps to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// So many that no other line counts.
    More(u64),
    /// So many because there are too many connections.
    Throttled(u64),
    /// All that were throttled since that began, those that were told before as well.
    ThrottledInAll(u64),
}

impl Handler {
    /// The handler that calls itself this in a log.
    pub fn from_ident(ident: &str) -> Option<Handler> {
        match ident.strip_suffix(OLD_PAM).unwrap_or(ident) {
            "sshd" | "sshd-session" | "sshd-auth" => Some(Handler::OpenSsh),
            "dropbear" => Some(Handler::Dropbear),
            "login" => Some(Handler::Console),
            "remote" if ident.ends_with(OLD_PAM) => Some(Handler::Console),
            // The bracket is left over from how its worker calls itself: `gdm-session-worker [pam/gdm-password]`.
            "gdm" | "gdm-password]" | "gdm-autologin]" | "gdm-fingerprint]" | "gdm-smartcard]" => Some(Handler::Gdm),
            "lightdm" => Some(Handler::LightDm),
            "sddm" | "sddm-helper" => Some(Handler::Sddm),
            "cockpit-session" => Some(Handler::Cockpit),
            _ => None,
        }
    }

    /// The names handlers go by in a journal.
    pub const IDENTS: [&str; 12] = [
        "sshd",
        "sshd-session",
        "sshd-auth",
        "dropbear",
        "login",
        "gdm-password]",
        "gdm-autologin]",
        "gdm-fingerprint]",
        "gdm-smartcard]",
        "lightdm",
        "sddm-helper",
        "cockpit-session",
    ];

    /// The path that stands for the handler in every version and distribution, so that groups survive an upgrade.
    pub fn executable(self) -> &'static str {
        match self {
            Handler::OpenSsh => "/usr/sbin/sshd",
            Handler::Dropbear => "/usr/sbin/dropbear",
            Handler::Console => "/bin/login",
            Handler::Gdm => "/usr/sbin/gdm3",
            Handler::LightDm => "/usr/sbin/lightdm",
            Handler::Sddm => "/usr/bin/sddm",
            Handler::Cockpit => "/usr/lib/cockpit/cockpit-session",
        }
    }

    /// Whether nobody but PAM says how an attempt ended.
    pub fn speaks_through_pam(self) -> bool {
        matches!(self, Handler::Gdm | Handler::LightDm | Handler::Sddm | Handler::Cockpit)
    }

    /// Whether people can type a password where a name is asked for, because they sit at a console.
    pub fn is_console(self) -> bool {
        !matches!(self, Handler::OpenSsh | Handler::Dropbear)
    }

    /// Whether a program of this path can be the handler. The kernel marks one that was replaced on disk.
    pub fn can_be(self, exe: &str) -> bool {
        const DIRECTORIES: [&str; 21] = [
            "/bin",
            "/sbin",
            "/usr/bin",
            "/usr/sbin",
            "/usr/local/bin",
            "/usr/local/sbin",
            "/usr/lib/openssh",
            "/usr/libexec/openssh",
            "/usr/libexec",
            "/usr/lib/ssh",
            "/usr/lib64/ssh",
            "/usr/libexec/ssh",
            "/lib/openssh",
            "/usr/local/libexec",
            "/usr/lib/gdm3",
            "/usr/lib/gdm",
            "/usr/lib/cockpit",
            "/usr/libexec/cockpit",
            "/usr/lib/x86_64-linux-gnu/sddm",
            "/usr/lib/aarch64-linux-gnu/sddm",
            "/usr/lib/arm-linux-gnueabihf/sddm",
        ];
        let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
        let Some((directory, name)) = exe.rsplit_once('/') else { return false };
        let named = match self {
            Handler::OpenSsh => matches!(name, "sshd" | "sshd-session" | "sshd-auth"),
            Handler::Dropbear => matches!(name, "dropbear" | "dropbearmulti"),
            Handler::Console => {
                matches!(
                    name,
                    "login" | "login.shadow" | "login.util-linux" | "busybox" | "busybox.suid" | "busybox.nosuid"
                )
            }
            Handler::Gdm => matches!(name, "gdm" | "gdm3" | "gdm-session-worker"),
            Handler::LightDm => name == "lightdm",
            Handler::Sddm => matches!(name, "sddm" | "sddm-helper"),
            Handler::Cockpit => name == "cockpit-session",
        };
        named && DIRECTORIES.contains(&directory)
    }

    /// Reads one message of this handler, which calls itself `ident`.
    pub fn read(self, ident: &str, message: &str) -> Remark {
        if ident.ends_with(OLD_PAM) {
            return pam::read_body(ident.trim_end_matches(OLD_PAM), message);
        }
        pam::read(self, message).unwrap_or_else(|| match self {
            Handler::OpenSsh => openssh::read(message),
            Handler::Dropbear => dropbear::read(message),
            Handler::Console => console::read(message),
            _ => Remark::Nothing,
        })
    }

    /// Whether a message claims how an attempt ended, even if it is not quite in the handler's own form. Somebody who
    /// forges a line need not get it right to deceive a human reader.
    pub fn claims_verdict(self, ident: &str, message: &str) -> bool {
        const CLAIMS: [&str; 8] = [
            "Accepted ",
            "Failed ",
            "Password auth succeeded",
            "Pubkey auth succeeded",
            "Bad password attempt",
            "FAILED LOGIN",
            "LOGIN ON ",
            "ROOT LOGIN",
        ];
        // The process of a session that was let in runs as its user and may say that its connection is closed.
        let harmless = match self.read(ident, message) {
            Remark::Nothing | Remark::RefusedMore(_) | Remark::Closed { certain: false, .. } => true,
            Remark::Refused(_) => !self.speaks_through_pam(),
            Remark::LetIn { .. } => !self.speaks_through_pam() && self != Handler::Console,
            _ => false,
        };
        !harmless || CLAIMS.iter().any(|claim| message.starts_with(claim))
    }
}

impl Peer {
    /// A peer by what a line has in the place of an address.
    pub fn new(text: &str, port: Option<u16>) -> Peer {
        match address(text) {
            Some(address) => Peer { address: Some(address), port, name: None },
            None if text.is_empty() || matches!(text, "UNKNOWN" | "?") => Peer { address: None, port, name: None },
            None => Peer { address: None, port, name: Some(text.to_owned()) },
        }
    }

    /// Whether both can be the same peer: nothing that both tell differs.
    pub fn agrees_with(&self, other: &Peer) -> bool {
        fn differ<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
            matches!((one, other), (Some(one), Some(other)) if one != other)
        }
        !differ(&self.address, &other.address) && !differ(&self.port, &other.port) && !differ(&self.name, &other.name)
    }

    /// Takes over what the other tells and this one does not.
    pub fn complete_from(&mut self, other: &Peer) {
        self.port = self.port.or(other.port);
        self.address = self.address.or(other.address);
        if self.address.is_none() && self.name.is_none() {
            self.name.clone_from(&other.name);
        }
    }
}

impl Verdict {
    fn new(result: LoginResult, account: Account, peer: Peer) -> Verdict {
        Verdict { result, account, peer, method: None, key: None, terminal: None }
    }

    fn by(mut self, method: &str) -> Verdict {
        self.method = Some(method.to_owned());
        self
    }

    fn at(mut self, terminal: &str) -> Verdict {
        self.terminal = Some(terminal.strip_prefix("/dev/").unwrap_or(terminal).to_owned());
        self
    }
}

/// The address a text is, in the form it is reported in; nothing for a name or an unspecified address.
pub fn address(text: &str) -> Option<IpAddr> {
    let without_zone = text.split_once('%').map_or(text, |(address, _)| address);
    let address = without_zone.parse::<IpAddr>().ok()?.to_canonical();
    if address.is_loopback() {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    (!address.is_unspecified()).then_some(address)
}

/// What stands in `message repeated N times: [ MESSAGE]`, and how often: rsyslog's and Ubuntu's way to write a message
/// once more that it wrote before.
pub fn repeated(message: &str) -> Option<(u64, &str)> {
    let (times, rest) = message.strip_prefix("message repeated ")?.split_once(" times: [")?;
    Some((times.parse().ok()?, rest.strip_suffix(']')?.trim_start_matches(' ')))
}

/// How often sysklogd, syslog-ng or the syslogd of macOS says the line before this one was written again.
///
/// ```text
/// last message repeated 3 times                --- last message repeated 1 time ---
/// Last message 'Failed password for ' repeated 3 times, suppressed by syslog-ng on board
/// ```
pub fn repeats_of_last(message: &str) -> Option<u64> {
    let message = message.strip_prefix("--- ").and_then(|rest| rest.strip_suffix(" ---")).unwrap_or(message);
    let times = match message.strip_prefix("last message repeated ") {
        Some(times) => times,
        None => {
            let (said, _) = message.strip_prefix("Last message '")?.rsplit_once(", suppressed by syslog-ng on ")?;
            said.rsplit_once("' repeated ")?.1
        }
    };
    times.strip_suffix(" times").or_else(|| times.strip_suffix(" time"))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_folded_and_names_are_none() {
        let cases = [
            ("192.0.2.1", Some("192.0.2.1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("::1", Some("127.0.0.1")),
            ("::ffff:127.0.0.1", Some("127.0.0.1")),
            ("127.0.1.1", Some("127.0.0.1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("UNKNOWN", None),
            ("host.example", None),
            ("0.0.0.0", None),
            ("::", None),
            ("?", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn only_handlers_in_standard_places_can_be_handlers() {
        for exe in ["/usr/sbin/sshd", "/usr/lib/openssh/sshd-session", "/usr/sbin/sshd (deleted)"] {
            assert!(Handler::OpenSsh.can_be(exe), "{exe}");
        }
        for exe in ["/home/tester/bin/sshd", "/usr/bin/logger", "sshd", "/tmp/usr/sbin/sshd", ""] {
            assert!(!Handler::OpenSsh.can_be(exe), "{exe}");
        }
        assert!(Handler::Console.can_be("/bin/busybox.nosuid"));
        assert!(!Handler::Dropbear.can_be("/usr/sbin/sshd"));
    }

    #[test]
    fn repetitions_are_taken_apart() {
        assert_eq!(repeated("message repeated 5 times: [ Failed x [preauth]]"), Some((5, "Failed x [preauth]")));
        assert_eq!(repeated("message repeated x times: [ a]"), None);
        assert_eq!(repeats_of_last("last message repeated 2 times"), Some(2));
        assert_eq!(repeats_of_last("--- last message repeated 1 time ---"), Some(1));
        let by_syslog_ng = "Last message 'x' repeated 9 times, suppressed by syslog-ng on a' repeated 3 times, suppressed by syslog-ng on board";
        assert_eq!(repeats_of_last(by_syslog_ng), Some(3));
        assert_eq!(repeats_of_last("last message repeated 99999999999999999999 times"), None);
    }

    #[test]
    fn mangled_messages_do_not_panic() {
        let seeds = [
            "Accepted publickey for é from 127.0.0.1 port 52506 ssh2: RSA SHA256:F1X5",
            "Connection closed by invalid user a b 127.0.0.1 port 58022 [preauth]",
            "Timeout before authentication for connection from 127.0.0.1 to 127.0.0.1, pid = 18225",
            "Exit before auth from <127.0.0.1:42352>: (user 'tester', 10 fails): Max auth tries reached",
            "Pubkey auth succeeded for 'tester' with ssh-rsa key SHA256:ZM from ::1:53296",
            "FAILED LOGIN (1) on '/dev/pts/0' from '203.0.113.5' FOR 'tester', Authentication failure",
            "FAILED LOGIN 2 FROM pts/0 FOR nosuch, Authentication failure",
            "invalid password for 'tester' on 'pts/0' from '203.0.113.6'",
            "message repeated 5 times: [ Failed x [preauth]]",
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 tty=ssh ruser= rhost=127.0.0.1  user=root",
            "session opened for user bob(uid=1000) by LOGIN(uid=0)",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..50_000 {
            let mut bytes = random.choice(seeds).unwrap().as_bytes().to_vec();
            for _ in 0..random.usize(0..4) {
                let at = random.usize(0..bytes.len());
                bytes[at] = if random.bool() { random.u8(..) } else { *random.choice(b" :'[]<>,").unwrap() };
            }
            bytes.truncate(random.usize(0..=bytes.len()));
            let text = String::from_utf8_lossy(&bytes);
            repeated(&text);
            for handler in [Handler::OpenSsh, Handler::Dropbear, Handler::Console, Handler::Gdm] {
                handler.claims_verdict("sshd", &text);
                handler.claims_verdict("sshd(pam_unix)", &text);
            }
        }
    }
}
