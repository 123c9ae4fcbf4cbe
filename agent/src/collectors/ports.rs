//! The sockets that wait for somebody, and who is connected to them.
//!
//! ```text
//! thread "ports", each second or when the kernel says so:
//!   namespace (/proc/*/ns/net) ─▶ source (sock_diag or /proc/net) ─▶ View ─▶ change::decide() ─▶ nothing
//!                                                                             (pure)          └▶ who is connected ─┐
//!                                                              rows ◀─ snapshot::rows() ◀─ owner (/proc/*/fd) ◀────┘
//! ```
//!
//! A look asks the kernel for listeners only, which costs a tenth of a millisecond; `pace` makes it rarer where it costs
//! more. Everything is done by a thread of its own, because it enters other network namespaces, and no other work may
//! ever run there.

use std::collections::BTreeMap;
use std::io::{self, PipeReader};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use collector_common::collector::{Collector, Context, Draft, Failure, Running, Settings, Survey};
use collector_common::event::kind::Kind;
use collector_common::event::payload::{Diagnostic, Payload, Severity};
use collector_common::parse::inet_socket::{InetSocket, Protocol};
use collector_common::root::Root;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::ClockId;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::change::{Listener, Moment, Verdict, View};
use self::namespace::Namespaces;
use self::owner::{Named, Owners};
use self::pace::Allowance;
use self::source::{Reader, Source};

mod change;
mod namespace;
mod owner;
mod pace;
mod snapshot;
mod source;

/// Reports listeners and their peers at start, at each snapshot interval and after each change.
pub struct ListeningPorts;

/// How many vanished listeners one Diagnostic spells out.
const NAMED_AT_MOST: usize = 20;

/// The thread reads into the heap and calls nothing deep.
const STACK_BYTES: usize = 512 * 1024;

/// A socket and what it speaks.
type Socket = (Protocol, InetSocket);

/// What was seen in one network namespace.
#[derive(Clone, Debug)]
struct Look {
    /// Its number, when it is not the agent's.
    namespace: Option<u32>,
    listeners: Vec<Socket>,
    /// TCP connections, if they were asked for.
    connections: Vec<InetSocket>,
    /// Names of the interfaces that sockets are bound to.
    interfaces: BTreeMap<u32, String>,
}

impl Collector for ListeningPorts {
    fn kind(&self) -> Kind {
        Kind::ListeningPorts
    }

    fn survey(&self, root: &Root, _settings: &Settings) -> Survey {
        match Source::open(root) {
            Ok(source) => {
                let mut namespaces = Namespaces::open(root);
                namespaces.refresh();
                Survey { backend: source.backend(), lacks: gaps(&source, &namespaces, root) }
            }
            Err(failure) => Survey { backend: "none".to_owned(), lacks: vec![failure.0] },
        }
    }

    fn run(&self, cx: Context) -> Running {
        Box::pin(observe(cx))
    }
}

async fn observe(cx: Context) -> Result<(), Failure> {
    let failure = |error: io::Error| Failure(format!("starting the thread that looks at sockets failed: {error}"));
    let (stop, _held) = io::pipe().map_err(failure)?;
    let (ended, end) = oneshot::channel();
    let runtime = Handle::current();
    let work = move || {
        let result = Watch::open(cx, runtime).and_then(|mut watch| watch.run(&stop));
        // When this future was dropped, nobody wants to know how the thread ended.
        drop(ended.send(result));
    };
    thread::Builder::new().name("ports".to_owned()).stack_size(STACK_BYTES).spawn(work).map_err(failure)?;
    end.await.unwrap_or_else(|_| Err(Failure("the thread that looks at sockets died".to_owned())))
}

/// What the thread has.
struct Watch {
    cx: Context,
    runtime: Handle,
    source: Source,
    namespaces: Namespaces,
    owners: Owners,
    transient: RangeInclusive<u16>,
    /// The views' clock.
    epoch: Instant,
    before: View,
    /// What the last look saw in other namespaces, for one that cannot be looked into for a moment.
    elsewhere: Vec<Look>,
    sent: Option<Sent>,
    peers_sent: Option<Instant>,
    /// When peers are asked for again.
    peers_due: Option<Instant>,
    /// What the last look for listeners took.
    look_cost: Duration,
    allowance: Allowance,
}

