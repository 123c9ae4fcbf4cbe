//! Execs as the kernel announces them (`collector_common::sys::connector`).
//!
//! The announcement holds the number of the process and nothing else, so `/proc` is asked in the same breath, by
//! a thread of its own that runs before the ordinary ones: a program that ends at once would otherwise be gone in
//! nearly every second case on a busy machine, and a file of `/proc` whose owner holds it up blocks nobody else. Such
//! a thread is left behind, with an alarm, and another one goes on.
//!
//! ```text
//! kernel --datagram--> thread "exec": recv, read /proc/PID, offer --bounded queue--> recorder
//!                        ^ ends when the pipe that `observe` holds is closed
//! ```
//!
//! What the kernel could not keep for us is counted and said.

use std::io::{self, PipeReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::thread;

use collector_common::clock::Clock;
use collector_common::collector::{Closed, Context, Draft, Emitter, Failure, Settings};
use collector_common::event::payload::Payload;
use collector_common::parse::cn_proc::{self, Message};
use collector_common::root::Root;
use collector_common::sys::connector::{Connector, DATAGRAM_BYTES, Received, Wake};
use collector_common::sys::scheduling;
use tokio::sync::{oneshot, watch};

use super::drops::Drops;
use super::event::process_create;
use super::image::Image;
use super::{HELD_UP, report_running};

/// The words for `status` and `check`.
pub const NAME: &str = "netlink process connector";

/// What this back end does not see.
pub const GAP: &str = "a program that ends within a fraction of a millisecond is reported without the path or the \
                       arguments that were gone by then";

/// After this many events the thread looks whether it is still wanted.
const EVENTS_PER_TURN: usize = 64;

/// How drops are counted here.
const UNCOUNTED: &str = "how many is not known, each drop is counted as one lost ProcessCreate";

/// The thread reads small files into the heap and calls nothing deep.
pub const STACK_BYTES: usize = 256 * 1024;

/// Reports execs until dropped or until the recorder is gone.
pub async fn observe(cx: &Context, socket: Connector) -> Result<(), Failure> {
    if cx.settings.borrow().process_snapshot && report_running(cx).await.is_err() {
        return Ok(());
    }
    let (stop, _held) = io::pipe().map_err(|error| failure("making a pipe for", &error))?;
    let (ended, end) = oneshot::channel();
    let reading = Arc::new(Reading::default());
    let mut watch = Watch {
        root: cx.root.clone(),
        clock: cx.clock,
        settings: cx.settings.clone(),
        out: cx.out.clone(),
        drops: Drops::default(),
        reading: Arc::clone(&reading),
    };
    let work = move || {
        // When this future was dropped, nobody wants to know how the thread ended.
        drop(ended.send(watch.run(&socket, &stop)));
    };
    let builder = thread::Builder::new().name("exec".to_owned()).stack_size(STACK_BYTES);
    builder.spawn(work).map_err(|error| failure("starting a thread for", &error))?;
    tokio::select! {
        ended = end => match ended {
            Ok(result) => result.map_err(|error| failure("reading", &error)),
            Err(_) => Err(Failure("the thread that reads the netlink process connector died".to_owned())),
        },
        pid = reading.held_up() => Err(Failure(format!(
            "process {pid} holds up whoever reads its files in /proc, which hides what others execute: end it"
        ))),
    }
}

fn failure(doing: &str, error: &io::Error) -> Failure {
    Failure(format!("{doing} the netlink process connector failed: {error}"))
}

/// Which process the thread reads now, and whether it is still the same read.
#[derive(Debug, Default)]
struct Reading {
    /// 0 when none.
    pid: AtomicI32,
    reads: AtomicU64,
}

impl Reading {
    /// Returns the process that was being read in two looks in a row.
    async fn held_up(&self) -> i32 {
        let mut before = None;
        loop {
            tokio::time::sleep(HELD_UP).await;
            let now = (self.pid.load(Ordering::Relaxed), self.reads.load(Ordering::Relaxed));
            if now.0 != 0 && before == Some(now) {
                return now.0;
            }
            before = Some(now);
        }
    }

    fn read(&self, root: &Root, pid: i32) -> Image {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.pid.store(pid, Ordering::Relaxed);
        let image = Image::read(root, pid);
        self.pid.store(0, Ordering::Relaxed);
        image
    }
}

/// What the thread has.
struct Watch {
    root: Root,
    clock: Clock,
    settings: watch::Receiver<Arc<Settings>>,
    out: Emitter,
    drops: Drops,
    reading: Arc<Reading>,
}

impl Watch {
    fn run(&mut self, socket: &Connector, stop: &PipeReader) -> io::Result<()> {
        if let Err(error) = scheduling::run_before_ordinary_threads() {
            tracing::warn!(
                "cannot run the exec thread before ordinary ones: {error}; short programs may end before they are \
                 read: give the agent CAP_SYS_NICE and do not forbid real-time scheduling"
            );
        }
        while socket.wait(stop)? == Wake::Ready {
            if self.turn(socket)? == Err(Closed) {
                break;
            }
        }
        Ok(())
    }

    /// Handles what has arrived, up to a limit.
    fn turn(&mut self, socket: &Connector) -> io::Result<Result<(), Closed>> {
        let mut buffer = [0; DATAGRAM_BYTES];
        for _ in 0..EVENTS_PER_TURN {
            let handed_over = match socket.receive(&mut buffer) {
                Ok(Received::Datagram(bytes)) => match cn_proc::decode(&buffer[..bytes]) {
                    Ok(Message::Exec { pid, .. }) => self.report(pid),
                    // The kernel sends nothing else through the filters, and what it may add one day is no exec.
                    _ => Ok(()),
                },
                Ok(Received::Foreign) => Ok(()),
                // The kernel does not say how many it dropped: at least one.
                Ok(Received::Dropped) => self.drops.note(1, UNCOUNTED, &self.out, self.clock.now()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) => return Err(error),
            };
            if handed_over.is_err() {
                return Ok(Err(Closed));
            }
        }
        Ok(Ok(()))
    }

    fn report(&self, pid: i32) -> Result<(), Closed> {
        let at = self.clock.now();
        let image = self.reading.read(&self.root, pid);
        let event = process_create(pid, &image, &self.settings.borrow().redaction);
        self.out.offer(Draft::new(at, Payload::ProcessCreate(event)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_process_that_holds_up_its_reader_is_named_and_a_busy_reader_is_not() {
        let reading = Reading::default();
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
        reading.read(&Root::host(), 1);
        tokio::select! { pid = reading.held_up() => panic!("{pid} was read to the end"), () = hour() => {} }
    }
}
