//! From remarks to attempts: each attempt once, whether it has a verdict line or is seen only when its connection closes.
//!
//! The memory is one small record per process that serves a connection. Process ids come back, so a record is of a
//! process and a peer: a line about another peer begins a new one. The number of records is bounded; those of connections
//! that ended go first, then the oldest, and then a closing line may count an attempt that was told before.

use std::collections::{BTreeMap, VecDeque};

use super::openssh::KEYBOARD_INTERACTIVE_PAM;
use super::{Account, Handler, Peer, Remark, Verdict};
use crate::event::payload::LoginResult;

/// The most connections remembered: beyond what `MaxStartups` lets one daemon have open, at some 100 bytes each.
const MAX_CONNECTIONS: usize = 1024;

/// The connections that have not ended yet, and the last of those that have.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Where PAM's lines are attempts.
    pub by_pam: ByPam,
    connections: BTreeMap<(Handler, u32), Connection>,
    /// The process that refused somebody last at a console, and where from: PAM's word that he came in names no peer.
    console: Option<(u32, Peer)>,
    /// Who came in at a console last, if PAM told it.
    let_in: Option<String>,
    /// The keys of `connections`, the oldest first.
    order: VecDeque<(Handler, u32)>,
}

/// What only PAM tells in a log. A log that is looked through first can be found to be such a one; in a live one the
/// handler's own lines count, and PAM's accompany them, but for a console: there PAM counts until the first line shows
/// that this `login` does speak for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByPam {
    /// What became of attempts over ssh: `sshd` writes to another log, or is too old to write at all.
    pub ssh: bool,
    /// That an ordinary user came in at a console: `login` of shadow and of busybox do not say so.
    pub console: bool,
    /// The same of root.
    pub console_root: bool,
    /// The same of who comes from afar: only `login` of util-linux has a service for that, and it says where from in a
    /// line of its own.
    pub remote: bool,
}

#[derive(Debug, Default)]
struct Connection {
    peer: Peer,
    /// Seen from its beginning.
    opened: bool,
    named: Option<Account>,
    /// The last attempt was told from PAM's refusal, which the handler may tell once more.
    may_come_twice: bool,
    /// An attempt of this connection was told.
    told: bool,
    /// It was let in or closed, so there is nothing more to wait for.
    ended: bool,
}

impl Attempts {
    /// Takes in a remark of process `pid` (0 when the source does not name it). Gives the attempt that ended with it, if
    /// any, and the process that served it.
    pub fn judge(&mut self, handler: Handler, pid: u32, remark: Remark) -> Option<(u32, Verdict)> {
        match remark {
            // Nobody's connection stands behind a console login; but PAM has just said whether the name is an account.
            Remark::Verdict(mut verdict) if handler == Handler::Console => {
                self.console = Some((pid, verdict.peer.clone()));
                let let_in = self.let_in.take();
                if let (LoginResult::Success, Account::Known(name)) = (verdict.result, &verdict.account)
                    && name != "root"
                    && std::mem::take(&mut self.by_pam.console)
                    && let_in.as_ref() == Some(name)
                {
                    return None;
                }
                let named = self.connections.get_mut(&(handler, pid)).and_then(|connection| connection.named.take());
                if let (Account::Typed(typed), Some(named)) = (&verdict.account, named)
                    && !matches!(&named, Account::Known(name) if name != typed)
                {
                    verdict.account = named;
                }
                Some((pid, verdict))
            }
            Remark::Verdict(verdict) => self.told(handler, pid, verdict),
            Remark::Refused(verdict) if self.is_told_by_pam(handler, None) => self.told(handler, pid, verdict),
            Remark::LetIn { mut verdict, is_remote }
                if self.is_told_by_pam(handler, Some(&verdict.account)) && (!is_remote || self.by_pam.remote) =>
            {
                let before = self.console.take().filter(|(before, _)| *before == pid && pid != 0);
                match before {
                    Some((_, peer)) if handler == Handler::Console => verdict.peer = peer,
                    _ => {}
                }
                if handler != Handler::Console {
                    return self.told(handler, pid, verdict);
                }
                if let Account::Known(name) = &verdict.account {
                    self.let_in = Some(name.clone());
                }
                Some((pid, verdict))
            }
            Remark::Refused(Verdict { account, .. }) if handler == Handler::Console => {
                self.connection(handler, pid, &Peer::default()).named = Some(account);
                None
            }
            Remark::Opened(peer) => {
                let connection = self.connection(handler, pid, &peer);
                *connection = Connection { peer, opened: true, ..Connection::default() };
                None
            }
            Remark::Named { account, peer } => {
                let named = &mut self.connection(handler, pid, &peer).named;
                // PAM knows less of a name that is no account than the handler that said it before.
                let is_less = account == Account::Invalid { typed: None } && handler != Handler::Console;
                if !is_less || named.is_none() {
                    *named = Some(account);
                }
                None
            }
            Remark::Closed { account, peer, pid: served_by, certain } => {
                let pid = served_by.unwrap_or(pid);
                let is_known = |connection: &Connection| connection.opened || connection.named.is_some();
                if !certain && !self.connections.get(&(handler, pid)).is_some_and(is_known) {
                    return None;
                }
                let connection = self.connection(handler, pid, &peer);
                connection.ended = true;
                if std::mem::replace(&mut connection.told, true) {
                    return None;
                }
                let account = match (account, connection.named.take()) {
                    (Account::Unknown, Some(named)) => named,
                    (account, _) => account,
                };
                Some((pid, Verdict::new(LoginResult::Fail, account, connection.peer.clone())))
            }
            Remark::Refused(_)
            | Remark::LetIn { .. }
            | Remark::RefusedMore(_)
            | Remark::Hidden(_)
            | Remark::Nothing => None,
        }
    }

