//! The words of every state against files that were read by hand; `WRITE_GOLDEN=1` writes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::super::facts::{ClockFacts, EventCounts, LinkCounts, SpoolFacts, Trouble};
use super::*;

/// Compares with a file of `tests/fixtures/status`.
pub fn check_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/status").join(name);
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (line, expected) in text.lines().zip(golden.lines()) {
        assert_eq!(line, expected, "{name}");
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "{name}");
}

fn lanes(high: u64, low: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("High".to_owned(), high), ("Low".to_owned(), low)])
}

fn collector(state: &str, backend: Option<&str>, gap: Option<&str>, reason: Option<&str>) -> CollectorFacts {
    let [backend, gap, reason] = [backend, gap, reason].map(|text| text.map(str::to_owned));
    CollectorFacts { state: state.to_owned(), backend, gap, reason }
}

/// A board on which nothing is wrong.
pub fn well() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        device: Some("press-17".to_owned()),
        uptime_seconds: 11_520,
        run_before: Some("stopped".to_owned()),
        clock: ClockFacts { wall: "2026-11-24T08:00:00Z".to_owned(), is_wrong: false },
        privileges: PrivilegeFacts {
            user: "edgewarden".to_owned(),
            capabilities: vec!["CAP_DAC_READ_SEARCH".to_owned(), "CAP_BPF".to_owned()],
            troubles: Vec::new(),
        },
        connected: true,
        hub: Some("mqtts://hub.example:8883".to_owned()),
        trouble: None,
        waiting: None,
        expiring: Vec::new(),
        link: LinkCounts {
            connections: 1,
            acknowledged_messages: 40,
            sent_bytes: 300_000,
            sent_today_bytes: 300_000,
            next_day_seconds: 57_600,
            since_seconds: 11_518,
            last_acknowledged_seconds: Some(42),
            unsent: lanes(0, 0),
            next_send_seconds: lanes(378, 9000),
            ..LinkCounts::default()
        },
        spool: SpoolFacts {
            bytes: 412_000,
            disk_short: false,
            disk_lacks: None,
            quota_bytes: 64 << 20,
            full: false,
            room_bytes: 66_696_864,
            written_bytes: 980_000,
            next_to_go: Some(("Low".to_owned(), "ProcessCreate".to_owned())),
            troubles: Vec::new(),
            damage: Vec::new(),
            more_damage: 0,
            synced: lanes(120, 2400),
            oldest_age_seconds: None,
            recorded: lanes(120, 2400),
            acknowledged: lanes(120, 2400),
        },
        events: EventCounts {
            collected: 2520,
            acknowledged: 2520,
            lost: 0,
            by_kind: BTreeMap::from([("Login".to_owned(), 3)]),
            split: 0,
            cut: 0,
        },
        lost: BTreeMap::new(),
        excluded: BTreeMap::new(),
        flood: false,
        collectors: BTreeMap::from([("Login".to_owned(), collector("running", Some("the journal"), None, None))]),
    }
}

/// Events wait on the disk.
fn filling(status: &mut Status) {
    status.spool.recorded = lanes(140, 9000);
    status.spool.synced = lanes(140, 8990);
    status.spool.bytes = 11_744_051;
    status.spool.room_bytes = 55_364_813;
    status.spool.oldest_age_seconds = Some(190_000);
}

fn down(status: &mut Status, trouble: &str) {
    filling(status);
    status.connected = false;
    status.trouble = Some(trouble.to_owned());
    (status.link.since_seconds, status.link.failures) = (190, 6);
    (status.link.next_try_seconds, status.link.last_trouble_seconds) = (Some(12), Some(4));
    status.link.last_trouble = Some(trouble.to_owned());
    (status.link.unsent, status.link.next_send_seconds) = (BTreeMap::new(), BTreeMap::new());
}

fn lose(status: &mut Status, name: &str, events: u64) {
    status.lost.insert(name.to_owned(), events);
    status.events.lost += events;
}

