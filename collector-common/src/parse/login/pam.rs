//! What `pam_unix` writes in the name of a program that lets people in (Linux-PAM, `modules/pam_unix/support.c` and
//! `pam_unix_sess.c`; the third form is the one before 0.99, of 2005).
//!
//! ```text
//! sshd[7]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=HOST  user=NAME
//! sshd[7]: (pam_unix) authentication failure; logname= ...                         Debian's of 2005
//! sshd(pam_unix)[7]: authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost=HOST  user=NAME
//!                    check pass; user unknown                    then the failure names nobody
//!                    N more authentication failure[s]; logname=...
//!                    session opened for user NAME[(uid=N)] by [NAME](uid=N)
//! ```
//!
//! The first failure of a connection has the long line, the others are only counted when it ends. NAME is an account:
//! what is none may be a password somebody typed, and PAM leaves it away. HOST may be a name the attacker gave his
//! address, and for services other than ssh RUSER is his to choose.

use super::{Account, Handler, Peer, Remark, Verdict};
use crate::event::payload::LoginResult;

/// Services that are this handler's, and no session of the machine itself, such as a greeter's.
fn is_service_of(service: &str, handler: Handler) -> bool {
    match handler {
        Handler::OpenSsh => service == "sshd",
        Handler::Dropbear => matches!(service, "sshd" | "dropbear"),
        Handler::Console => matches!(service, "login" | "remote"),
        Handler::Gdm => {
            service == "gdm" || (service.starts_with("gdm-") && !matches!(service, "gdm-launch-environment"))
        }
        Handler::LightDm => matches!(service, "lightdm" | "lightdm-autologin"),
        Handler::Sddm => matches!(service, "sddm" | "sddm-autologin"),
        Handler::Cockpit => service == "cockpit",
    }
}

/// Reads a message that begins with `pam_unix(SERVICE:TYPE): ` or `(pam_unix) `; nothing when it is none.
pub fn read(handler: Handler, message: &str) -> Option<Remark> {
    if let Some(body) = message.strip_prefix("(pam_unix) ") {
        return Some(read_body("", body));
    }
    let (service, body) = message.strip_prefix("pam_unix(")?.split_once("): ")?;
    let (service, _) = service.split_once(':').unwrap_or((service, ""));
    Some(if is_service_of(service, handler) { read_body(service, body) } else { Remark::Nothing })
}

/// Reads what follows the name of the service.
pub fn read_body(service: &str, body: &str) -> Remark {
    if let Some(facts) = body.strip_prefix("authentication failure; ") {
        return refused(facts).map_or(Remark::Nothing, Remark::Refused);
    }
    if let Some(rest) = body.strip_prefix("session opened for user ") {
        let let_in = |verdict| Remark::LetIn { verdict, is_remote: service == "remote" };
        return opened(rest).map_or(Remark::Nothing, let_in);
    }
    if body == "check pass; user unknown" {
        return Remark::Named { account: Account::Invalid { typed: None }, peer: Peer::default() };
    }
    let more = body.split_once(' ').filter(|(_, rest)| rest.starts_with("more authentication failure"));
    more.and_then(|(count, _)| count.parse().ok()).map_or(Remark::Nothing, Remark::RefusedMore)
}

fn refused(facts: &str) -> Option<Verdict> {
    let (_, remote) = facts.split_once(" ruser=")?;
    // Two blanks stand before the user; the remote user, if there is one, may hold what looks like the rest.
    let (remote, user) = remote.split_once("  user=").map_or((remote, None), |(remote, user)| (remote, Some(user)));
    let host = match remote.strip_prefix(" rhost=") {
        Some(host) => host,
        None => remote.strip_prefix("rhost=").or_else(|| Some(remote.rsplit_once(" rhost=")?.1))?,
    };
    let (host, user) = match (host.split_once(" user="), user) {
        (Some((host, single)), None) => (host, Some(single)),
        _ => (host, user),
    };
    let account = match user.map(str::trim_end) {
        None | Some("") => Account::Invalid { typed: None },
        Some(user) => Account::Known(user.to_owned()),
    };
    let terminal = facts.split_once(" tty=").and_then(|(_, rest)| rest.split_once(" ruser=")).map(|(tty, _)| tty);
    let verdict = Verdict::new(LoginResult::Fail, account, Peer::new(host.trim(), None));
    Some(at(verdict.by("password"), terminal))
}