    /// What the connection of this process was for is told. The line that ends it after all is no second attempt.
    pub fn tell_nothing_more(&mut self, handler: Handler, pid: u32) {
        if let Some(connection) = self.connections.get_mut(&(handler, pid)) {
            connection.told = true;
        }
    }

    /// Whether PAM's word on an attempt counts; `let_in` is the account it opened a session for.
    pub fn is_told_by_pam(&self, handler: Handler, let_in: Option<&Account>) -> bool {
        match handler {
            Handler::OpenSsh => self.by_pam.ssh,
            Handler::Console => let_in.is_some_and(|account| match account {
                Account::Known(name) if name == "root" => self.by_pam.console_root,
                _ => self.by_pam.console,
            }),
            _ => handler.speaks_through_pam(),
        }
    }

    fn told(&mut self, handler: Handler, pid: u32, mut verdict: Verdict) -> Option<(u32, Verdict)> {
        let connection = self.connection(handler, pid, &verdict.peer);
        let is_pam = verdict.method.as_deref() == Some(KEYBOARD_INTERACTIVE_PAM) && verdict.result == LoginResult::Fail;
        // Of the two lines only the second has a port.
        let is_first = is_pam && verdict.peer.port.is_none();
        let came_before = std::mem::replace(&mut connection.may_come_twice, is_first);
        connection.told = true;
        connection.ended = verdict.result == LoginResult::Success;
        if is_pam && !is_first && came_before {
            return None;
        }
        verdict.peer.complete_from(&connection.peer);
        Some((pid, verdict))
    }

