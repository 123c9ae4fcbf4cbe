//! The recorder: the only writer of the spool.
//!
//! It takes what collectors hand over, decides the lane, gives each event its id, serialises it once and appends it.
//! It runs on a thread of its own, because a slow disk must not stall the runtime, and syncs in groups: a lane at the
//! latest so long after its first unsynced event as the settings say, or at once when the uplink asks.

pub mod counts;
pub mod noise;
pub mod progress;
pub mod refusals;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use collector_common::clock::Clock;
use collector_common::collector::{Draft, Losses};
use collector_common::event::kind::{EventType, Kind, Lane};
use collector_common::event::payload::{Diagnostic, Severity};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{error, warn};
use uuid::Uuid;

use crate::config::settings::Settings;
use crate::fit;
use crate::spool::record::{Record, StoredCursor, StoredEvent};
use crate::spool::{Appended, Dropped, Entry, Spool};
use crate::tick;
use counts::{Cause, Counts, Fitted};
use noise::Noise;
use progress::Progress;
use refusals::Refusals;

/// Acknowledgements are written down at most this often; a crash before costs a second delivery only.
const STORE_ACKNOWLEDGED: Duration = Duration::from_secs(5);

/// How often is looked whether the files are still there while nothing is acknowledged.
const LOOK_AT_FILES: Duration = Duration::from_secs(30);

/// Overruns are reported at most this often, so that a flood of loss does not become a flood of reports.
const REPORT_LOSSES: Duration = Duration::from_secs(60);

/// Everything the recorder works with.
pub struct Recorder {
    /// Where events go.
    pub spool: Spool,
    /// Priorities, sizes and sync times.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// What collectors hand over.
    pub queue: mpsc::Receiver<Draft>,
    /// What did not fit into the queue.
    pub overflow: Losses,
    /// What was taken and lost.
    pub counts: Counts,
    /// For the events the recorder makes itself.
    pub clock: Clock,
    /// What the log has not heard yet.
    pub refusals: Refusals,
    /// Execs that are not events of their own.
    pub noise: Noise,
    /// Tells the watchdog when the disk does not answer.
    pub progress: Progress,
}

