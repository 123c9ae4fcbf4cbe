//! Execs as the kernel announces them (`collector_common::sys::connector`).
//!
//! The announcement holds the number of the process and nothing else, so `/proc` is asked in the same breath, by
//! a thread of its own that runs before the ordinary ones: a program that ends at once would otherwise be gone in
//! nearly every second case on a busy machine, and a file of `/proc` whose owner holds it up blocks nobody else. Such
//! a thread is left behind, with an alarm, and another one goes on.
//!
//! ```text
//! kernel --datagrams--> thread "exec": recvmmsg, read /proc/PID --Execs--> every 250 ms: make events --> recorder
//!                         ^ ends when the pipe that `observe` holds is closed
//! ```
//!
//! Only what disappears is done at once. Everything else waits until several can be done together: to wake the recorder
//! for every event costs more than the event. What the kernel could not keep for us is counted and said.

use std::io::{self, PipeReader};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use collector_common::clock::{Clock, Reading};
use collector_common::collector::{Closed, Context, Draft, Emitter, Failure, Settings};
use collector_common::event::kind::Kind;
use collector_common::event::payload::Payload;
use collector_common::parse::cn_proc::Message;
use collector_common::sys::connector::{Connector, Inbox, Wake};
use collector_common::sys::scheduling;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{oneshot, watch};

use self::noticed::Execs;
use super::drops::Drops;
use super::event::process_create;
use super::image::{Image, Proc};
use super::{HELD_UP, report_running};
use crate::tick;

pub mod noticed;

/// The words for `status` and `check`.
pub const NAME: &str = "netlink process connector";

/// What this back end does not see.
pub const GAP: &str = "a program that ends within a fraction of a millisecond is reported without the path or the \
                       arguments that were gone by then";

/// How long execs may come together, and how many: an image has up to 8 KiB of arguments.
const TOGETHER: Duration = Duration::from_millis(250);
const MOST_TOGETHER: usize = 128;

/// A disk may be slow for a moment: so many execs wait for it here, and what is beyond them is counted as lost.
const MOST_WAITING: usize = 2048;

/// How soon it is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// How losses are counted.
const COUNTED: &str = "they are counted as lost ProcessCreate events";
const UNCOUNTED: &str = "this kernel does not say how many, each time is counted as one lost ProcessCreate";

/// The thread reads small files into the heap and calls nothing deep.
pub const STACK_BYTES: usize = 256 * 1024;

/// Reports execs until dropped or until the recorder is gone.
pub async fn observe(cx: &Context, socket: Connector) -> Result<(), Failure> {
    if cx.settings.borrow().process_snapshot && report_running(cx).await.is_err() {
        return Ok(());
    }
    let (stop, _held) = io::pipe().map_err(|error| failure("making a pipe for", &error))?;
    let (ended, end) = oneshot::channel();
    let shared = Arc::new(Shared::of(socket));
    let mut watch = Watch::of(cx, &shared).map_err(|error| failure("opening /proc for", &error))?;
    let work = move || {
        // When this future was dropped, nobody wants to know how the thread ended.
        drop(ended.send(watch.run(&stop)));
    };
    let builder = thread::Builder::new().name("exec".to_owned()).stack_size(STACK_BYTES);
    builder.spawn(work).map_err(|error| failure("starting a thread for", &error))?;
    tokio::select! {
        ended = end => match ended {
            Ok(result) => result.map_err(|error| failure("reading", &error)),
            Err(_) => Err(Failure("the thread that reads the netlink process connector died".to_owned())),
        },
        pid = shared.reading.held_up() => {
            shared.rescue(cx);
            Err(Failure(format!(
                "process {pid} holds up whoever reads its files in /proc, which hides what others execute: end it"
            )))
        }
    }
}

fn failure(doing: &str, error: &io::Error) -> Failure {
    Failure(format!("{doing} the netlink process connector failed: {error}"))
}

/// Which process the thread reads now, and whether it is still the same read.
#[derive(Debug, Default)]
struct BeingRead {
    /// 0 when none.
    pid: AtomicI32,
    reads: AtomicU64,
}

impl BeingRead {
    /// Returns the process that was being read in two looks in a row.
    async fn held_up(&self) -> i32 {
        let mut before = None;
        loop {
            tick::wait(HELD_UP).await;
            let now = (self.pid.load(Ordering::Relaxed), self.reads.load(Ordering::Relaxed));
            if now.0 != 0 && before == Some(now) {
                return now.0;
            }
            before = Some(now);
        }
    }

