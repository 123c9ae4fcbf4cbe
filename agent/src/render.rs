//! Stored events as text: which wall time they get, and the message around them.
//!
//! An event keeps the clock reading of the moment it was recorded. Its two timestamps are worked out when it is first
//! put into a message, because a board without a battery may have learnt the time since. The offset it was rendered by
//! is kept on disk as a mark before anything is sent, so that a second delivery is the same bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use collector_common::clock::{Clock, EARLIEST_RECORD_US, Origin, Reading, is_plausible};
use collector_common::event::kind::Lane;
use collector_common::event::wire::{Event, Stamps};
use serde_json::{Map, Value};
use tracing::{info, warn};

use crate::spool::Spool;
use crate::spool::record::StoredEvent;
use crate::spool::state::{BootOffset, Mark};

/// A clock that moved by less was slewed, not set: microseconds.
const STEP_US: u64 = 500_000;

/// A correction below this is not worth a remark in the event: microseconds.
const CORRECTION_US: u64 = 2_000_000;

/// What is known about an event's wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The clock was right when it was read.
    Right,
    /// The clock was wrong then and is known now.
    Corrected,
    /// The clock of that boot was never set.
    Suspect,
}

/// The wall time of a reading (microseconds since the Unix epoch), given its boot's clock offset where it is known.
pub fn wall_time(at: &Reading, offset_us: Option<i64>) -> (i64, Trust) {
    let from_boot = offset_us
        .filter(|_| at.boottime_us > 0)
        .map(|offset| offset.saturating_add(i64::try_from(at.boottime_us).unwrap_or(i64::MAX)));
    match (at.origin, from_boot) {
        (Origin::Source, _) if at.wall_us >= EARLIEST_RECORD_US => (at.wall_us, Trust::Right),
        (_, Some(wall_us)) if wall_us.abs_diff(at.wall_us) > CORRECTION_US => (wall_us, Trust::Corrected),
        (_, Some(wall_us)) => (wall_us, Trust::Right),
        (_, None) if is_plausible(at.wall_us) => (at.wall_us, Trust::Right),
        (_, None) => (at.wall_us, Trust::Suspect),
    }
}

/// An event as the hub gets it.
pub fn envelope(event: &StoredEvent, offset_us: Option<i64>) -> Option<String> {
    let kind = event.kind()?;
    let (wall_us, trust) = wall_time(&event.at, offset_us);
    let stamps = Stamps::new(wall_us, event.utc_offset_seconds);
    let marked: Vec<String>;
    let items = match trust {
        Trust::Right => &event.items,
        Trust::Corrected | Trust::Suspect => {
            marked = event.items.iter().map(|item| mark_item(item, trust, &event.at)).collect();
            &marked
        }
    };
    Some(Event { id: event.id, kind, stamps: &stamps, items }.to_envelope())
}

/// Says in an item's `ExtraDetails` what is wrong with its time. An item that is no object stays as it is.
fn mark_item(item: &str, trust: Trust, at: &Reading) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(item) else { return item.to_owned() };
    let extra = fields.entry("ExtraDetails").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(extra) = extra {
        let mut note = |key: &str, value: String| extra.insert(key.to_owned(), Value::String(value));
        if trust == Trust::Corrected {
            note("ClockCorrected", "true".to_owned());
        } else {
            note("ClockSuspect", "true".to_owned());
            note("BootId", at.boot.to_string());
            note("BoottimeMs", (at.boottime_us / 1000).to_string());
        }
    }
    Value::Object(fields).to_string()
}

/// Finds the clock offset each event is rendered by, and keeps it. Clones share what was rendered.
#[derive(Clone, Debug)]
pub struct Renderer {
    spool: Spool,
    clock: Clock,
    /// Events up to these may have been sent before, so they keep the mark they have.
    rendered_through: Arc<[AtomicU64; 2]>,
}

impl Renderer {
    /// A renderer for what is in the spool now and what will come.
    pub fn new(spool: Spool, clock: Clock) -> Renderer {
        let rendered_through = Arc::new(spool.stats().recorded.map(AtomicU64::new));
        Renderer { spool, clock, rendered_through }
    }

