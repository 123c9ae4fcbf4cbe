//! One agent, its far end, the relay between them, and what is done to them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::{Agent, connection};
use crate::arrivals::Arrival;
use crate::cause::{Causes, number};
use crate::clock::{Clock, Setting};
use crate::disk::Disk;
use crate::hub::Hub;
use crate::mosquitto::{Keeps, Mosquitto};
use crate::oracle::{Evidence, Score, score};
use crate::proxy::Proxy;
use crate::{wait, wire};

/// What distinguishes the rigs.
#[derive(Clone, Copy)]
pub struct Plan {
    pub name: &'static str,
    pub is_ours: bool,
    /// The lane the causes take.
    pub priority: &'static str,
    /// The state directory is a small file system.
    pub has_disk: bool,
    pub events: u32,
    pub faults: u32,
    pub seed: u64,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillAgent,
    StopAgent,
    Reload,
    Cut,
    CutInside,
    Refuse,
    Stall,
    SlowReplies,
    LoseReplies,
    RotateByRename,
    RotateByCopy,
    SetClock,
    KillHub,
    KillBroker,
    KillForgetfulBroker,
    RestartBroker,
    FillDisk,
}

const ALWAYS: [Fault; 13] = [
    Fault::KillAgent,
    Fault::StopAgent,
    Fault::Reload,
    Fault::Cut,
    Fault::CutInside,
    Fault::Refuse,
    Fault::Stall,
    Fault::SlowReplies,
    Fault::LoseReplies,
    Fault::RotateByRename,
    Fault::RotateByCopy,
    Fault::SetClock,
    Fault::SetClock,
];

/// What came of one rig.
pub struct Outcome {
    pub name: &'static str,
    pub faults: BTreeMap<Fault, u32>,
    pub score: Score,
    /// For a failure: what was done when, and what the agent logged.
    pub timeline: Vec<String>,
    pub log: String,
}

enum End {
    Ours(Hub),
    Foreign(Mosquitto),
}

struct Rig {
    name: &'static str,
    /// Before the agent, so that it is unmounted before the agent's directory is deleted.
    disk: Option<Disk>,
    agent: Agent,
    end: End,
    proxy: Proxy,
    clock: Clock,
    begin: Timestamp,
    causes: Causes,
    random: fastrand::Rng,
    faults: BTreeMap<Fault, u32>,
    timeline: Vec<String>,
    /// Connections made before the last time a foreign broker was killed.
    killed_links: usize,
}

/// Runs a plan from the first cause to the comparison.
pub fn run(plan: Plan) -> Outcome {
    let mut rig = Rig::new(plan);
    let (causes, random) = (rig.causes.clone(), rig.random.fork());
    let writer = std::thread::spawn(move || causes.write(plan.events, random));
    let mut deck = Vec::new();
    for step in 1..=plan.faults {
        rig.causes.allow(u32::try_from(u64::from(plan.events) * u64::from(step) / u64::from(plan.faults)).unwrap());
        if deck.is_empty() {
            deck = rig.possible();
            rig.random.shuffle(&mut deck);
        }
        let fault = deck.pop().expect("a deck is never empty");
        rig.note(&format!("{fault:?} after cause {}", rig.causes.count()));
        rig.inflict(fault);
        *rig.faults.entry(fault).or_default() += 1;
        rig.pause(0..=2500);
    }
    writer.join().unwrap();
    rig.heal();
    rig.outcome(plan)
}

