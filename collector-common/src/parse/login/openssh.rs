//! OpenSSH's daemon: `sshd`, since 9.8 `sshd-session`.
//!
//! ```text
//! Accepted METHOD for USER from IP port N ssh2[: KEYTYPE FINGERPRINT]                       auth.c, auth_log
//! Failed METHOD for [invalid user ]USER from IP port N ssh2[: KEYTYPE FINGERPRINT]          the same
//! Invalid user USER from IP port N                                                          auth.c, getpwnamallow
//! error: maximum authentication attempts exceeded for [invalid user ]USER from IP port N ssh2 [preauth]
//! Connection closed by|Connection reset by|Disconnected from PEER [preauth]                 packet.c, sshpkt_vfatal
//! Disconnecting PEER: REASON [preauth]            Unable to negotiate with PEER: REASON [preauth]
//! administratively prohibited connection for [invalid user ]USER from IP port N             by RefuseConnection, since 9.9
//! Timeout before authentication for IP port N     ... for connection from IP to IP, pid = N since 9.8, by the listener
//! banner exchange: Connection from IP port N: invalid format
//! error: PAM: REASON for [illegal user ]USER from HOST                                      auth-pam.c, sshpam_query
//! User USER [from HOST ]not allowed because REASON                                          auth.c, allowed_user
//! drop connection #N from [IP]:P on [IP]:22 penalty: ...|past MaxStartups                   sshd.c, since 9.8
//! beginning MaxStartups throttling    in|exited MaxStartups throttling for|after TIME, N connections dropped
//!
//! PEER is [authenticating user USER |invalid user USER ]IP port N
//! ```
//!
//! Until 6.9 no line but a verdict has a port, and the last line of a connection is `Received disconnect from IP: CODE:
//! TEXT [preauth]` or `Connection closed by IP [preauth]`; until 5.8 there is no ` [preauth]`, until 3.9 an invalid user
//! is an illegal one.
//!
//! At the default log level a key that was refused for a valid user leaves only the closing line. USER cannot hold a
//! colon (what follows one is the login style and never logged) and its control characters are escaped by the daemon,
//! so the first `: ` of a line ends the part that holds it.

use super::{Account, Hidden, Key, Peer, Remark, Verdict};
use crate::event::payload::LoginResult;

/// The method whose refusals `sshd` may log twice.
pub const KEYBOARD_INTERACTIVE_PAM: &str = "keyboard-interactive/pam";

/// Reads one message of `sshd`.
pub fn read(message: &str) -> Remark {
    let message = message.trim_end();
    let (message, preauth) = match message.strip_suffix(" [preauth]") {
        Some(message) => (message, true),
        None => (message, false),
    };
    verdict(message)
        .map(Remark::Verdict)
        .or_else(|| companion(message))
        .or_else(|| ending(message, preauth))
        .or_else(|| closing(message, preauth))
        .unwrap_or(Remark::Nothing)
}

fn verdict(message: &str) -> Option<Verdict> {
    if let Some(rest) = message.strip_prefix("error: PAM: ") {
        return keyboard_interactive(rest);
    }
    let (result, rest) = match message.strip_prefix("Accepted ") {
        Some(rest) => (LoginResult::Success, rest),
        None => (LoginResult::Fail, message.strip_prefix("Failed ")?),
    };
    let (method, rest) = rest.split_once(' ')?;
    let rest = rest.strip_prefix("for ")?;
    let (named, extra) = match rest.split_once(" ssh2: ").or_else(|| rest.split_once(" ssh1: ")) {
        Some((named, extra)) => (named, Some(extra)),
        None => (rest, None),
    };
    let named =
        ["ssh2", "ssh1"].iter().find_map(|version| named.strip_suffix(version)?.strip_suffix(' ')).unwrap_or(named);
    let (user, peer) = from_peer(named).or_else(|| from_named_peer(named))?;
    let mut verdict = Verdict::new(result, account(user), peer).by(method);
    verdict.key = extra.and_then(key);
    Some(verdict)
}

