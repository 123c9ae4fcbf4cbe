//! `edgewarden run`: starts the parts, passes signals on, and stops them in order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use collector_common::clock::Clock;
use collector_common::collector::{StateSlot, channel};
use collector_common::root::Root;
use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, Interval};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::collectors;
use crate::complaints::{self, Complaint};
use crate::config::Config;
use crate::config::layers::Layers;
use crate::config::settings::Settings;
use crate::expiry;
use crate::identity::agent::agent_id;
use crate::identity::{self, NoIdentity};
use crate::lifecycle::{self, Before};
use crate::mqtt::Endpoint;
use crate::privileges::Privileges;
use crate::recorder::Recorder;
use crate::recorder::counts::Counts;
use crate::recorder::noise::Noise;
use crate::recorder::progress::Progress;
use crate::recorder::refusals::Refusals;
use crate::remarks::{Remarks, Statistics};
use crate::render::{Renderer, keep_offset_of_boot};
use crate::spool::Spool;
use crate::spool::damage::Damage;
use crate::status;
use crate::supervisor::{Surroundings, supervise};
use crate::tick;
use crate::twin::keeper::Keeper;
use crate::twin::mailbox::Mailbox;
use crate::uplink::batch::Batcher;
use crate::uplink::budget::Budget;
use crate::uplink::{LinkStatus, Uplink};
use changes::{layers, tell_applied};

mod changes;

/// How long the recorder may take to write down what collectors have handed over.
const RECORDER_STOP: Duration = Duration::from_secs(1);

/// How often the hub is told what was sent.
const STATISTICS: Duration = Duration::from_secs(24 * 3600);

/// How often it is made sure that events are still kept.
const LOOK_AT_RECORDER: Duration = Duration::from_secs(30);

/// How often a device id that cannot be made yet is tried again.
const IDENTITY_RETRY: Duration = Duration::from_secs(30);

/// Why the daemon cannot run.
#[derive(Debug)]
pub enum RunError {
    /// The configuration has to be changed: exit code 78.
    Configuration(String),
    /// Something on this machine is in the way: exit code 1.
    Machine(String),
}

/// Runs until a signal says stop.
///
/// # Errors
/// Whatever keeps the agent from keeping events; everything else is degraded, and runs.
pub async fn run(
    config: Config,
    config_file: Option<PathBuf>,
    privileges: Privileges,
    complaints: mpsc::Receiver<Complaint>,
) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(|error| RunError::Machine(format!("cannot catch signals: {error}")))?;
    if let Some(NoIdentity::NotConfigured(reason)) = no_identity(&config, &Root::host()) {
        return Err(RunError::Configuration(format!("{}: deviceId: {reason}", config.file)));
    }
    privileges.tell();
    let mut daemon = start(config, config_file, privileges, complaints).await?;
    info!("edgewarden {} runs, state in {}", env!("CARGO_PKG_VERSION"), daemon.state_directory.display());
    let served = daemon.running.serve(&mut signals, &daemon.recorder, &daemon.sources).await;
    daemon.stop(served.is_ok()).await;
    served
}

/// A daemon with all its parts at work.
struct Daemon {
    running: Running,
    sources: status::Sources,
    recorder: thread::JoinHandle<()>,
    uplink: JoinHandle<()>,
    stop_uplink: watch::Sender<bool>,
    /// Collectors, status and the look at certificates.
    tasks: JoinSet<()>,
    spool: Spool,
    counts: Counts,
    link: LinkStatus,
    state_directory: PathBuf,
    boot: Uuid,
}

