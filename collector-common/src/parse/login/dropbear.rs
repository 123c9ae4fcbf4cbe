//! Dropbear's daemon (`svr-auth.c`, `svr-authpasswd.c`, `svr-authpubkey.c`, `svr-session.c`, 2011 to 2026).
//!
//! ```text
//! Child connection from IP:PORT
//! [PAM password|Password] auth succeeded for 'U' from IP:PORT[, extra auth required]
//! Pubkey auth succeeded for 'U' with [KEYTYPE ]key FINGERPRINT from IP:PORT[, extra auth required]
//! Auth succeeded with blank password for 'U' from IP:PORT
//! Bad [PAM ]password attempt for 'U' from IP:PORT          Too-long password attempt for 'U' from IP:PORT
//! Pubkey auth bad signature for 'U' with key FINGERPRINT from IP:PORT
//! Login attempt for nonexistent user[ from IP:PORT]        without the peer in 2020.79 to 2022.83
//! Exit before auth[ from <IP:PORT>]: [(user 'U', N fails): ]REASON
//! Exit before auth[ (user 'U', N fails)]: REASON                    until 2019
//! ```
//!
//! Until 2011 each begins with a small letter.
//! Only names of accounts are written, so a quoted name cannot hold what an attacker likes. IPv6 addresses stand
//! without brackets: the port is what follows the last colon. A refused key leaves no line but the last.

use std::borrow::Cow;

use super::{Account, Key, Peer, Remark, Verdict};
use crate::event::payload::LoginResult;

/// Reads one message of `dropbear`.
pub fn read(message: &str) -> Remark {
    let message = &capitalised(without_own_stamp(message));
    if let Some(rest) = message.strip_prefix("Child connection from ") {
        return peer(rest).map_or(Remark::Nothing, Remark::Opened);
    }
    if message.starts_with("Exit before auth") {
        return exit(message).unwrap_or(Remark::Nothing);
    }
    success(message).or_else(|| failure(message)).or_else(|| refusal(message)).map_or(Remark::Nothing, Remark::Verdict)
}

/// Cuts `[825] Jul 10 23:53:52 ` off, which it writes itself when it logs to standard error.
fn without_own_stamp(message: &str) -> &str {
    let stamped = message.strip_prefix('[').and_then(|rest| {
        let (pid, rest) = rest.split_once("] ")?;
        pid.parse::<u32>().ok()?;
        let (stamp, rest) = (rest.get(..15)?, rest.get(15..)?);
        let (colons, blanks) = (stamp.matches(':').count(), stamp.matches(' ').count());
        (colons == 2 && blanks >= 2).then(|| rest.strip_prefix(' ')).flatten()
    });
    stamped.unwrap_or(message)
}

/// Until 2011 every message began with a small letter.
fn capitalised(message: &str) -> Cow<'_, str> {
    match message.chars().next() {
        Some(first @ 'a'..='z') => Cow::Owned(format!("{}{}", first.to_ascii_uppercase(), &message[1..])),
        _ => Cow::Borrowed(message),
    }
}

fn success(message: &str) -> Option<Verdict> {
    const SUCCESSES: [(&str, &str); 4] = [
        ("Password auth succeeded for '", "password"),
        ("PAM password auth succeeded for '", "password"),
        ("Auth succeeded with blank password for '", "none"),
        ("Pubkey auth succeeded for '", "publickey"),
    ];
    if message.ends_with(", extra auth required") {
        return None;
    }
    SUCCESSES.iter().find_map(|(start, method)| with_user(message, start, method, LoginResult::Success))
}

fn failure(message: &str) -> Option<Verdict> {
    const FAILURES: [(&str, &str); 4] = [
        ("Bad password attempt for '", "password"),
        ("Bad PAM password attempt for '", "password"),
        ("Too-long password attempt for '", "password"),
        ("Pubkey auth bad signature for '", "publickey"),
    ];
    FAILURES.iter().find_map(|(start, method)| with_user(message, start, method, LoginResult::Fail))
}

/// `'U' from IP:PORT` or `'U' with [KEYTYPE ]key FINGERPRINT from IP:PORT`, after the fixed words.
fn with_user(message: &str, start: &str, method: &str, result: LoginResult) -> Option<Verdict> {
    let (user, rest) = message.strip_prefix(start)?.split_once('\'')?;
    let (middle, end) = rest.rsplit_once("from ")?;
    let key = match middle.trim() {
        "" => None,
        offered => Some(key(offered.strip_prefix("with ")?)?),
    };
    let mut verdict = Verdict::new(result, Account::Known(user.to_owned()), peer(end)?).by(method);
    verdict.key = key;
    Some(verdict)
}

