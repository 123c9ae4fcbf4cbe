//! `login(1)`: what getty and telnetd start.
//!
//! ```text
//! shadow      FAILED LOGIN (N) on 'TTY'[ from 'HOST'] FOR 'USER', REASON       src/login.c
//!             TOO MANY LOGIN TRIES (N) on 'TTY'[ from 'HOST'] FOR 'USER'
//!             ROOT LOGIN  on 'TTY'[ from 'HOST']
//!             'USER' logged in  on 'TTY'[ from 'HOST']                         with LOG_OK_LOGINS
//!             before 4.0.4 each word is quoted `so'
//! util-linux  FAILED LOGIN N FROM TTY|HOST FOR USER, REASON                    login-utils/login.c
//!             FAILED LOGIN SESSION FROM TTY|HOST FOR USER, REASON
//!             TOO MANY LOGIN TRIES (N) FROM TTY|HOST FOR USER, REASON
//!             LOGIN ON TTY BY USER[ FROM HOST]      ROOT LOGIN ON TTY[ FROM HOST]
//! busybox     invalid password for 'USER' on 'TTY'[ from 'HOST']               loginutils/login.c
//!             root login on 'TTY'[ from 'HOST']
//! ```
//!
//! Each is an attempt of its own. Shadow and busybox write nothing of their own when an ordinary user comes in. USER may
//! be what somebody typed, a password included, so it is taken as [`Account::Typed`] and reported only if it is an
//! account; shadow and busybox write `UNKNOWN` for no account.

use std::borrow::Cow;

use super::{Account, Peer, Remark, Verdict};
use crate::event::payload::LoginResult;

/// How the C library writes that there is none.
const NULL: &str = "(null)";

/// `pam_strerror(3)` of `PAM_USER_UNKNOWN`.
const UNKNOWN_TO_PAM: &str = "User not known to the underlying authentication module";

/// Reads one message of `login`.
pub fn read(message: &str) -> Remark {
    let message = &straight_quotes(message);
    shadow(message)
        .or_else(|| util_linux(message))
        .or_else(|| busybox(message))
        .map_or(Remark::Nothing, Remark::Verdict)
}

/// With the quotes of newer versions.
fn straight_quotes(message: &str) -> Cow<'_, str> {
    if message.contains('`') { Cow::Owned(message.replace('`', "'")) } else { Cow::Borrowed(message) }
}

fn shadow(message: &str) -> Option<Verdict> {
    if let Some(place) = message.strip_prefix("ROOT LOGIN  on '") {
        return root(place);
    }
    if let Some((user, place)) = message.strip_prefix('\'').and_then(|rest| rest.split_once("' logged in  on '")) {
        let (terminal, peer) = quoted_place(place)?;
        return Some(Verdict::new(LoginResult::Success, Account::Known(user.to_owned()), peer).at(terminal));
    }
    let (place, user) = match message.strip_prefix("FAILED LOGIN (") {
        Some(rest) => {
            let (place, rest) = rest.split_once(") on '")?.1.split_once(" FOR '")?;
            (place, rest.rsplit_once("', ")?.0)
        }
        None => {
            let rest = message.strip_prefix("TOO MANY LOGIN TRIES (")?;
            let (place, rest) = rest.split_once(") on '")?.1.split_once(" FOR '")?;
            (place, rest.strip_suffix('\'')?)
        }
    };
    let (terminal, peer) = quoted_place(place)?;
    Some(Verdict::new(LoginResult::Fail, typed(user), peer).at(terminal).by("password"))
}

