//! The thread that looks at sockets: what it has, and what one turn of it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::PipeReader;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use collector_common::collector::{Context, Draft, Failure};
use collector_common::event::payload::{Diagnostic, Payload, Severity};
use tokio::runtime::Handle;

use super::bell::{Bell, Ring};
use super::change::{self, Listener, Moment, Verdict, View};
use super::namespace::Namespaces;
use super::owner::{Named, Owners};
use super::pace::{self, Allowance, Stopwatch};
use super::passing::Passing;
use super::probe::Probe;
use super::pulse::Pulse;
use super::source::{Reader, Source};
use super::{Look, NAMED_AT_MOST, bring_in, snapshot, words};

/// What the thread has.
pub(super) struct Watch {
    cx: Context,
    runtime: Handle,
    source: Source,
    namespaces: Namespaces,
    owners: Owners,
    /// Or why there is none. Comes after the first snapshot, because it takes a moment.
    probe: Result<Probe, String>,
    passing: Passing,
    pulse: Pulse,
    transient: RangeInclusive<u16>,
    /// The views' clock.
    epoch: Instant,
    before: View,
    /// What there is in each namespace, as it was read last.
    known: BTreeMap<Option<u32>, Known>,
    /// Namespaces the kernel told something of since.
    told: BTreeSet<Option<u32>>,
    sent: Option<Sent>,
    peers_sent: Option<Instant>,
    /// When peers are asked for again.
    peers_due: Option<Instant>,
    /// When the last look was, and what it took: in all, and to see that there is nothing to read.
    looked: Instant,
    /// When to look next in any case.
    due: Instant,
    turn_cost: Duration,
    tick_cost: Duration,
    allowance: Allowance,
    /// There was more to tell than changes may cause.
    is_held_back: bool,
}

/// What was read of a namespace.
struct Known {
    look: Look,
    /// How many sockets of each kind there were, in the kernel's words.
    counts: Option<String>,
    /// The number the newest process had.
    newest: Option<u64>,
    at: Instant,
    cost: Duration,
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
    pub(super) fn open(cx: Context, runtime: Handle) -> Result<Watch, Failure> {
        let source = Source::open(&cx.root)?;
        let (namespaces, owners) = (Namespaces::open(&cx.root), Owners::new(&cx.root));
        Ok(Watch {
            transient: source.ephemeral_ports(),
            source,
            namespaces,
            owners,
            probe: Err(String::new()),
            passing: Passing::default(),
            pulse: Pulse::of(&cx.root),
            cx,
            runtime,
            epoch: Instant::now(),
            before: View::default(),
            known: BTreeMap::new(),
            told: BTreeSet::new(),
            sent: None,
            peers_sent: None,
            peers_due: None,
            looked: Instant::now(),
            due: Instant::now(),
            turn_cost: Duration::ZERO,
            tick_cost: Duration::ZERO,
            allowance: Allowance::full(),
            is_held_back: false,
        })
    }

