//! Boards whose clock begins in 1970. The agent alone gets that clock; time since boot runs on as it is.

use jiff::{Span, Timestamp};
use nix::unistd::Uid;

use super::*;
use crate::clock::{Clock, Setting};
use crate::fake_broker::{Conduct, FakeBroker};
use crate::proxy::Proxy;

/// What the agent takes for its machine's clock and boot.
struct Board {
    agent: Agent,
    clock: Clock,
}

impl Board {
    fn new(mut agent: Agent) -> Board {
        let clock = Clock::new(&agent.path(""));
        clock.set(Setting::Epoch);
        agent.environment = clock.environment();
        Board { agent, clock }
    }

    /// The next start is another boot of the machine.
    fn boot(&mut self, id: &str) {
        std::fs::write(self.agent.path(id), format!("{id}\n")).unwrap();
        let map_root: &[&str] = if Uid::effective().is_root() { &[] } else { &["--map-root-user"] };
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let words = [&["unshare", "--mount"], map_root, &["sh", "-c", script]].concat();
        self.agent.inside = words.into_iter().map(str::to_owned).collect();
        self.agent.inside.push(self.agent.path(id).display().to_string());
    }

    fn fail_logins(&self, ports: std::ops::Range<u16>) {
        self.agent.fail_logins_at(ports, || self.clock.shows(Timestamp::now()));
    }

    fn wait_logins(&mut self, count: u64) -> Value {
        self.agent.wait_status("the logins to be kept", |status| status["events"]["byKind"]["Login"] == count)
    }
}

/// The logins by these ports, each with its event.
fn logins(hub: &IotHub, ports: std::ops::Range<u16>) -> Vec<(Value, Value)> {
    let events = hub.events().into_iter().filter(|event| event["Name"] == "Login");
    let items = events.flat_map(|event| {
        let items = event["Payload"].as_array().unwrap().clone();
        items.into_iter().map(move |item| (event.clone(), item))
    });
    items.filter(|(_, item)| ports.contains(&item["RemotePort"].as_str().unwrap().parse().unwrap())).collect()
}

/// The time is that of the test, and it is said that it was worked out.
fn assert_corrected(hub: &IotHub, ports: std::ops::Range<u16>, began: Timestamp) {
    for (event, item) in logins(hub, ports) {
        let at: Timestamp = event["TimestampUTC"].as_str().unwrap().parse().unwrap();
        let around = began - Span::new().seconds(1)..=Timestamp::now() + Span::new().seconds(1);
        assert!(around.contains(&at), "{event}");
        assert_eq!(item["ExtraDetails"]["ClockCorrected"], "true", "{event}");
    }
}

#[test]
fn a_clock_in_1970_is_named_and_what_was_seen_gets_its_date_once_it_is_set() {
    let (authority, began) = (Authority::new(), Timestamp::now());
    authority.client("client");
    let by_key = IotHub::start(&authority, module_rules("press-86", "localhost", Proof::Key(KEY.to_owned())));
    let by_certificate = IotHub::start(&authority, device_rules("press-87", "localhost", Proof::Certificate));
    let files = json!({ "certFile": authority.path("client.pem"), "keyFile": authority.path("client.key"),
                        "identity": "device" });
    let mut stories = [
        (agent("press-86", &by_key, &authority, "sasKeyFile", KEY, json!({})), &by_key, "no token can be made"),
        (agent("press-87", &by_certificate, &authority, "", "", files), &by_certificate, "certificate not valid yet"),
    ]
    .map(|(agent, hub, words)| (Board::new(agent), hub, words));
    for (board, ..) in &mut stories {
        board.agent.start();
        board.agent.wait_collecting();
        board.fail_logins(30_000..30_020);
    }
    for (board, hub, words) in &mut stories {
        board.wait_logins(20);
        let status = board.agent.wait_status("the clock to be named", |status| {
            let why = status["trouble"].as_str().unwrap_or_default();
            why.contains(*words) && why.contains("clock") && why.contains("1970-01-0")
        });
        assert_eq!((&status["connected"], &status["events"]["lost"]), (&json!(false), &json!(0)));
        assert_eq!(hub.accepted(), 0);
        board.clock.set(Setting::Right);
    }
    for (board, hub, _) in &mut stories {
        wait_ports("every line", 30_000..30_020, || hub.arrivals());
        board.fail_logins(30_020..30_030);
        wait_ports("lines of the right time", 30_000..30_030, || hub.arrivals());
        assert_each_once(30_000..30_030, &hub.arrivals());
        assert_corrected(hub, 30_000..30_020, began);
        let fresh = logins(hub, 30_020..30_030);
        assert!(fresh.iter().all(|(_, item)| item["ExtraDetails"]["ClockCorrected"].is_null()), "{fresh:?}");
        board.agent.wait_status("no more trouble", |status| status["trouble"].is_null());
        assert_eq!(hub.faults(), [""; 0]);
    }
}

