//! Execs as programs in the kernel write them down (`probe`, and `nobtf` for kernels without types).
//!
//! ```text
//! exec, in the kernel --record--> ring, 1 MiB --batch--> this task --bounded queue--> recorder
//! ```
//!
//! A record is whole when it is made, so nothing is read in a hurry; where it is not, `glance` makes it so. While next to
//! nothing is executed this task sleeps, and the kernel wakes it for the next record. Then it lets records come together
//! and looks by itself, because a wake-up costs more than all the rest; the kernel wakes it before that only when the ring
//! fills up.

use std::fmt::Display;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use collector_common::clock::Reading;
use collector_common::collector::{Closed, Context, Draft, Failure};
use collector_common::event::kind::Kind;
use collector_common::event::payload::Payload;
use collector_common::parse::exec_record::ExecRecord;
use collector_common::parse::proc_pid::{Stat, Uids, container_id};
use collector_common::sys::readiness::Readiness;
use nix::sys::timerfd::Expiration;
use tokio::time::timeout_at;

use super::apart;
use super::connector::STACK_BYTES;
use super::drops::Drops;
use super::event::process_create;
use super::glance::Glance;
use super::image::{DELETED, Image, is_foreign};
use super::probe::Probe;
use super::report_running;
use super::timer::Timer;
use crate::tick;

/// How long records may come together.
const BATCH: Duration = Duration::from_millis(250);

/// When no more came together, to wait for the next costs fewer wake-ups than to look again.
const FEW: usize = 2;

/// As many as fit into the ring: a record has 96 bytes and more.
const MOST_RECORDS: usize = 1024 * 1024 / 96;

/// How long a process is waited for that has to be read, and how many are left behind that let nobody read them.
const PATIENCE: Duration = Duration::from_secs(1);
const MOST_LEFT_BEHIND: usize = 4;

/// A look without being woken: what the kernel dropped may be the last that happened, and a record that is written at
/// the very moment this task falls asleep wakes nobody.
const LOOK: Duration = Duration::from_secs(30);

/// The kernel tells the start of a process in hundredths of a second elsewhere, see `super::TICK_US`.
pub const TICK_NS: u64 = super::TICK_US * 1000;

