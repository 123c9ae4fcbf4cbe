//! Keeps the collectors running: each in a task of its own, so that one that fails stops no other.
//!
//! A collector that cannot run is degraded: the reason stands in `status` and is sent once as a Diagnostic, and the
//! collector is tried again after a growing pause.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use collector_common::clock::Clock;
use collector_common::collector::{Collector, Context, Draft, Emitter, Failure, State, StateSlot};
use collector_common::event::payload::{Diagnostic, Severity};
use collector_common::root::Root;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::settings::Settings;

/// The first pause after a failure, doubled with each up to the cap.
const PAUSE: Duration = Duration::from_secs(2);

/// No pause is longer: a log file that appears is then noticed within this time.
const PAUSE_CAP: Duration = Duration::from_secs(300);

/// A collector that ran for this long failed for a new reason, so the pause starts small again.
const SETTLED: Duration = Duration::from_secs(600);

/// What every collector gets.
#[derive(Clone)]
pub struct Surroundings {
    /// The machine.
    pub root: Root,
    /// Where collectors may keep something.
    pub state_directory: PathBuf,
    /// Its clocks.
    pub clock: Clock,
    /// The agent's settings, priorities included.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Where events go.
    pub out: Emitter,
}

/// Runs one collector until the task is aborted.
pub async fn supervise(collector: &'static dyn Collector, around: Surroundings, state: StateSlot) {
    let name = collector.kind().name();
    let mut settings = around.settings.clone();
    let mut pause = PAUSE;
    let mut told = None;
    loop {
        let current = settings.borrow_and_update().clone();
        if current.priority(collector.kind()).lane().is_none() {
            state.set(State::Off);
            if settings.changed().await.is_err() {
                return;
            }
            continue;
        }
        let started = tokio::time::Instant::now();
        let failure = tokio::select! {
            failure = run_once(collector, &around, &state) => failure,
            () = turned_off(collector, &mut settings) => {
                info!("{name}: turned off");
                continue;
            }
        };
        if started.elapsed() > SETTLED {
            pause = PAUSE;
        }
        state.set(State::Degraded { reason: failure.to_string() });
        if told.as_ref() != Some(&failure) {
            warn!("{name} is degraded: {failure}");
            let remark = Diagnostic::new(Severity::Error, format!("{name} is not collected: {failure}"));
            if around.out.send(Draft::alarm(around.clock.now(), remark.with("Collector", name))).await.is_err() {
                return;
            }
            told = Some(failure);
        }
        tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(PAUSE_CAP);
    }
}

/// Runs a collector until it gives up. A panic cannot be caught where a panic ends the process, and need not be.
async fn run_once(collector: &'static dyn Collector, around: &Surroundings, state: &StateSlot) -> Failure {
    let initial = Arc::new(around.settings.borrow().collectors.clone());
    let (sender, receiver) = watch::channel(initial);
    let context = Context {
        root: around.root.clone(),
        state_directory: Some(around.state_directory.clone()),
        clock: around.clock,
        settings: receiver,
        out: around.out.clone(),
        state: state.clone(),
        once: false,
    };
    let mut settings = around.settings.clone();
    let forward = async {
        while settings.changed().await.is_ok() {
            let collectors = Arc::new(settings.borrow_and_update().collectors.clone());
            sender.send_if_modified(|current| {
                let is_new = *current != collectors;
                *current = collectors;
                is_new
            });
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = collector.run(context) => match ended {
            Ok(()) => Failure("the source ended".to_owned()),
            Err(failure) => failure,
        },
        () = forward => Failure("the settings are gone".to_owned()),
    }
}

async fn turned_off(collector: &'static dyn Collector, settings: &mut watch::Receiver<Arc<Settings>>) {
    let is_off = |settings: &Arc<Settings>| settings.priority(collector.kind()).lane().is_none();
    if settings.wait_for(is_off).await.is_err() {
        std::future::pending::<()>().await;
    }
}