/// The last snapshot.
struct Sent {
    at: Instant,
    view: View,
    named: Named,
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    On,
    End,
}

impl Watch {
    fn open(cx: Context, runtime: Handle) -> Result<Watch, Failure> {
        let source = Source::open(&cx.root)?;
        let (namespaces, owners) = (Namespaces::open(&cx.root), Owners::new(&cx.root));
        Ok(Watch {
            transient: source.ephemeral_ports(),
            source,
            namespaces,
            owners,
            cx,
            runtime,
            epoch: Instant::now(),
            before: View::default(),
            elsewhere: Vec::new(),
            sent: None,
            peers_sent: None,
            peers_due: None,
            look_cost: Duration::ZERO,
            allowance: Allowance::full(),
        })
    }

    fn run(&mut self, stop: &PipeReader) -> Result<(), Failure> {
        loop {
            if self.turn()? == Turn::End || self.wait(stop, pace::until_look(self.look_cost))? == Turn::End {
                return Ok(());
            }
        }
    }

    /// Looks once, and sends what follows from it.
    fn turn(&mut self) -> Result<Turn, Failure> {
        let moment = Moment {
            since_snapshot: self.sent.as_ref().map(|sent| sent.at.elapsed()),
            since_peer_snapshot: self.peers_sent.map(|at| at.elapsed()),
            snapshot_interval: self.cx.settings.borrow().snapshot_interval,
        };
        let asks_peers =
            moment.is_due() || moment.peers_count() && self.peers_due.is_none_or(|at| at <= Instant::now());
        self.namespaces.refresh();
        let started = cpu_time();
        let looks = self.look(asks_peers)?;
        let cost = cpu_time().saturating_sub(started);
        if asks_peers {
            self.peers_due = Some(Instant::now() + pace::until_peers(cost));
        } else {
            self.look_cost = cost;
        }
        let now = View::of(&looks, self.epoch.elapsed(), &self.before, &self.transient);
        let verdict = change::decide(self.sent.as_ref().map(|sent| &sent.view), &self.before, &now, &moment);
        self.before = now;
        match verdict {
            Verdict::Snapshot { vanished, for_peers_only }
                if moment.is_due() || self.allowance.take(self.epoch.elapsed()) =>
            {
                let looks = if asks_peers { looks } else { self.with_connections(looks)? };
                self.snapshot(&looks, &vanished, for_peers_only)
            }
            _ => Ok(Turn::On),
        }
    }

    fn snapshot(&mut self, looks: &[Look], vanished: &[Listener], for_peers_only: bool) -> Result<Turn, Failure> {
        let gaps = gaps(&self.source, &self.namespaces, &self.cx.root);
        self.cx.state.running(self.source.backend(), (!gaps.is_empty()).then(|| gaps.join("; ")));
        let named = self.owners.name(&snapshot::inodes(looks));
        let rows = looks.iter().flat_map(|look| snapshot::rows(look, &named)).collect();
        let mut drafts = vec![Draft::new(self.cx.clock.now(), Payload::ListeningPorts(rows))];
        if let Some(last) = self.sent.as_ref().filter(|_| !vanished.is_empty()) {
            drafts.push(Draft::alarm(self.cx.clock.now(), alarm(vanished, &last.named)));
        }
        for draft in drafts {
            if self.runtime.block_on(self.cx.out.send(draft)).is_err() {
                return Ok(Turn::End);
            }
        }
        if for_peers_only {
            self.peers_sent = Some(Instant::now());
        }
        let view = View::of(looks, self.epoch.elapsed(), &self.before, &self.transient);
        self.sent = Some(Sent { at: Instant::now(), view, named });
        Ok(if self.cx.once { Turn::End } else { Turn::On })
    }