impl Rig {
    fn new(plan: Plan) -> Rig {
        let (end, port) = if plan.is_ours {
            let hub = Hub::start();
            let port = hub.port;
            (End::Ours(hub), port)
        } else {
            let broker = Mosquitto::start_with(Keeps::Sessions);
            let port = broker.port;
            (End::Foreign(broker), port)
        };
        let begin = Timestamp::now();
        let proxy = Proxy::start(port);
        proxy.record();
        let mut agent = Agent::new(plan.name, connection(proxy.port));
        agent.set("eventPriorityLogin", json!(plan.priority));
        let disk = if plan.has_disk {
            Disk::mount(&agent.path("state")).map_err(|why| eprintln!("full disks are left out: {why}")).ok()
        } else {
            // Room for everything, so that no outage makes the quota a cause of loss.
            agent.set("maxLocalCacheSizeInBytes", json!(256 << 20));
            None
        };
        let clock = Clock::new(&agent.path(""));
        agent.environment = clock.environment();
        agent.start();
        agent.wait_collecting();
        Rig {
            name: plan.name,
            disk,
            causes: Causes::new(&agent.path("auth.log"), clock.clone()),
            clock,
            begin,
            agent,
            end,
            proxy,
            random: fastrand::Rng::with_seed(plan.seed),
            faults: BTreeMap::new(),
            timeline: Vec::new(),
            killed_links: 0,
        }
    }

    fn possible(&self) -> Vec<Fault> {
        let mut all = ALWAYS.to_vec();
        match self.end {
            End::Ours(_) => all.push(Fault::KillHub),
            End::Foreign(_) => all.extend([Fault::KillBroker, Fault::KillForgetfulBroker, Fault::RestartBroker]),
        }
        if self.disk.is_some() {
            all.extend([Fault::FillDisk; 3]);
        }
        all
    }

    fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::KillAgent => {
                self.agent.kill_9();
                self.pause(0..=800);
                self.agent.start();
            }
            Fault::StopAgent => {
                self.stop_agent();
                self.pause(0..=800);
                self.agent.start();
            }
            Fault::Reload => {
                let bytes = self.random.choice([8192, 20_000, 262_144]).expect("not empty");
                self.agent.set("maxMessageSizeInBytes", json!(bytes));
                self.agent.write_twin();
                // One that was started a moment ago would be ended by it like any program.
                self.agent.wait_status("the agent to listen", |_| true);
                self.agent.signal(Signal::SIGHUP);
            }
            Fault::Cut => self.proxy.cut(),
            Fault::CutInside => self.proxy.cut_after(self.random.usize(1..40_000)),
            Fault::Refuse => {
                self.proxy.refuse();
                self.proxy.cut();
                self.pause(0..=4000);
                self.proxy.relay();
            }
            Fault::Stall => {
                self.proxy.stall();
                self.pause(500..=4000);
                self.proxy.relay();
                self.proxy.cut();
            }
            Fault::SlowReplies => {
                self.proxy.delay_replies(Duration::from_millis(self.random.u64(50..=900)));
                self.pause(1000..=4000);
                self.proxy.delay_replies(Duration::ZERO);
            }
            Fault::LoseReplies => {
                self.proxy.lose_replies();
                self.pause(500..=3000);
                self.proxy.cut();
            }
            Fault::RotateByRename => self.causes.rotate_by_rename(self.random.u32(0..=5)),
            Fault::RotateByCopy => self.causes.rotate_by_copy(),
            Fault::SetClock => self.set_clock(),
            Fault::KillHub | Fault::KillBroker | Fault::KillForgetfulBroker | Fault::RestartBroker => self.fell(fault),
            Fault::FillDisk => self.fill_disk(),
        }
    }

    /// Ends the far end and starts it again.
    fn fell(&mut self, fault: Fault) {
        let down = Duration::from_millis(self.random.u64(0..=1500));
        match &mut self.end {
            End::Ours(hub) => {
                let port = hub.port;
                hub.kill_9();
                std::thread::sleep(down);
                hub.listen(port);
            }
            End::Foreign(broker) => {
                // Until the witness is back, what a broker acknowledges it gives to nobody.
                self.proxy.refuse();
                match fault {
                    Fault::RestartBroker => broker.terminate(),
                    _ => {
                        broker.kill_9();
                        self.killed_links = self.proxy.accepted();
                    }
                }
                std::thread::sleep(down);
                broker.start_again(match fault {
                    Fault::KillForgetfulBroker => Keeps::Nothing,
                    _ => Keeps::Sessions,
                });
                self.proxy.relay();
            }
        }
    }

    /// A clock that is hours off stays so; one that fell back to 1970 is set after a while, as a board's without a battery.
    fn set_clock(&mut self) {
        let hours = [-6, -1, 1, 5].map(|hours| Setting::Off(hours * 3600));
        let plausible = [Setting::Right, Setting::Right, hours[0], hours[1], hours[2], hours[3]];
        let setting = self.random.choice(plausible).expect("not empty");
        if self.random.bool() {
            self.note("  the clock is set to 1970");
            self.clock.set(Setting::Epoch);
            self.pause(300..=3000);
            if self.random.bool() {
                self.agent.kill_9();
                self.agent.start();
                self.pause(300..=3000);
            }
        }
        self.note(&format!("  the clock is set to {setting:?}"));
        self.clock.set(setting);
    }

    fn fill_disk(&mut self) {
        let is_killed = self.random.bool();
        self.disk().fill();
        self.pause(500..=3000);
        if is_killed {
            self.agent.kill_9();
        }
        self.disk().free();
        if is_killed {
            self.agent.start();
        }
    }

    fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("only chosen with a disk")
    }

    /// SIGTERM; one that comes before the agent listens for it ends it like any program.
    fn stop_agent(&mut self) {
        let status = self.agent.terminate();
        let is_early = std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::SIGTERM as i32);
        assert!(status.success() || is_early, "{status}:\n{}", self.agent.log());
    }

    /// Everything works again; all that was caused arrives, and then all that was counted.
    fn heal(&mut self) {
        self.note("the end");
        self.clock.set(Setting::Right);
        self.proxy.relay();
        self.proxy.cut();
        self.stop_agent();
        self.agent.start();
        // Causes come in order, so behind this one nothing is left.
        self.causes.burst(1);
        let last = self.causes.count();
        wait::until_true("the last cause", || {
            std::thread::sleep(Duration::from_millis(400));
            self.arrivals().iter().any(|arrival| arrival.name == "Login" && number(arrival) == Ok(last))
        });
        // A stopping agent writes down what it lost; the next one delivers it.
        self.stop_agent();
        self.agent.start();
        self.agent.wait_status("everything to be acknowledged", |status| {
            status["connected"] == true && status["spool"]["acknowledged"] == status["spool"]["recorded"]
        });
        self.stop_agent();
    }

    fn arrivals(&self) -> Vec<Arrival> {
        match &self.end {
            End::Ours(hub) => hub.arrivals(),
            End::Foreign(broker) => broker.arrivals(),
        }
    }

    fn outcome(mut self, plan: Plan) -> Outcome {
        let evidence = Evidence {
            causes: self.causes.all(),
            spans: self.spans(),
            may_drop: self.disk.is_some(),
            arrivals: self.arrivals(),
            is_in_order: !plan.is_ours,
            sent: wire::sent(&self.proxy.tapes()),
            killed_links: self.killed_links,
        };
        let score = score(&evidence);
        for missing in &score.missing {
            let at = evidence.causes[*missing as usize - 1].at;
            self.timeline.push(format!("{} cause {missing}, which is missing", self.seconds(at)));
        }
        Outcome { name: plan.name, faults: self.faults, score, timeline: self.timeline, log: self.agent.log() }
    }

    /// The time from the beginning until now, by every clock the agent had that could be right.
    fn spans(&self) -> Vec<(Timestamp, Timestamp)> {
        let (begin, end) = (self.begin, Timestamp::now());
        let around = |shift_s: &i64| {
            let (shift, second) = (SignedDuration::from_secs(*shift_s), SignedDuration::from_secs(1));
            (begin + shift - second, end + shift + second)
        };
        self.clock.shifts_s().iter().map(around).collect()
    }

    /// Keeps what is done and says it, so that a hang says where.
    fn note(&mut self, what: &str) {
        let line = format!("{} {what}", self.seconds(Timestamp::now()));
        println!("{:>10} {line}", self.name);
        self.timeline.push(line);
    }

    fn seconds(&self, at: Timestamp) -> String {
        format!("{:9.3}", at.duration_since(self.begin).as_secs_f64())
    }

    fn pause(&mut self, milliseconds: std::ops::RangeInclusive<u64>) {
        std::thread::sleep(Duration::from_millis(self.random.u64(milliseconds)));
    }
}
