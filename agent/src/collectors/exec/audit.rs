//! Execs as the kernel's audit records them (`collector_common::sys::audit`).
//!
//! ```text
//! exec ─▶ 7 records ─▶ kauditd ─┬─▶ owner: another process, such as auditd ── then we read a copy
//!                               └─▶ owner: we, when nobody else is         ── then they come to us
//! ```
//!
//! The records hold path, arguments and ids, written in the process that executes, so nothing is missed and nothing has
//! to be read in a hurry. What they do not hold (parent's program, container, namespaces, where a chroot is) is in
//! `/proc`, for as long as the process is there.
//!
//! Nobody is displaced: who owns audit keeps it, and when another wants to own it while we do, it is given back at once.
//! The kernel refuses the other's first attempt all the same; auditd's unit tries again.

pub mod owner;
pub mod standing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use collector_common::clock::Reading;
use collector_common::collector::{Closed, Context, Draft, Failure};
use collector_common::event::payload::Payload;
use collector_common::parse::audit_control::{Coverage, coverage};
use collector_common::parse::audit_record::{Assembler, Exec, RECORDS_OF_AN_EXEC};
use collector_common::parse::proc_pid::{Stat, Uids};
use collector_common::root::Root;
use collector_common::sys::audit::{self, CONFIG_CHANGE, DATAGRAM_BYTES, REPLACE, Received, Records};
use collector_common::sys::readiness::Readiness;
use tokio::time::{Instant, timeout, timeout_at};

use self::owner::Owner;
use self::standing::{Way, named};
use super::drops::Drops;
use super::event::process_create;
use super::image::{Image, parent_executable};
use super::{TICK_US, report_running};

/// The words for `status` and `check`.
pub const NAME: &str = "kernel audit";

/// What this back end does not see.
pub const GAP: &str = "a process that was there before audit was first turned on since boot is not seen when it executes \
                       another program itself, without a fork";
/// The same where the rules of the owner leave something out.
pub const PARTIAL: &str = "sees only the execs that the rules of audit's owner record";

/// How often it is looked whether audit is still as it must be, and what the kernel dropped.
const LOOK: Duration = Duration::from_secs(30);

/// How long the recorder is waited for. An owner that does not read for half a second is given up by the kernel.
const PATIENCE: Duration = Duration::from_millis(50);

/// After so many records others may run.
const RECORDS_PER_TURN: usize = 256;

/// A record is dated by the wall clock; one that would be older than this is dated by when it came.
const MAX_AGE_US: i64 = 60_000_000;

/// How drops are counted here.
const BY_RECORDS: &str = "the kernel counts records, and seven of them beyond those of known execs are counted as one lost \
                          ProcessCreate";
const UNCOUNTED: &str = "how many is not known, each drop is counted as one lost ProcessCreate";

/// Where records come from.
enum Source {
    Beside(Records, Coverage),
    Own(Owner),
}

/// Reports execs until dropped or until the recorder is gone.
pub async fn observe(cx: &Context, way: Way) -> Result<(), Failure> {
    let source = apart(move || Source::open(way)).await?;
    let readiness = Readiness::of(source.records().as_fd()).map_err(|error| failure(&error.to_string()))?;
    let (source, assembler, drops) = (Arc::new(source), Assembler::new(audit::abis_here()), Drops::default());
    let ready = VecDeque::new();
    let mut watch = Watch { cx, source, assembler, ready, drops, lost: None, next_look: Instant::now() };
    if watch.check().await?.is_err() {
        return Ok(());
    }
    if cx.settings.borrow().process_snapshot && report_running(cx).await.is_err() {
        return Ok(());
    }
    loop {
        let woken = timeout_at(watch.next_look, readiness.woken()).await;
        woken.unwrap_or(Ok(())).map_err(|error| failure(&error.to_string()))?;
        match watch.take().await? {
            Ok(is_changed) if is_changed || watch.is_look_due() => {
                if watch.check().await?.is_err() {
                    return Ok(());
                }
            }
            Ok(_) => {}
            Err(Closed) => return Ok(()),
        }
    }
}

fn failure(why: &str) -> Failure {
    Failure(why.to_owned())
}

/// The kernel answers at once, but behind whoever changes audit just then.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure(format!("asking audit failed: {error}")))?.map_err(Failure)
}