impl Recorder {
    /// Starts the thread. It ends, with everything synced, when every collector is gone.
    pub fn spawn(self, runtime: Handle) -> io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name("recorder".to_owned()).spawn(move || runtime.block_on(self.run()))
    }

    async fn run(mut self) {
        let mut timers = Timers::new(Instant::now());
        loop {
            self.progress.idle();
            let now = Instant::now();
            let settings = self.settings.borrow_and_update().clone();
            self.spool.set_quota_bytes(settings.max_cache_bytes);
            for lane in Lane::ALL {
                timers.sync[lane.index()] = match (self.spool.is_dirty(lane), timers.sync[lane.index()]) {
                    (false, _) => None,
                    (true, Some(due)) => Some(due),
                    (true, None) => Some(now + sync_delay(&settings, lane)),
                };
            }
            if self.spool.is_to_be_stored() {
                timers.store_acknowledged = timers.store_acknowledged.min(tick::within(STORE_ACKNOWLEDGED, now));
            }
            let due = timers.next().min(self.noise.due().unwrap_or(now + REPORT_LOSSES));
            tokio::select! {
                draft = self.queue.recv() => match draft {
                    Some(draft) => self.record_all(draft, &settings),
                    None => break,
                },
                () = self.spool.sync_requested() => timers.sync = [Some(now); 2],
                () = self.spool.acknowledged() => {}
                () = tokio::time::sleep_until(due.into()) => {}
                changed = self.settings.changed() => if changed.is_err() { break },
            }
            self.do_due(&mut timers);
        }
        while let Some(draft) = self.queue.recv().await {
            let settings = self.settings.borrow().clone();
            self.record_all(draft, &settings);
        }
        let rest = self.noise.drain_all(&self.clock);
        self.record_noise(rest);
        self.report_losses();
        self.do_due(&mut Timers::all_due());
        self.spool.give_back();
        self.refusals.rest(Instant::now()).into_iter().for_each(|told| error!("{told}"));
    }

    /// Records a draft and what waits behind it, so that one write and one look at the timers serve a whole burst.
    fn record_all(&mut self, first: Draft, settings: &Settings) {
        let mut entries = Vec::new();
        let more = std::iter::from_fn(|| self.queue.try_recv().ok()).take(256);
        let drafts: Vec<Draft> = std::iter::once(first).chain(more).collect();
        for draft in drafts {
            for draft in self.noise.take(draft, settings, &self.clock, Instant::now()) {
                entries.extend(self.prepare(draft, settings));
            }
        }
        self.tell_noise();
        let mut rest = entries.as_mut_slice();
        // What is stored next carries a cursor beyond what the disk lost, and the count of that is in memory only:
        // killed between the two, the agent would have neither the events nor their number. So the number goes first.
        loop {
            if self.counts.owes_report() {
                self.report_losses();
            }
            if rest.is_empty() {
                break;
            }
            let (done, _) = self.append_some(rest);
            rest = &mut rest[done..];
        }
    }

    fn tell_noise(&mut self) {
        let flooded = self.noise.take_overflow();
        if flooded > 0 {
            let lane = lane_of(Kind::ProcessCreate, false, &self.settings.borrow()).unwrap_or(Lane::Low);
            self.counts.add_collected(lane, Kind::ProcessCreate, flooded);
            self.counts.add_lost(lane, Kind::ProcessCreate, Cause::Flood, flooded);
        }
        if let Some(facts) = self.noise.news() {
            self.counts.set_noise(facts);
        }
    }

    fn record_noise(&mut self, drafts: Vec<Draft>) {
        let settings = self.settings.borrow().clone();
        for draft in drafts {
            self.record(draft, &settings);
        }
    }

    /// Whether everything of the draft is in the spool.
    fn record(&mut self, draft: Draft, settings: &Settings) -> bool {
        let mut entries = self.prepare(draft, settings);
        let mut all_stored = !entries.is_empty();
        let mut rest = entries.as_mut_slice();
        while !rest.is_empty() {
            let (done, is_stored) = self.append_some(rest);
            all_stored &= is_stored;
            rest = &mut rest[done..];
        }
        all_stored
    }

    /// What a draft becomes in the spool: its events, or only how far its source was read.
    fn prepare(&mut self, draft: Draft, settings: &Settings) -> Vec<Entry> {
        let lane =
            draft.payload.as_ref().and_then(|payload| lane_of(payload.kind(), draft.security_relevant, settings));
        let cursor = draft.cursor.map(StoredCursor::from);
        let (Some(payload), Some(lane)) = (draft.payload, lane) else {
            // Turned off by the twin, or no event at all: the source was read further all the same.
            return cursor
                .map(|cursor| Entry { lane: Lane::Low, record: Record::Cursor(cursor) })
                .into_iter()
                .collect();
        };
        let kind = payload.kind();
        let events = match payload.to_items() {
            Ok(items) => self.fit(items, settings.max_message_bytes),
            Err(error) => {
                error!("cannot serialise a {} event: {error}", kind.name());
                self.counts.add_collected(lane, kind, 1);
                self.counts.add_lost(lane, kind, Cause::DiskError, 1);
                return Vec::new();
            }
        };
        let last = events.len().saturating_sub(1);
        let utc_offset_seconds = utc_offset_seconds(draft.at.wall_us);
        let entry = |(index, items)| {
            let id = draft.id.filter(|_| last == 0).unwrap_or_else(Uuid::now_v7);
            let cursor = cursor.clone().filter(|_| index == last);
            let event = StoredEvent { seq: 0, id, kind: kind as u8, at: draft.at, utc_offset_seconds, items, cursor };
            Entry { lane, record: Record::Event(event) }
        };
        events.into_iter().enumerate().map(entry).collect()
    }

    /// Appends what can be appended at once. Returns how many entries are done with, and whether all of those are
    /// stored: if not, the last one was refused, and counted.
    fn append_some(&mut self, entries: &mut [Entry]) -> (usize, bool) {
        self.progress.begin(Instant::now());
        let Appended { stored, dropped, refused } = self.spool.append_all(entries);
        let event =
            |entry: &Entry| entry.record.event().and_then(|(event, _)| event.kind()).map(|kind| (entry.lane, kind));
        for (lane, kind) in entries[..stored].iter().filter_map(event) {
            self.counts.add_collected(lane, kind, 1);
        }
        self.count_dropped(&dropped);
        let Some(error) = refused else { return (stored, true) };
        let sentence = match event(&entries[stored]) {
            None => Some(format!("cannot keep how far a source was read: {error}; after a restart it is read again")),
            // It is made again with the next event, so nothing is lost.
            Some((_, Kind::DroppedEventsStatistics)) => None,
            Some((lane, kind)) => {
                self.counts.add_collected(lane, kind, 1);
                self.counts.add_lost(lane, kind, Cause::DiskError, 1);
                Some(format!("cannot write a {} event to the spool: {error}; it is lost and counted", kind.name()))
            }
        };
        if let Some(told) = sentence.and_then(|sentence| self.refusals.note(Instant::now(), sentence)) {
            error!("{told}");
        }
        (stored + 1, false)
    }

    fn fit(&self, items: Vec<String>, max_message_bytes: usize) -> Vec<Vec<String>> {
        let bytes_of = |items: &[String]| items.iter().map(String::len).sum::<usize>();
        let bytes_before = bytes_of(&items);
        let events = fit::into_events(items, max_message_bytes);
        let is_cut = events.iter().map(|items| bytes_of(items)).sum::<usize>() != bytes_before;
        self.counts.add_fitted(Fitted { split: u64::from(events.len() > 1), cut: u64::from(is_cut) });
        events
    }

    fn count_dropped(&self, dropped: &Dropped) {
        for (lane, kind, events) in &dropped.events {
            self.counts.add_lost(*lane, *kind, Cause::SpoolFull, *events);
        }
        if dropped.events.iter().any(|(_, kind, _)| *kind == Kind::DroppedEventsStatistics) {
            self.counts.take_back_reports(self.spool.stats().acked[Lane::High.index()]);
        }
        for (lane, events) in Lane::ALL.into_iter().zip(dropped.damaged) {
            self.counts.add_lost(lane, None, Cause::Damaged, events);
        }
    }

    fn do_due(&mut self, timers: &mut Timers) {
        let now = Instant::now();
        self.progress.begin(now);
        if timers.store_acknowledged <= now {
            timers.store_acknowledged = tick::within(LOOK_AT_FILES, now);
            if let Err(error) = self.spool.store_acknowledged() {
                warn!("cannot write down what was acknowledged: {error}; after a restart it is sent again");
            }
            if let Err(error) = self.spool.restore_if_gone() {
                error!("the files of the spool are gone and cannot be made anew: {error}");
            }
            self.tell_damage(timers, now);
        }
        let drafts = self.noise.drain(&self.clock, now);
        self.record_noise(drafts);
        self.tell_noise();
        if timers.report_losses <= now {
            timers.report_losses = tick::within(REPORT_LOSSES, now);
            self.report_losses();
            self.refusals.due(now).into_iter().for_each(|told| error!("{told}"));
        }
        // Last, so that an agent that stops has synced, and can send, what was told just now.
        for lane in Lane::ALL {
            if timers.sync[lane.index()].is_some_and(|due| due <= now) {
                timers.sync[lane.index()] = None;
                self.sync(lane);
            }
        }
    }

    fn sync(&self, lane: Lane) {
        self.progress.begin(Instant::now());
        if let Err(error) = self.spool.sync(lane) {
            error!("cannot sync the {} lane of the spool: {error}", lane.name());
        }
    }

    /// Damage is an alarm, at most one in so long a time as losses are reported: a dying disk has much to say.
    fn tell_damage(&mut self, timers: &mut Timers, now: Instant) {
        if timers.tell_damage > now {
            return;
        }
        let settings = self.settings.borrow().clone();
        for (lane, damage) in Lane::ALL.into_iter().zip(self.spool.take_damage()) {
            if damage.is_empty() {
                continue;
            }
            timers.tell_damage = now + REPORT_LOSSES;
            self.counts.note_damage(&damage);
            self.counts.add_lost(lane, None, Cause::Damaged, damage.lost);
            let more = if damage.more > 0 { format!("; and {} more", damage.more) } else { String::new() };
            let message =
                format!("the spool is damaged: {}{more}; {} events are lost", damage.sentences.join("; "), damage.lost);
            error!("{message}");
            let remark = Diagnostic::new(Severity::Error, message).with("Queue", lane.name());
            self.record(Draft::alarm(self.clock.now(), remark.with("LostEvents", damage.lost)), &settings);
        }
    }

    /// Loss is an event: one item per queue that lost something since the last report. A report that finds no room on
    /// the disk has told nobody, so the next one says the same and more. It is synced at once: what had to make room is
    /// gone for good already, and a power cut must not take the number of it.
    fn report_losses(&mut self) {
        let settings = self.settings.borrow().clone();
        for (kind, events) in self.overflow.take() {
            let lane = lane_of(kind, false, &settings).unwrap_or(Lane::Low);
            self.counts.add_collected(lane, kind, events);
            self.counts.add_lost(lane, kind, Cause::Overrun, events);
        }
        let before = *self.counts.reported();
        if let Some((payload, said)) = self.counts.report() {
            let mut draft = Draft::new(self.clock.now(), payload);
            draft.security_relevant = true;
            if self.record(draft, &settings) {
                let high = Lane::High.index();
                let stats = self.spool.stats();
                self.counts.note_report(stats.acked[high], stats.recorded[high], before, said);
                self.sync(Lane::High);
            }
        }
    }
}