/// Accounts that are refused before a password is looked at. It says so once per connection.
fn refusal(message: &str) -> Option<Verdict> {
    let fail = |account, peer| Verdict::new(LoginResult::Fail, account, peer);
    if let Some(rest) = message.strip_prefix("Login attempt for nonexistent user") {
        let peer = if rest.is_empty() { Peer::default() } else { peer(rest.strip_prefix(" from ")?)? };
        return Some(fail(Account::Invalid { typed: None }, peer));
    }
    // The rest may end in " from IP:PORT" or, in older versions, name no peer.
    let (said, peer) = match message.rsplit_once(" from ").and_then(|(said, end)| Some((said, peer(end)?))) {
        Some((said, peer)) => (said, peer),
        None => (message, Peer::default()),
    };
    if said == "Root login rejected" {
        return Some(fail(Account::Known("root".to_owned()), peer));
    }
    if let Some(user) = said.strip_prefix("Login attempt with wrong user ") {
        return Some(fail(Account::Known(user.trim_matches('\'').to_owned()), peer));
    }
    let quoted = [
        ("User '", "' has invalid shell, rejected"),
        ("User account '", "' is locked"),
        ("User '", "' has blank password, rejected"),
        ("Logins are restricted to the group ", "' is not a member"),
    ];
    let user = quoted.iter().find_map(|(start, end)| said.strip_prefix(start)?.strip_suffix(end))?;
    let user = user.rsplit_once(" but user '").map_or(user, |(_, user)| user);
    Some(fail(Account::Known(user.to_owned()), peer))
}

fn exit(message: &str) -> Option<Remark> {
    let rest = message.strip_prefix("Exit before auth")?;
    let (peer, rest) = match rest.strip_prefix(" from <") {
        Some(rest) => {
            let (end, rest) = rest.split_once('>')?;
            (peer(end)?, rest)
        }
        None => (Peer::default(), rest),
    };
    // Until 2019 the colon stands behind the parenthesis, and the peer at most at the end of the reason.
    let rest = rest.strip_prefix(": ").or_else(|| rest.strip_prefix(' ').filter(|rest| rest.starts_with('(')))?;
    let (account, reason) = match rest.strip_prefix("(user '").and_then(|rest| rest.split_once("', ")) {
        Some((user, rest)) => (Account::Known(user.to_owned()), rest.split_once("): ")?.1),
        None => (Account::Unknown, rest),
    };
    let account = match reason.starts_with("Max auth tries reached - user 'is invalid'") {
        true => Account::Invalid { typed: None },
        false => account,
    };
    let said = || peer_of_reason(reason).unwrap_or_default();
    let peer = if peer == Peer::default() { said() } else { peer };
    Some(Remark::Closed { account, peer, pid: None, certain: true })
}

fn peer_of_reason(reason: &str) -> Option<Peer> {
    peer(reason.strip_prefix("Max auth tries reached - user ")?.rsplit_once(" from ")?.1)
}