/// `REASON for [invalid user ]USER from HOST`: a password that PAM itself asked for and refused. Below VERBOSE nothing
/// else tells it of a user who exists, so it is the verdict, and a `Failed keyboard-interactive/pam` that follows is not.
fn keyboard_interactive(rest: &str) -> Option<Verdict> {
    let (named, host) = rest.trim_end().rsplit_once(" from ")?;
    // macOS adds the address that was connected to.
    let host = host.split_once(" via ").map_or(host, |(host, _)| host);
    // The one reason of pam_strerror(3) that holds the word the user stands behind.
    let (reason, user) = match named.strip_prefix("Have exhausted maximum number of retries for service for ") {
        Some(user) => ("", user),
        None => named.split_once(" for ")?,
    };
    // Faults of PAM itself name its function instead.
    if reason.contains([':', '(']) {
        return None;
    }
    let account = match account(user) {
        Account::Known(user) if reason == "User not known to the underlying authentication module" => {
            Account::Invalid { typed: Some(user) }
        }
        account => account,
    };
    Some(Verdict::new(LoginResult::Fail, account, Peer::new(host, None)).by(KEYBOARD_INTERACTIVE_PAM))
}

fn companion(message: &str) -> Option<Remark> {
    if let Some(rest) = message.strip_prefix("Invalid user ").or_else(|| message.strip_prefix("Illegal user ")) {
        let (user, peer) = from_peer(rest)?;
        return Some(Remark::Named { account: Account::Invalid { typed: Some(user.to_owned()) }, peer });
    }
    if let Some((named, _)) = message.strip_prefix("User ").and_then(|rest| rest.split_once(" not allowed because ")) {
        // An account that the rules keep out is an invalid user to the lines that follow. HOST may be a name.
        let (user, peer) = named
            .rsplit_once(" from ")
            .map_or((named, Peer::default()), |(user, host)| (user, address_only(host).unwrap_or_default()));
        return Some(Remark::Named { account: Account::Invalid { typed: Some(user.to_owned()) }, peer });
    }
    if let Some(rest) = message.strip_prefix("Connection from ") {
        // With LogLevel VERBOSE: `IP port N on IP port N`.
        let peer = rest.split_once(" on ").map_or(rest, |(peer, _)| peer);
        return Some(Remark::Opened(anonymous(peer).or_else(|| address_only(peer))?));
    }
    if message.strip_prefix("error: ").unwrap_or(message).starts_with("kex_exchange_identification: ") {
        return Some(Remark::Opened(Peer::default()));
    }
    hidden(message).map(Remark::Hidden)
}

fn hidden(message: &str) -> Option<Hidden> {
    if message.starts_with("drop connection #") {
        let is_throttled = message.ends_with(" past MaxStartups");
        return Some(if is_throttled { Hidden::Throttled(1) } else { Hidden::More(1) });
    }
    let message = message.strip_prefix("error: ").unwrap_or(message);
    if message == "beginning MaxStartups throttling" {
        return Some(Hidden::ThrottledInAll(0));
    }
    let is_throttling = ["in MaxStartups throttling for ", "exited MaxStartups throttling after "];
    is_throttling.iter().any(|start| message.starts_with(start)).then_some(())?;
    let (_, dropped) = message.rsplit_once(", ")?;
    Some(Hidden::ThrottledInAll(dropped.strip_suffix(" connections dropped")?.parse().ok()?))
}

