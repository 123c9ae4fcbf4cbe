//! An agent that is killed again and again while many try to get in.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::attempts::QUIET_OPENSSH;
use super::collecting;
use crate::hub::{Hub, details};
use crate::hub_guide::hub;
use crate::login_lab::{Lab, Log};
use crate::wait;

/// Wrong passwords in one connection.
const PASSWORDS: usize = 8;

/// How many connections there are of each kind, and so how many attempts.
#[derive(Clone, Copy)]
struct Flood {
    /// With `PASSWORDS` wrong ones, every second for a name that is no account.
    passwords: usize,
    /// With a key that sshd refuses, which is told only when the connection closes.
    keys: usize,
    /// The same at dropbear.
    dropbear_keys: usize,
}

impl Flood {
    fn attempts(self) -> usize {
        self.passwords * PASSWORDS + self.keys + self.dropbear_keys
    }

    fn connections(self) -> usize {
        self.passwords + self.keys + self.dropbear_keys
    }

    /// Opens the connection of this number and waits until it is over.
    fn connect(self, device: &Lab, number: usize) {
        let client = u8::try_from(1 + number % 3).unwrap();
        let address = if number.is_multiple_of(2) { format!("2001:db8:{client}::1") } else { of_client(client, 1) };
        let mut ssh = device.run(client, "ssh");
        ssh.args(QUIET_OPENSSH);
        // The kinds come mixed: 61 has no divisor in common with any number of connections used here.
        let kind = number * 61 % self.connections();
        let (port, user) = if kind < self.passwords {
            let answers = device.path(&format!("answers.{number}"));
            std::fs::write(&answers, "wrong\n".repeat(PASSWORDS)).unwrap();
            ssh.env("ANSWERS", answers).args(["-o", "PreferredAuthentications=password"]);
            ssh.args(["-o", &format!("NumberOfPasswordPrompts={PASSWORDS}")]);
            ("25", if kind.is_multiple_of(2) { format!("nobody{kind}") } else { "bob".to_owned() })
        } else {
            ssh.args(["-o", "PreferredAuthentications=publickey", "-i"]).arg(device.path("foreign"));
            (if kind < self.passwords + self.keys { "25" } else { "30" }, "alice".to_owned())
        };
        ssh.args(["-p", port, "-l", &user, &address, "true"]);
        let mut child = ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert!(!wait::end("a client", &mut child).success(), "{user} came in");
    }

    /// How many rows there must be of each connection, and how many connections of that kind.
    fn expected(self) -> BTreeMap<(String, String, usize), usize> {
        let (sshd, dropbear) = ("/usr/sbin/sshd".to_owned(), "/usr/sbin/dropbear".to_owned());
        let invalid = self.passwords.div_ceil(2);
        BTreeMap::from([
            (("(invalid user)".to_owned(), sshd.clone(), PASSWORDS), invalid),
            (("bob".to_owned(), sshd.clone(), PASSWORDS), self.passwords - invalid),
            (("alice".to_owned(), sshd, 1), self.keys),
            (("alice".to_owned(), dropbear, 1), self.dropbear_keys),
        ])
    }
}

fn of_client(client: u8, host: u8) -> String {
    let network = ["192.0.2", "198.51.100", "203.0.113"][usize::from(client) - 1];
    format!("{network}.{host}")
}

fn logins(hub: &Hub) -> Vec<Value> {
    hub.rows().iter().filter(|row| row["RawEventName"] == "Login").map(details).collect()
}

fn wait_rows(hub: &Hub, count: usize) {
    wait::until("every attempt", || {
        let rows = logins(hub).len();
        if rows >= count { Ok(()) } else { Err(format!("{rows} of {count} rows")) }
    });
}

/// The rows, counted by connection and then by kind of connection.
fn counted(rows: &[Value]) -> BTreeMap<(String, String, usize), usize> {
    let mut connections: BTreeMap<[String; 5], usize> = BTreeMap::new();
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(row["Result"], "Fail", "{row}");
        let typed = row["ExtraDetails"]["AttemptedUserName"].as_str().unwrap_or_default().to_owned();
        let connection = [text("UserName"), text("Executable"), text("RemoteAddress"), text("RemotePort"), typed];
        *connections.entry(connection).or_default() += 1;
    }
    let mut kinds = BTreeMap::new();
    for ([user, handler, ..], rows) in connections {
        *kinds.entry((user, handler, rows)).or_default() += 1;
    }
    kinds
}

fn tell_each_once_although_killed(log: Log, flood: Flood) {
    let Some(device) = Lab::start(log) else { return };
    let hub = hub();
    let mut agent = collecting(&device, log, &hub);
    // From its first row on the agent's place in the log is on disk; before, a start begins at the end.
    let one = Flood { passwords: 0, keys: 1, dropbear_keys: 0 };
    one.connect(&device, 0);
    wait_rows(&hub, 1);
    let next = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let mut kills = 0;
    std::thread::scope(|scope| {
        let attack = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= flood.connections() {
                    return;
                }
                flood.connect(&device, number);
            }
        };
        let attackers: Vec<_> = (0..4).map(|_| scope.spawn(attack)).collect();
        scope.spawn(|| {
            attackers.into_iter().for_each(|attacker| attacker.join().unwrap());
            is_over.store(true, Ordering::Release);
        });
        // At times that fall differently each round: during start, between two lines of a connection, while it sends.
        while !is_over.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(100 + 370 * (kills % 7)));
            agent.kill_9();
            kills += 1;
            agent.start();
        }
    });
    wait_rows(&hub, 1 + flood.attempts());
    // What comes behind everything else: a row too many would have been sent before it.
    one.connect(&device, 0);
    wait_rows(&hub, 2 + flood.attempts());
    let all = Flood { keys: flood.keys + 2, ..flood };
    assert_eq!(counted(&logins(&hub)), all.expected(), "after {kills} kills");
    assert!(kills > 2, "{kills} kills");
}

#[test]
fn a_thousand_attempts_are_told_once_from_a_log_file_although_the_agent_is_killed() {
    tell_each_once_although_killed(Log::File, Flood { passwords: 100, keys: 100, dropbear_keys: 100 });
}

#[test]
fn attempts_are_told_once_from_the_journal_although_the_agent_is_killed() {
    tell_each_once_although_killed(Log::Journal, Flood { passwords: 20, keys: 20, dropbear_keys: 20 });
}