type State = (&'static str, fn(&mut Status));

const STATES: &[State] = &[
    ("capabilities that could not be given back", |status| {
        status.privileges.troubles =
            vec!["giving back capabilities (capset) failed: Operation not permitted".to_owned()];
    }),
    ("no hub configured", |status| {
        (status.hub, status.device, status.connected) = (None, None, false);
        filling(status);
    }),
    ("just started, the first attempt is under way", |status| {
        filling(status);
        (status.connected, status.uptime_seconds, status.link.since_seconds) = (false, 3, 3);
        (status.run_before, status.link) = (Some("first".to_owned()), LinkCounts::default());
        status.collectors.insert("Login".to_owned(), collector("starting", None, None, None));
    }),
    ("refused", |status| {
        down(
            status,
            "nothing listens at the hub's address and port, or a firewall refuses (I/O: Connection refused (os error 111))",
        )
    }),
    ("credentials refused", |status| {
        down(
            status,
            "the hub refused the user name or password (CONNACK code 4); are the user name and password or the certificate right, and may this device connect?",
        )
    }),
    ("a secret that everybody can read", |status| {
        down(
            status,
            "the private key /etc/edgewarden/key.pem is open to everybody (mode 0644) and is not used: chmod o= /etc/edgewarden/key.pem",
        )
    }),
    ("a missing key", |status| {
        down(status, "cannot read the private key /etc/edgewarden/key.pem: No such file or directory (os error 2)")
    }),
    ("an attempt is under way after failures", |status| {
        down(status, "the hub does not answer (Network timeout)");
        status.link.next_try_seconds = None;
    }),
    ("a dead link was noticed, and a new one made", |status| {
        (status.link.since_seconds, status.link.last_trouble_seconds) = (70, Some(72));
        status.link.last_trouble = Some("the hub acknowledges nothing for 45 s; the link is taken for dead".to_owned());
    }),
    ("low events wait for their interval", |status| {
        status.spool.recorded = lanes(120, 2412);
        status.link.unsent = lanes(0, 12);
    }),
    ("an event is not synced yet", |status| {
        status.spool.recorded = lanes(121, 2400);
        (status.link.unsent, status.link.next_send_seconds) = (lanes(1, 0), lanes(0, 9000));
    }),
    ("under way", |status| {
        status.spool.recorded = lanes(123, 2400);
        status.spool.synced = lanes(123, 2400);
        (status.link.under_way_messages, status.link.oldest_under_way_seconds) = (1, Some(2));
    }),
    ("the window is full", |status| {
        filling(status);
        (status.link.unsent, status.link.window_full) = (lanes(0, 6400), true);
        (status.link.under_way_messages, status.link.oldest_under_way_seconds) = (16, Some(21));
    }),
    ("half of the day's budget is used up", |status| {
        filling(status);
        status.link.unsent = lanes(0, 6600);
        (status.link.day_limit_bytes, status.link.sent_today_bytes) = (Some(1 << 20), 523_000);
        status.waiting = Some("half of the day's 1 MiB (maxBytesPerDay) is used up; Low events wait until midnight UTC; High events still go".to_owned());
    }),
    ("the token is renewed", |status| status.link.renewal_seconds = Some(2880)),
    ("a certificate expires", |status| {
        status.expiring = vec![
            "/etc/edgewarden/cert.pem: the certificate of CN=press-17 expires in 12 days, on 2026-12-06T00:00:00Z"
                .to_owned(),
        ];
    }),
    ("certificates of a bundle have expired", |status| {
        let sentence = |number| {
            format!("/etc/ssl/ca.pem: the certificate of CN=Root {number} has expired on 2025-05-12T23:59:00Z")
        };
        status.expiring = (1..=5).map(sentence).collect();
    }),
    ("at the quota, and not connected", |status| {
        down(
            status,
            "the hub's name cannot be resolved; is the name right, and does DNS work here? (I/O: failed to lookup address information: Name or service not known)",
        );
        (status.spool.full, status.spool.bytes, status.spool.room_bytes) = (true, 66_500_000, 600_000);
        lose(status, "ProcessCreate.spoolFull", 31_000);
        lose(status, "ProcessCreate.overrun", 7);
    }),
    ("the disk is short of space", |status| {
        (status.spool.disk_short, status.spool.room_bytes) = (true, 0);
        status.spool.disk_lacks = Some("space".to_owned());
    }),
    ("the disk is short of inodes", |status| {
        status.spool.disk_short = true;
        status.spool.disk_lacks = Some("inodes".to_owned());
    }),
    ("syncs fail", |status| {
        status.spool.recorded = lanes(129, 2400);
        status.link.unsent = lanes(9, 0);
        status.spool.troubles = vec![Trouble {
            what: "cannot make the events of the High lane safe (fdatasync): Input/output error (os error 5)"
                .to_owned(),
            seconds: 95,
        }];
        lose(status, "Login.diskError", 2);
    }),
    ("damage, and a spool that was deleted", |status| {
        status.spool.damage = vec![
            "the Low lane of the spool: 144 bytes of segment 1 are damaged".to_owned(),
            "/var/lib/edgewarden/spool/high was removed or replaced while the agent ran; it is made anew".to_owned(),
        ];
        status.spool.more_damage = 3;
        lose(status, "Unknown.damaged", 1);
    }),
    ("a flood of programs, and rules", |status| {
        status.flood = true;
        status.excluded = BTreeMap::from([("user=33".to_owned(), 12_345), ("not in processInclude".to_owned(), 7)]);
        lose(status, "ProcessCreate.flood", 904);
    }),
    ("the clock is wrong", |status| {
        status.clock = ClockFacts { wall: "1970-01-01T00:01:07Z".to_owned(), is_wrong: true };
        status.spool.recorded = lanes(130, 2400);
        (status.spool.synced, status.link.unsent) = (lanes(130, 2400), lanes(10, 0));
        status.waiting =
            Some("events wait for the clock to be set, at most 10 minutes after the connection was made".to_owned());
    }),
    ("the run before lost its power; long events", |status| {
        status.run_before = Some("powerLost".to_owned());
        (status.events.split, status.events.cut) = (12, 1);
    }),
    ("the run before was killed; collectors in each state", |status| {
        status.run_before = Some("killed".to_owned());
        let states = [
            (
                "ListeningPorts",
                collector("running", Some("sock_diag"), Some("the programs of other users cannot be named"), None),
            ),
            ("LocalUsers", collector("starting", None, None, None)),
            (
                "Login",
                collector(
                    "degraded",
                    None,
                    None,
                    Some("cannot read /var/log/auth.log: Permission denied; add the agent to the group adm"),
                ),
            ),
            ("ProcessCreate", collector("off", None, None, None)),
        ];
        status.collectors = states.into_iter().map(|(name, facts)| (name.to_owned(), facts)).collect();
    }),
    ("no device id yet", |status| {
        (status.device, status.connected) = (None, false);
        status.link = LinkCounts { since_seconds: 40, ..LinkCounts::default() };
    }),
    ("somebody else's words hold control characters", |status| {
        status.device = Some("press\u{1b}[2J\nall well".to_owned());
    }),
];

/// The first state is shown whole, of the others what they say beyond it.
#[test]
fn each_state_is_explained_in_words() {
    let usual = in_words(&well());
    let mut text = format!("### usual\n{usual}");
    for (name, change) in STATES {
        let mut status = well();
        change(&mut status);
        text += &format!("\n### {name}\n");
        for (number, line) in in_words(&status).lines().enumerate() {
            if number == 0 || !usual.lines().any(|known| known == line) {
                text += &format!("{line}\n");
            }
        }
    }
    check_golden("states.txt", &text);
}

/// Whoever reads the JSON relies on its keys: this file may only grow.
#[test]
fn no_key_is_ever_removed() {
    let mut keys = BTreeSet::new();
    for (_, change) in STATES {
        let mut status = well();
        change(&mut status);
        paths("", &serde_json::to_value(status).unwrap(), &mut keys);
    }
    check_golden("keys.txt", &keys.iter().map(|key| format!("{key}\n")).collect::<String>());
}

fn paths(at: &str, value: &Value, keys: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| paths(&format!("{at}/{key}"), value, keys)),
        Value::Array(items) => items.iter().for_each(|item| paths(&format!("{at}/*"), item, keys)),
        Value::Null => {}
        _ => drop(keys.insert(at.to_owned())),
    }
}

#[test]
fn an_answer_of_an_older_daemon_is_understood() {
    let mut status = serde_json::to_value(well()).unwrap();
    for (object, added) in [
        ("", "clock"),
        ("", "runBefore"),
        ("", "excluded"),
        ("", "flood"),
        ("/link", "unsent"),
        ("/spool", "quotaBytes"),
    ] {
        status.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(added).unwrap();
    }
    let status: Status = serde_json::from_value(status).unwrap();
    assert!(in_words(&status).contains("press-17"));
}