/// `IP:PORT`, `[IP]:PORT`, or a name in the place of the address.
fn peer(text: &str) -> Option<Peer> {
    let (address, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    (!address.is_empty() && !address.contains([' ', '\'', '<', '>'])).then(|| Peer::new(address, Some(port)))
}

/// `[KEYTYPE ]key FINGERPRINT`; the oldest fingerprints hold a blank, `sha1!! xx:...`.
fn key(text: &str) -> Option<Key> {
    let (kind, fingerprint) = match text.strip_prefix("key ") {
        Some(fingerprint) => (None, fingerprint),
        None => {
            let (kind, fingerprint) = text.split_once(" key ")?;
            (Some(kind.to_owned()), fingerprint)
        }
    };
    Some(Key { kind, fingerprint: fingerprint.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_lines_of_every_age_are_read() {
        use LoginResult::{Fail, Success};
        let known = |user: &str| Account::Known(user.to_owned());
        let nobody = Account::Invalid { typed: None };
        let cases = [
            (
                "Password auth succeeded for 'u' from 192.0.2.7:45624",
                Success,
                known("u"),
                Some("password"),
                Some("192.0.2.7"),
            ),
            (
                "PAM password auth succeeded for 'u' from 192.0.2.7:45624",
                Success,
                known("u"),
                Some("password"),
                Some("192.0.2.7"),
            ),
            (
                "Auth succeeded with blank password for 'u' from 192.0.2.7:45624",
                Success,
                known("u"),
                Some("none"),
                Some("192.0.2.7"),
            ),
            (
                "Pubkey auth succeeded for 'u' with ssh-rsa key SHA256:Z from ::1:53296",
                Success,
                known("u"),
                Some("publickey"),
                Some("127.0.0.1"),
            ),
            (
                "Pubkey auth succeeded for 'u' with key sha1!! 86:c9 from [2001:db8::1]:5",
                Success,
                known("u"),
                Some("publickey"),
                Some("2001:db8::1"),
            ),
            (
                "Bad password attempt for 'root' from ::ffff:192.0.2.7:5",
                Fail,
                known("root"),
                Some("password"),
                Some("192.0.2.7"),
            ),
            (
                "bad password attempt for 'root' from 192.0.2.7:5",
                Fail,
                known("root"),
                Some("password"),
                Some("192.0.2.7"),
            ),
            (
                "Bad PAM password attempt for 'root' from 192.0.2.7:5",
                Fail,
                known("root"),
                Some("password"),
                Some("192.0.2.7"),
            ),
            (
                "Too-long password attempt for 'root' from 192.0.2.7:5",
                Fail,
                known("root"),
                Some("password"),
                Some("192.0.2.7"),
            ),
            (
                "[825] Jul 10 23:53:52 Bad password attempt for 'root' from 192.0.2.7:5",
                Fail,
                known("root"),
                Some("password"),
                Some("192.0.2.7"),
            ),
            (
                "Pubkey auth bad signature for 'u' with key SHA256:Z from 192.0.2.7:5",
                Fail,
                known("u"),
                Some("publickey"),
                Some("192.0.2.7"),
            ),
            ("Login attempt for nonexistent user from 192.0.2.7:5", Fail, nobody.clone(), None, Some("192.0.2.7")),
            ("login attempt for nonexistent user from 192.0.2.7:5", Fail, nobody.clone(), None, Some("192.0.2.7")),
            ("Login attempt for nonexistent user", Fail, nobody, None, None),
            ("Login attempt with wrong user root from 192.0.2.7:5", Fail, known("root"), None, Some("192.0.2.7")),
            ("root login rejected", Fail, known("root"), None, None),
            ("User 'u' has invalid shell, rejected", Fail, known("u"), None, None),
            ("User account 'u' is locked", Fail, known("u"), None, None),
            ("User 'u' has blank password, rejected", Fail, known("u"), None, None),
            ("Logins are restricted to the group g but user 'u' is not a member", Fail, known("u"), None, None),
        ];
        for (message, result, account, method, address) in cases {
            let Remark::Verdict(verdict) = read(message) else { panic!("{message}") };
            assert_eq!((verdict.result, &verdict.account), (result, &account), "{message}");
            assert_eq!(verdict.method.as_deref(), method, "{message}");
            assert_eq!(verdict.peer.address, address.map(|address| address.parse().unwrap()), "{message}");
        }
    }

    #[test]
    fn a_key_is_kept_with_its_kind() {
        let Remark::Verdict(verdict) = read("Pubkey auth succeeded for 'u' with key sha1!! 86:c9 from 192.0.2.7:5")
        else {
            panic!()
        };
        assert_eq!(verdict.key, Some(Key { kind: None, fingerprint: "sha1!! 86:c9".to_owned() }));
    }

    #[test]
    fn connections_open_and_close() {
        assert_eq!(read("Child connection from ::1:59084"), Remark::Opened(Peer::new("::1", Some(59084))));
        let closed = |account, peer| Remark::Closed { account, peer, pid: None, certain: true };
        let peer = Peer::new("192.0.2.7", Some(5));
        let known = Account::Known("u".to_owned());
        assert_eq!(
            read("Exit before auth from <192.0.2.7:5>: (user 'u', 1 fails): Exited normally"),
            closed(known.clone(), peer.clone())
        );
        let old = "xit before auth (user 'u', 10 fails): Max auth tries reached - user 'u' from 192.0.2.7:5";
        for first in ["e", "E"] {
            assert_eq!(read(&format!("{first}{old}")), closed(known.clone(), peer.clone()));
        }
        assert_eq!(
            read("exit before auth (user 'u', 1 fails): x from 8.8.8.8:1"),
            closed(known.clone(), Peer::default())
        );
        assert_eq!(read("exit before auth: Exited normally"), closed(Account::Unknown, Peer::default()));
        assert_eq!(read("child connection from ::1:59084"), Remark::Opened(Peer::new("::1", Some(59084))));
        let nobody = closed(Account::Invalid { typed: None }, Peer::default());
        assert_eq!(read("Exit before auth: Max auth tries reached - user 'is invalid'"), nobody);
        assert_eq!(read("Exit before auth: (user 'u', 1 fails): x"), closed(known, Peer::default()));
        assert_eq!(read("Exit before auth from <192.0.2.7:5>: Exited normally"), closed(Account::Unknown, peer));
    }

    #[test]
    fn other_lines_are_nothing() {
        for message in [
            "Password auth succeeded for 'u' from 192.0.2.7:45624, extra auth required",
            "Exit (u) from <192.0.2.7:5>: Exited normally",
            "Early exit: Terminated by signal",
            "Not backgrounding",
            "Bad password attempt for 'root' from ::1:5#011TAB#033[31mESC",
            "Bad password attempt for 'root'",
            "",
        ] {
            assert_eq!(read(message), Remark::Nothing, "{message}");
        }
    }
}