async fn start(
    config: Config,
    config_file: Option<PathBuf>,
    privileges: Privileges,
    complaints: mpsc::Receiver<Complaint>,
) -> Result<Daemon, RunError> {
    let (root, clock) = (Root::host(), Clock::new(&Root::host()));
    let state_directory = config.local.state_directory.clone();
    let (layers, as_last_told) = layers(config);
    let config = layers.config();
    let opened = Spool::open(&state_directory, layers.settings().max_cache_bytes);
    let (spool, opened) = opened.map_err(|error| RunError::Machine(error.to_string()))?;
    let agent = agent_id(&state_directory, &root).map_err(RunError::Machine)?;
    let (out, queue) = channel(opened.cursors);
    let (settings, settings_seen) = watch::channel(Arc::clone(layers.settings()));
    let (counts, link, progress) = (Counts::default(), LinkStatus::default(), Progress::default());
    let flush = Arc::new(Notify::new());
    let statistics = Statistics::new(link.clone(), spool.clone());
    let recorder = Recorder {
        spool: spool.clone(),
        settings: settings_seen.clone(),
        queue,
        overflow: out.losses(),
        counts: counts.clone(),
        clock,
        refusals: Refusals::default(),
        noise: Noise::default(),
        progress: progress.clone(),
    };
    let recorder = recorder.spawn(Handle::current());
    let recorder = recorder.map_err(|error| RunError::Machine(format!("cannot start a thread: {error}")))?;
    let remarks = Remarks::new(out.clone(), clock);
    counts.note_damage(&Damage { sentences: opened.damage.clone(), ..Damage::default() });
    let before = tell_start(&remarks, config, clock.boot(), &opened.damage, agent.warning.as_deref()).await;
    tell_applied(&remarks, as_last_told).await;
    let mailbox = Mailbox::default();
    let (endpoint, endpoint_seen) = watch::channel(endpoint(config, &root));
    let (stop_uplink, stop_seen) = watch::channel(false);
    let renderer = Renderer::new(spool.clone(), clock);
    let uplink = Uplink {
        spool: spool.clone(),
        batcher: Batcher::new(spool.clone(), renderer.clone(), agent.id),
        endpoint: endpoint_seen,
        settings: settings_seen.clone(),
        status: link.clone(),
        flush: Arc::clone(&flush),
        clock,
        agent_id: agent.id,
        budget: Budget::load(state_directory.join("sent.json"), &clock.now()),
        mailbox: mailbox.clone(),
    };
    let uplink = tokio::spawn(uplink.run(stop_seen));
    let twin = Keeper::new(mailbox, &state_directory, Instant::now().into_std());
    let running = Running {
        layers,
        twin,
        config_file,
        privileges,
        root,
        settings,
        endpoint,
        flush,
        remarks,
        statistics,
        progress,
    };
    let telling = complaints::tell(complaints, out.clone(), clock);
    let around = Surroundings {
        root: Root::host(),
        state_directory: state_directory.clone(),
        clock,
        settings: settings_seen,
        out,
    };
    let (mut tasks, sources) = spawn_tasks(around, &running, &spool, &counts, &link, before);
    tasks.spawn(keep_offset_of_boot(renderer));
    tasks.spawn(telling);
    let boot = clock.boot();
    Ok(Daemon { running, sources, recorder, uplink, stop_uplink, tasks, spool, counts, link, state_directory, boot })
}

fn spawn_tasks(
    around: Surroundings,
    running: &Running,
    spool: &Spool,
    counts: &Counts,
    link: &LinkStatus,
    before: Option<Before>,
) -> (JoinSet<()>, status::Sources) {
    let mut tasks = JoinSet::new();
    let slots: Vec<_> = collectors::ALL.iter().map(|collector| (*collector, StateSlot::new())).collect();
    for (collector, state) in &slots {
        tasks.spawn(supervise(*collector, around.clone(), state.clone()));
    }
    let clock = around.clock;
    let (expiring, expiring_seen) = watch::channel(Vec::new());
    tasks.spawn(expiry::watch(running.endpoint.subscribe(), clock, around.out, expiring));
    let local = &running.layers.config().local;
    let sources = status::Sources {
        device: running.endpoint.borrow().as_ref().map(|endpoint| endpoint.device_id.clone()),
        hub: local.connection.as_ref().map(|connection| connection.url()),
        started: clock.now(),
        clock,
        spool: spool.clone(),
        counts: counts.clone(),
        progress: running.progress.clone(),
        link: link.clone(),
        settings: around.settings.clone(),
        before,
        privileges: running.privileges.clone(),
        expiring: expiring_seen,
        collectors: slots.iter().map(|(collector, state)| (collector.kind(), state.clone())).collect(),
    };
    serve_status(&local.state_directory, sources.clone(), &mut tasks);
    (tasks, sources)
}

impl Daemon {
    /// Stops the parts in the order of an event's way, so that each finds what the one before it left.
    async fn stop(mut self, on_request: bool) {
        notify(&[NotifyState::Stopping]);
        self.tasks.shutdown().await;
        let Running { remarks, mut statistics, .. } = self.running;
        if on_request {
            remarks.statistics(&mut statistics).await;
            remarks.stopping("it was asked to").await;
        }
        drop(remarks);
        stop_recorder(self.recorder).await;
        self.stop_uplink.send_replace(true);
        if let Err(error) = self.uplink.await {
            error!("the uplink did not end well: {error}");
        }
        if let Err(error) = self.spool.store_acknowledged() {
            warn!("cannot write down what was acknowledged: {error}; it is sent again");
        }
        // A socket without a daemon behind it only puzzles; one that cannot be removed is replaced by the next start.
        let _left_behind = std::fs::remove_file(status::socket_path(&self.state_directory));
        if on_request && let Err(error) = lifecycle::end(&self.state_directory, self.boot) {
            warn!("cannot note that the agent was stopped: {error}; the next start will take it for killed");
        }
        let events = status::event_counts(&self.counts, &self.link);
        let (collected, acknowledged, lost) = (events.collected, events.acknowledged, events.lost);
        info!("stopped: {collected} events collected, {acknowledged} acknowledged, {lost} lost");
    }
}

