//! Execs as the kernel announces them (`collector_common::sys::connector`).
//!
//! The announcement holds the number of the process and nothing else, so `/proc` is asked in the same breath. What
//! the kernel could not keep for us is counted and said.

use std::io;
use std::time::{Duration, Instant};

use collector_common::collector::{Closed, Context, Draft, Failure};
use collector_common::event::kind::Kind;
use collector_common::event::payload::{Diagnostic, Payload, Severity};
use collector_common::parse::cn_proc::{self, Message};
use collector_common::sys::connector::{Connector, DATAGRAM_BYTES, Received};

use super::event::process_create;
use super::image::Image;
use super::report_running;

/// The words for `status` and `check`.
pub const NAME: &str = "netlink process connector";

/// What this back end does not see.
pub const GAP: &str = "a program that ends within about a millisecond is reported without the path or the arguments that were gone by then";

/// After this many events others may have their turn.
const EVENTS_PER_TURN: usize = 64;

/// At most one remark about drops in this time; the count goes on meanwhile.
const ALARM_INTERVAL: Duration = Duration::from_secs(60);

/// What one turn found.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing is left.
    Empty,
    /// There may be more.
    More,
}

/// Reports execs until the recorder is gone.
pub async fn observe(cx: &Context, socket: Connector) -> Result<(), Failure> {
    let socket = socket.watch().map_err(|error| failure("watching", &error))?;
    if cx.settings.borrow().process_snapshot && report_running(cx).await.is_err() {
        return Ok(());
    }
    let mut drops = Drops::default();
    loop {
        let mut ready = socket.readable().await.map_err(|error| failure("waiting for", &error))?;
        match turn(cx, socket.get_ref(), &mut drops) {
            Ok(Ok(Turn::Empty)) => ready.clear_ready(),
            Ok(Ok(Turn::More)) => tokio::task::yield_now().await,
            Ok(Err(Closed)) => return Ok(()),
            Err(error) => return Err(failure("reading", &error)),
        }
    }
}

fn turn(cx: &Context, socket: &Connector, drops: &mut Drops) -> io::Result<Result<Turn, Closed>> {
    let mut buffer = [0; DATAGRAM_BYTES];
    for _ in 0..EVENTS_PER_TURN {
        let handed_over = match socket.receive(&mut buffer) {
            Ok(Received::Datagram(bytes)) => match cn_proc::decode(&buffer[..bytes]) {
                Ok(Message::Exec { pid, .. }) => report(cx, pid),
                // The kernel sends nothing else through the filters, and what it may add one day is no exec.
                _ => Ok(()),
            },
            Ok(Received::Foreign) => Ok(()),
            Ok(Received::Dropped) => drops.note(cx, Instant::now()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Ok(Turn::Empty)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => return Err(error),
        };
        if handed_over.is_err() {
            return Ok(Err(Closed));
        }
    }
    Ok(Ok(Turn::More))
}

fn report(cx: &Context, pid: i32) -> Result<(), Closed> {
    let at = cx.clock.now();
    let image = Image::read(&cx.root, pid);
    cx.out.offer(Draft::new(at, Payload::ProcessCreate(process_create(pid, &image))))
}

fn failure(doing: &str, error: &io::Error) -> Failure {
    Failure(format!("{doing} the netlink process connector failed: {error}"))
}

/// How often the kernel dropped execs since that was last said.
#[derive(Debug, Default)]
struct Drops {
    times: u64,
    said: Option<Instant>,
}

impl Drops {
    /// The kernel does not say how many it dropped. At least one is counted each time, and the remark says so.
    fn note(&mut self, cx: &Context, now: Instant) -> Result<(), Closed> {
        cx.out.lost(Kind::ProcessCreate, 1);
        self.times = self.times.saturating_add(1);
        if self.said.is_some_and(|said| now.duration_since(said) < ALARM_INTERVAL) {
            return Ok(());
        }
        self.said = Some(now);
        let times = std::mem::take(&mut self.times);
        cx.out.offer(Draft::alarm(cx.clock.now(), remark(times)))
    }
}

fn remark(times: u64) -> Diagnostic {
    let message = "the kernel dropped exec events because programs were started faster than they could be recorded; \
                   how many is not known, each drop is counted as one lost ProcessCreate";
    Diagnostic::new(Severity::Error, message).with("Drops", times).with("Collector", Kind::ProcessCreate.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::exec::tests::context;
    use collector_common::collector::ProcessBackend;

    #[tokio::test]
    async fn drops_are_counted_each_time_and_said_once_a_minute() {
        let (cx, mut events) = context(ProcessBackend::Connector);
        let (mut drops, start) = (Drops::default(), Instant::now());
        for second in [0, 1, 59, 61, 62] {
            drops.note(&cx, start + Duration::from_secs(second)).unwrap();
        }
        assert_eq!(cx.out.take_lost(), [(Kind::ProcessCreate, 5)]);
        let mut said = Vec::new();
        while let Ok(draft) = events.try_recv() {
            assert!(draft.security_relevant);
            let Some(Payload::Diagnostic(diagnostic)) = draft.payload else { panic!("no remark") };
            said.push(diagnostic.extra_details["Drops"].clone());
        }
        assert_eq!(said, ["1", "3"]);
    }
}