    /// What there is in each namespace, the agent's own first.
    fn look(&mut self, with_connections: bool) -> Result<Vec<Look>, Failure> {
        let before = &self.before;
        let mut own = self.source.here()?;
        let mut looks = vec![look_by(&mut own, None, before, with_connections)?];
        drop(own);
        let mut unseen = Vec::new();
        for number in self.namespaces.numbers() {
            let read = |reader: &mut Reader<'_>| look_by(reader, Some(number), before, with_connections);
            match self.namespaces.visit(number, &self.source, read)? {
                Some(look) => looks.push(look),
                None => unseen.push(number),
            }
        }
        if !unseen.is_empty() {
            self.namespaces.search();
        }
        for number in unseen.into_iter().filter(|number| self.namespaces.knows(*number)) {
            let read = |reader: &mut Reader<'_>| look_by(reader, Some(number), before, with_connections);
            let seen = self.namespaces.visit(number, &self.source, read)?;
            let known = || self.elsewhere.iter().find(|look| look.namespace == Some(number)).cloned();
            looks.extend(seen.or_else(known));
        }
        self.elsewhere = looks[1..].to_vec();
        Ok(looks)
    }

    /// Adds who is connected to what was seen without that.
    fn with_connections(&mut self, mut looks: Vec<Look>) -> Result<Vec<Look>, Failure> {
        let mut again = self.look(true)?;
        for look in &mut looks {
            if let Some(at) = again.iter().position(|it| it.namespace == look.namespace) {
                let more = again.swap_remove(at);
                look.connections = more.connections;
                look.interfaces.extend(more.interfaces);
            }
        }
        Ok(looks)
    }

    fn wait(&self, stop: &PipeReader, pause: Duration) -> Result<Turn, Failure> {
        let mut fds = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        let pause = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, pause) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(Turn::On),
            Ok(_) => Ok(Turn::End),
            Err(errno) => Err(Failure(format!("waiting for the next look at sockets failed: {}", errno.desc()))),
        }
    }
}

fn look_by(
    reader: &mut Reader<'_>,
    namespace: Option<u32>,
    before: &View,
    with_connections: bool,
) -> Result<Look, Failure> {
    let mut listeners = reader.listeners()?;
    if before.misses(namespace, &listeners) {
        // A table that is read in parts can miss a socket while others come and go.
        listeners = reader.listeners_beside(listeners)?;
    }
    let connections = if with_connections { reader.connections(&listeners)? } else { Vec::new() };
    let interfaces = reader.interfaces(listeners.iter().map(|(_, socket)| socket).chain(&connections));
    Ok(Look { namespace, listeners, connections, interfaces })
}

/// What the calling thread has taken so far.
fn cpu_time() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().map_or(Duration::ZERO, Duration::from)
}

fn gaps(source: &Source, namespaces: &Namespaces, root: &Root) -> Vec<String> {
    source.gaps().iter().cloned().chain(owner::gaps(root)).chain(namespaces.gaps()).collect()
}

fn alarm(vanished: &[Listener], named: &Named) -> Diagnostic {
    let name = |listener: &Listener| {
        let address = SocketAddr::new(listener.local, listener.port);
        let owner = named.get(&listener.inode).and_then(Option::as_ref);
        let was = owner.and_then(|it| it.executable.as_deref()).map(|path| format!(" ({path})")).unwrap_or_default();
        let within = listener.namespace.map(|number| format!(" in network namespace {number}")).unwrap_or_default();
        format!("{} {address}{was}{within}", listener.protocol.name())
    };
    let mut names: Vec<_> = vanished.iter().take(NAMED_AT_MOST).map(name).collect();
    if let more @ 1.. = vanished.len().saturating_sub(NAMED_AT_MOST) {
        names.push(format!("and {more} more"));
    }
    let message = format!("no longer listening: {}", names.join(", "));
    Diagnostic::new(Severity::Warning, message).with("VanishedListeners", names.join(";"))
}

#[cfg(test)]
mod tests;