/// A clock that is two hours late can be right, so it is the hub that says no: our token has expired for it. The pinned
/// certificate counts at any time.
#[test]
fn a_late_clock_is_doubted_when_the_hub_refuses_a_token() {
    let authority = Authority::new();
    let hub = IotHub::start(&authority, module_rules("press-97", "localhost", Proof::Key(KEY.to_owned())));
    let more = json!({ "caFile": null, "pinnedCertificate": fingerprint(&authority) });
    let mut board = Board::new(agent("press-97", &hub, &authority, "sasKeyFile", KEY, more));
    board.clock.set(Setting::Off(-7200));
    board.agent.start();
    board.agent.wait_collecting();
    board.agent.wait_status("the doubt", has_trouble("is the clock right (it says 2"));
    assert!(hub.faults()[0].starts_with("a time that is over"), "{:?}", hub.faults());
    board.clock.set(Setting::Right);
    board.fail_logins(30_000..30_020);
    wait_ports("every line", 30_000..30_020, || hub.arrivals());
    assert_each_once(30_000..30_020, &hub.arrivals());
}

/// A hub without TLS is reached whatever the clock says. Nothing is sent with a date that may still be mended.
#[test]
fn events_wait_for_the_clock_at_a_hub_that_can_be_reached() {
    let broker = FakeBroker::start(Conduct::good());
    let mut board = Board::new(Agent::new("press-89", crate::agent::connection(broker.port)));
    board.agent.start();
    board.agent.wait_collecting();
    board.fail_logins(30_000..30_020);
    board.wait_logins(20);
    let status = board.agent.wait_status("them to wait", |status| {
        status["connected"] == true && status["waiting"].as_str().is_some_and(|why| why.contains("clock to be set"))
    });
    assert_eq!(status["events"]["acknowledged"], 0, "{status}");
    board.clock.set(Setting::Right);
    wait_ports("every line", 30_000..30_020, || broker.acknowledged());
    assert_each_once(30_000..30_020, &broker.acknowledged());
    assert!(!broker.received().iter().any(|message| message.text.contains("\"1970-")), "{:?}", broker.received());
    board.agent.wait_status("nothing to wait", |status| status["waiting"].is_null());
}

/// Three boots before the hub can be reached: a clock that is never set, one that is set, and one that is right. What
/// the first saw cannot be dated any more and says so; what the second saw can, although time since boot began anew.
#[test]
fn dates_are_right_also_after_a_reboot_without_a_hub_in_between() {
    let (authority, began) = (Authority::new(), Timestamp::now());
    let hub = IotHub::start(&authority, module_rules("press-88", "localhost", Proof::Key(KEY.to_owned())));
    let proxy = Proxy::start(hub.port);
    proxy.refuse();
    let url = json!({ "url": format!("mqtts://localhost:{}", proxy.port) });
    let mut board = Board::new(agent("press-88", &hub, &authority, "sasKeyFile", KEY, url));
    const BOOTS: [&str; 3] = [
        "11111111-1111-4111-8111-111111111111",
        "22222222-2222-4222-8222-222222222222",
        "33333333-3333-4333-8333-333333333333",
    ];
    for (ports, boot) in [(30_000..30_020, BOOTS[0]), (30_020..30_040, BOOTS[1])] {
        board.boot(boot);
        board.agent.start();
        board.agent.wait_collecting();
        board.fail_logins(ports);
        board.wait_logins(20);
        board.agent.wait_status("them to be in the spool", |status| {
            status["spool"]["recorded"]["High"].as_u64() > Some(20) && status["connected"] == false
        });
        if boot == BOOTS[1] {
            board.clock.set(Setting::Right);
            wait::until_true("the clock to be noticed", || board.agent.log().contains("the clock was set"));
        }
        board.agent.kill_9();
    }
    board.boot(BOOTS[2]);
    board.agent.start();
    board.agent.wait_collecting();
    board.fail_logins(30_040..30_050);
    proxy.relay();
    wait_ports("every line", 30_000..30_050, || hub.arrivals());
    assert_each_once(30_000..30_050, &hub.arrivals());
    assert_corrected(&hub, 30_020..30_040, began);
    for (event, item) in logins(&hub, 30_000..30_020) {
        assert!(event["TimestampUTC"].as_str().unwrap().starts_with("1970-01-0"), "{event}");
        let extra = &item["ExtraDetails"];
        assert_eq!((&extra["ClockSuspect"], &extra["BootId"]), (&json!("true"), &json!(BOOTS[0])), "{event}");
        assert!(extra["BoottimeMs"].as_str().is_some_and(|time| time != "0"), "{event}");
    }
    assert_eq!(hub.faults(), [""; 0]);
}