fn util_linux(message: &str) -> Option<Verdict> {
    if let Some(rest) = message.strip_prefix("LOGIN ON ") {
        let (terminal, rest) = rest.split_once(" BY ")?;
        let (user, host) = rest.split_once(" FROM ").map_or((rest, ""), |(user, host)| (user, host));
        let verdict = Verdict::new(LoginResult::Success, Account::Known(user.to_owned()), Peer::new(host, None));
        return Some(verdict.at(terminal));
    }
    if let Some(rest) = message.strip_prefix("ROOT LOGIN ON ") {
        let (terminal, host) = rest.split_once(" FROM ").map_or((rest, ""), |(terminal, host)| (terminal, host));
        let verdict = Verdict::new(LoginResult::Success, Account::Known("root".to_owned()), Peer::new(host, None));
        return Some(verdict.at(terminal));
    }
    let rest = message.strip_prefix("FAILED LOGIN ").or_else(|| message.strip_prefix("TOO MANY LOGIN TRIES "))?;
    let (count, rest) = rest.split_once(" FROM ")?;
    let digits = count.trim_start_matches('(').trim_end_matches(')');
    if count != "SESSION" && digits.parse::<u32>().is_err() {
        return None;
    }
    let (place, rest) = rest.split_once(" FOR ")?;
    let (user, reason) = rest.rsplit_once(", ")?;
    let peer = if is_terminal(place) || place == NULL { Peer::default() } else { Peer::new(place, None) };
    let account = if reason == UNKNOWN_TO_PAM { Account::Invalid { typed: None } } else { typed(user) };
    let verdict = Verdict::new(LoginResult::Fail, account, peer).by("password");
    Some(if is_terminal(place) { verdict.at(place) } else { verdict })
}

fn busybox(message: &str) -> Option<Verdict> {
    if let Some(place) = message.strip_prefix("root login on '") {
        return root(place);
    }
    let (user, place) = message.strip_prefix("invalid password for '")?.split_once("' on '")?;
    let (terminal, peer) = quoted_place(place)?;
    Some(Verdict::new(LoginResult::Fail, typed(user), peer).at(terminal).by("password"))
}

fn root(place: &str) -> Option<Verdict> {
    let (terminal, peer) = quoted_place(place)?;
    Some(Verdict::new(LoginResult::Success, Account::Known("root".to_owned()), peer).at(terminal))
}

/// `TTY'[ from 'HOST']`, after the first quote.
fn quoted_place(place: &str) -> Option<(&str, Peer)> {
    let place = place.strip_suffix('\'')?;
    match place.split_once("' from '") {
        Some((terminal, host)) => Some((terminal, Peer::new(host, None))),
        None => Some((place, Peer::default())),
    }
}

fn typed(user: &str) -> Account {
    match user {
        "UNKNOWN" | "(unknown)" | NULL | "" => Account::Invalid { typed: None },
        _ => Account::Typed(user.to_owned()),
    }
}

