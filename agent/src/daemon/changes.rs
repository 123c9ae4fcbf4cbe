//! What changes while the daemon runs: the file at `SIGHUP`, and what the hub desires.

use std::time::Instant;

use tracing::{info, warn};

use super::{Running, endpoint, no_identity};
use crate::config::layers::{Applied, Layers};
use crate::config::{self, Config};
use crate::identity::NoIdentity;
use crate::remarks::Remarks;
use crate::status;
use crate::twin::keeper;
use crate::twin::report::reported;

/// The layers with what the hub desired last, and what came of that.
pub(super) fn layers(config: Config) -> (Layers, Result<Option<Applied>, String>) {
    let mut layers = Layers::new(config);
    let state_directory = &layers.config().local.state_directory;
    let stored = if layers.config().takes_twin() { keeper::stored(state_directory) } else { Ok(None) };
    let applied = stored.map(|desired| desired.map(|desired| layers.desired(&[desired])));
    (layers, applied)
}

/// What the hub desired last may show less than the file. That is told at every start: an agent that was killed in
/// between has not told it yet.
pub(super) async fn tell_applied(remarks: &Remarks, applied: Result<Option<Applied>, String>) {
    match applied {
        Ok(Some(Applied { problems, lowered, errors, .. })) => {
            remarks.configuration(&problems, errors).await;
            remarks.lowered(&lowered).await;
        }
        Ok(None) => {}
        Err(why) => remarks.broken(&format!("{why}; the agent runs without what the hub desired last")).await,
    }
}

impl Running {
    /// Reads the file again. One that cannot be used changes nothing.
    pub(super) async fn reload(&mut self) {
        let read = config::load_file(self.config_file.as_deref());
        let reason = match read {
            Ok(config) => match no_identity(&config, &self.root) {
                Some(NoIdentity::NotConfigured(reason)) => Err(format!("{}: deviceId: {reason}", config.file)),
                _ => Ok(config),
            },
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        };
        match reason {
            Ok(config) => {
                if config.local.state_directory != self.layers.config().local.state_directory {
                    warn!("a new stateDirectory takes effect with the next start");
                }
                if !config.takes_twin() {
                    self.layers.forget_desired();
                }
                let applied = self.layers.reload(config);
                let endpoint = endpoint(self.layers.config(), &self.root);
                self.endpoint.send_if_modified(|current| {
                    let is_new = *current != endpoint;
                    *current = endpoint;
                    is_new
                });
                info!("{} was read again", self.layers.config().file);
                self.put_in_force(applied).await;
            }
            Err(reason) => self.remarks.refused(&reason).await,
        }
    }
}

impl Running {
    /// Applies what the hub desires, and reports.
    pub(super) async fn on_twin(&mut self, sources: &status::Sources) {
        let now = Instant::now();
        for trouble in self.twin.take_troubles(now) {
            self.remarks.suspicious(&trouble).await;
        }
        let told = self.twin.take(now);
        if !told.is_empty() {
            // On the disk first: an agent that is killed now comes back with the old or with the new.
            let mut next = self.layers.clone();
            let applied = next.desired(&told);
            if applied.is_refused {
                self.twin.lost(&told);
            }
            if next.good_desired() != self.layers.good_desired()
                && let Err(why) = self.twin.store(next.good_desired())
            {
                self.remarks.broken(&why).await;
            }
            match next.version() {
                Some(version @ 1..) => info!("the hub told what it desires, version {version}"),
                _ => info!("the hub told what it desires"),
            }
            self.layers = next;
            self.put_in_force(applied).await;
        }
        let layers = &self.layers;
        self.twin.report(now, || reported(layers, &sources.status()));
    }

    async fn put_in_force(&mut self, applied: Applied) {
        let Applied { settings, problems, lowered, errors, .. } = applied;
        if *self.settings.borrow() != settings {
            if let Some(lacking) = self.privileges.lacking(&settings) {
                warn!("{lacking}");
            }
            // What was collected under the old settings goes out first.
            self.flush.notify_one();
            self.settings.send_replace(settings);
        }
        self.remarks.configuration(&problems, errors).await;
        self.remarks.lowered(&lowered).await;
        self.twin.changed(Instant::now());
    }
}
