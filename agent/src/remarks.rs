//! What the agent tells the hub about itself: that it starts and stops, what it found broken, what it sent.
//!
//! By these the hub can tell silence from death: an agent that was stopped said so, one that was killed says so when it
//! is back, and for one whose connection broke the broker publishes the will that the agent left with it.

use collector_common::clock::{Clock, Reading, is_plausible};
use collector_common::collector::{Draft, Emitter};
use collector_common::event::kind::{Kind, Lane};
use collector_common::event::payload::{ConfigurationError, Diagnostic, MessageStatistics, Payload, Severity};
use collector_common::event::wire::{Event, Stamps, message};
use tracing::{error, warn};
use uuid::Uuid;

use crate::config::lowering::Lowered;
use crate::config::problem::Problem;
use crate::lifecycle::Before;
use crate::spool::Spool;
use crate::uplink::{LinkFacts, LinkStatus};

/// Sends remarks to the recorder.
pub struct Remarks {
    out: Emitter,
    clock: Clock,
}

impl Remarks {
    /// Remarks through an emitter.
    pub fn new(out: Emitter, clock: Clock) -> Remarks {
        Remarks { out, clock }
    }

    /// The agent starts, and how its last run ended.
    pub async fn started(&self, before: Before) {
        let severity = match before {
            Before::First | Before::Stopped => Severity::Information,
            Before::Killed | Before::PowerLost => Severity::Warning,
        };
        let how = match before {
            Before::First => "for the first time",
            Before::Stopped => "after it was stopped",
            Before::Killed => "after it was killed or crashed",
            Before::PowerLost => "after the machine lost its power or crashed",
        };
        let remark = Diagnostic::new(severity, format!("the agent starts {how}"))
            .with("Lifecycle", "started")
            .with("Before", before.name())
            .with("AgentVersion", env!("CARGO_PKG_VERSION"))
            .with("BootId", self.clock.boot());
        self.tell(Draft::alarm(self.clock.now(), remark)).await;
    }

    /// The agent stops, and why.
    pub async fn stopping(&self, why: &str) {
        let remark = Diagnostic::new(Severity::Information, format!("the agent stops: {why}"))
            .with("Lifecycle", "stopping")
            .with("BootId", self.clock.boot());
        self.tell(Draft::alarm(self.clock.now(), remark)).await;
    }

    /// Something of ours is not as it was left: evidence may be lost.
    pub async fn broken(&self, sentence: &str) {
        error!("{sentence}");
        self.tell(Draft::alarm(self.clock.now(), Diagnostic::new(Severity::Error, sentence))).await;
    }

    /// Something an operator should look at.
    pub async fn suspicious(&self, sentence: &str) {
        warn!("{sentence}");
        self.tell(Draft::alarm(self.clock.now(), Diagnostic::new(Severity::Warning, sentence))).await;
    }

    /// What is wrong with the configuration in force.
    pub async fn configuration(&self, problems: &[Problem], errors: Vec<ConfigurationError>) {
        for problem in problems {
            warn!("{problem}");
        }
        for error in errors {
            self.tell(Draft::new(self.clock.now(), Payload::ConfigurationError(error))).await;
        }
    }

    /// The agent shows less than before, or later. Whoever wants to hide something would turn this off first, so no
    /// key does.
    pub async fn lowered(&self, lowered: &[Lowered]) {
        for Lowered { key, from, to } in lowered {
            warn!("{key} was lowered from {from} to {to}");
            let remark = Diagnostic::new(Severity::Warning, format!("{key} was lowered from {from} to {to}"))
                .with("LoweredKey", key)
                .with("From", from)
                .with("To", to);
            self.tell(Draft::alarm(self.clock.now(), remark)).await;
        }
    }

    /// A configuration was not taken over.
    pub async fn refused(&self, reason: &str) {
        warn!("the configuration was not read again, the last good one stays in force: {reason}");
        let remark = Diagnostic::new(Severity::Warning, format!("the configuration was not taken over: {reason}"));
        self.tell(Draft::new(self.clock.now(), Payload::Diagnostic(remark))).await;
    }

    /// What was sent since the last time.
    pub async fn statistics(&self, statistics: &mut Statistics) {
        let payload = Payload::MessageStatistics(statistics.take(self.clock.boot()));
        self.tell(Draft::new(self.clock.now(), payload)).await;
    }

    async fn tell(&self, draft: Draft) {
        if self.out.send(draft).await.is_err() {
            warn!("the recorder is gone; a remark of the agent is lost");
        }
    }
}

/// Counts messages between two reports.
pub struct Statistics {
    link: LinkStatus,
    spool: Spool,
    before: LinkFacts,
    recorded_before: [u64; 2],
}

impl Statistics {
    /// Counts from now on.
    pub fn new(link: LinkStatus, spool: Spool) -> Statistics {
        let (before, recorded_before) = (link.get(), spool.stats().recorded);
        Statistics { link, spool, before, recorded_before }
    }

    fn take(&mut self, boot: Uuid) -> MessageStatistics {
        let (now, stats) = (self.link.get(), self.spool.stats());
        let mut statistics = MessageStatistics {
            messages_sent: now.acknowledged_messages - self.before.acknowledged_messages,
            messages_under_4kb: now.small_messages - self.before.small_messages,
            total_failed: now.failed_messages - self.before.failed_messages,
            extra_details: Default::default(),
        };
        let mut note = |key: String, value: u64| statistics.extra_details.insert(key, value.to_string());
        for lane in Lane::ALL {
            let (name, index) = (lane.name(), lane.index());
            note(format!("{name}FirstSequence"), self.recorded_before[index] + 1);
            note(format!("{name}LastSequence"), stats.recorded[index]);
            note(format!("{name}AcknowledgedSequence"), stats.acked[index]);
        }
        note("SentBytes".to_owned(), now.sent_bytes - self.before.sent_bytes);
        statistics.extra_details.insert("BootId".to_owned(), boot.to_string());
        (self.before, self.recorded_before) = (now, stats.recorded);
        statistics
    }
}

/// The message a broker publishes for us when the connection ends without a goodbye. It is made when the connection is,
/// and dated so, because nobody knows better.
pub fn will(agent_id: Uuid, now: &Reading) -> Option<String> {
    let mut remark = Diagnostic::new(Severity::Warning, "the hub lost the connection to this device without a goodbye")
        .with("Lifecycle", "connectionLost")
        .with("BootId", now.boot);
    if !is_plausible(now.wall_us) {
        remark = remark.with("ClockSuspect", true).with("BoottimeMs", now.boottime_us / 1000);
    }
    let items = Payload::Diagnostic(remark).to_items().ok()?;
    let stamps = Stamps::new(now.wall_us, 0);
    let event = Event { id: Uuid::now_v7(), kind: Kind::Diagnostic, stamps: &stamps, items: &items };
    Some(message(env!("CARGO_PKG_VERSION"), agent_id, &[event.to_envelope()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_common::root::Root;

    #[test]
    fn a_will_made_under_a_wrong_clock_says_so() {
        let now = Clock::new(&Root::host()).now();
        assert!(!will(Uuid::nil(), &now).unwrap().contains("ClockSuspect"));
        let early = will(Uuid::nil(), &Reading { wall_us: 9, boottime_us: 1_234_567, ..now }).unwrap();
        assert!(early.contains(r#""BoottimeMs":"1234","ClockSuspect":"true""#), "{early}");
    }
}
