//! The accounts of the machine: who could log in.
//!
//! ```text
//! passwd, group, shadow, userdb ─┐  scan (a thread)                  compare with what was reported (pure)
//! sudoers, sshd_config, shells  ─┼─▶ accounts() ─▶ rows ─▶ memory ─▶ differs? ─▶ a full snapshot whose rows say Change,
//! authorized_keys, getent       ─┘      ▲                                        and an alarm that names who vanished
//!                                       └── watch: inotify, quiet for a quarter of a second ──┘
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use collector_common::clock::{Reading, is_plausible};
use collector_common::collector::{Collector, Context, Draft, Failure, Running, Settings, SourceCursor, Survey};
use collector_common::event::kind::Kind;
use collector_common::event::payload::{Diagnostic, LocalUser, Payload, Severity};
use collector_common::root::Root;
use tokio::time::{Instant, sleep};

use self::accounts::Account;
use self::memory::{CURSOR, Differences, Memory};
use self::nss::Answer;
use self::scan::{Scan, Task};
use self::watch::Watch;

mod accounts;
mod files;
mod keys;
mod memory;
mod nss;
mod scan;
mod sudo;
mod userdb;
mod watch;

/// Reports the local accounts at start, at each snapshot interval and after each change.
pub struct LocalUsers;

/// How many names or faults one Diagnostic spells out.
const NAMED_AT_MOST: usize = 20;
/// inotify does not tell of a folder above a watched one that is renamed, nor of a password that runs out.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// The same where inotify is not to be had for everything.
const LOOK_AGAIN_BLIND: Duration = Duration::from_secs(60);
/// So many changes in a row are told at once, and then one in so long: a user who plays with his keys is no flood.
const CHANGES_AT_ONCE: u32 = 20;
const CHANGE_EVERY: Duration = Duration::from_secs(30);

impl Collector for LocalUsers {
    fn kind(&self) -> Kind {
        Kind::LocalUsers
    }

    fn survey(&self, root: &Root, settings: &Settings) -> Survey {
        let (memory, _) = Memory::load(None, None);
        let services = settings.users_from_nss.then(Arc::default);
        let task =
            Task { root: root.clone(), secret: memory.secret(), today: None, services, stuck: Default::default() };
        match scan::look_blocking(&task) {
            Ok(scan) => Survey { backend: backend(!scan.interests.is_blind()), lacks: scan.gaps },
            Err(failure) => Survey { backend: backend(true), lacks: vec![failure.0] },
        }
    }

    fn run(&self, cx: Context) -> Running {
        Box::pin(async {
            let (mut observer, remark) = Observer::new(cx);
            if let Some(remark) = remark {
                let alarm = Draft::alarm(observer.cx.clock.now(), Diagnostic::new(Severity::Warning, remark));
                if observer.cx.out.send(alarm).await.is_err() {
                    return Ok(());
                }
            }
            observer.observe().await
        })
    }
}

fn backend(is_watched: bool) -> String {
    let how = if is_watched { "watched by inotify" } else { "compared once a minute" };
    format!("/etc/passwd, group and shadow, sudoers and authorized_keys, {how}")
}

struct Observer {
    cx: Context,
    memory: Memory,
    task: Task,
    pace: Pace,
    /// The last snapshot, and when it was sent.
    sent: Option<(Instant, Vec<LocalUser>)>,
    told_faults: BTreeSet<String>,
    services_gap: Option<String>,
}

impl Observer {
    fn new(cx: Context) -> (Observer, Option<String>) {
        let (memory, remark) = Memory::load(cx.state_directory.as_deref(), cx.out.cursor(CURSOR).as_deref());
        let task = Task {
            root: cx.root.clone(),
            secret: memory.secret(),
            today: None,
            services: None,
            stuck: Default::default(),
        };
        let (pace, sent, told_faults) = (Pace::new(Instant::now()), None, BTreeSet::new());
        (Observer { cx, memory, task, pace, sent, told_faults, services_gap: None }, remark)
    }

    async fn observe(&mut self) -> Result<(), Failure> {
        let mut settings_live = true;
        loop {
            let settings = self.cx.settings.borrow_and_update().clone();
            let since = self.sent.as_ref().map(|(at, _)| at.elapsed());
            let is_due = since.is_none_or(|since| since >= settings.snapshot_interval);
            self.ask_services(settings.users_from_nss, is_due).await;
            self.task.today = today(self.cx.clock.now());
            let scan = scan::look(&self.task).await?;
            let drafts = self.drafts(&scan, is_due);
            let (watch, again) = self.watch(scan);
            for draft in drafts {
                if self.cx.out.send(draft).await.is_err() {
                    return Ok(());
                }
            }
            if self.cx.once {
                return Ok(());
            }
            let left =
                self.sent.as_ref().map_or(again, |(at, _)| settings.snapshot_interval.saturating_sub(at.elapsed()));
            let changed = async {
                match &watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The next look begins a new watch.
                outcome = changed => if outcome.is_err() { sleep(LOOK_AGAIN_BLIND).await },
                () = sleep(left.min(again)) => {}
                settings = self.cx.settings.changed(), if settings_live => settings_live = settings.is_ok(),
            }
            sleep(self.pace.wait(Instant::now())).await;
        }
    }