impl Way {
    /// What is not seen this way.
    pub fn gap(self) -> &'static str {
        match self {
            Way::Beside { coverage: Coverage::Some, .. } => PARTIAL,
            Way::Beside { .. } | Way::Own => GAP,
        }
    }

    /// The words for `status` and `check`.
    pub fn name(self, root: &Root) -> String {
        match self {
            Way::Beside { owner, .. } => format!("{NAME}, read beside its owner, process {}", named(root, owner)),
            Way::Own => format!("{NAME}, as its owner"),
        }
    }
}

impl Source {
    fn open(way: Way) -> Result<Source, String> {
        match way {
            Way::Beside { coverage, .. } => {
                Records::listen().map(|records| Source::Beside(records, coverage)).map_err(|error| error.to_string())
            }
            Way::Own => Owner::take().map(Source::Own),
        }
    }

    fn records(&self) -> &Records {
        match self {
            Source::Beside(records, _) => records,
            Source::Own(owner) => owner.records(),
        }
    }

    /// Whether execs are recorded as they were, and how many records were dropped.
    fn check(&self) -> Result<u32, String> {
        match self {
            Source::Own(owner) => owner.check(),
            Source::Beside(_, before) => {
                let status = audit::status().map_err(|error| error.to_string())?;
                let rules = audit::rules().map_err(|error| error.to_string())?;
                let now = coverage(&rules, audit::abis_here());
                match status.enabled != 0 && (now == *before || now == Coverage::All) {
                    true => Ok(status.lost),
                    false => Err("the rules of audit's owner do not record execs any more as they did".to_owned()),
                }
            }
        }
    }
}

struct Watch<'a> {
    cx: &'a Context,
    source: Arc<Source>,
    assembler: Assembler,
    /// Complete, and not handed over yet.
    ready: VecDeque<Exec>,
    drops: Drops,
    /// How many records the kernel had dropped at the last look.
    lost: Option<u32>,
    next_look: Instant,
}

impl Watch<'_> {
    /// Takes what there is, and says whether somebody changed how audit is set.
    async fn take(&mut self) -> Result<Result<bool, Closed>, Failure> {
        let source = Arc::clone(&self.source);
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let (mut is_changed, mut records) = (false, 0);
        loop {
            let received = source.records().receive(&mut buffer).map_err(|error| failure(&error.to_string()))?;
            let handed_over = match received {
                Received::Nothing => return Ok(Ok(is_changed)),
                Received::Record(REPLACE, pid) => return Err(self.wanted_by(pid)),
                Received::Record(kind, text) => {
                    is_changed |= kind == CONFIG_CHANGE;
                    self.ready.extend(self.assembler.take(kind, text));
                    self.hand_over().await
                }
                Received::Foreign => Ok(()),
                Received::Dropped => self.drops.note(1, UNCOUNTED, &self.cx.out, self.cx.clock.now()),
            };
            if handed_over.is_err() {
                return Ok(Err(Closed));
            }
            records += 1;
            if records % RECORDS_PER_TURN == 0 {
                tokio::task::yield_now().await;
                // They may never end.
                if self.is_look_due() && self.check().await?.is_err() {
                    return Ok(Err(Closed));
                }
            }
        }
    }

    fn wanted_by(&self, pid: &[u8]) -> Failure {
        let pid = pid.get(..4).and_then(|pid| pid.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let other = named(&self.cx.root, pid);
        owner::leave_to(other.clone());
        Failure(format!(
            "process {other} wants to own audit, so it was given back; if that one gave up, start it again"
        ))
    }

    fn is_look_due(&self) -> bool {
        Instant::now() >= self.next_look
    }

    /// Nothing is in hand while the recorder is waited for, so nothing is lost when the agent stops then.
    async fn hand_over(&mut self) -> Result<(), Closed> {
        while !self.ready.is_empty() {
            // No room in time is a loss, and `offer` counts it.
            if let Ok(Err(closed)) = timeout(PATIENCE, self.cx.out.room()).await {
                return Err(closed);
            }
            self.offer_next()?;
        }
        Ok(())
    }

    fn offer_next(&mut self) -> Result<(), Closed> {
        self.ready.pop_front().map_or(Ok(()), |exec| self.cx.out.offer(draft(self.cx, exec)))
    }

    /// Looks whether execs still come, at what is never going to be complete, and at what the kernel dropped.
    async fn check(&mut self) -> Result<Result<(), Closed>, Failure> {
        self.next_look = Instant::now() + LOOK;
        let source = Arc::clone(&self.source);
        let lost = apart(move || source.check()).await?;
        let now = self.cx.clock.now();
        self.ready.extend(self.assembler.give_up(now.wall_us));
        Ok(self.hand_over().await.and_then(|()| self.note_lost(lost)))
    }

    /// Most execs that lost records lost only some, and are events or known by their arguments. What is beyond that is
    /// taken for whole execs.
    fn note_lost(&mut self, lost: u32) -> Result<(), Closed> {
        // Somebody may have set the count back.
        let records = u64::from(lost.saturating_sub(self.lost.unwrap_or(lost)));
        self.lost = Some(lost);
        let known = self.assembler.take_lost();
        let execs = known + records.saturating_sub(known) / RECORDS_OF_AN_EXEC;
        self.drops.note(execs, BY_RECORDS, &self.cx.out, self.cx.clock.now())
    }
}

