//! Execs the kernel had no room for: counted each time, and said at most once a minute.

use std::time::Duration;

use collector_common::clock::Reading;
use collector_common::collector::{Closed, Draft, Emitter};
use collector_common::event::kind::Kind;
use collector_common::event::payload::{Diagnostic, Severity};

/// At most one remark in this time; the count goes on meanwhile.
const ALARM_INTERVAL: Duration = Duration::from_secs(60);

/// Execs that were dropped and not said yet.
#[derive(Debug, Default)]
pub struct Drops {
    unsaid: u64,
    said_at_us: Option<u64>,
}

impl Drops {
    /// Counts execs as lost and says so if it is time to. `counting` says how exact the number is.
    pub fn note(&mut self, execs: u64, counting: &str, out: &Emitter, now: Reading) -> Result<(), Closed> {
        if execs == 0 {
            return Ok(());
        }
        out.lost(Kind::ProcessCreate, execs);
        self.unsaid = self.unsaid.saturating_add(execs);
        let since = |said_us: u64| Duration::from_micros(now.boottime_us.saturating_sub(said_us));
        if self.said_at_us.is_some_and(|said_us| since(said_us) < ALARM_INTERVAL) {
            return Ok(());
        }
        self.said_at_us = Some(now.boottime_us);
        let message = format!(
            "the kernel dropped exec events because programs were started faster than they could be recorded; {counting}"
        );
        let remark = Diagnostic::new(Severity::Error, message)
            .with("Drops", std::mem::take(&mut self.unsaid))
            .with("Collector", Kind::ProcessCreate.name());
        out.offer(Draft::alarm(now, remark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_common::clock::Clock;
    use collector_common::collector::channel;
    use collector_common::event::payload::Payload;
    use collector_common::root::Root;
    use std::collections::BTreeMap;

    #[test]
    fn drops_are_counted_each_time_and_said_once_a_minute() {
        let (out, mut events) = channel(BTreeMap::new());
        let start = Clock::new(&Root::host()).now();
        let mut drops = Drops::default();
        for (second, execs) in [(0, 1), (0, 0), (1, 3), (59, 1), (61, 1), (62, 1)] {
            let now = start.at_boottime_us(start.boottime_us + second * 1_000_000);
            drops.note(execs, "all are counted", &out, now).unwrap();
        }
        assert_eq!(out.losses().take(), [(Kind::ProcessCreate, 7)]);
        let mut said = Vec::new();
        while let Ok(draft) = events.try_recv() {
            assert!(draft.security_relevant);
            let Some(Payload::Diagnostic(diagnostic)) = draft.payload else { panic!("no remark") };
            said.push(diagnostic.extra_details["Drops"].clone());
        }
        assert_eq!(said, ["1", "5"]);
    }
}