/// Lines that end a connection and do not say whose it was, most of them of old versions.
fn ending(message: &str, preauth: bool) -> Option<Remark> {
    let closed = |account, peer| Remark::Closed { account, peer, pid: None, certain: true };
    if let Some(rest) = message.strip_prefix("error: ").unwrap_or(message).strip_prefix("Received disconnect from ") {
        // Until 6.9 it stands alone and without a port; since then a line with the user follows it.
        let (peer, _) = rest.split_once(": ")?;
        return Some(Remark::Closed {
            account: Account::Unknown,
            peer: address_only(peer)?,
            pid: None,
            certain: preauth,
        });
    }
    let denied = message.strip_prefix("fatal: Access denied for user ");
    if let Some(user) = denied.and_then(|rest| rest.strip_suffix(" by PAM account configuration")) {
        return Some(closed(Account::Known(user.to_owned()), Peer::default()));
    }
    if let Some(user) = message.strip_prefix("Disconnecting: Too many authentication failures for ") {
        // Until 6.7; the line that ends the connection has the address.
        return Some(Remark::Named { account: account(user), peer: Peer::default() });
    }
    if let Some(rest) = message.strip_prefix("refused connect from ") {
        // By hosts.deny(5): `IP`, `NAME (IP)` or, with ident, `WHATEVER@NAME (IP)`.
        let address =
            rest.strip_suffix(')').and_then(|rest| rest.rsplit_once('(')).map_or(rest, |(_, address)| address);
        return Some(closed(Account::Unknown, address_only(address)?));
    }
    const ANONYMOUS_ENDS: [&str; 5] = [
        "fatal: Read from socket failed: ",
        "fatal: Write failed: ",
        "fatal: no matching ",
        "fatal: Unable to negotiate a key exchange method",
        "Disconnecting: ",
    ];
    if ANONYMOUS_ENDS.iter().any(|end| message.starts_with(end)) {
        return Some(Remark::Closed { account: Account::Unknown, peer: Peer::default(), pid: None, certain: false });
    }
    const SCANS: [&str; 3] = ["scanned from ", "probed from ", "Protocol major versions differ for "];
    if let Some(rest) = SCANS.iter().find_map(|scan| message.strip_prefix(scan)) {
        let (peer, _) = rest.split_once(" with ").or_else(|| rest.split_once(": "))?;
        return Some(closed(Account::Unknown, anonymous(peer).or_else(|| address_only(peer))?));
    }
    None
}

fn closing(message: &str, preauth: bool) -> Option<Remark> {
    let closed = |account, peer| Remark::Closed { account, peer, pid: None, certain: true };
    if let Some(rest) = message.strip_prefix("error: maximum authentication attempts exceeded for ") {
        let (user, peer) = from_peer(rest.strip_suffix(" ssh2").unwrap_or(rest))?;
        return Some(closed(account(user), peer));
    }
    if let Some(rest) = message.strip_prefix("administratively prohibited connection for ") {
        let (user, peer) = from_peer(rest)?;
        return Some(closed(account(user), peer));
    }
    if let Some(rest) =
        message.strip_prefix("fatal: ").unwrap_or(message).strip_prefix("Timeout before authentication for ")
    {
        return timeout(rest);
    }
    if let Some(rest) = message.strip_prefix("banner exchange: Connection from ") {
        return Some(closed(Account::Unknown, anonymous(before_reason(rest))?));
    }
    if let Some(rest) = message.strip_prefix("Did not receive identification string from ") {
        return Some(closed(Account::Unknown, anonymous(rest).or_else(|| address_only(rest))?));
    }
    if let Some(rest) = message.strip_prefix("Bad protocol version identification '") {
        // What the client sent stands before the address and may hold anything, so the last " from " counts.
        let (_, rest) = rest.rsplit_once("' from ")?;
        return Some(closed(Account::Unknown, anonymous(rest).or_else(|| address_only(rest))?));
    }
    const ENDS: [&str; 6] = [
        "Connection closed by ",
        "Connection reset by ",
        "Disconnected from ",
        "Disconnecting ",
        "Unable to negotiate with ",
        "ssh_dispatch_run_fatal: Connection from ",
    ];
    let message = message.strip_prefix("fatal: ").unwrap_or(message);
    let rest = before_reason(ENDS.iter().find_map(|end| message.strip_prefix(end))?);
    if let Some(rest) = rest.strip_prefix("authenticating user ") {
        let (user, peer) = peer_at_end(rest)?;
        return Some(closed(Account::Known(user.to_owned()), peer));
    }
    if let Some(rest) = rest.strip_prefix("invalid user ") {
        let (user, peer) = peer_at_end(rest)?;
        return Some(closed(Account::Invalid { typed: Some(user.to_owned()) }, peer));
    }
    // Without the mark a session that was let in may end like this, too. Until 6.9 there is no port.
    let peer = anonymous(rest).or_else(|| address_only(rest))?;
    Some(Remark::Closed { account: Account::Unknown, peer, pid: None, certain: preauth })
}

