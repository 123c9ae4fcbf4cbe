//! `serve`: broker and store until a signal says stop.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
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

/// Serves until SIGTERM or SIGINT; SIGHUP reads the TLS files again. When devices can connect it writes one line to
/// `ready`, `listening URL`.
///
/// # Errors
///
/// A sentence for the operator, when it cannot start or the broker gives up.
pub async fn run(settings: &Settings, ready: &mut impl Write) -> Result<(), String> {
    // The handlers come first: a signal during the start must not kill it half way.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| format!("cannot watch SIGTERM: {error}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| format!("cannot watch SIGINT: {error}"))?;
    let mut reload = signal(SignalKind::hangup()).map_err(|error| format!("cannot watch SIGHUP: {error}"))?;
    let topic = Topic::new(&settings.topic)?;
    settings.listen.check()?;
    raise_descriptor_limit(settings.listen.max_connections);
    let store = match &settings.db {
        Some(file) => Store::open_file(file),
        None => Store::open(&settings.state),
    };
    let mut store = store.map_err(|error| error.to_string())?;
    store.keep(settings.keep);
    let (ingest, closed) = ingest::start(store, &settings.hub, topic.clone())
        .map_err(|error| format!("cannot start the thread of the store: {error}"))?;
    tokio::spawn(ingest.tick());
    let broker = Broker::bind(&settings.listen, topic, ingest).await?;
    let scheme = if settings.listen.tls.is_some() { "mqtts" } else { "mqtt" };
    let url = format!("{scheme}://{}", broker.address());
    let handle = broker.handle();
    let mut serving = tokio::spawn(broker.run());
    writeln!(ready, "listening {url}").and_then(|()| ready.flush()).map_err(|error| format!("stdout: {error}"))?;
    if !settings.listen.asks_for_credentials() {
        tracing::warn!(
            url,
            "devices are not asked who they are: whoever reaches this address can write as any of them"
        );
    }
    let place = settings.db.as_ref().unwrap_or(&settings.state).display();
    tracing::info!(url, store = %place, hub = settings.hub, "serving");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => match handle.reload() {
                Ok(()) => tracing::info!("the TLS files are read again; they count for new connections"),
                Err(error) => tracing::error!("{error}; the TLS files of before stay in force"),
            },
            ended = &mut serving => return ended.map_err(|error| format!("the broker stopped: {error}")),
        }
    }
    tracing::info!("stopping");
    handle.stop();
    // It holds a way to the store, which closes when the last is gone.
    drop(handle);
    serving.await.map_err(|error| format!("the broker stopped: {error}"))?;
    // Closing the store folds the log into the file. Nothing is lost when a late connection keeps it open.
    if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
        tracing::warn!("a connection is still open; the store is closed by the end of the process");
    }
    Ok(())
}

/// Lets the process have a descriptor for each device; the usual limit of 1024 is meant for programs that use `select`.
fn raise_descriptor_limit(max_connections: usize) {
    /// For connections that are not in yet, the store and the log.
    const OTHERS: u64 = 512;
    let wanted = u64::try_from(max_connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let possible = wanted.min(hard);
    if possible > soft && setrlimit(Resource::RLIMIT_NOFILE, possible, hard).is_err() || possible < wanted {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(soft, |(soft, _)| soft);
        tracing::warn!(limit, "fewer file descriptors than --max-connections needs ({wanted}): raise LimitNOFILE");
    }
}

const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
