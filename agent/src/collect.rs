//! `edgewarden collect`: one shot without a daemon, one JSON object a line on standard output.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use collector_common::clock::Clock;
use collector_common::collector::{Collector, Context, StateSlot, channel};
use collector_common::event::kind::{Category, Kind};
use collector_common::root::Root;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use crate::config::settings::Settings;
use crate::output::Printer;

/// Triggered events are waited for this long unless told otherwise.
const DEFAULT_FOR: Duration = Duration::from_secs(10);

/// What to collect and how to print it.
pub struct Request {
    /// The collectors to run.
    pub collectors: Vec<&'static dyn Collector>,
    /// How long; `None` ends with the snapshots, or after ten seconds when something is waited for.
    pub duration: Option<Duration>,
    /// How to print it.
    pub printer: Printer,
    /// What the configuration says.
    pub settings: Arc<Settings>,
}

/// Collects and prints.
///
/// # Errors
/// A sentence when not one of the collectors could run, or standard output is closed.
pub async fn run(request: Request) -> Result<(), String> {
    let root = Root::host();
    let clock = Clock::new(&root);
    let (out, mut queue) = channel(BTreeMap::new());
    let waits = request.collectors.iter().any(|collector| collector.kind().category() == Category::Triggered);
    let limit = request.duration.or(waits.then_some(DEFAULT_FOR));
    let (_settings, settings) = watch::channel(Arc::new(request.settings.collectors.clone()));
    let mut tasks = JoinSet::new();
    for collector in &request.collectors {
        let context = Context {
            root: root.clone(),
            state_directory: None,
            clock,
            settings: settings.clone(),
            out: out.clone(),
            state: StateSlot::new(),
            once: request.duration.is_none(),
        };
        let (kind, running) = (collector.kind(), collector.run(context));
        tasks.spawn(async move { (kind, running.await) });
    }
    let losses = out.losses();
    drop(out);
    // Some back ends have to undo what they did to the machine.
    let caught = |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
    let (mut terminate, mut interrupt) = (caught(SignalKind::terminate())?, caught(SignalKind::interrupt())?);
    let mut failed = 0;
    let mut note = |ended| {
        if let Ok((kind, Err(failure))) = ended {
            warn!("{}: {failure}", Kind::name(kind));
            failed += 1;
        }
    };
    let mut deadline = std::pin::pin!(async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    });
    loop {
        tokio::select! {
            draft = queue.recv() => match draft {
                Some(draft) => request.printer.print(draft)?,
                None => break,
            },
            Some(ended) = tasks.join_next() => note(ended),
            () = &mut deadline => break,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    // The queue ends with the last of them, and that may be noticed first.
    while let Some(ended) = tasks.try_join_next() {
        note(ended);
    }
    tasks.shutdown().await;
    while let Some(draft) = queue.recv().await {
        request.printer.print(draft)?;
    }
    for (kind, events) in losses.take() {
        warn!("{events} {} events were lost before they could be read", kind.name());
    }
    if failed == request.collectors.len() { Err("no collector could run".to_owned()) } else { Ok(()) }
}