    /// The offset for an event: microseconds, `None` while its boot's clock is not known.
    pub fn offset_us(&self, lane: Lane, event: &StoredEvent) -> io::Result<Option<i64>> {
        let (boot, seq) = (event.at.boot, event.seq);
        let mark = self.spool.mark(lane, boot, seq);
        let is_fresh = seq > self.rendered_through[lane.index()].fetch_max(seq, Ordering::SeqCst);
        if event.at.boottime_us == 0 {
            // Its own record dates it, whatever the clock says.
            return Ok(None);
        }
        if boot != self.clock.boot() {
            return Ok(mark.map_or_else(|| self.spool.boot_offset_us(boot), |mark| mark.offset_us));
        }
        // One look: the clock may be set between two.
        let now_us = right_offset_us(&self.clock.now());
        let is_near = |mark: &Mark| mark.offset_us.zip(now_us).is_some_and(|(mark, now)| mark.abs_diff(now) < STEP_US);
        if let Some(mark) = mark.filter(|mark| !is_fresh || now_us.is_none() || is_near(mark)) {
            return Ok(mark.offset_us);
        }
        let offset_us = now_us.or_else(|| right_offset_us(&event.at));
        self.spool.add_mark(Mark { lane, from_seq: seq, boot, offset_us })?;
        Ok(offset_us)
    }

    /// Whether an event had better wait: its boot is this one, and the clock may still be set.
    pub fn may_be_corrected(&self, event: &StoredEvent) -> bool {
        event.at.boot == self.clock.boot()
            && !is_plausible(self.clock.now().wall_us)
            && wall_time(&event.at, None).1 == Trust::Suspect
    }

    /// Keeps what the clock of this boot turned out to be.
    fn keep_offset(&self, offset_us: i64) -> io::Result<()> {
        let boot = self.clock.boot();
        for lane in Lane::ALL {
            // What was rendered without an offset stays so; what was not must not follow it.
            let from_seq = self.rendered_through[lane.index()].load(Ordering::SeqCst) + 1;
            if self.spool.mark(lane, boot, from_seq).is_some_and(|mark| mark.offset_us.is_none()) {
                self.spool.add_mark(Mark { lane, from_seq, boot, offset_us: Some(offset_us) })?;
            }
        }
        self.spool.add_boot_offset(BootOffset { boot, offset_us })
    }
}

/// Waits until the clock of a boot that began with a wrong one is set, and keeps its offset for the events that are sent
/// after the next start: time since boot begins anew there. A hub need not be near. When nothing was seen under a wrong
/// clock there is nothing to wait for.
pub async fn keep_offset_of_boot(renderer: Renderer) {
    let Renderer { spool, clock, .. } = &renderer;
    let boot = clock.boot();
    let is_early = |at: &Reading| at.boot == boot && !is_plausible(at.wall_us);
    let is_needed = is_early(&clock.now()) || spool.oldest_unacknowledged().as_ref().is_some_and(is_early);
    if !is_needed || spool.boot_offset_us(boot).is_some() {
        return;
    }
    loop {
        if let Some(offset_us) = right_offset_us(&clock.now()) {
            match renderer.keep_offset(offset_us) {
                Ok(()) => return info!("the clock was set: what was seen before gets its right date"),
                Err(error) => warn!("cannot keep the clock offset of this boot: {error}; trying again"),
            }
        }
        crate::tick::wait(crate::tick::TICK).await;
    }
}

