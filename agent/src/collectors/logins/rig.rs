//! A whole collector on a directory that is laid out like a machine, for the tests of the sources.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use collector_common::clock::Clock;
use collector_common::collector::{
    self, Collector, Context, Draft, Emitter, Failure, LoginSource, ProcessBackend, Settings, State, StateSlot,
};
use collector_common::event::payload::{Diagnostic, Login, Payload};
use collector_common::root::Root;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// A collector that runs, and a spool that remembers cursors.
pub struct Rig {
    pub state: StateSlot,
    pub cursors: BTreeMap<String, String>,
    pub alarms: Vec<Diagnostic>,
    drafts: mpsc::Receiver<Draft>,
    task: JoinHandle<Result<(), Failure>>,
    settings: watch::Sender<Arc<Settings>>,
    _out: Emitter,
}

pub fn settings(login_source: LoginSource) -> Settings {
    Settings {
        snapshot_interval: Duration::from_secs(3600),
        login_source,
        fold_failed_logins: false,
        process_backend: ProcessBackend::Auto,
        process_snapshot: false,
        process_hash: false,
        users_from_nss: false,
        redaction: Arc::default(),
    }
}

impl Rig {
    /// Starts the collector with the cursors an earlier one left.
    pub fn start(root: &Root, cursors: BTreeMap<String, String>) -> Rig {
        let (out, drafts) = collector::channel(cursors.clone());
        let (sender, receiver) = watch::channel(Arc::new(settings(LoginSource::Auto)));
        let state = StateSlot::new();
        let clock = Clock::new(&Root::host());
        let cx = Context {
            root: root.clone(),
            state_directory: None,
            clock,
            settings: receiver,
            out: out.clone(),
            state: state.clone(),
            once: false,
        };
        let task = tokio::spawn(super::Login.run(cx));
        Rig { state, cursors, alarms: Vec::new(), drafts, task, settings: sender, _out: out }
    }

    /// The next draft, which must come: half a minute is for machines that are busy with something else.
    pub async fn next(&mut self) -> Draft {
        self.next_within(Duration::from_secs(30)).await
    }

    /// The same for what the collector itself waits with.
    pub async fn next_within(&mut self, limit: Duration) -> Draft {
        let next = tokio::time::timeout(limit, self.drafts.recv()).await;
        let draft = next.unwrap_or_else(|_| panic!("no draft came; the collector is {:?}", self.state.get())).unwrap();
        if let Some(cursor) = draft.cursor.clone() {
            self.cursors.insert(cursor.source, cursor.place);
        }
        if let Some(Payload::Diagnostic(alarm)) = &draft.payload {
            self.alarms.push(alarm.clone());
        }
        draft
    }

    /// The next login; what comes before it is kept in `alarms` and `cursors`.
    pub async fn login(&mut self) -> Login {
        loop {
            if let Some(Payload::Login(mut rows)) = self.next().await.payload {
                assert_eq!(rows.len(), 1, "{rows:?}");
                return rows.remove(0);
            }
        }
    }

    /// The remote ports of the next logins, by which the tests tell them apart.
    pub async fn ports(&mut self, count: usize) -> Vec<String> {
        let mut ports = Vec::new();
        for _ in 0..count {
            ports.push(self.login().await.remote_port.unwrap());
        }
        ports
    }

    /// Waits until the place where a first start begins is stored.
    pub async fn started(&mut self) {
        loop {
            let first = self.next().await;
            assert!(first.payload.is_none());
            if first.cursor.is_none_or(|cursor| cursor.place != super::file::BEGINNING) {
                return;
            }
        }
    }

    /// Puts other settings in force.
    pub fn change(&self, settings: Settings) {
        self.settings.send_replace(Arc::new(settings));
    }

    /// Kills the collector as a crash would, and gives the cursors of what it had handed over.
    pub async fn kill(self) -> BTreeMap<String, String> {
        self.task.abort();
        let _ended = self.task.await;
        self.cursors
    }

    /// What the collector ended with.
    pub async fn ended(self) -> Result<(), Failure> {
        self.task.await.unwrap()
    }

    pub fn backend(&self) -> String {
        match self.state.get() {
            State::Running { backend, .. } => backend,
            other => panic!("{other:?}"),
        }
    }
}