/// `IP port N`, or `connection from IP to IP, pid = N` written by the listener about the process that served it.
fn timeout(rest: &str) -> Option<Remark> {
    let (peer, pid) = match rest.strip_prefix("connection from ") {
        Some(rest) => {
            let (peer, rest) = rest.split_once(" to ")?;
            let (_, pid) = rest.rsplit_once(", pid = ")?;
            (address_only(peer)?, Some(pid.parse().ok()?))
        }
        None => (anonymous(rest).or_else(|| address_only(rest.trim_end_matches('.')))?, None),
    };
    Some(Remark::Closed { account: Account::Unknown, peer, pid, certain: true })
}

fn account(user: &str) -> Account {
    // Solaris.
    if user == "<invalid username>" {
        return Account::Invalid { typed: None };
    }
    // Until 3.9 it said "illegal".
    match user.strip_prefix("invalid user ").or_else(|| user.strip_prefix("illegal user ")) {
        Some(typed) => Account::Invalid { typed: Some(typed.to_owned()) },
        None => Account::Known(user.to_owned()),
    }
}

/// `USER from IP port N`; very old versions leave the port out.
fn from_peer(text: &str) -> Option<(&str, Peer)> {
    let (user, end) = text.rsplit_once(" from ")?;
    Some((user, anonymous(end).or_else(|| address_only(end))?))
}

/// `USER from NAME port N`: no sshd writes a name, but whoever hands logs on may have hidden the addresses, and who got
/// in is worth a row without one. A user's name cannot come out as the peer's, because the last ` from ` counts.
fn from_named_peer(text: &str) -> Option<(&str, Peer)> {
    let (user, end) = text.rsplit_once(" from ")?;
    let (name, port) = end.split_once(" port ")?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let is_hidden = !name.is_empty() && name.len() <= 255 && name.bytes().all(is_name);
    Some((user, Peer::new(name, Some(port.parse().ok()?)))).filter(|_| is_hidden)
}

/// `USER IP port N`.
fn peer_at_end(text: &str) -> Option<(&str, Peer)> {
    let (before_port, _) = text.rsplit_once(" port ")?;
    let (user, _) = before_port.rsplit_once(' ')?;
    Some((user, anonymous(&text[user.len() + 1..])?))
}

/// `IP port N` and nothing else. The daemon writes `UNKNOWN` where it has no address.
fn anonymous(text: &str) -> Option<Peer> {
    let (address, port) = text.split_once(" port ")?;
    let port = port.parse().ok()?;
    address_only(address).map(|peer| Peer { port: Some(port), ..peer })
}

fn address_only(text: &str) -> Option<Peer> {
    let peer = Peer::new(text, None);
    (peer.address.is_some() || text == "UNKNOWN").then_some(peer)
}

fn before_reason(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(before, _)| before)
}