/// Whether util-linux wrote a terminal where it writes a host for a login from afar.
fn is_terminal(place: &str) -> bool {
    let name = place.strip_prefix("/dev/").unwrap_or(place);
    ["tty", "pts/", "console", "hvc", "lxc/", "ttys"].iter().any(|start| name.starts_with(start))
        && super::address(name).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_login_program_is_read() {
        use LoginResult::{Fail, Success};
        let known = |user: &str| Account::Known(user.to_owned());
        let typed = |user: &str| Account::Typed(user.to_owned());
        let nobody = Account::Invalid { typed: None };
        let cases = [
            (
                "FAILED LOGIN (1) on '/dev/pts/0' FOR 'tester', Authentication failure",
                Fail,
                typed("tester"),
                Some("pts/0"),
                None,
            ),
            (
                "FAILED LOGIN (2) on '/dev/tty1' FOR 'UNKNOWN', Authentication failure",
                Fail,
                nobody.clone(),
                Some("tty1"),
                None,
            ),
            (
                "FAILED LOGIN (1) on '/dev/pts/0' from '203.0.113.5' FOR 'tester', Authentication failure",
                Fail,
                typed("tester"),
                Some("pts/0"),
                Some("203.0.113.5"),
            ),
            (
                "FAILED LOGIN (1) on 'tty1' FOR 'x' FOR 'root', Authentication failure', Authentication failure",
                Fail,
                typed("x' FOR 'root', Authentication failure"),
                Some("tty1"),
                None,
            ),
            ("TOO MANY LOGIN TRIES (3) on '/dev/tty1' FOR 'root'", Fail, typed("root"), Some("tty1"), None),
            (
                "FAILED LOGIN (1) on `tty1' FOR `tester', Authentication failure",
                Fail,
                typed("tester"),
                Some("tty1"),
                None,
            ),
            ("ROOT LOGIN  on `tty1'", Success, known("root"), Some("tty1"), None),
            ("ROOT LOGIN  on '/dev/pts/0'", Success, known("root"), Some("pts/0"), None),
            (
                "ROOT LOGIN  on '/dev/pts/0' from '203.0.113.5'",
                Success,
                known("root"),
                Some("pts/0"),
                Some("203.0.113.5"),
            ),
            (
                "FAILED LOGIN 1 FROM pts/0 FOR tester, Authentication failure",
                Fail,
                typed("tester"),
                Some("pts/0"),
                None,
            ),
            (
                "FAILED LOGIN 1 FROM 203.0.113.5 FOR a, b, Authentication failure",
                Fail,
                typed("a, b"),
                None,
                Some("203.0.113.5"),
            ),
            (
                "FAILED LOGIN SESSION FROM tty1 FOR (unknown), Authentication failure",
                Fail,
                nobody.clone(),
                Some("tty1"),
                None,
            ),
            (
                "TOO MANY LOGIN TRIES (3) FROM ttyS0 FOR root, Have exhausted maximum number of retries",
                Fail,
                typed("root"),
                Some("ttyS0"),
                None,
            ),
            (
                "FAILED LOGIN 1 FROM (null) FOR hunter2, User not known to the underlying authentication module",
                Fail,
                nobody.clone(),
                None,
                None,
            ),
            ("FAILED LOGIN SESSION FROM (null) FOR (null), Error in service module", Fail, nobody.clone(), None, None),
            ("'tester' logged in  on '/dev/tty1'", Success, known("tester"), Some("tty1"), None),
            ("LOGIN ON tty1 BY tester", Success, known("tester"), Some("tty1"), None),
            ("LOGIN ON pts/1 BY tester FROM 203.0.113.5", Success, known("tester"), Some("pts/1"), Some("203.0.113.5")),
            ("ROOT LOGIN ON tty1", Success, known("root"), Some("tty1"), None),
            ("ROOT LOGIN ON tty1 FROM 203.0.113.5", Success, known("root"), Some("tty1"), Some("203.0.113.5")),
            ("invalid password for 'tester' on 'pts/0'", Fail, typed("tester"), Some("pts/0"), None),
            (
                "invalid password for 'UNKNOWN' on 'pts/0' from '203.0.113.6'",
                Fail,
                nobody,
                Some("pts/0"),
                Some("203.0.113.6"),
            ),
            ("root login on 'pts/0'", Success, known("root"), Some("pts/0"), None),
        ];
        for (message, result, account, terminal, address) in cases {
            let Remark::Verdict(verdict) = read(message) else { panic!("{message}") };
            assert_eq!((verdict.result, &verdict.account), (result, &account), "{message}");
            assert_eq!(verdict.terminal.as_deref(), terminal, "{message}");
            assert_eq!(verdict.peer.address, address.map(|address| address.parse().unwrap()), "{message}");
        }
    }

    #[test]
    fn a_host_name_is_no_address_and_no_terminal() {
        let Remark::Verdict(verdict) = read("FAILED LOGIN 1 FROM evil.example FOR bob, Authentication failure") else {
            panic!()
        };
        assert_eq!(verdict.peer, Peer { address: None, port: None, name: Some("evil.example".to_owned()) });
        assert_eq!(verdict.terminal, None);
    }

    #[test]
    fn other_lines_are_nothing() {
        for message in [
            "pam_unix(login:session): session opened for user tester(uid=1000) by tester(uid=0)",
            "pam_unix(login:auth): authentication failure; logname= uid=0 euid=0 tty=/dev/pts/0 ruser= rhost=  user=tester",
            "DIALUP AT ttyS0 BY tester",
            "FAILED LOGIN x FROM tty1 FOR bob, Authentication failure",
            "FAILED LOGIN (1) on '/dev/tty1'",
            "",
        ] {
            assert_eq!(read(message), Remark::Nothing, "{message}");
        }
    }
}