    /// Directory services are asked at each snapshot and not for every change of a file.
    async fn ask_services(&mut self, is_wanted: bool, is_due: bool) {
        if !is_wanted {
            (self.task.services, self.services_gap) = (None, None);
        } else if is_due || self.task.services.is_none() {
            match nss::ask(&self.cx.root).await {
                Ok(answer) => (self.task.services, self.services_gap) = (Some(Arc::new(answer)), None),
                Err(why) => {
                    self.services_gap = Some(why);
                    self.task.services.get_or_insert_with(|| Arc::new(Answer::default()));
                }
            }
        }
    }

    /// Begins to wait for what comes after a look, and says in `status` what will not be seen.
    fn watch(&self, scan: Scan) -> (Option<Watch>, Duration) {
        let is_partly_blind = scan.interests.gap().is_some();
        let (watch, why) = match Watch::over(scan.interests) {
            Ok(watch) => (Some(watch), None),
            Err(why) => (None, Some(why)),
        };
        let gaps = scan.gaps.into_iter().chain(self.services_gap.clone()).chain(self.memory.gap.clone()).chain(why);
        let gaps = gaps.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("; ");
        self.cx.state.running(backend(watch.is_some()), (!gaps.is_empty()).then_some(gaps));
        let again = if is_partly_blind || watch.is_none() { LOOK_AGAIN_BLIND } else { LOOK_AGAIN };
        (watch, again)
    }

    fn drafts(&mut self, scan: &Scan, is_due: bool) -> Vec<Draft> {
        let now = self.cx.clock.now();
        let lasting = scan.accounts.iter().filter(|account| !account.is_passing).map(|account| account.row.clone());
        let lasting: Vec<_> = lasting.collect();
        let differences = self.memory.compare(&scan.accounts);
        let differs = self.sent.as_ref().is_some_and(|(_, before)| *before != lasting);
        let mut drafts = Vec::new();
        if is_due || differs || !differences.are_none() {
            if !is_due {
                self.pace.take(Instant::now());
            }
            // The alarm comes first: behind the snapshot, whose cursor says that all of this was told, a crash in
            // between would cost it.
            drafts.extend(alarm(&differences).map(|diagnostic| Draft::alarm(now, diagnostic)));
            let place = self.memory.remember(&scan.accounts);
            let snapshot = Draft::new(now, Payload::LocalUsers(rows(&scan.accounts, &differences)));
            drafts.push(match place {
                Some(place) => snapshot.with_cursor(SourceCursor { source: CURSOR.to_owned(), place }),
                None => snapshot,
            });
            self.sent = Some((Instant::now(), lasting));
        }
        if scan.faults != self.told_faults {
            drafts.extend(remark(&scan.faults).map(|it| Draft::new(now, Payload::Diagnostic(it))));
            self.told_faults.clone_from(&scan.faults);
        }
        drafts
    }
}

/// How many changes may be told at once.
struct Pace {
    tokens: u32,
    at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { tokens: CHANGES_AT_ONCE, at: now }
    }

    fn take(&mut self, now: Instant) {
        while self.tokens < CHANGES_AT_ONCE && now >= self.at + CHANGE_EVERY {
            self.tokens += 1;
            self.at += CHANGE_EVERY;
        }
        if self.tokens == CHANGES_AT_ONCE {
            self.at = now;
        }
        self.tokens = self.tokens.saturating_sub(1);
    }

    /// How long to wait before the next look.
    fn wait(&self, now: Instant) -> Duration {
        if self.tokens > 0 { Duration::ZERO } else { (self.at + CHANGE_EVERY).saturating_duration_since(now) }
    }
}

/// Days since 1970, if the clock can be right.
fn today(now: Reading) -> Option<i64> {
    is_plausible(now.wall_us).then(|| now.wall_us.div_euclid(86_400_000_000))
}

fn rows(accounts: &[Account], differences: &Differences) -> Vec<LocalUser> {
    let row = |(account, change): (&Account, &String)| {
        let mut row = account.row.clone();
        if !change.is_empty() {
            row.extra_details.insert("Change", change.clone());
        }
        row
    };
    accounts.iter().zip(&differences.words).map(row).collect()
}

fn alarm(differences: &Differences) -> Option<Diagnostic> {
    let told = [("vanished", &differences.vanished), ("changed uid or groups", &differences.changed)];
    let told: Vec<_> = told.into_iter().filter(|(_, accounts)| !accounts.is_empty()).collect();
    if told.is_empty() {
        return None;
    }
    let sentence = told.iter().map(|(what, accounts)| format!("{what}: {}", shorten(accounts, ", ")));
    let message = format!("local accounts {}", sentence.collect::<Vec<_>>().join("; "));
    let mut diagnostic = Diagnostic::new(Severity::Warning, message);
    if !differences.vanished.is_empty() {
        diagnostic = diagnostic.with("VanishedUsers", shorten(&differences.vanished, ";"));
    }
    if !differences.changed.is_empty() {
        diagnostic = diagnostic.with("ChangedUsers", shorten(&differences.changed, ";"));
    }
    Some(diagnostic)
}

fn remark(faults: &BTreeSet<String>) -> Option<Diagnostic> {
    let all: Vec<_> = faults.iter().cloned().collect();
    let message = || format!("account files have lines that cannot be taken as they are: {}", shorten(&all, "; "));
    (!all.is_empty()).then(|| Diagnostic::new(Severity::Warning, message()).with("Faults", all.len()))
}

fn shorten(names: &[String], separator: &str) -> String {
    let shown = names[..names.len().min(NAMED_AT_MOST)].join(separator);
    match names.len().saturating_sub(NAMED_AT_MOST) {
        0 => shown,
        more => format!("{shown}{separator}and {more} more"),
    }
}

#[cfg(test)]
mod tests;