    pub(super) fn run(&mut self, stop: &PipeReader) -> Result<(), Failure> {
        if self.turn()? == Turn::End {
            return Ok(());
        }
        self.probe = bring_in(&self.cx.root, &self.cx.settings.borrow());
        self.say_running();
        let bell = Bell::of(stop, self.probe.as_ref().ok().map(Probe::news))?;
        loop {
            if self.turn()? == Turn::End || self.wait(&bell)? == Turn::End {
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
        let turn = Stopwatch::start();
        self.take_news();
        self.namespaces.refresh();
        if self.owes_something() {
            self.told.extend(self.known.keys());
        }
        if moment.is_due() {
            self.owners.forget_places();
        }
        let (is_news, cost) = self.look(asks_peers)?;
        if asks_peers {
            self.peers_due = Some(Instant::now() + pace::until_peers(cost));
        }
        self.passing.settle(self.known.values().map(|it| &it.look), |number| self.namespaces.foreign(number));
        self.looked = Instant::now();
        self.turn_cost = turn.cost();
        self.tick_cost = self.turn_cost.saturating_sub(cost);
        if !is_news && !moment.is_due() {
            return self.tell_passing();
        }
        let looks: Vec<Look> = self.known.values().map(|it| it.look.clone()).collect();
        let now = View::of(&looks, self.epoch.elapsed(), &self.before, &self.transient);
        let verdict = change::decide(self.sent.as_ref().map(|sent| &sent.view), &self.before, &now, &moment);
        self.before = now;
        if let Verdict::Snapshot { vanished, for_peers_only } = verdict {
            self.is_held_back = !moment.is_due() && !self.allowance.take(self.epoch.elapsed());
            if !self.is_held_back {
                let looks = if asks_peers { looks } else { self.with_connections(looks)? };
                return self.snapshot(&looks, &vanished, for_peers_only);
            }
        }
        self.tell_passing()
    }

    /// Whether there is something to tell by now that was seen before: what was held back, or a client that is none.
    fn owes_something(&self) -> bool {
        let at = self.epoch.elapsed();
        if self.is_held_back {
            return self.allowance.clone().take(at);
        }
        self.sent.as_ref().is_some_and(|sent| self.before.has_matured(&sent.view, at))
    }

    /// Takes what the kernel told since the last look.
    fn take_news(&mut self) {
        let Ok(probe) = &mut self.probe else { return };
        let (records, lost) = probe.take();
        if records.iter().any(|record| !self.namespaces.knows(record.net_namespace)) {
            self.namespaces.search();
        }
        self.told.extend(records.iter().map(|record| self.namespaces.foreign(record.net_namespace)));
        if lost > 0 {
            self.told.extend(self.known.keys());
        }
        self.passing.note(&self.cx.root, records, lost);
    }

    /// Names what listened between two looks only. That it did is no row, because a row is what is there.
    fn tell_passing(&mut self) -> Result<Turn, Failure> {
        if self.passing.is_empty() || !self.allowance.take(self.epoch.elapsed()) {
            return Ok(Turn::On);
        }
        let diagnostic = self.passing.tell();
        self.send(vec![Draft::alarm(self.cx.clock.now(), diagnostic)])
    }

    fn snapshot(&mut self, looks: &[Look], vanished: &[Listener], for_peers_only: bool) -> Result<Turn, Failure> {
        self.say_running();
        let inodes = snapshot::inodes(looks);
        let named = match self.probe.as_mut().ok().and_then(Probe::holders) {
            Some(holds) => self.owners.name_by(holds, &inodes),
            None => self.owners.name(&inodes),
        };
        let rows = looks.iter().flat_map(|look| snapshot::rows(look, &named)).collect();
        let mut drafts = vec![Draft::new(self.cx.clock.now(), Payload::ListeningPorts(rows))];
        if let Some(last) = self.sent.as_ref().filter(|_| !vanished.is_empty()) {
            drafts.push(Draft::alarm(self.cx.clock.now(), alarm(vanished, &last.named)));
        }
        if !self.passing.is_empty() {
            drafts.push(Draft::alarm(self.cx.clock.now(), self.passing.tell()));
        }
        if self.send(drafts)? == Turn::End {
            return Ok(Turn::End);
        }
        if for_peers_only {
            self.peers_sent = Some(Instant::now());
        }
        let view = View::of(looks, self.epoch.elapsed(), &self.before, &self.transient);
        self.sent = Some(Sent { at: Instant::now(), view, named });
        Ok(if self.cx.once { Turn::End } else { Turn::On })
    }

    fn send(&self, drafts: Vec<Draft>) -> Result<Turn, Failure> {
        for draft in drafts {
            if self.runtime.block_on(self.cx.out.send(draft)).is_err() {
                return Ok(Turn::End);
            }
        }
        Ok(Turn::On)
    }

    fn say_running(&self) {
        let why = self.probe.as_ref().err().filter(|why| !why.is_empty());
        let (backend, gaps) = words(&self.source, &self.namespaces, why, &self.cx.root);
        let backend = if self.probe.is_err() && why.is_none() { self.source.backend() } else { backend };
        self.cx.state.running(backend, (!gaps.is_empty()).then(|| gaps.join("; ")));
    }

    /// Reads what may have changed, or all with who is connected. Whether there was anything, and what reading took.
    fn look(&mut self, with_connections: bool) -> Result<(bool, Duration), Failure> {
        let mut before = std::mem::take(&mut self.known);
        let (mut is_news, mut cost) = (false, Duration::ZERO);
        self.due = Instant::now() + pace::LOOK_ANYWAY_EVERY;
        let numbers = self.namespaces.numbers();
        for namespace in std::iter::once(None).chain(numbers.into_iter().map(Some)) {
            let counts = self.source.counts(namespace.and_then(|number| self.namespaces.process(number)));
            let mut known = before.remove(&namespace);
            let is_told = self.told.remove(&namespace);
            // With BPF the kernel tells what a new process does.
            let newest = self.namespaces.newest().filter(|_| self.probe.is_err());
            let due = known.as_ref().map(|it| it.due(counts.as_ref(), newest));
            if with_connections || is_told || due.is_none_or(|due| due <= Instant::now()) {
                let reading = Stopwatch::start();
                if let Some(look) = self.read(namespace, with_connections)? {
                    known = Some(Known { look, counts, newest, at: Instant::now(), cost: reading.cost() });
                } else if !namespace.is_some_and(|number| self.namespaces.knows(number)) {
                    known = None;
                }
                cost += reading.cost();
                is_news = true;
            } else if let Some(known) = &mut known {
                known.look.connections.clear();
                self.due = due.map_or(self.due, |due| due.min(self.due));
            }
            self.known.extend(known.map(|known| (namespace, known)));
        }
        self.told.clear();
        // What is left is of a namespace that is no longer there.
        Ok((is_news || !before.is_empty(), cost))
    }

    /// `None` for a namespace that is gone, or cannot be looked into for a moment.
    fn read(&mut self, namespace: Option<u32>, with_connections: bool) -> Result<Option<Look>, Failure> {
        let before = &self.before;
        let read = |reader: &mut Reader<'_>| look_by(reader, namespace, before, with_connections);
        let Some(number) = namespace else { return read(&mut self.source.here()?).map(Some) };
        let seen = self.namespaces.visit(number, &self.source, read)?;
        if seen.is_some() {
            return Ok(seen);
        }
        // The process it was looked into by may have ended, and others be there.
        self.namespaces.search();
        self.namespaces.visit(number, &self.source, read)
    }

    /// Adds who is connected to what was seen without that.
    fn with_connections(&self, mut looks: Vec<Look>) -> Result<Vec<Look>, Failure> {
        for look in &mut looks {
            let read = |reader: &mut Reader<'_>| {
                let connections = reader.connections(&look.listeners)?;
                Ok((reader.interfaces(connections.iter()), connections))
            };
            let seen = match look.namespace {
                None => Some(read(&mut self.source.here()?)?),
                Some(number) => self.namespaces.visit(number, &self.source, read)?,
            };
            if let Some((interfaces, connections)) = seen {
                look.connections = connections;
                look.interfaces.extend(interfaces);
            }
        }
        Ok(looks)
    }

    /// Waits until there may be something to see: for a while, or until the kernel has news.
    fn wait(&mut self, bell: &Bell<'_>) -> Result<Turn, Failure> {
        let mut ring = bell.wait(pace::until_look(self.tick_cost))?;
        while ring == Ring::TimeIsUp && self.pulse.is_same() && !self.is_due() {
            // What the last look took was not for this one.
            ring = bell.wait(pace::until_look(Duration::ZERO))?;
        }
        if ring == Ring::News {
            let rest = pace::until_look_for_event(self.turn_cost).saturating_sub(self.looked.elapsed());
            ring = if rest.is_zero() { ring } else { bell.wait_deaf(rest)? };
        }
        Ok(if ring == Ring::Stop { Turn::End } else { Turn::On })
    }

    /// Whether to look although nothing has happened here. Of other namespaces the pulse tells nothing.
    fn is_due(&self) -> bool {
        let is_alone = self.known.keys().all(Option::is_none);
        let interval = self.cx.settings.borrow().snapshot_interval;
        let is_snapshot_due = self.sent.as_ref().is_none_or(|sent| sent.at.elapsed() >= interval);
        !is_alone || is_snapshot_due || self.is_held_back || self.namespaces.is_behind() || self.due <= Instant::now()
    }
}

impl Known {
    /// When to read it again: soon if the kernel counts otherwise than then, and after a while in any case, because one
    /// socket may have come when another went; sooner if a process was started, since that may be how. More rarely
    /// where it is dear.
    fn due(&self, counts: Option<&String>, newest: Option<u64>) -> Instant {
        let pause = if counts.is_none() || self.counts.as_ref() != counts {
            pace::until_reading(self.cost)
        } else if self.newest != newest {
            pace::until_reading_beside_new_processes(self.cost)
        } else {
            pace::until_reading_anyway(self.cost)
        };
        self.at + pause
    }
}

/// Looks into one namespace.
pub(super) fn look_by(
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