impl Drop for Watch<'_> {
    /// What came in since the last look is not lost because the agent stops.
    fn drop(&mut self) {
        if let Source::Own(owner) = &*self.source {
            owner.stop_recording();
        }
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let mut handed_over = Ok(());
        while let (Ok(()), Ok(received)) = (handed_over, self.source.records().receive(&mut buffer)) {
            handed_over = match received {
                Received::Nothing => break,
                Received::Record(kind, text) => {
                    self.ready.extend(self.assembler.take(kind, text));
                    self.offer_next()
                }
                Received::Foreign => Ok(()),
                Received::Dropped => self.drops.note(1, UNCOUNTED, &self.cx.out, self.cx.clock.now()),
            };
        }
        // What is missing of these will not come.
        self.ready.extend(self.assembler.give_up(i64::MAX));
        while handed_over.is_ok() && !self.ready.is_empty() {
            handed_over = self.offer_next();
        }
        // Where nobody listens any more, nobody counts either.
        let counted = audit::status().map(|status| self.note_lost(status.lost));
        tracing::debug!("the last count of records that audit lost: {counted:?}");
    }
}

fn draft(cx: &Context, exec: Exec) -> Draft {
    let (at, pid) = (at(cx.clock.now(), exec.wall_us), exec.pid);
    let event = process_create(pid, &image(&cx.root, exec, at), &cx.settings.borrow().redaction);
    Draft::new(at, Payload::ProcessCreate(event))
}

/// When it happened, on both clocks.
fn at(now: Reading, wall_us: i64) -> Reading {
    match now.wall_us.saturating_sub(wall_us) {
        age_us @ 0..=MAX_AGE_US => now.at_boottime_us(now.boottime_us.saturating_sub(age_us.unsigned_abs())),
        _ => now,
    }
}

fn image(root: &Root, exec: Exec, at: Reading) -> Image {
    let around = Image::surroundings(root, exec.pid);
    let is_same = is_same(&around, &exec, at);
    let image = Image {
        executable: exec.executable,
        deleted: exec.deleted,
        arguments: exec.arguments,
        stat: Some(Stat::of_exec(exec.name, exec.parent_pid, 0)),
        uids: Some(Uids { real: exec.uid, effective: exec.effective_uid }),
        login_uid: exec.login_uid,
        parent_executable: parent_executable(root, exec.parent_pid),
        directory: exec.directory,
        ..Image::default()
    };
    match is_same {
        true => Image {
            executable: around.executable.or(image.executable),
            container: around.container,
            pid_namespace: around.pid_namespace,
            net_namespace: around.net_namespace,
            ..image
        },
        false => image,
    }
}