/// The lane of an event, `None` when the twin turned its kind off. What a collector handed over was collected before it
/// was turned off, and is kept.
fn lane_of(kind: Kind, security_relevant: bool, settings: &Settings) -> Option<Lane> {
    let is_collected = kind.event_type() == EventType::Security;
    let lane = if security_relevant { Some(Lane::High) } else { settings.priority(kind).lane() };
    lane.or(is_collected.then_some(Lane::Low))
}

fn sync_delay(settings: &Settings, lane: Lane) -> Duration {
    match lane {
        Lane::High => settings.spool_sync_high,
        Lane::Low => settings.spool_sync_low,
    }
}

/// How far east of Greenwich this machine is at a moment: seconds.
fn utc_offset_seconds(wall_us: i64) -> i32 {
    let at = Timestamp::from_microsecond(wall_us).unwrap_or(Timestamp::UNIX_EPOCH);
    TimeZone::system().to_offset(at).seconds()
}

struct Timers {
    sync: [Option<Instant>; 2],
    store_acknowledged: Instant,
    tell_damage: Instant,
    report_losses: Instant,
}

impl Timers {
    fn new(now: Instant) -> Timers {
        let (store_acknowledged, report_losses) =
            (tick::within(STORE_ACKNOWLEDGED, now), tick::within(REPORT_LOSSES, now));
        Timers { sync: [None; 2], store_acknowledged, tell_damage: now, report_losses }
    }

