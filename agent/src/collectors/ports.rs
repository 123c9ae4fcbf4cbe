//! The sockets that wait for somebody, and who is connected to them.
//!
//! ```text
//! thread "ports", each second or when the kernel says so:
//!   namespace (/proc/*/ns/net) ─▶ source (sock_diag or /proc/net) ─▶ View ─▶ change::decide() ─▶ nothing
//!                                                                             (pure)          └▶ who is connected ─┐
//!                                                              rows ◀─ snapshot::rows() ◀─ owner (/proc/*/fd) ◀────┘
//! ```
//!
//! Where BPF may be used, `probe` wakes the thread when a TCP socket begins or ceases to listen, and tells who holds what.
//!
//! Most looks end at the `pulse`, which is as it was. Others compare the kernel's counts of each namespace with those of
//! the last one, and ask for the listeners when they differ; `pace` makes it rarer where it is dear. Everything is done by a thread of its own, because it enters other
//! network namespaces, and no other work may ever run there.

use std::collections::BTreeMap;
use std::io;
use std::thread;

use collector_common::collector::{Collector, Context, Failure, ProcessBackend, Running, Settings, Survey};
use collector_common::event::kind::Kind;
use collector_common::parse::inet_socket::{InetSocket, Protocol};
use collector_common::root::Root;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::namespace::Namespaces;
use self::probe::Probe;
use self::source::Source;
use self::watch::Watch;

mod bell;
mod change;
mod namespace;
mod owner;
mod pace;
mod passing;
mod probe;
mod pulse;
mod snapshot;
mod source;
mod watch;

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

    fn survey(&self, root: &Root, settings: &Settings) -> Survey {
        match Source::open(root) {
            Ok(source) => {
                let mut namespaces = Namespaces::open(root);
                namespaces.refresh();
                let probe = bring_in(root, settings).map(drop);
                let (backend, lacks) = words(&source, &namespaces, probe.as_ref().err(), root);
                Survey { backend, lacks }
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

/// Where BPF is not meant to be used for processes, it is not for sockets.
fn bring_in(root: &Root, settings: &Settings) -> Result<Probe, String> {
    match settings.process_backend {
        ProcessBackend::Auto | ProcessBackend::Bpf => Probe::load(root),
        ProcessBackend::BpfNoBtf | ProcessBackend::Audit | ProcessBackend::Connector | ProcessBackend::Poll => {
            Err("processBackend is another one than BPF".to_owned())
        }
    }
}

/// What is used, and what is not seen.
fn words(source: &Source, namespaces: &Namespaces, no_probe: Option<&String>, root: &Root) -> (String, Vec<String>) {
    let late = no_probe.map(|why| format!("a socket that listens for less than a second may not be seen: {why}"));
    let gaps = source.gaps().iter().cloned().chain(owner::gaps(root)).chain(namespaces.gaps()).chain(late.clone());
    let backend = if late.is_some() { source.backend() } else { format!("{}, {}", source.backend(), probe::NAME) };
    (backend, gaps.collect())
}

#[cfg(test)]
mod tests;
