//! `serve`: broker and store until a signal says stop.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::broker::{Broker, Listen};
use crate::ingest::{self, Topic};
use crate::store::Store;
use crate::store::retention::Keep;

/// What `serve` needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the hub; it becomes part of `AssociatedResourceId`.
    pub hub: String,
    /// Where to listen.
    pub listen: Listen,
    /// Where the store is.
    pub state: PathBuf,
    /// Template of the devices' topics.
    pub topic: String,
    /// The file of the store, when it is not the one in the state directory.
    pub db: Option<PathBuf>,
    /// How long rows stay.
    pub keep: Keep,
}

/// Serves until SIGTERM or SIGINT. When devices can connect it writes one line to `ready`, `listening URL`.
///
/// # Errors
///
/// A sentence for the operator, when it cannot start or the broker gives up.
pub async fn run(settings: &Settings, ready: &mut impl Write) -> Result<(), String> {
    // The handlers come first: a signal during the start must not kill it half way.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| format!("cannot watch SIGTERM: {error}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| format!("cannot watch SIGINT: {error}"))?;
    let topic = Topic::new(&settings.topic)?;
    let store = match &settings.db {
        Some(file) => Store::open_file(file),
        None => Store::open(&settings.state),
    };
    let mut store = store.map_err(|error| error.to_string())?;
    store.keep(settings.keep);
    let (ingest, closed) = ingest::start(store, &settings.hub, topic)
        .map_err(|error| format!("cannot start the thread of the store: {error}"))?;
    tokio::spawn(ingest.tick());
    let broker = Broker::bind(&settings.listen, ingest).await?;
    let scheme = if settings.listen.tls.is_some() { "mqtts" } else { "mqtt" };
    let url = format!("{scheme}://{}", broker.address());
    let stopper = broker.stopper();
    let mut is_ready = broker.ready();
    let mut serving = tokio::spawn(broker.run());
    tokio::select! {
        changed = is_ready.wait_for(|ready| *ready) => {
            changed.map_err(|_| "the broker ended before it was ready".to_owned())?;
        }
        ended = &mut serving => return ended.map_err(|error| error.to_string())?,
    }
    writeln!(ready, "listening {url}").and_then(|()| ready.flush()).map_err(|error| format!("stdout: {error}"))?;
    if !settings.listen.address.ip().is_loopback() {
        tracing::warn!(
            url,
            "devices are not asked who they are: whoever reaches this address can write as any of them"
        );
    }
    let place = settings.db.as_ref().unwrap_or(&settings.state).display();
    tracing::info!(url, store = %place, hub = settings.hub, "serving");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut serving => return ended.map_err(|error| error.to_string())?,
    }
    tracing::info!("stopping");
    stopper.shutdown();
    serving.await.map_err(|error| error.to_string())??;
    // Closing the store folds the log into the file. Nothing is lost when a late connection keeps it open.
    if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
        tracing::warn!("a connection is still open; the store is closed by the end of the process");
    }
    Ok(())
}

const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
