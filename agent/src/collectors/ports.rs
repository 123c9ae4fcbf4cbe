//! The sockets that wait for somebody, and who is connected to them.
//!
//! ```text
//! every 5 s:  source (sock_diag or /proc/net) ─▶ View ─▶ change::decide() ─▶ nothing
//!                                                          (pure)          └▶ source::connections ─┐
//!                                                                             owner (/proc/*/fd) ──┴▶ snapshot::rows()
//! ```
//!
//! The look every 5 s asks the kernel for listeners only, which costs tens of microseconds. The walk over the open
//! files of all processes is made for a snapshot only, and anew for each, so that no remembered owner can be wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use collector_common::collector::{Collector, Context, Draft, Failure, Running, Settings, Survey};
use collector_common::event::kind::Kind;
use collector_common::event::payload::{Diagnostic, Payload, Severity};
use collector_common::parse::inet_socket::{InetSocket, Protocol};
use collector_common::root::Root;
use tokio::time::Instant;

use self::change::{Listener, Moment, Verdict, View};
use self::owner::Owner;
use self::source::Source;
use crate::tick;

mod change;
mod owner;
mod snapshot;
mod source;

/// Reports listeners and their peers at start, at each snapshot interval and after each change.
pub struct ListeningPorts;

/// Often enough that a listener an intruder opens is seen while he uses it.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many vanished listeners one Diagnostic spells out.
const NAMED_AT_MOST: usize = 20;

/// The last snapshot.
struct Sent {
    at: Instant,
    view: View,
    owners: BTreeMap<u64, Owner>,
}

impl Collector for ListeningPorts {
    fn kind(&self) -> Kind {
        Kind::ListeningPorts
    }

    fn survey(&self, root: &Root, _settings: &Settings) -> Survey {
        match Source::open(root) {
            Ok(source) => Survey { backend: source.backend(), lacks: gaps(&source, root) },
            Err(failure) => Survey { backend: "none".to_owned(), lacks: vec![failure.0] },
        }
    }

    fn run(&self, cx: Context) -> Running {
        Box::pin(observe(cx))
    }
}

async fn observe(cx: Context) -> Result<(), Failure> {
    let source = Source::open(&cx.root)?;
    let transient = source.ephemeral_ports();
    let mut sent: Option<Sent> = None;
    let mut before = View::default();
    let mut peers_sent: Option<Instant> = None;
    let mut due = Instant::now();
    loop {
        tokio::time::sleep_until(due).await;
        due = tick::within(LOOK_EVERY, due.into_std()).into();
        let moment = Moment {
            since_snapshot: sent.as_ref().map(|sent| sent.at.elapsed()),
            since_peer_snapshot: peers_sent.map(|at| at.elapsed()),
            snapshot_interval: cx.settings.borrow().snapshot_interval,
        };
        let mut listeners = source.listeners()?;
        if before.misses(&listeners) {
            // A table that is read in parts can miss a socket while others come and go.
            listeners = source.listeners_beside(listeners)?;
        }
        // Who is connected matters only when a snapshot could follow from it: it is the dearer question.
        let connections = if moment.peers_count() { source.connections(&listeners)? } else { Vec::new() };
        let now = View::of(&listeners, &connections, &before, &transient);
        let verdict = change::decide(sent.as_ref().map(|sent| &sent.view), &before, &now, &moment);
        before = now.clone();
        let Verdict::Snapshot { vanished, for_peers_only } = verdict else { continue };
        let connections = if moment.peers_count() { connections } else { source.connections(&listeners)? };
        let view = View::of(&listeners, &connections, &View::default(), &transient);
        let gaps = gaps(&source, &cx.root);
        cx.state.running(source.backend(), (!gaps.is_empty()).then(|| gaps.join("; ")));
        let owners = owner::owners(&cx.root, &snapshot::inodes(&listeners, &connections));
        let rows = snapshot::rows(&listeners, &connections, &owners, &source::interface_name);
        let mut drafts = vec![Draft::new(cx.clock.now(), Payload::ListeningPorts(rows))];
        if let Some(last) = sent.as_ref().filter(|_| !vanished.is_empty()) {
            drafts.push(Draft::alarm(cx.clock.now(), alarm(&vanished, &last.owners)));
        }
        for draft in drafts {
            if cx.out.send(draft).await.is_err() {
                return Ok(());
            }
        }
        if cx.once {
            return Ok(());
        }
        if for_peers_only {
            peers_sent = Some(Instant::now());
        }
        sent = Some(Sent { at: Instant::now(), view, owners });
    }
}

fn gaps(source: &Source, root: &Root) -> Vec<String> {
    source.gaps().iter().cloned().chain(owner::gaps(root)).collect()
}

fn alarm(vanished: &[Listener], owners: &BTreeMap<u64, Owner>) -> Diagnostic {
    let name = |listener: &Listener| {
        let address = SocketAddr::new(listener.local, listener.port);
        let executable = owners.get(&listener.inode).and_then(|owner| owner.executable.as_deref());
        let was = executable.map(|path| format!(" ({path})")).unwrap_or_default();
        format!("{} {address}{was}", listener.protocol.name())
    };
    let mut names: Vec<_> = vanished.iter().take(NAMED_AT_MOST).map(name).collect();
    if let more @ 1.. = vanished.len().saturating_sub(NAMED_AT_MOST) {
        names.push(format!("and {more} more"));
    }
    let message = format!("no longer listening: {}", names.join(", "));
    Diagnostic::new(Severity::Warning, message).with("VanishedListeners", names.join(";"))
}

/// A socket and what it speaks.
type Socket = (Protocol, InetSocket);

#[cfg(test)]
mod tests;