/// What the running daemon reacts with.
struct Running {
    layers: Layers,
    twin: Keeper,
    config_file: Option<PathBuf>,
    privileges: Privileges,
    root: Root,
    settings: watch::Sender<Arc<Settings>>,
    endpoint: watch::Sender<Option<Endpoint>>,
    flush: Arc<Notify>,
    remarks: Remarks,
    statistics: Statistics,
    progress: Progress,
}

impl Running {
    /// Handles signals until one says stop, and feeds the watchdog while the recorder lives and the disk answers it.
    async fn serve(
        &mut self,
        signals: &mut Signals,
        recorder: &thread::JoinHandle<()>,
        sources: &status::Sources,
    ) -> Result<(), RunError> {
        notify(&[NotifyState::Ready]);
        // Both go on through every other wake-up: started anew by each, the shorter would keep the longer from ending.
        let mut look_at_recorder = tick::every(LOOK_AT_RECORDER);
        let mut watchdog = sd_notify::watchdog_enabled().map(|period| tick::every(period / 2));
        let mut identity_retry = tick::every(IDENTITY_RETRY);
        let mut statistics = tick::every(STATISTICS);
        loop {
            let has_no_identity = self.layers.config().local.connection.is_some() && self.endpoint.borrow().is_none();
            tokio::select! {
                () = next(&mut watchdog) => if !self.progress.is_hung(Instant::now().into_std()) {
                    notify(&[NotifyState::Watchdog]);
                },
                _ = look_at_recorder.tick() => if recorder.is_finished() {
                    return Err(RunError::Machine("the recorder is gone and nothing would be kept; start the agent again".to_owned()));
                } else {
                    let seconds = self.progress.busy_for(Instant::now().into_std()).as_secs();
                    if seconds >= LOOK_AT_RECORDER.as_secs() {
                        error!("the disk of the spool has not answered for {seconds} s; events wait in memory");
                    }
                },
                _ = identity_retry.tick(), if has_no_identity => {
                    self.endpoint.send_replace(endpoint(self.layers.config(), &self.root));
                }
                () = self.twin.wake() => self.on_twin(sources).await,
                _ = statistics.tick() => self.remarks.statistics(&mut self.statistics).await,
                _ = signals.hangup.recv() => self.reload().await,
                _ = signals.user1.recv() => self.flush.notify_one(),
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
            }
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }
}

fn no_identity(config: &Config, root: &Root) -> Option<NoIdentity> {
    config.local.connection.as_ref().and_then(|_| identity::device_id(&config.local, root).err())
}

/// Where to connect, when there is a hub and an id for it.
fn endpoint(config: &Config, root: &Root) -> Option<Endpoint> {
    let connection = config.local.connection.as_ref()?;
    let device_id = match identity::device_id(&config.local, root) {
        Ok(device_id) => device_id,
        Err(reason) => {
            warn!("cannot connect: {}", reason.reason());
            return None;
        }
    };
    Some(Endpoint { connection: connection.clone(), device_id, module_id: config.local.module_id.clone() })
}

/// The first words to the hub: how the last run ended, and what it left behind.
async fn tell_start(
    remarks: &Remarks,
    config: &Config,
    boot: Uuid,
    damage: &[String],
    identity: Option<&str>,
) -> Option<Before> {
    let before = lifecycle::begin(&config.local.state_directory, boot);
    match &before {
        Ok(before) => remarks.started(*before).await,
        Err(error) => remarks.broken(&format!("cannot note that the agent runs: {error}")).await,
    }
    for sentence in damage {
        remarks.broken(&format!("the spool is damaged: {sentence}")).await;
    }
    if let Some(warning) = identity {
        remarks.suspicious(warning).await;
    }
    remarks.configuration(&config.warnings, config.configuration_errors()).await;
    before.ok()
}

/// A machine on which the status socket cannot be made still deserves an agent.
fn serve_status(state_directory: &Path, sources: status::Sources, tasks: &mut JoinSet<()>) {
    let path = status::socket_path(state_directory);
    match status::listen(&path) {
        Ok(listener) => {
            tasks.spawn(status::serve(listener, sources));
        }
        Err(error) => warn!("`edgewarden status` will not work: cannot listen on {}: {error}", path.display()),
    }
}

async fn next(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

async fn stop_recorder(recorder: thread::JoinHandle<()>) {
    let joined = tokio::task::spawn_blocking(move || recorder.join());
    match tokio::time::timeout(RECORDER_STOP, joined).await {
        Ok(Ok(Ok(()))) => {}
        Ok(_) => error!("the recorder did not end well"),
        Err(_) => error!("the recorder did not end in time; the disk is slow, and the last events may be lost"),
    }
}

/// Tells systemd. Without systemd there is nobody to tell, and with it nothing depends on being heard.
fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("cannot notify systemd: {error}");
    }
}