    fn all_due() -> Timers {
        let now = Instant::now();
        Timers { sync: [Some(now); 2], store_acknowledged: now, tell_damage: now, report_losses: now }
    }

    fn next(&self) -> Instant {
        let syncs = self.sync.into_iter().flatten();
        syncs.chain([self.store_acknowledged, self.report_losses]).min().unwrap_or(self.report_losses)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use collector_common::collector::{Emitter, channel};
    use collector_common::event::payload::{Diagnostic, DroppedEvents, Payload, Severity};
    use collector_common::root::Root;

    use super::*;

    /// A recorder on an empty spool, and what it shares.
    struct Bench {
        recorder: Recorder,
        kept: Spool,
        out: Emitter,
        _settings: watch::Sender<Arc<Settings>>,
    }

    fn bench(directory: &Path) -> Bench {
        let (spool, _) = Spool::open(directory, 1 << 20).unwrap();
        let (out, queue) = channel(BTreeMap::new());
        let (_settings, settings) = watch::channel(Arc::new(Settings::default()));
        let (counts, clock) = (Counts::default(), Clock::new(&Root::host()));
        let (overflow, kept) = (out.losses(), spool.clone());
        let (refusals, progress, noise) = (Refusals::default(), Progress::default(), Noise::default());
        Bench {
            recorder: Recorder { spool, settings, queue, overflow, counts, clock, refusals, noise, progress },
            kept,
            out,
            _settings,
        }
    }

    #[test]
    fn a_report_of_losses_that_the_disk_refused_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let Bench { mut recorder, kept, out, _settings } = bench(directory.path());
        // A directory stands where a segment is to be written, as a full disk would.
        let in_the_way = directory.path().join("spool/high/00000000000000000001.new");
        fs::create_dir(&in_the_way).unwrap();
        out.lost(Kind::Login, 3);
        recorder.report_losses();
        let troubles = kept.outlook().troubles;
        assert!(troubles[0].1.starts_with("cannot write events to the spool: "), "{troubles:?}");
        fs::remove_dir(&in_the_way).unwrap();
        recorder.report_losses();
        assert_eq!(kept.outlook().troubles, [], "it is over");
        recorder.report_losses();
        kept.sync(Lane::High).unwrap();
        let read = || kept.read(Lane::High).unwrap();
        let told = read().unwrap();
        assert!(told.items.concat().contains(r#""Login.overrun":"3""#), "{told:?}");
        assert_eq!(read(), None, "it was said once already");
    }

    #[test]
    fn what_the_disk_refused_is_told_before_anything_behind_it_is_stored() {
        let directory = tempfile::tempdir().unwrap();
        let Bench { mut recorder, kept, out: _out, _settings } = bench(directory.path());
        let clock = recorder.clock;
        let alarm = |text: &str| Draft::alarm(clock.now(), Diagnostic::new(Severity::Error, text.to_owned()));
        let settings = Settings::default();
        // A directory stands where a segment is to be written, as a full disk would.
        let in_the_way = directory.path().join("spool/high/00000000000000000001.new");
        fs::create_dir(&in_the_way).unwrap();
        for text in ["refused", "refused, too"] {
            recorder.record_all(alarm(text), &settings);
        }
        assert_eq!(recorder.counts.collected(Kind::DroppedEventsStatistics), 0);
        fs::remove_dir(&in_the_way).unwrap();
        for text in ["stored", "stored, too"] {
            recorder.record_all(alarm(text), &settings);
        }
        // Killed now, the agent leaves what is in the spool.
        kept.sync(Lane::High).unwrap();
        let stored: Vec<String> =
            (0..4).map_while(|_| kept.read(Lane::High).unwrap()).map(|event| event.items.concat()).collect();
        assert_eq!(stored.len(), 3, "{stored:?}");
        assert!(stored[0].contains(r#""DroppedEvents":2"#), "{stored:?}");
        assert!(stored[0].contains(r#""Diagnostic.diskError":"2""#), "{stored:?}");
        assert!(stored[1].contains("stored") && stored[2].contains("stored, too"), "{stored:?}");
    }

    #[test]
    fn what_was_collected_before_its_kind_was_turned_off_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let Bench { mut recorder, kept, out: _out, _settings, .. } = bench(directory.path());
        let mut settings = Settings::default();
        for kind in [Kind::ListeningPorts, Kind::Diagnostic] {
            settings.set_priority(kind, crate::config::settings::Priority::Off);
        }
        let now = recorder.clock.now();
        assert!(recorder.record(Draft::new(now, Payload::ListeningPorts(Vec::new())), &settings));
        let remark = Payload::Diagnostic(Diagnostic::new(Severity::Information, "nobody wants to know"));
        assert!(!recorder.record(Draft::new(now, remark), &settings));
        kept.sync(Lane::Low).unwrap();
        assert_eq!(kept.read(Lane::Low).unwrap().unwrap().kind(), Some(Kind::ListeningPorts));
        assert!(kept.read(Lane::Low).unwrap().is_none());
    }

    #[test]
    fn what_was_split_or_cut_to_fit_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let Bench { mut recorder, out: _out, _settings, .. } = bench(directory.path());
        let settings = Settings::default();
        let now = recorder.clock.now();
        for bytes in [10, 100_000] {
            let remark = Diagnostic::new(Severity::Information, "x".repeat(bytes));
            assert!(recorder.record(Draft::alarm(now, remark), &settings));
        }
        let lane = DroppedEvents {
            queue: Lane::High.name(),
            collected_events: 9,
            dropped_events: 9,
            extra_details: Default::default(),
        };
        let long = Draft::new(now, Payload::DroppedEventsStatistics(vec![lane; 200]));
        assert!(recorder.record(long, &settings));
        assert_eq!(recorder.counts.fitted(), Fitted { split: 1, cut: 1 });
    }

    #[test]
    fn damage_met_while_reading_is_an_alarm_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let Bench { mut recorder, kept, out: _out, _settings } = bench(directory.path());
        let clock = recorder.clock;
        let settings = Settings::default();
        for text in ["one", "two", "three"] {
            let remark = Diagnostic::new(Severity::Information, text);
            assert!(recorder.record(Draft::alarm(clock.now(), remark), &settings));
        }
        kept.sync(Lane::High).unwrap();
        let path = directory.path().join("spool/high/00000000000000000001.seg");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(5).position(|window| window == b"\"two\"").unwrap();
        bytes[at] ^= 1;
        // In place: another file of that name would be taken for a replaced one.
        std::io::Write::write_all(&mut fs::File::options().write(true).open(&path).unwrap(), &bytes).unwrap();
        let read = || std::iter::from_fn(|| kept.read(Lane::High).unwrap());
        assert_eq!(read().count(), 2);
        recorder.do_due(&mut Timers::all_due());
        let told: String = read().flat_map(|event| event.items).collect();
        assert!(told.contains(r#""LostEvents":"1""#) && told.contains("the spool is damaged"), "{told}");
        assert!(told.contains(r#""Unknown.damaged":"1""#), "{told}");
        let damage = recorder.counts.damage();
        assert!(damage.lost == 1 && damage.sentences[0].contains("bytes of segment 1 are damaged"), "{damage:?}");
        assert_eq!(recorder.counts.lost().iter().map(counts::Loss::name).collect::<Vec<_>>(), ["Unknown.damaged"]);
    }
}
