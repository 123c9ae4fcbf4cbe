//! What was taken, what was lost and what was reported of it: counters, and the payload of a report. No I/O.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use collector_common::event::kind::{Kind, Lane};
use collector_common::event::payload::{DroppedEvents, Payload};

use super::noise::Facts;
use crate::spool::damage::Damage;

/// Why events were lost, in the words of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The kernel or a full queue dropped them before they could be recorded.
    Overrun,
    /// The quota of the spool was reached.
    SpoolFull,
    /// The disk refused them.
    DiskError,
    /// The disk does not give them back as they were written, or they are of a later version. Nobody can tell their
    /// kinds.
    Damaged,
    /// Too many different programs were started at once.
    Flood,
}

impl Cause {
    const ALL: [Cause; 5] = [Cause::Overrun, Cause::SpoolFull, Cause::DiskError, Cause::Damaged, Cause::Flood];

    /// The word in `DroppedEventsStatistics` and in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Overrun => "overrun",
            Cause::SpoolFull => "spoolFull",
            Cause::DiskError => "diskError",
            Cause::Damaged => "damaged",
            Cause::Flood => "flood",
        }
    }
}

/// What was taken and lost since the start, shared with `status`.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    collected: [AtomicU64; Kind::ALL.len()],
    collected_by_lane: [AtomicU64; 2],
    lost: Mutex<LostTable>,
    reported: Mutex<Reported>,
    damage: Mutex<Damage>,
    noise: Mutex<Facts>,
    fitted: [AtomicU64; 2],
    /// Reports that the hub has not acknowledged: their number in the High lane, and what had been reported before.
    on_the_way: Mutex<Vec<(u64, Reported)>>,
}

/// Lost events by lane, cause and kind; the last place is for events whose kind is not known.
type LostTable = [[[u64; Kind::ALL.len() + 1]; Cause::ALL.len()]; 2];

/// Events that are lost for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The queue they were meant for or waited in.
    pub lane: Lane,
    /// `None` when nobody can tell.
    pub kind: Option<Kind>,
    /// Why.
    pub cause: Cause,
    /// How many.
    pub events: u64,
}

impl Loss {
    /// `Kind.cause`, as in `DroppedEventsStatistics` and in `status`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.kind.map_or("Unknown", Kind::name), self.cause.name())
    }
}

/// What the reports that are in the spool said in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    collected: [u64; 2],
    lost: LostTable,
}

impl Counts {
    /// Events of a kind that collectors handed over or lost.
    pub fn collected(&self, kind: Kind) -> u64 {
        self.0.collected[kind.index()].load(Ordering::Relaxed)
    }

    /// All losses.
    pub fn lost(&self) -> Vec<Loss> {
        let lost = *self.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = Vec::new();
        for lane in Lane::ALL {
            for (cause, by_kind) in Cause::ALL.into_iter().zip(lost[lane.index()]) {
                let kinds = Kind::ALL.into_iter().map(Some).chain([None]);
                list.extend(kinds.zip(by_kind).map(|(kind, events)| Loss { lane, kind, cause, events }));
            }
        }
        list.retain(|loss| loss.events > 0);
        list
    }

    pub(super) fn add_collected(&self, lane: Lane, kind: Kind, events: u64) {
        self.0.collected[kind.index()].fetch_add(events, Ordering::Relaxed);
        self.0.collected_by_lane[lane.index()].fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn add_lost(&self, lane: Lane, kind: impl Into<Option<Kind>>, cause: Cause, events: u64) {
        let mut lost = self.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost[lane.index()][cause as usize][place(kind.into())] += events;
    }
}

/// What had to be changed to fit into a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fitted {
    /// Observations that became several events.
    pub split: u64,
    /// Events in which a text was cut down.
    pub cut: u64,
}

impl Counts {
    /// What had to be changed to fit into a message.
    pub fn fitted(&self) -> Fitted {
        let [split, cut] = self.0.fitted.each_ref().map(|count| count.load(Ordering::Relaxed));
        Fitted { split, cut }
    }

    pub(super) fn add_fitted(&self, fitted: Fitted) {
        self.0.fitted[0].fetch_add(fitted.split, Ordering::Relaxed);
        self.0.fitted[1].fetch_add(fitted.cut, Ordering::Relaxed);
    }

    /// Execs that are not events of their own.
    pub fn noise(&self) -> Facts {
        self.0.noise.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_noise(&self, facts: Facts) {
        *self.0.noise.lock().unwrap_or_else(PoisonError::into_inner) = facts;
    }

    /// What was found damaged since the start, as far as it was told.
    pub fn damage(&self) -> Damage {
        self.0.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers damage that was told.
    pub fn note_damage(&self, damage: &Damage) {
        self.0.damage.lock().unwrap_or_else(PoisonError::into_inner).add(damage);
    }
}

/// Where a kind stands in a [`LostTable`].
fn place(kind: Option<Kind>) -> usize {
    kind.map_or(Kind::ALL.len(), Kind::index)
}

impl Counts {
    pub(super) fn reported(&self) -> MutexGuard<'_, Reported> {
        self.0.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A report is in the spool. If it displaced an older one, what that had said was taken back meanwhile, and the next
    /// report says all of it again.
    pub(super) fn note_report(&self, acked: u64, seq: u64, before: Reported, said: Reported) {
        let mut reported = self.reported();
        if *reported == before {
            *reported = said;
            let mut on_the_way = self.0.on_the_way.lock().unwrap_or_else(PoisonError::into_inner);
            on_the_way.retain(|(seq, _)| *seq > acked);
            on_the_way.push((seq, before));
        }
    }

    /// A report had to make room before the hub had it, so what it and the later ones said has to be said again: rather
    /// twice than never.
    pub(super) fn take_back_reports(&self, acked: u64) {
        let mut on_the_way = self.0.on_the_way.lock().unwrap_or_else(PoisonError::into_inner);
        on_the_way.retain(|(seq, _)| *seq > acked);
        if let Some((_, before)) = on_the_way.first() {
            *self.reported() = *before;
        }
        on_the_way.clear();
    }

    /// Whether the disk or its quota lost something that no report in the spool tells of.
    pub(super) fn owes_report(&self) -> bool {
        let lost = *self.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.reported().lost;
        let of_disk = [Cause::SpoolFull as usize, Cause::DiskError as usize];
        Lane::ALL.into_iter().any(|lane| of_disk.iter().any(|of| lost[lane.index()][*of] != told[lane.index()][*of]))
    }

    /// The losses since the last report, `None` when there are none, and what has been reported with this one.
    pub(super) fn report(&self) -> Option<(Payload, Reported)> {
        let mut reported = *self.reported();
        let lost = self.lost();
        let mut items = Vec::new();
        for lane in Lane::ALL {
            let collected = self.0.collected_by_lane[lane.index()].load(Ordering::Relaxed);
            let mut item = DroppedEvents {
                queue: lane.name(),
                collected_events: collected - reported.collected[lane.index()],
                dropped_events: 0,
                extra_details: Default::default(),
            };
            for loss in lost.iter().filter(|loss| loss.lane == lane) {
                let before = &mut reported.lost[lane.index()][loss.cause as usize][place(loss.kind)];
                let events = loss.events - *before;
                *before = loss.events;
                if events > 0 {
                    item.dropped_events += events;
                    item.extra_details.insert(loss.name(), events.to_string());
                }
            }
            if item.dropped_events > 0 {
                reported.collected[lane.index()] = collected;
                items.push(item);
            }
        }
        (!items.is_empty()).then_some((Payload::DroppedEventsStatistics(items), reported))
    }
}
