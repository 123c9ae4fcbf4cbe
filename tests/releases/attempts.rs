//! The attempts that are made, and the rows each must become.

use std::net::SocketAddr;
use std::sync::Mutex;

use crate::client::Deed;
use crate::machine::Machine;

/// What a row says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub result: String,
    pub user: String,
    pub uid: Option<String>,
    pub address: Option<String>,
    pub port: Option<String>,
    pub handler: String,
    pub method: Option<String>,
    pub key: Option<String>,
}

/// One attempt, of the client with this number, for a user; and the rows it is.
type Attempt = (usize, &'static str, Deed, &'static [Told]);

/// What a row says of an attempt: result, user and method.
type Told = (&'static str, &'static str, Option<&'static str>);

/// The beginning of a checksum that is not looked at further.
pub const SHA1: &str = "sha1!!";

const IN_BY_PASSWORD: Told = ("Success", "tester", Some("password"));
const IN_BY_KEY: Told = ("Success", "tester", Some("publickey"));
const NO: Told = ("Fail", "tester", Some("password"));

/// What OpenSSH is asked. A wrong key for an account leaves no line but the one of the closed connection.
const OPENSSH: &[Attempt] = &[
    (0, "tester", Deed::Password("right", 1), &[IN_BY_PASSWORD]),
    (3, "tester", Deed::Password("right", 1), &[IN_BY_PASSWORD]),
    (1, "tester", Deed::Password("wrong", 1), &[NO]),
    (4, "tester", Deed::Password("wrong", 2), &[NO, NO]),
    (2, "tester", Deed::Key("right"), &[IN_BY_KEY]),
    (5, "tester", Deed::Key("right"), &[IN_BY_KEY]),
    (0, "tester", Deed::Key("wrong"), &[("Fail", "tester", None)]),
    (3, "nosuch", Deed::Key("wrong"), &[("Fail", "(invalid user)", None)]),
    (1, "nosuch", Deed::Password("right", 1), &[("Fail", "(invalid user)", Some("password"))]),
    (4, "root from 8.8.8.8 port 22 ssh2", Deed::Password("x", 1), &[("Fail", "(invalid user)", Some("password"))]),
    (2, "denied", Deed::Password("right", 1), &[("Fail", "(invalid user)", Some("password"))]),
    (5, "root", Deed::Password("right", 1), &[("Fail", "root", Some("password"))]),
    (0, "tester", Deed::Password("wrong", 5), &[NO, NO, NO]),
    (3, "tester", Deed::Copy("right"), &[IN_BY_KEY]),
];

/// Asked of an OpenSSH that waits three seconds for a login. Before 9.8 it leaves no line when they are over.
const HASTY: &[Attempt] = &[(1, "", Deed::Silence, &[("Fail", "(unknown user)", None)])];

/// What Dropbear is asked. It has no time limit worth waiting for.
const DROPBEAR: &[Attempt] = &[
    (0, "tester", Deed::Password("right", 1), &[IN_BY_PASSWORD]),
    (3, "tester", Deed::Password("right", 1), &[IN_BY_PASSWORD]),
    (1, "tester", Deed::Password("wrong", 1), &[NO]),
    (4, "tester", Deed::Password("wrong", 2), &[NO, NO]),
    (2, "tester", Deed::Key("right"), &[IN_BY_KEY]),
    (5, "tester", Deed::Key("right"), &[IN_BY_KEY]),
    (0, "tester", Deed::Key("wrong"), &[("Fail", "tester", None)]),
    (1, "nosuch", Deed::Password("right", 1), &[("Fail", "(invalid user)", None)]),
    (2, "shellless", Deed::Password("right", 1), &[("Fail", "shellless", None)]),
    (5, "root", Deed::Password("right", 1), &[("Fail", "root", None)]),
    (0, "tester", Deed::Password("wrong", 5), &[NO, NO, NO]),
    (3, "tester", Deed::Copy("right"), &[IN_BY_KEY]),
];

/// Makes all attempts, many at a time, and gives the rows they must become.
pub fn make(machine: &Machine) -> Vec<Row> {
    let rows = Mutex::new(Vec::new());
    let hasty = if machine.release == "trixie" { HASTY } else { &[] };
    let servers: [(_, _, &[Attempt]); 3] =
        [("/usr/sbin/sshd", 22, OPENSSH), ("/usr/sbin/sshd", 2022, hasty), ("/usr/sbin/dropbear", 2222, DROPBEAR)];
    std::thread::scope(|scope| {
        for (handler, port, attempts) in servers {
            for attempt in attempts {
                let rows = &rows;
                scope.spawn(move || {
                    let made = make_one(machine, handler, port, attempt);
                    rows.lock().unwrap().extend(made);
                });
            }
        }
    });
    // Last, so that nothing can be told a second time after it.
    let mut rows = rows.into_inner().unwrap();
    rows.extend(from_itself(machine));
    rows
}

fn make_one(machine: &Machine, handler: &str, port: u16, attempt: &Attempt) -> Vec<Row> {
    let (client, user, deed, told) = *attempt;
    let from = machine.clients[client];
    let to = machine.device.addresses.iter().find(|address| address.is_ipv4() == from.is_ipv4()).expect("one of each");
    let came_from = machine.desk.visit(from, SocketAddr::new(*to, port), user, deed);
    told.iter().map(|told| row(machine, handler, told, user, from.to_string(), came_from, deed)).collect()
}

/// The machine's own user comes from the machine itself, by both versions of the protocol: one address stands for both.
fn from_itself(machine: &Machine) -> Vec<Row> {
    let come = "install -m 600 /mnt/share/right /root/key; for host in 127.0.0.1 ::1; do \
        ssh -i /root/key -o StrictHostKeyChecking=no -o LogLevel=ERROR -l tester $host 'echo $SSH_CLIENT'; done";
    let ports = machine.device.shell(come);
    let ports = ports.lines().map(|client| client.split(' ').nth(1).expect("address, port, port").parse().unwrap());
    ports
        .map(|port| {
            let address = "127.0.0.1".to_owned();
            row(machine, "/usr/sbin/sshd", &IN_BY_KEY, "tester", address, port, Deed::Key("right"))
        })
        .collect()
}

fn row(machine: &Machine, handler: &str, told: &Told, typed: &str, address: String, port: u16, deed: Deed) -> Row {
    let (result, user, method) = *told;
    // The account of a name that was typed, also where the rules keep it out.
    let uid = machine.uids.get(typed).filter(|_| user != "(unknown user)").cloned();
    let key = match deed {
        // The Dropbear of Debian 11 shows another checksum, which no tool of today computes.
        Deed::Key(_) | Deed::Copy(_) if handler.ends_with("dropbear") && machine.release == "bullseye" => SHA1,
        Deed::Key(key) | Deed::Copy(key) => &machine.desk.fingerprint(key),
        _ => "",
    };
    let key = (result == "Success" && !key.is_empty()).then(|| key.to_owned());
    // Since OpenSSH 9.8 the line that says that a connection took too long has no port.
    let port = (user != "(unknown user)").then(|| port.to_string());
    Row {
        result: result.to_owned(),
        user: user.to_owned(),
        uid,
        address: Some(address),
        port,
        handler: handler.to_owned(),
        method: method.map(str::to_owned),
        key,
    }
}