    fn read(&self, proc: &Proc, pid: i32) -> Image {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.pid.store(pid, Ordering::Relaxed);
        let image = Image::of_exec(proc, pid);
        self.pid.store(0, Ordering::Relaxed);
        image
    }
}

/// What is left when the thread is.
struct Shared {
    socket: Connector,
    execs: Mutex<Execs>,
    reading: BeingRead,
    /// Nobody waits for the thread any more: it may come back after hours, and another back end told of everything
    /// that found no room in the socket since.
    is_abandoned: AtomicBool,
}

impl Shared {
    fn of(socket: Connector) -> Shared {
        Shared { socket, execs: Mutex::default(), reading: BeingRead::default(), is_abandoned: AtomicBool::new(false) }
    }

    fn execs(&self) -> MutexGuard<'_, Execs> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the execs among the messages. Nothing else comes through the filters, and what the kernel may send one day
    /// is no exec.
    fn note(&self, messages: &mut Vec<Message>, clock: &Clock) {
        let (now, now_ns) = (clock.now(), monotonic_ns());
        let mut execs = self.execs();
        for message in messages.drain(..) {
            if let Message::Exec { pid, monotonic_ns } = message {
                let age_us = now_ns.saturating_sub(monotonic_ns) / 1000;
                execs.add(pid, now.at_boottime_us(now.boottime_us.saturating_sub(age_us)), monotonic_ns);
            }
        }
    }

    /// Hands over what the thread was about to read, and counts what found no room meanwhile. More than the number of
    /// the process is not looked for: whoever held up one reader would hold up the next.
    fn rescue(&self, cx: &Context) {
        self.is_abandoned.store(true, Ordering::SeqCst);
        let (mut inbox, mut messages) = (Inbox::new(), Vec::new());
        while self.socket.receive(&mut inbox, &mut messages).unwrap_or(false) {}
        self.note(&mut messages, &cx.clock);
        let settings = cx.settings.borrow().clone();
        // The recorder is only gone when the agent stops.
        let _stopped = hand_over(self.execs().take(usize::MAX), &settings, &cx.out);
        match self.socket.take_lost() {
            Ok(lost) => cx.out.lost(Kind::ProcessCreate, lost.messages),
            Err(error) => tracing::warn!("the socket of the process connector does not say what was lost: {error}"),
        }
    }
}

fn hand_over(execs: Vec<(i32, Reading, Image)>, settings: &Settings, out: &Emitter) -> Result<(), Closed> {
    for (pid, at, image) in execs {
        let event = process_create(pid, &image, &settings.redaction);
        out.offer(Draft::new(at, Payload::ProcessCreate(event)))?;
    }
    Ok(())
}

/// The clock by which the kernel dates its messages. Every kernel has it.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// What the thread has.
struct Watch {
    proc: Proc,
    clock: Clock,
    settings: watch::Receiver<Arc<Settings>>,
    out: Emitter,
    drops: Drops,
    shared: Arc<Shared>,
}

impl Watch {
    fn of(cx: &Context, shared: &Arc<Shared>) -> io::Result<Watch> {
        Ok(Watch {
            proc: Proc::open(&cx.root)?,
            clock: cx.clock,
            settings: cx.settings.clone(),
            out: cx.out.clone(),
            drops: Drops::default(),
            shared: Arc::clone(shared),
        })
    }

    fn run(&mut self, stop: &PipeReader) -> io::Result<()> {
        if let Err(error) = scheduling::run_before_ordinary_threads() {
            tracing::warn!(
                "cannot run the exec thread before ordinary ones: {error}; short programs may end before they are \
                 read: give the agent CAP_SYS_NICE and do not forbid real-time scheduling"
            );
        }
        let result = self.watch(stop);
        // What was noticed is not lost because nobody is to go on.
        match self.hand_over(usize::MAX) {
            Ok(()) => result,
            Err(Closed) => Ok(()),
        }
    }