/// The clock's offset at a reading, if it could be right then: microseconds.
fn right_offset_us(at: &Reading) -> Option<i64> {
    is_plausible(at.wall_us).then(|| at.wall_us.saturating_sub(i64::try_from(at.boottime_us).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_common::clock::EARLIEST_PLAUSIBLE_US;
    use collector_common::event::kind::Kind;
    use collector_common::root::Root;
    use uuid::Uuid;

    fn reading(wall_us: i64, boottime_us: u64, origin: Origin) -> Reading {
        Reading { boot: Uuid::nil(), boottime_us, wall_us, origin }
    }

    #[test]
    fn a_wall_time_is_taken_corrected_or_doubted() {
        let good = EARLIEST_PLAUSIBLE_US + 5_000_000;
        let old = EARLIEST_RECORD_US + 7;
        let cases = [
            (reading(good, 1, Origin::Clock), None, (good, Trust::Right)),
            (reading(good, 5, Origin::Clock), Some(good), (good + 5, Trust::Right)),
            (reading(9, 5, Origin::Clock), Some(good), (good + 5, Trust::Corrected)),
            (reading(9, 5, Origin::Clock), None, (9, Trust::Suspect)),
            (reading(old, 5, Origin::Source), Some(good), (old, Trust::Right)),
            (reading(9, 5, Origin::Source), Some(good), (good + 5, Trust::Corrected)),
            (reading(9, 0, Origin::Source), Some(good), (9, Trust::Suspect)),
        ];
        for (at, offset_us, expected) in cases {
            assert_eq!(wall_time(&at, offset_us), expected, "{at:?} {offset_us:?}");
        }
    }

    fn stored(at: Reading, seq: u64) -> StoredEvent {
        StoredEvent {
            seq,
            id: Uuid::nil(),
            kind: Kind::Login as u8,
            at,
            utc_offset_seconds: 3600,
            items: vec![r#"{"Result":"Fail","ExtraDetails":{"Method":"password"}}"#.to_owned()],
            cursor: None,
        }
    }

    #[test]
    fn a_suspect_time_is_said_in_every_item() {
        let text = envelope(&stored(reading(0, 1_234_567, Origin::Clock), 1), None).unwrap();
        assert!(text.contains(
            r#""ExtraDetails":{"Method":"password","ClockSuspect":"true","BootId":"00000000-0000-0000-0000-000000000000","BoottimeMs":"1234"}"#
        ));
        assert!(text.contains(r#""TimestampLocal":"1970-01-01T01:00:00.000+01:00""#));
    }

    #[test]
    fn an_event_is_rendered_the_same_again_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::new(&Root::host());
        let event = stored(Reading { wall_us: 9, ..clock.now() }, 1);
        let (spool, _) = Spool::open(directory.path(), 1 << 20).unwrap();
        let renderer = Renderer::new(spool.clone(), clock);
        spool.append(Lane::High, event.clone(), None).unwrap();
        let first = renderer.offset_us(Lane::High, &event).unwrap();
        assert_eq!(renderer.offset_us(Lane::High, &event).unwrap(), first);
        drop((renderer, spool));
        let (spool, _) = Spool::open(directory.path(), 1 << 20).unwrap();
        let renderer = Renderer::new(spool, clock);
        assert_eq!(renderer.offset_us(Lane::High, &event).unwrap(), first);
        assert!(envelope(&event, first).unwrap().contains(r#""ClockCorrected":"true""#));
    }

    #[tokio::test]
    async fn an_offset_is_kept_when_something_was_seen_under_a_wrong_clock_and_only_then() {
        let clock = Clock::new(&Root::host());
        for (wall_us, is_kept) in [(9, true), (clock.now().wall_us, false)] {
            let directory = tempfile::tempdir().unwrap();
            let (spool, _) = Spool::open(directory.path(), 1 << 20).unwrap();
            spool.append(Lane::High, stored(Reading { wall_us, ..clock.now() }, 1), None).unwrap();
            keep_offset_of_boot(Renderer::new(spool.clone(), clock)).await;
            assert_eq!(spool.boot_offset_us(clock.boot()).is_some(), is_kept, "{wall_us}");
        }
    }

    #[test]
    fn what_was_rendered_under_a_wrong_clock_stays_and_what_was_not_is_dated_right() {
        let clock = Clock::new(&Root::host());
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(directory.path(), 1 << 20).unwrap();
        spool.append(Lane::High, stored(Reading { wall_us: 9, ..clock.now() }, 1), None).unwrap();
        spool.add_mark(Mark { lane: Lane::High, from_seq: 1, boot: clock.boot(), offset_us: None }).unwrap();
        let renderer = Renderer::new(spool.clone(), clock);
        spool.append(Lane::High, stored(Reading { wall_us: 9, ..clock.now() }, 2), None).unwrap();
        renderer.keep_offset(7).unwrap();
        let offset_us = |seq| spool.mark(Lane::High, clock.boot(), seq).unwrap().offset_us;
        assert_eq!((offset_us(1), offset_us(2)), (None, Some(7)));
    }
}