/// Reports execs until dropped or until the recorder is gone.
pub async fn observe(cx: &Context, probe: Probe) -> Result<(), Failure> {
    let readiness = Readiness::of(probe.records.as_fd()).map_err(|error| failure(&error))?;
    let glance = (!probe.is_whole).then(Glance::default);
    let batch = Timer::new().map_err(|error| failure(&error))?;
    let (in_hand, readers, drops) = (None, Arc::default(), Drops::default());
    let mut watch = Watch { cx, probe, glance, in_hand, readers, readiness, batch, noted: 0, drops };
    if cx.settings.borrow().process_snapshot && report_running(cx).await.is_err() {
        return Ok(());
    }
    loop {
        watch.probe.wake_me().map_err(|error| failure(&error))?;
        match watch.look().await? {
            Some(0) if !watch.woken().await? => continue,
            Some(_) => {}
            None => return Ok(()),
        }
        // Awake, until little came in a while.
        loop {
            watch.come_together().await?;
            match watch.look().await? {
                Some(0..=FEW) => break,
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
}

fn failure(error: &dyn Display) -> Failure {
    Failure(format!("waiting for the BPF program failed: {error}"))
}

struct Watch<'a> {
    cx: &'a Context,
    probe: Probe,
    glance: Option<Glance>,
    /// What is looked at in `/proc`.
    in_hand: Option<(ExecRecord, Image)>,
    /// Counts the threads that do that, and those that were left behind.
    readers: Arc<()>,
    readiness: Readiness,
    batch: Timer,
    /// Of the drops the kernel counted, how many were noted.
    noted: u64,
    drops: Drops,
}

impl Watch<'_> {
    /// Waits until the kernel says that there is something to take, which it may not do before the next look.
    async fn woken(&self) -> Result<bool, Failure> {
        let next_look = tick::within(LOOK, std::time::Instant::now()).into();
        match timeout_at(next_look, self.readiness.woken()).await {
            Ok(woken) => woken.map(|()| true).map_err(|error| failure(&error)),
            Err(_) => Ok(false),
        }
    }

    /// Lets records come together, unless the ring fills up.
    async fn come_together(&self) -> Result<(), Failure> {
        self.batch.set(Expiration::OneShot(BATCH.into())).map_err(|error| failure(&error))?;
        tokio::select! {
            woken = self.readiness.woken() => woken,
            expired = self.batch.expired() => expired,
        }
        .map_err(|error| failure(&error))
    }

    /// Takes what there is and says how much it was; `None` when nobody wants it any more.
    async fn look(&mut self) -> Result<Option<usize>, Failure> {
        let dropped = self.probe.dropped().map_err(|error| failure(&error))?;
        let taken = match self.glance {
            Some(_) => self.take_and_complete().await?,
            None => self.take().await,
        };
        Ok(taken.and_then(|records| self.note_drops(dropped).map(|()| records)).ok())
    }

    /// Hands over what is in the ring. While the recorder is behind, it stays in there, and the kernel counts what
    /// finds no room.
    async fn take(&mut self) -> Result<usize, Closed> {
        let now = self.cx.clock.now();
        let mut records = 0;
        loop {
            self.cx.out.room().await?;
            let Some((record, image)) = next(&mut self.probe.records, self.cx) else { return Ok(records) };
            records += 1;
            if image.executable.is_some() && image.arguments.is_some() {
                self.cx.out.offer(draft(&record, &image, self.cx, now))?;
                continue;
            }
            let (pid, with_arguments) = (record.pid, image.arguments.is_none());
            self.in_hand = Some((record, image));
            let seen = self.read(pid, with_arguments).await;
            if let Some((record, image)) = self.in_hand.take() {
                self.cx.out.offer(draft(&record, &completed(&record, image, seen), self.cx, now))?;
            }
        }
    }

    /// Reads a process in a thread, of which only so many are left behind: the memory of the process may lie on a file
    /// system that answers when it likes, and then the event goes without.
    async fn read(&self, pid: i32, with_arguments: bool) -> Image {
        if Arc::strong_count(&self.readers) > MOST_LEFT_BEHIND {
            return Image::default();
        }
        let (root, reader) = (self.cx.root.clone(), Arc::clone(&self.readers));
        let read = move || {
            let _until_it_ends = reader;
            if with_arguments { Image::read(&root, pid) } else { Image::read_without_arguments(&root, pid) }
        };
        apart::done("exec-look", STACK_BYTES, PATIENCE, read).await.unwrap_or_default()
    }

    /// The same, with a look at `/proc` for what the records do not tell.
    async fn take_and_complete(&mut self) -> Result<Result<usize, Closed>, Failure> {
        let Watch { cx, probe, glance: Some(glance), .. } = self else { return Ok(Ok(0)) };
        let now = cx.clock.now();
        let mut records = 0;
        loop {
            let taken = glance.complete(&cx.root, |fresh| fill(fresh, &mut probe.records, cx)).await?;
            records += taken;
            // Nothing is in hand while the recorder is waited for, so nothing is lost when the agent stops then.
            while glance.is_ready() {
                let room = cx.out.room().await;
                let Some((record, image)) = glance.next() else { break };
                if room.and_then(|()| cx.out.offer(draft(&record, &image, cx, now))).is_err() {
                    return Ok(Err(Closed));
                }
            }
            if taken == 0 {
                return Ok(Ok(records));
            }
        }
    }

    fn note_drops(&mut self, counted: u64) -> Result<(), Closed> {
        let new = counted.saturating_sub(self.noted);
        self.noted = counted;
        self.drops.note(new, "they are counted as lost ProcessCreate events", &self.cx.out, self.cx.clock.now())
    }
}

impl Drop for Watch<'_> {
    /// What came in since the last look is not lost because the agent stops, and what found no room is counted.
    fn drop(&mut self) {
        let Watch { cx, probe, glance, in_hand, .. } = self;
        let now = cx.clock.now();
        if let Some(glance) = glance {
            glance.finish(|fresh| fill(fresh, &mut probe.records, cx));
        }
        let mut rest = || match glance {
            Some(glance) => glance.next(),
            None => in_hand.take().or_else(|| next(&mut probe.records, cx)),
        };
        while let Some((record, image)) = rest() {
            if cx.out.offer(draft(&record, &image, cx, now)).is_err() {
                break;
            }
        }
        let counted = self.probe.dropped().map(|dropped| self.note_drops(dropped));
        tracing::debug!("the last count of execs that found no room in the ring: {counted:?}");
    }
}