    /// Until nobody wants to know any more.
    fn watch(&mut self, stop: &PipeReader) -> io::Result<()> {
        let (mut inbox, mut messages) = (Inbox::new(), Vec::new());
        let mut due: Option<Instant> = None;
        loop {
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            match self.shared.socket.wait(stop, left)? {
                Wake::Stop => return Ok(()),
                Wake::Late => {}
                Wake::Ready => {
                    self.shared.socket.receive(&mut inbox, &mut messages)?;
                    self.shared.note(&mut messages, &self.clock);
                    self.read();
                    due.get_or_insert_with(|| Instant::now() + TOGETHER);
                }
            }
            let is_due = due.is_some_and(|due| due <= Instant::now());
            if is_due || self.shared.execs().count() >= MOST_TOGETHER {
                let waiting = self.shared.execs().count();
                // Beyond the bound the recorder is offered what it may have no room for, which counts it.
                if self.hand_over(self.out.free().max(waiting.saturating_sub(MOST_WAITING))).is_err() {
                    return Ok(());
                }
                due = (self.shared.execs().count() > 0).then(|| Instant::now() + AGAIN);
            }
        }
    }

    fn read(&self) {
        while let Some(pid) = { self.shared.execs().next_to_read() } {
            let image = self.shared.reading.read(&self.proc, pid);
            self.shared.execs().add_image(image, monotonic_ns());
        }
    }

    fn hand_over(&mut self, at_most: usize) -> Result<(), Closed> {
        let execs = self.shared.execs().take(at_most);
        hand_over(execs, &self.settings.borrow(), &self.out)?;
        if self.shared.is_abandoned.load(Ordering::SeqCst) {
            return Ok(());
        }
        // An error would be the socket's, and waiting for it tells that as well.
        let Ok(lost) = self.shared.socket.take_lost() else { return Ok(()) };
        let counting = if lost.is_exact { COUNTED } else { UNCOUNTED };
        self.drops.note(lost.messages, counting, &self.out, self.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::exec::tests::context;
    use collector_common::collector::ProcessBackend;
    use collector_common::root::Root;

    #[tokio::test(start_paused = true)]
    async fn a_process_that_holds_up_its_reader_is_named_and_a_busy_reader_is_not() {
        let reading = BeingRead::default();
        let hour = || tokio::time::sleep(Duration::from_secs(3600));
        tokio::select! { pid = reading.held_up() => panic!("nobody is read, and {pid} is named"), () = hour() => {} }
        let busy = async {
            for pid in 1..1000 {
                reading.pid.store(pid, Ordering::Relaxed);
                reading.reads.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(HELD_UP / 2).await;
            }
        };
        tokio::select! { pid = reading.held_up() => panic!("{pid} is one of many"), () = busy => {} }
        assert_eq!(reading.held_up().await, 999);
        reading.read(&Proc::open(&Root::host()).unwrap(), 1);
        tokio::select! { pid = reading.held_up() => panic!("{pid} was read to the end"), () = hour() => {} }
    }

    /// The thread is held up by the first of two processes, and the kernel has told of many more meanwhile.
    #[tokio::test]
    async fn what_a_thread_that_is_held_up_was_about_to_read_is_reported() {
        let (cx, mut events) = context(ProcessBackend::Connector);
        let socket = match Connector::subscribe() {
            Ok(socket) => socket,
            Err(error) => return eprintln!("not run: {error}"),
        };
        let shared = Arc::new(Shared::of(socket));
        for pid in [-1, -2] {
            shared.execs().add(pid, cx.clock.now(), 0);
        }
        assert_eq!(shared.execs().next_to_read(), Some(-1));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let third = i64::from(child.id());
        child.wait().unwrap();
        // More than the socket has room for.
        let many = "i=0; while [ $i -lt 7000 ]; do i=$((i + 1)); /bin/true; done";
        assert!(std::process::Command::new("sh").args(["-c", many]).status().unwrap().success());
        // Whoever gave the thread up counts, and not the thread.
        let mut late = Watch::of(&cx, &shared).unwrap();
        shared.is_abandoned.store(true, Ordering::SeqCst);
        late.hand_over(0).unwrap();
        assert_eq!(cx.out.losses().take(), []);
        shared.rescue(&cx);
        shared.execs().add_image(Image::default(), 0);
        assert_eq!(shared.execs().count(), 0);
        let mut told = Vec::new();
        while let Ok(draft) = events.try_recv() {
            let Some(Payload::ProcessCreate(event)) = draft.payload else { panic!("no exec") };
            assert_eq!(event.extra_details["Incomplete"], "Executable;CommandLine;UserId;ParentProcessId");
            told.push(event.process_id);
        }
        // Others execute as well.
        assert_eq!(told[..2], [-1, -2]);
        assert!(told.contains(&third), "{third} is not among {told:?}");
        let lost: u64 = cx.out.losses().take().iter().map(|(_, execs)| execs).sum();
        assert!(told.len() as u64 + lost > 7000, "{} are told and {lost} counted as lost", told.len());
    }
}
