//! From remarks to attempts: each attempt once, whether it has a verdict line or is seen only when its connection closes.
//!
//! The memory is one small record per process that serves a connection. Process ids come back, so a record is of a
//! process and a peer: a line about another peer begins a new one. The number of records is bounded; the oldest goes
//! first, and then a closing line may count an attempt that was told before.

use std::collections::BTreeMap;

use super::{Account, Handler, Peer, Remark, Verdict};
use crate::event::payload::LoginResult;

/// The most connections remembered: beyond what `MaxStartups` lets one daemon have, at some 100 bytes each.
const MAX_CONNECTIONS: usize = 1024;

/// The connections that have not ended yet.
#[derive(Debug, Default)]
pub struct Attempts {
    connections: BTreeMap<(Handler, u32), Connection>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Connection {
    touched: u64,
    peer: Peer,
    /// Seen from its beginning.
    opened: bool,
    named: Option<Account>,
    /// An attempt of this connection was told.
    told: bool,
}

impl Attempts {
    /// Takes in a remark of process `pid` (0 when the source does not name it). Gives the attempt that ended with it, if
    /// any, and the process that served it.
    pub fn judge(&mut self, handler: Handler, pid: u32, remark: Remark) -> Option<(u32, Verdict)> {
        match remark {
            // Nobody's connection stands behind a console login.
            Remark::Verdict(verdict) if handler.is_console() => Some((pid, verdict)),
            Remark::Verdict(mut verdict) => {
                let connection = self.connection(handler, pid, &verdict.peer);
                verdict.peer.complete_from(&connection.peer);
                connection.told = true;
                Some((pid, verdict))
            }
            Remark::Opened(peer) => {
                self.connections.remove(&(handler, pid));
                self.connection(handler, pid, &peer).opened = true;
                None
            }
            Remark::Named { account, peer } => {
                self.connection(handler, pid, &peer).named = Some(account);
                None
            }
            Remark::Closed { account, peer, pid: served_by, certain } => {
                let pid = served_by.unwrap_or(pid);
                if !certain && !self.connections.get(&(handler, pid)).is_some_and(|connection| connection.opened) {
                    return None;
                }
                let connection = self.connection(handler, pid, &peer);
                if std::mem::replace(&mut connection.told, true) {
                    return None;
                }
                let account = match (account, connection.named.take()) {
                    (Account::Unknown, Some(named)) => named,
                    (account, _) => account,
                };
                Some((pid, Verdict::new(LoginResult::Fail, account, connection.peer.clone())))
            }
            Remark::Hidden | Remark::Nothing => None,
        }
    }

    /// The record of this process and peer, a new one if the process served another peer before.
    fn connection(&mut self, handler: Handler, pid: u32, peer: &Peer) -> &mut Connection {
        let key = (handler, pid);
        self.clock += 1;
        if !self.connections.contains_key(&key) && self.connections.len() >= MAX_CONNECTIONS {
            let oldest = self.connections.iter().min_by_key(|(_, connection)| connection.touched).map(|(key, _)| *key);
            oldest.and_then(|key| self.connections.remove(&key));
        }
        let connection = self.connections.entry(key).or_default();
        if !connection.peer.agrees_with(peer) {
            *connection = Connection::default();
        }
        connection.touched = self.clock;
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
            .filter_map(|(pid, line)| attempts.judge(handler, *pid, handler.read(line)))
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
    fn dropbear_lines_without_a_peer_are_joined_by_process() {
        let mut attempts = Attempts::default();
        let open = Handler::Dropbear.read("Child connection from 192.0.2.7:5");
        assert_eq!(attempts.judge(Handler::Dropbear, 7, open), None);
        let nobody = Handler::Dropbear.read("Login attempt for nonexistent user");
        let (_, verdict) = attempts.judge(Handler::Dropbear, 7, nobody).unwrap();
        assert_eq!(verdict.peer, Peer::new("192.0.2.7", Some(5)));
        let exit = Handler::Dropbear.read("Exit before auth from <192.0.2.7:5>: Exited normally");
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
            attempts.judge(Handler::OpenSsh, pid, Handler::OpenSsh.read(line));
        }
        assert_eq!(attempts.connections.len(), MAX_CONNECTIONS);
    }
}