/// Takes one record out of the ring.
fn next_record(ring: &mut RingBuf<MapData>, cx: &Context) -> Option<ExecRecord> {
    loop {
        match ExecRecord::parse(&ring.next()?) {
            None => cx.out.lost(Kind::ProcessCreate, 1),
            record => return record,
        }
    }
}

/// The same with what it tells.
fn next(ring: &mut RingBuf<MapData>, cx: &Context) -> Option<(ExecRecord, Image)> {
    let mut record = next_record(ring, cx)?;
    let image = image(&mut record);
    Some((record, image))
}

/// Takes what is in the ring, and not what comes in all the time meanwhile.
fn fill(fresh: &mut Vec<ExecRecord>, ring: &mut RingBuf<MapData>, cx: &Context) {
    fresh.extend(std::iter::from_fn(|| next_record(ring, cx)).take(MOST_RECORDS));
}

fn draft(record: &ExecRecord, image: &Image, cx: &Context, now: Reading) -> Draft {
    let event = process_create(record.pid, image, &cx.settings.borrow().redaction);
    Draft::new(now.at_boottime_us(record.boottime_ns / 1000), Payload::ProcessCreate(event))
}

fn image(record: &mut ExecRecord) -> Image {
    let stat = Stat::of_exec(std::mem::take(&mut record.name), record.parent_pid, record.start_boottime_ns / TICK_NS);
    Image {
        executable: record.path.take(),
        is_only_asked_for: false,
        deleted: record.deleted,
        arguments: record.arguments.take(),
        uids: Some(Uids { real: record.uid, effective: record.effective_uid }),
        login_uid: record.login_uid,
        container: record.cgroup.take().and_then(|path| container_id(&path)),
        parent_executable: record.parent_path.take(),
        script: record.script.take(),
        directory: record.directory.take(),
        pid_namespace: Some(record.pid_namespace).filter(|number| is_foreign("pid", *number)),
        net_namespace: Some(record.net_namespace).filter(|number| is_foreign("net", *number)),
        changed: false,
        stat: Some(stat),
    }
}