/// Whether `/proc` still shows the program of the record: not another process that got its number, and not another
/// program that it executed since. In a chroot the record has the path inside, and `/proc` the one outside.
fn is_same(around: &Image, exec: &Exec, at: Reading) -> bool {
    let (Some(stat), Some(path)) = (&around.stat, &around.executable) else { return false };
    let is_older = stat.start_ticks.saturating_sub(1).saturating_mul(TICK_US) <= at.boottime_us;
    let is_path = exec.executable.as_ref().is_none_or(|inside| path.ends_with(inside));
    stat.name == exec.name && is_older && is_path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::exec::tests::context;
    use collector_common::clock::Clock;
    use collector_common::collector::{ProcessBackend, SourceCursor};

    fn exec_of(pid: u32, name: &str, executable: &str) -> Exec {
        Exec {
            wall_us: 0,
            pid: i32::try_from(pid).unwrap(),
            parent_pid: 1,
            uid: 0,
            effective_uid: 0,
            login_uid: None,
            name: name.into(),
            executable: Some(executable.into()),
            deleted: false,
            arguments: None,
            directory: None,
        }
    }

    #[test]
    fn a_record_is_dated_by_its_own_time_unless_that_makes_no_sense() {
        let now = Clock::new(&Root::host()).now();
        let earlier = at(now, now.wall_us - 1_000_000);
        assert_eq!((earlier.boottime_us, earlier.wall_us), (now.boottime_us - 1_000_000, now.wall_us - 1_000_000));
        assert_eq!(at(now, now.wall_us - MAX_AGE_US - 1), now);
        assert_eq!(at(now, now.wall_us + 1), now);
    }

    #[test]
    fn proc_adds_to_a_record_only_while_it_shows_the_same_program() {
        let (root, now) = (Root::host(), Clock::new(&Root::host()).now());
        let mut sleep = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let path = loop {
            let path = Image::surroundings(&root, i32::try_from(sleep.id()).unwrap()).executable.unwrap();
            if path.ends_with(b"sleep") {
                break String::from_utf8(path).unwrap();
            }
        };
        let later = now.at_boottime_us(now.boottime_us + 60_000_000);
        let shown = |name: &str, executable: &str, at| {
            String::from_utf8(image(&root, exec_of(sleep.id(), name, executable), at).executable.unwrap()).unwrap()
        };
        assert_eq!(shown("sleep", "/sleep", later), path, "in a chroot");
        assert_eq!(shown("other", "/sleep", later), "/sleep", "it executed again");
        assert_eq!(shown("sleep", "/other/sleep", later), "/other/sleep", "it executed again");
        let earlier = now.at_boottime_us(now.boottime_us - 60_000_000);
        assert_eq!(shown("sleep", "/sleep", earlier), "/sleep", "another process had its number");
        sleep.kill().unwrap();
        sleep.wait().unwrap();
    }

    /// The recorder is behind when the agent stops, and has room again a moment later.
    #[tokio::test]
    async fn what_is_in_hand_or_half_recorded_when_the_agent_stops_is_not_lost() {
        let (cx, mut events) = context(ProcessBackend::Audit);
        let (source, assembler) = match Records::listen() {
            Ok(records) => (Arc::new(Source::Beside(records, Coverage::All)), Assembler::new(audit::abis_here())),
            Err(error) => return eprintln!("not run: {error}"),
        };
        let cursor = || SourceCursor { source: "x".to_owned(), place: "y".to_owned() };
        while cx.out.free() > 0 {
            cx.out.offer(Draft::cursor_only(cx.clock.now(), cursor())).unwrap();
        }
        let ready = VecDeque::from([exec_of(i32::MAX.unsigned_abs(), "edgewarden-1", "/edgewarden-1")]);
        let (drops, next_look) = (Drops::default(), Instant::now());
        let mut watch = Watch { cx: &cx, source, assembler, ready, drops, lost: None, next_look };
        let half = b"audit(1.000:1): arch=c000003e syscall=59 success=yes pid=2147483646 ppid=1 uid=0 euid=0 comm=\"x\" exe=\"/edgewarden-2\"";
        assert!(watch.assembler.take(1300, half).is_none());
        assert!(watch.assembler.take(1309, b"audit(1.000:1): argc=1 a0=\"x\"").is_none());
        assert!(timeout(PATIENCE / 5, watch.hand_over()).await.is_err());
        while events.try_recv().is_ok() {}
        drop(watch);
        let path = |draft: Draft| match draft.payload {
            Some(Payload::ProcessCreate(event)) if event.executable.starts_with("/edgewarden") => {
                Some(event.executable)
            }
            _ => None,
        };
        let told: Vec<String> = std::iter::from_fn(|| events.try_recv().ok()).filter_map(path).collect();
        assert_eq!(told, ["/edgewarden-1", "/edgewarden-2"]);
    }
}