    /// The record of this process and peer, a new one if the process served another peer before.
    fn connection(&mut self, handler: Handler, pid: u32, peer: &Peer) -> &mut Connection {
        let key = (handler, pid);
        if !self.connections.contains_key(&key) {
            if self.order.len() >= MAX_CONNECTIONS {
                let has_ended = |key| self.connections.get(key).is_none_or(|connection| connection.ended);
                let first = self.order.iter().position(has_ended).unwrap_or(0);
                self.order.remove(first).and_then(|first| self.connections.remove(&first));
            }
            self.order.push_back(key);
        }
        let connection = self.connections.entry(key).or_default();
        if !connection.peer.agrees_with(peer) {
            *connection = Connection::default();
        }
        connection.peer.complete_from(peer);
        connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(attempts: &mut Attempts, handler: Handler, lines: &[(u32, &str)]) -> Vec<(u32, Account)> {
        lines
            .iter()
            .filter_map(|(pid, line)| attempts.judge(handler, *pid, handler.read("", line)))
            .map(|(pid, verdict)| (pid, verdict.account))
            .collect()
    }

    fn known(user: &str) -> Account {
        Account::Known(user.to_owned())
    }

    #[test]
    fn an_attempt_is_told_once_however_many_lines_speak_of_it() {
        let invalid = Account::Invalid { typed: Some("bob".to_owned()) };
        type Lines = &'static [(u32, &'static str)];
        let cases: [(Lines, Vec<(u32, Account)>); 8] = [
            (
                &[
                    (7, "Failed password for root from 192.0.2.7 port 9 ssh2"),
                    (7, "Failed password for root from 192.0.2.7 port 9 ssh2"),
                    (7, "Connection closed by authenticating user root 192.0.2.7 port 9 [preauth]"),
                ],
                vec![(7, known("root")), (7, known("root"))],
            ),
            (
                &[
                    (7, "Invalid user bob from 192.0.2.7 port 9"),
                    (7, "Failed password for invalid user bob from 192.0.2.7 port 9 ssh2"),
                    (7, "Connection closed by invalid user bob 192.0.2.7 port 9 [preauth]"),
                ],
                vec![(7, invalid.clone())],
            ),
            (
                &[
                    (7, "Invalid user bob from 192.0.2.7 port 9"),
                    (7, "Connection closed by invalid user bob 192.0.2.7 port 9 [preauth]"),
                ],
                vec![(7, invalid.clone())],
            ),
            (
                &[
                    (7, "Invalid user bob from 192.0.2.7 port 9"),
                    (2, "Timeout before authentication for connection from 192.0.2.7 to 192.0.2.8, pid = 7"),
                ],
                vec![(7, invalid)],
            ),
            (
                &[
                    (
                        7,
                        "Disconnecting authenticating user u 192.0.2.7 port 9: Too many authentication failures [preauth]",
                    ),
                    (7, "Connection closed by authenticating user u 192.0.2.7 port 9 [preauth]"),
                    (7, "Connection closed by authenticating user u 192.0.2.7 port 10 [preauth]"),
                ],
                vec![(7, known("u")), (7, known("u"))],
            ),
            (
                &[
                    (7, "Accepted password for u from 192.0.2.7 port 9 ssh2"),
                    (8, "Connection closed by 192.0.2.7 port 9"),
                    (7, "Connection closed by 192.0.2.7 port 9"),
                ],
                vec![(7, known("u"))],
            ),
            (
                &[
                    (7, "error: kex_exchange_identification: read: Connection reset by peer"),
                    (7, "Connection reset by 192.0.2.7 port 9"),
                ],
                vec![(7, Account::Unknown)],
            ),
            (
                &[
                    (7, "error: kex_exchange_identification: client sent invalid protocol identifier \"x\""),
                    (7, "banner exchange: Connection from 192.0.2.7 port 9: invalid format"),
                ],
                vec![(7, Account::Unknown)],
            ),
        ];
        for (lines, expected) in cases {
            assert_eq!(told(&mut Attempts::default(), Handler::OpenSsh, lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_pam_alone_tells_is_an_attempt_and_what_it_accompanies_is_none() {
        let failure = "authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost=192.0.2.7  user=root";
        let opened = "session opened for user bob by (uid=0)";
        let judged = |by_pam, handler: Handler, ident: &str| -> Vec<Account> {
            let mut attempts = Attempts { by_pam, ..Attempts::default() };
            let lines = [failure, "1 more authentication failure; logname=", opened];
            lines
                .iter()
                .filter_map(|line| attempts.judge(handler, 7, handler.read(ident, line)))
                .map(|(_, verdict)| verdict.account)
                .collect()
        };
        let both = [known("root"), known("bob")];
        let none = ByPam::default();
        assert_eq!(judged(none, Handler::OpenSsh, "sshd(pam_unix)"), []);
        assert_eq!(judged(ByPam { ssh: true, ..none }, Handler::OpenSsh, "sshd(pam_unix)"), both);
        assert_eq!(judged(none, Handler::Gdm, "gdm(pam_unix)"), both);
        assert_eq!(judged(none, Handler::Console, "login(pam_unix)"), []);
        assert_eq!(judged(ByPam { console: true, ..none }, Handler::Console, "login(pam_unix)"), [known("bob")]);
    }

    #[test]
    fn pam_says_whether_a_name_typed_at_a_console_is_an_account() {
        let lines = [
            (
                0,
                "pam_unix(login:auth): authentication failure; logname= uid=0 euid=0 tty=/dev/tty1 ruser= rhost=  user=bob",
            ),
            (0, "FAILED LOGIN 1 FROM tty1 FOR bob, Authentication failure"),
            (0, "pam_unix(login:auth): check pass; user unknown"),
            (0, "FAILED LOGIN 2 FROM tty1 FOR hunter2, Authentication failure"),
            (0, "FAILED LOGIN 3 FROM tty1 FOR bob, Authentication failure"),
        ];
        let typed = Account::Typed("bob".to_owned());
        let expected = [(0, known("bob")), (0, Account::Invalid { typed: None }), (0, typed)];
        assert_eq!(told(&mut Attempts::default(), Handler::Console, &lines), expected);
    }

    #[test]
    fn a_login_that_speaks_for_itself_is_believed_from_its_first_line_on() {
        let mut attempts = Attempts { by_pam: ByPam { console: true, ..ByPam::default() }, ..Attempts::default() };
        let opened = "pam_unix(login:session): session opened for user bob(uid=1000) by LOGIN(uid=0)";
        let root = "pam_unix(login:session): session opened for user root(uid=0) by LOGIN(uid=0)";
        let lines = [
            (1, root),
            (1, "ROOT LOGIN ON tty1"),
            (2, opened),
            (3, opened),
            (4, "LOGIN ON tty1 BY bob"),
            (5, opened),
            (6, "LOGIN ON tty2 BY bob FROM 192.0.2.7"),
        ];
        let expected = [(1, known("root")), (2, known("bob")), (3, known("bob")), (6, known("bob"))];
        assert_eq!(told(&mut attempts, Handler::Console, &lines), expected);
    }

    #[test]
    fn a_login_from_afar_by_util_linux_has_its_address() {
        // By telnetd of Debian 13.
        let lines = [
            "pam_unix(remote:session): session opened for user bob(uid=1000) by bob(uid=0)",
            "LOGIN ON pts/1 BY bob FROM 203.0.113.5",
        ];
        for (console, expected) in
            [(true, vec![Peer::new("203.0.113.5", None)]), (false, vec![Peer::new("203.0.113.5", None)])]
        {
            let mut attempts = Attempts { by_pam: ByPam { console, ..ByPam::default() }, ..Attempts::default() };
            let read = |line: &str| attempts.judge(Handler::Console, 7, Handler::Console.read("login", line));
            let peers: Vec<_> = lines.into_iter().filter_map(read).map(|(_, verdict)| verdict.peer).collect();
            assert_eq!(peers, expected);
        }
    }

    #[test]
    fn who_comes_in_at_last_comes_from_where_he_was_refused() {
        let mut attempts = Attempts { by_pam: ByPam { console: true, ..ByPam::default() }, ..Attempts::default() };
        let opened = "pam_unix(login:session): session opened for user bob(uid=1000) by LOGIN(uid=0)";
        let refused = "FAILED LOGIN (1) on '/dev/pts/0' from '192.0.2.7' FOR 'bob', Authentication failure";
        let mut peers = Vec::new();
        for (pid, line) in [(7, refused), (7, opened), (7, opened), (7, refused), (8, refused), (7, opened)] {
            let judged = attempts.judge(Handler::Console, pid, Handler::Console.read("login", line));
            peers.extend(
                judged.filter(|(_, verdict)| verdict.result == LoginResult::Success).map(|(_, verdict)| verdict.peer),
            );
        }
        assert_eq!(peers, [Peer::new("192.0.2.7", None), Peer::default(), Peer::default()]);
    }

    #[test]
    fn a_refusal_that_pam_and_sshd_both_tell_is_one() {
        let lines = [
            (7, "error: PAM: Authentication failure for root from 192.0.2.7"),
            (7, "error: PAM: Authentication failure for root from 192.0.2.7"),
            (7, "Failed keyboard-interactive/pam for root from 192.0.2.7 port 9 ssh2"),
            (7, "Failed keyboard-interactive/pam for root from 192.0.2.7 port 9 ssh2"),
            (7, "Connection closed by authenticating user root 192.0.2.7 port 9 [preauth]"),
        ];
        assert_eq!(told(&mut Attempts::default(), Handler::OpenSsh, &lines).len(), 3);
    }

    #[test]
    fn connections_of_old_versions_are_told_once() {
        let lines = [
            (7, "Invalid user bob from 192.0.2.7"),
            (7, "input_userauth_request: invalid user bob [preauth]"),
            (7, "Failed password for invalid user bob from 192.0.2.7 port 9 ssh2"),
            (7, "Received disconnect from 192.0.2.7: 11: Bye Bye [preauth]"),
            (8, "Invalid user bob from 192.0.2.8"),
            (8, "Connection closed by 192.0.2.8"),
            (9, "Accepted password for root from 192.0.2.9 port 9 ssh2"),
            (9, "Received disconnect from 192.0.2.9: 11: disconnected by user"),
            (10, "Connection closed by 192.0.2.9"),
            (11, "Connection closed by 192.0.2.9 [preauth]"),
        ];
        let bob = Account::Invalid { typed: Some("bob".to_owned()) };
        let expected = [(7, bob.clone()), (8, bob), (9, known("root")), (11, Account::Unknown)];
        assert_eq!(told(&mut Attempts::default(), Handler::OpenSsh, &lines), expected);
    }

    #[test]
    fn dropbear_lines_without_a_peer_are_joined_by_process() {
        let mut attempts = Attempts::default();
        let open = Handler::Dropbear.read("", "Child connection from 192.0.2.7:5");
        assert_eq!(attempts.judge(Handler::Dropbear, 7, open), None);
        let nobody = Handler::Dropbear.read("", "Login attempt for nonexistent user");
        let (_, verdict) = attempts.judge(Handler::Dropbear, 7, nobody).unwrap();
        assert_eq!(verdict.peer, Peer::new("192.0.2.7", Some(5)));
        let exit = Handler::Dropbear.read("", "Exit before auth from <192.0.2.7:5>: Exited normally");
        assert_eq!(attempts.judge(Handler::Dropbear, 7, exit), None);
        let lines = [
            (7, "Child connection from 192.0.2.7:6"),
            (7, "Exit before auth from <192.0.2.7:6>: (user 'u', 1 fails): Exited normally"),
            (8, "Child connection from 192.0.2.7:7"),
            (8, "Exit before auth from <192.0.2.7:7>: Exited normally"),
        ];
        assert_eq!(told(&mut attempts, Handler::Dropbear, &lines), [(7, known("u")), (8, Account::Unknown)]);
    }

    #[test]
    fn a_flood_of_processes_does_not_grow_the_memory() {
        let mut attempts = Attempts::default();
        for pid in 0..10 * MAX_CONNECTIONS as u32 {
            let line = "Invalid user bob from 192.0.2.7 port 9";
            attempts.judge(Handler::OpenSsh, pid, Handler::OpenSsh.read("", line));
        }
        assert_eq!((attempts.connections.len(), attempts.order.len()), (MAX_CONNECTIONS, MAX_CONNECTIONS));
    }

    #[test]
    fn a_connection_that_is_open_outlives_many_that_ended() {
        for (handler, before, closing) in [
            (
                Handler::OpenSsh,
                "Failed password for root from 192.0.2.7 port 9 ssh2",
                "Connection closed by authenticating user root 192.0.2.7 port 9 [preauth]",
            ),
            (Handler::Dropbear, "Child connection from 192.0.2.7:9", "Login attempt for nonexistent user"),
        ] {
            let mut attempts = Attempts::default();
            told(&mut attempts, handler, &[(7, before)]);
            for number in 0..3 * MAX_CONNECTIONS as u32 {
                // Process ids come back, and the port shows that it is another connection.
                let (pid, port) = (8 + number % 2000, 10 + number % 50_000);
                let lines = match (handler, number % 2) {
                    (Handler::Dropbear, _) => [
                        format!("Child connection from 192.0.2.8:{port}"),
                        format!("Exit before auth from <192.0.2.8:{port}>: x"),
                    ],
                    (_, 0) => [
                        format!("Failed password for root from 192.0.2.8 port {port} ssh2"),
                        format!("Connection closed by authenticating user root 192.0.2.8 port {port} [preauth]"),
                    ],
                    _ => [format!("Accepted password for root from 192.0.2.8 port {port} ssh2"), String::new()],
                };
                let lines: Vec<_> = lines.iter().map(|line| (pid, line.as_str())).collect();
                assert_eq!(told(&mut attempts, handler, &lines).len(), 1);
                assert!(attempts.connections.len() <= MAX_CONNECTIONS);
            }
            let judged = attempts.judge(handler, 7, handler.read("", closing));
            match handler {
                Handler::Dropbear => assert_eq!(judged.unwrap().1.peer, Peer::new("192.0.2.7", Some(9))),
                _ => assert_eq!(judged, None),
            }
        }
    }
}