/// A path of a hundred directories does not fit, and memory may have been swapped out. `/proc` has both, for as long
/// as the process runs the same program.
fn completed(record: &ExecRecord, image: Image, seen: Image) -> Image {
    let is_same = seen.stat.as_ref().zip(image.stat.as_ref()).is_some_and(|(now, then)| {
        let is_there = [0, record.arguments_at].contains(&now.arguments_at());
        is_there && (&now.name, now.start_ticks) == (&then.name, then.start_ticks)
    });
    if !is_same {
        return image;
    }
    // The kernel knows whether the file is deleted, or only called so.
    let mark: &[u8] = if seen.deleted && !image.deleted { DELETED } else { b"" };
    Image {
        executable: image.executable.or_else(|| seen.executable.map(|path| [&path, mark].concat())),
        arguments: image.arguments.or(seen.arguments),
        ..image
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::exec::tests::context;
    use collector_common::collector::{ProcessBackend, SourceCursor};
    use std::process::Command;
    use tokio::time::timeout;

    fn more_than_fits(mark: &str) {
        let long = "x".repeat(9000);
        for number in 0..200 {
            let mark = format!("{mark}-{number}");
            assert!(Command::new("/bin/true").args([&mark, &long]).status().unwrap().success());
        }
    }

    /// Nobody looks while more is executed than fits into the ring.
    #[tokio::test]
    async fn what_found_no_room_is_counted_and_said() {
        let (cx, mut events) = context(ProcessBackend::Bpf);
        let probe = match Probe::load(&cx.root) {
            Ok(probe) => probe,
            Err(why) => return eprintln!("not run: {why}"),
        };
        more_than_fits("edgewarden-ring");
        let observed = async {
            let mut seen = 0;
            loop {
                match events.recv().await.unwrap().payload.unwrap() {
                    Payload::Diagnostic(remark) => return (seen, remark.extra_details["Drops"].parse().unwrap()),
                    Payload::ProcessCreate(event) if event.command_line.contains("edgewarden-ring-") => seen += 1,
                    _ => {}
                }
            }
        };
        let losses = cx.out.losses();
        let (seen, said): (u64, u64) = tokio::select! {
            ended = observe(&cx, probe) => panic!("{ended:?}"),
            observed = observed => observed,
        };
        assert!(seen < 200 && seen + said >= 200, "{seen} events, {said} said to be lost");
        assert_eq!(losses.take(), [(Kind::ProcessCreate, said)]);
    }
    /// The agent stops before it looks again.
    #[tokio::test]
    async fn what_found_no_room_since_the_last_look_is_counted_at_the_end() {
        let (cx, mut events) = context(ProcessBackend::Bpf);
        let probe = match Probe::load(&cx.root) {
            Ok(probe) => probe,
            Err(why) => return eprintln!("not run: {why}"),
        };
        let mut observing = Box::pin(observe(&cx, probe));
        assert!(timeout(BATCH * 2, &mut observing).await.is_err());
        more_than_fits("edgewarden-last");
        drop(observing);
        let seen = std::iter::from_fn(|| events.try_recv().ok()).filter(|draft| {
            matches!(&draft.payload, Some(Payload::ProcessCreate(event)) if event.command_line.contains("edgewarden-last"))
        });
        let seen = seen.count() as u64;
        let lost: u64 = cx.out.losses().take().iter().map(|(_, execs)| execs).sum();
        assert!(seen < 200 && seen + lost >= 200, "{seen} events, {lost} lost");
    }
    /// The recorder is behind when the agent stops, and has room again a moment later.
    #[tokio::test]
    async fn what_is_in_hand_while_the_recorder_is_behind_is_not_lost() {
        let (cx, mut events) = context(ProcessBackend::BpfNoBtf);
        let probe = match super::super::nobtf::load(&cx.root) {
            Ok(probe) => probe,
            Err(why) => return eprintln!("not run: {why}"),
        };
        let any = || Draft::cursor_only(cx.clock.now(), SourceCursor { source: "x".into(), place: "y".into() });
        while cx.out.free() > 0 {
            cx.out.offer(any()).unwrap();
        }
        let mut observing = Box::pin(observe(&cx, probe));
        assert!(timeout(BATCH, &mut observing).await.is_err());
        for number in 0..20 {
            let mark = format!("edgewarden-hand-{number}");
            assert!(Command::new("/bin/true").arg(mark).status().unwrap().success());
        }
        assert!(timeout(BATCH * 4, &mut observing).await.is_err());
        while events.try_recv().is_ok() {}
        drop(observing);
        let is_ours = |draft: &Draft| matches!(&draft.payload, Some(Payload::ProcessCreate(event)) if event.command_line.contains("edgewarden-hand"));
        let seen = std::iter::from_fn(|| events.try_recv().ok()).filter(is_ours).count();
        // On a machine that executes much meanwhile there may be no room for all.
        let lost: u64 = cx.out.losses().take().iter().map(|(_, execs)| execs).sum();
        assert!(seen as u64 + lost >= 20, "{seen} events, {lost} lost");
    }
}