/// `RSA SHA256:...`, after which certificates have more.
fn key(extra: &str) -> Option<Key> {
    let mut words = extra.split(' ');
    let (kind, fingerprint) = (words.next()?, words.next()?);
    let is_hash = ["SHA256:", "MD5:", "SHA1:", "SHA512:"].iter().any(|hash| fingerprint.starts_with(hash));
    // Until 6.7 it is MD5 without saying so.
    let is_md5 = fingerprint.len() == 47 && fingerprint.bytes().all(|byte| byte == b':' || byte.is_ascii_hexdigit());
    (is_hash || is_md5).then(|| Key { kind: Some(kind.to_owned()), fingerprint: fingerprint.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(typed: &str) -> Account {
        Account::Invalid { typed: Some(typed.to_owned()) }
    }

    fn known(user: &str) -> Account {
        Account::Known(user.to_owned())
    }

    #[test]
    fn verdict_lines_name_user_method_and_peer() {
        use LoginResult::{Fail, Success};
        let cases = [
            (
                "Accepted password for root from 192.0.2.7 port 22 ssh2",
                Success,
                known("root"),
                "password",
                "192.0.2.7",
                22,
            ),
            (
                "Accepted keyboard-interactive/pam for u from ::1 port 5 ssh2",
                Success,
                known("u"),
                "keyboard-interactive/pam",
                "127.0.0.1",
                5,
            ),
            (
                "Failed password for root from ::ffff:192.0.2.7 port 9 ssh2",
                Fail,
                known("root"),
                "password",
                "192.0.2.7",
                9,
            ),
            (
                "Failed password for root from fe80::1%eth0 port 9 ssh2 [preauth]",
                Fail,
                known("root"),
                "password",
                "fe80::1",
                9,
            ),
            ("Failed none for invalid user  from 192.0.2.7 port 9 ssh2", Fail, invalid(""), "none", "192.0.2.7", 9),
            (
                "Failed password for invalid user a b  from 192.0.2.7 port 9 ssh2",
                Fail,
                invalid("a b "),
                "password",
                "192.0.2.7",
                9,
            ),
            (
                "Failed password for invalid user root from 8.8.8.8 port 22 ssh2 from 192.0.2.7 port 9 ssh2",
                Fail,
                invalid("root from 8.8.8.8 port 22 ssh2"),
                "password",
                "192.0.2.7",
                9,
            ),
            (
                "Failed hostbased for u from 192.0.2.7 port 9 ssh2: RSA SHA256:x, client user \"a from 8.8.8.8 port 1 ssh2\"",
                Fail,
                known("u"),
                "hostbased",
                "192.0.2.7",
                9,
            ),
            ("Failed password for root from 192.0.2.7 port 9", Fail, known("root"), "password", "192.0.2.7", 9),
            (
                r"Failed password for invalid user a\033[31m\tb from 192.0.2.7 port 9 ssh2",
                Fail,
                invalid(r"a\033[31m\tb"),
                "password",
                "192.0.2.7",
                9,
            ),
        ];
        for (message, result, account, method, address, port) in cases {
            let Remark::Verdict(verdict) = read(message) else { panic!("{message}") };
            assert_eq!((verdict.result, &verdict.account), (result, &account), "{message}");
            assert_eq!(verdict.method.as_deref(), Some(method), "{message}");
            assert_eq!(verdict.peer.address, address.parse().ok(), "{message}");
            assert_eq!(verdict.peer.port, Some(port), "{message}");
        }
    }

    #[test]
    fn keys_and_unknown_peers_are_kept() {
        let Remark::Verdict(verdict) = read(
            "Accepted publickey for u from 192.0.2.7 port 9 ssh2: ED25519-CERT SHA256:ab/c ID x from y (serial 0) CA RSA SHA256:d",
        ) else {
            panic!()
        };
        assert_eq!(
            verdict.key,
            Some(Key { kind: Some("ED25519-CERT".to_owned()), fingerprint: "SHA256:ab/c".to_owned() })
        );
        let Remark::Verdict(verdict) = read("Failed password for root from UNKNOWN port 65535 ssh2") else { panic!() };
        assert_eq!(verdict.peer, Peer { address: None, port: Some(65535), name: None });
    }

    #[test]
    fn who_got_in_is_told_although_the_address_was_hidden() {
        for name in ["host.example", "192.168.xx.xx", "x-1"] {
            let Remark::Verdict(verdict) = read(&format!("Accepted password for root from {name} port 9 ssh2")) else {
                panic!("{name}")
            };
            assert_eq!((verdict.account, verdict.result), (known("root"), LoginResult::Success));
            assert_eq!((verdict.peer.address, verdict.peer.name.as_deref()), (None, Some(name)));
        }
        let injected = "Failed password for invalid user a from b port 1 ssh2 from 192.0.2.7 port 9 ssh2";
        let Remark::Verdict(verdict) = read(injected) else { panic!() };
        assert_eq!(verdict.peer, Peer::new("192.0.2.7", Some(9)));
    }

    #[test]
    fn closing_lines_name_the_user_from_the_right_end() {
        let cases = [
            ("Connection closed by authenticating user tester 192.0.2.7 port 47534 [preauth]", known("tester"), 47534),
            ("Connection reset by authenticating user tester 192.0.2.7 port 1 [preauth]", known("tester"), 1),
            ("Disconnected from authenticating user root 192.0.2.7 port 1 [preauth]", known("root"), 1),
            (
                "Disconnecting authenticating user root 192.0.2.7 port 1: Too many authentication failures [preauth]",
                known("root"),
                1,
            ),
            (
                "Disconnecting invalid user a 192.0.2.7 port 1: Change of username or service not allowed: (x port 9,a) -> (b,c) [preauth]",
                invalid("a"),
                1,
            ),
            (
                "Connection closed by invalid user root from 8.8.8.8 port 22 ssh2 192.0.2.7 port 3 [preauth]",
                invalid("root from 8.8.8.8 port 22 ssh2"),
                3,
            ),
            ("Connection closed by invalid user  192.0.2.7 port 3 [preauth]", invalid(""), 3),
            (
                "error: maximum authentication attempts exceeded for invalid user bob from 192.0.2.7 port 3 ssh2 [preauth]",
                invalid("bob"),
                3,
            ),
            (
                "error: maximum authentication attempts exceeded for root from 192.0.2.7 port 3 ssh2 [preauth]",
                known("root"),
                3,
            ),
            ("administratively prohibited connection for bob from 192.0.2.7 port 3 [preauth]", known("bob"), 3),
            (
                "administratively prohibited connection for invalid user a from 8.8.8.8 port 1 from 192.0.2.7 port 3 [preauth]",
                invalid("a from 8.8.8.8 port 1"),
                3,
            ),
            ("Connection closed by 192.0.2.7 port 3 [preauth]", Account::Unknown, 3),
            ("fatal: Timeout before authentication for 192.0.2.7 port 3", Account::Unknown, 3),
            ("banner exchange: Connection from 192.0.2.7 port 3: invalid format", Account::Unknown, 3),
            (
                "Unable to negotiate with 192.0.2.7 port 3: no matching host key type found. Their offer: x [preauth]",
                Account::Unknown,
                3,
            ),
            ("Bad protocol version identification 'a' from 8.8.8.8 port 1' from 192.0.2.7 port 3", Account::Unknown, 3),
            ("Did not receive identification string from 192.0.2.7 port 3", Account::Unknown, 3),
            ("scanned from 192.0.2.7 port 3 with SSH-2.0-x 8.8.8.8.  Don't panic.", Account::Unknown, 3),
            ("Protocol major versions differ for 192.0.2.7 port 3: SSH-2.0-a vs. SSH-1.5", Account::Unknown, 3),
        ];
        for (message, expected, expected_port) in cases {
            let Remark::Closed { account, peer, pid: None, certain: true } = read(message) else { panic!("{message}") };
            assert_eq!(account, expected, "{message}");
            assert_eq!((peer.address, peer.port), ("192.0.2.7".parse().ok(), Some(expected_port)), "{message}");
        }
        let late = read("Timeout before authentication for connection from 192.0.2.7 to 192.0.2.8, pid = 18225");
        let Remark::Closed { peer, pid: Some(18225), .. } = late else { panic!("{late:?}") };
        assert_eq!(peer.address, "192.0.2.7".parse().ok());
        assert!(matches!(read("Connection closed by 192.0.2.7 port 3"), Remark::Closed { certain: false, .. }));
    }

    #[test]
    fn lines_of_old_versions_are_read() {
        let peer = Peer::new("192.0.2.7", None);
        let ends = [
            ("Connection closed by 192.0.2.7 [preauth]", true),
            ("Connection closed by 192.0.2.7", false),
            ("Received disconnect from 192.0.2.7: 11: Bye Bye [preauth]", true),
            ("Received disconnect from 192.0.2.7: 11: a port 1: from 8.8.8.8: 11", false),
            ("error: Received disconnect from 192.0.2.7: 3: com.jcraft.jsch.JSchException: Auth fail [preauth]", true),
            ("fatal: Timeout before authentication for 192.0.2.7", true),
            ("refused connect from 192.0.2.7", true),
            ("refused connect from root@8.8.8.8::ffff:192.0.2.7 (::ffff:192.0.2.7)", true),
            ("fatal: Unable to negotiate with 192.0.2.7: no matching cipher found. [preauth]", true),
            ("Protocol major versions differ for 192.0.2.7: SSH-2.0-a vs. SSH-1.5", true),
        ];
        for (message, expected) in ends {
            let closed = Remark::Closed { account: Account::Unknown, peer: peer.clone(), pid: None, certain: expected };
            assert_eq!(read(message), closed, "{message}");
        }
        let named = Remark::Named { account: invalid("a b"), peer: peer.clone() };
        assert_eq!(read("Illegal user a b from 192.0.2.7"), named);
        let verdicts = [
            ("Failed password for illegal user a b from ::ffff:192.0.2.7 port 9 ssh2", invalid("a b"), Some(9)),
            ("Failed none for invalid user a b from 192.0.2.7 port 9 ssh2", invalid("a b"), Some(9)),
            ("error: PAM: Authentication failure for root from 192.0.2.7", known("root"), None),
            ("error: PAM: Authentication failure for illegal user a b from 192.0.2.7", invalid("a b"), None),
            (
                "error: PAM: User not known to the underlying authentication module for x from 8.8.8.8 from 192.0.2.7",
                invalid("x from 8.8.8.8"),
                None,
            ),
            (
                "error: PAM: Have exhausted maximum number of retries for service for root from 192.0.2.7",
                known("root"),
                None,
            ),
            ("error: PAM: unknown user for illegal user a b from 192.0.2.7", invalid("a b"), None),
            ("error: PAM: authentication error for root from 192.0.2.7 via 192.0.2.1", known("root"), None),
            (
                "Failed keyboard-interactive for <invalid username> from 192.0.2.7 port 9 ssh2",
                Account::Invalid { typed: None },
                Some(9),
            ),
            ("Failed password for root from 192.0.2.7 port 9 ssh1: ruser x from 8.8.8.8", known("root"), Some(9)),
            ("Accepted rsa for root from 192.0.2.7 port 9", known("root"), Some(9)),
        ];
        for (message, account, port) in verdicts {
            let Remark::Verdict(verdict) = read(message) else { panic!("{message}") };
            let expected = (account, Peer { port, ..peer.clone() });
            assert_eq!((verdict.account, verdict.peer), expected, "{message}");
        }
        let Remark::Verdict(verdict) = read(
            "Accepted publickey for u from 192.0.2.7 port 9 ssh2: RSA 9f:a1:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd",
        ) else {
            panic!()
        };
        assert_eq!(verdict.key.map(|key| key.fingerprint.len()), Some(47));
        let denied = Remark::Named { account: invalid("denied"), peer: peer.clone() };
        assert_eq!(read("User denied from 192.0.2.7 not allowed because listed in DenyUsers"), denied);
        let denied = Remark::Named { account: invalid("denied"), peer: Peer::default() };
        assert_eq!(read("User denied from x.example not allowed because not listed in AllowUsers"), denied);
        assert_eq!(read("User denied not allowed because account is locked"), denied);
        let many = "Disconnecting: Too many authentication failures for root [preauth]";
        assert_eq!(read(many), Remark::Named { account: known("root"), peer: Peer::default() });
        let opened = Remark::Opened(Peer::new("192.0.2.7", Some(9)));
        assert_eq!(read("Connection from 192.0.2.7 port 9 on 192.0.2.1 port 22 rdomain \"\""), opened);
        assert_eq!(
            read("fatal: Access denied for user u by PAM account configuration [preauth]"),
            Remark::Closed { account: known("u"), peer: Peer::default(), pid: None, certain: true }
        );
        for nothing in [
            "input_userauth_request: invalid user webmaster [preauth]",
            "reverse mapping checking getaddrinfo for ns.example [192.0.2.7] failed - POSSIBLE BREAK-IN ATTEMPT!",
            "Address 192.0.2.7 maps to x.example, but this does not map back to the address - POSSIBLE BREAK-IN ATTEMPT!",
            "PAM service(sshd) ignoring max retries; 6 > 3",
            "error: connect_to 192.0.2.7 port 80: failed.",
            "error: PAM: pam_open_session(): Cannot make/remove an entry for the specified session",
        ] {
            assert_eq!(read(nothing), Remark::Nothing, "{nothing}");
        }
    }

    #[test]
    fn other_lines_are_companions_or_nothing() {
        let named = read("Invalid user root from 8.8.8.8 port 22 ssh2 from 192.0.2.7 port 4");
        assert_eq!(
            named,
            Remark::Named { account: invalid("root from 8.8.8.8 port 22 ssh2"), peer: Peer::new("192.0.2.7", Some(4)) }
        );
        assert_eq!(
            read("drop connection #3 from [192.0.2.7]:4 on [192.0.2.8]:22 penalty: failed authentication"),
            Remark::Hidden(Hidden::More(1))
        );
        let throttling = [
            ("error: beginning MaxStartups throttling", Hidden::ThrottledInAll(0)),
            ("drop connection #10 from [192.0.2.7]:4 on [192.0.2.8]:22 past MaxStartups", Hidden::Throttled(1)),
            ("error: in MaxStartups throttling for 00:05:02, 4012 connections dropped", Hidden::ThrottledInAll(4012)),
            ("exited MaxStartups throttling after 00:05:03, 4013 connections dropped", Hidden::ThrottledInAll(4013)),
        ];
        for (message, hidden) in throttling {
            assert_eq!(read(message), Remark::Hidden(hidden), "{message}");
        }
        for message in [
            "Server listening on :: port 22.",
            "Postponed keyboard-interactive for root from 192.0.2.7 port 4 ssh2",
            "Partial publickey for root from 192.0.2.7 port 4 ssh2",
            "Received disconnect from 192.0.2.7 port 4:11: Accepted password for root from 8.8.8.8 port 1 ssh2",
            "Disconnected from user root 192.0.2.7 port 4",
            "ROOT LOGIN REFUSED FROM 192.0.2.7 port 4",
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
            "PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
            "pam_unix(sshd:session): session opened for user tester(uid=1000) by (uid=0)",
            "line one\nAccepted password for root from 192.0.2.7 port 1 ssh2",
            "Accepted password for root from host,example port 1 ssh2",
            "Accepted password for root from 192.0.2.7 port 123456 ssh2",
            "",
        ] {
            assert_eq!(read(message), Remark::Nothing, "{message}");
        }
    }
}