fn opened(rest: &str) -> Option<Verdict> {
    let (named, _) = rest.rsplit_once(" by ")?;
    let name = named.split_once("(uid=").map_or(named, |(name, _)| name);
    (!name.is_empty() && !name.contains(' '))
        .then(|| Verdict::new(LoginResult::Success, Account::Known(name.to_owned()), Peer::default()))
}

/// With its terminal, which for ssh is none.
fn at(verdict: Verdict, terminal: Option<&str>) -> Verdict {
    match terminal {
        Some(terminal) if !matches!(terminal, "" | "ssh" | "NODEVssh" | "sshd") => verdict.at(terminal),
        _ => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(user: &str) -> Account {
        Account::Known(user.to_owned())
    }

    #[test]
    fn a_failure_names_an_account_or_nobody_and_the_host_that_pam_was_given() {
        let nobody = Account::Invalid { typed: None };
        let cases = [
            ("tty=NODEVssh ruser= rhost=218.188.2.4", nobody.clone(), Some("218.188.2.4"), None),
            ("tty=NODEVssh ruser= rhost=218.188.2.4  user=root", known("root"), Some("218.188.2.4"), None),
            ("tty=ssh ruser= rhost=::ffff:192.0.2.7 ", nobody.clone(), Some("192.0.2.7"), None),
            ("tty=ssh ruser= rhost=host.example  user=root", known("root"), None, Some("host.example")),
            ("tty=tty1 ruser= rhost=  user=root", known("root"), None, None),
            ("tty=rsh ruser=a rhost=8.8.8.8 rhost=192.0.2.7  user=root", known("root"), Some("192.0.2.7"), None),
            ("tty=ssh ruser= rhost=192.0.2.7  user=a rhost=8.8.8.8", known("a rhost=8.8.8.8"), Some("192.0.2.7"), None),
            ("tty=ssh ruser= rhost=192.0.2.7 user=root", known("root"), Some("192.0.2.7"), None),
        ];
        for (facts, account, address, name) in cases {
            let body = format!("authentication failure; logname= uid=0 euid=0 {facts}");
            let Remark::Refused(verdict) = read_body("sshd", &body) else { panic!("{facts}") };
            assert_eq!(verdict.account, account, "{facts}");
            assert_eq!(verdict.peer.address, address.map(|address| address.parse().unwrap()), "{facts}");
            assert_eq!(verdict.peer.name.as_deref(), name, "{facts}");
        }
    }

    #[test]
    fn sessions_and_counts_are_read_and_the_machines_own_are_nothing() {
        for text in [
            "session opened for user bob by (uid=0)",
            "session opened for user bob(uid=1000) by LOGIN(uid=0)",
            "session opened for user bob by root(uid=0)",
        ] {
            let Remark::LetIn { verdict, is_remote: false } = read_body("login", text) else { panic!("{text}") };
            assert_eq!(verdict.account, known("bob"), "{text}");
        }
        assert_eq!(read_body("login", "2 more authentication failures; logname= uid=0"), Remark::RefusedMore(2));
        assert_eq!(read_body("login", "1 more authentication failure; logname= uid=0"), Remark::RefusedMore(1));
        let opened = "session opened for user gdm by (uid=0)";
        for (handler, service, counts) in [
            (Handler::Gdm, "gdm-launch-environment:session", false),
            (Handler::Gdm, "gdm-password:session", true),
            (Handler::LightDm, "lightdm-greeter:session", false),
            (Handler::LightDm, "lightdm:session", true),
            (Handler::Console, "login:session", true),
            (Handler::Console, "su:session", false),
            (Handler::OpenSsh, "sudo:session", false),
        ] {
            let read = read(handler, &format!("pam_unix({service}): {opened}"));
            assert_eq!(matches!(read, Some(Remark::LetIn { .. })), counts, "{service}");
        }
        let debian = "(pam_unix) session opened for user bob by (uid=0)";
        assert!(matches!(read(Handler::OpenSsh, debian), Some(Remark::LetIn { .. })));
        assert_eq!(read(Handler::OpenSsh, "Accepted password for root from 8.8.8.8 port 1 ssh2"), None);
        assert_eq!(read_body("login", "session closed for user bob"), Remark::Nothing);
    }
}
