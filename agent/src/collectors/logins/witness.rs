//! A second witness: what wtmp says of sessions beside what the log says of logins.
//!
//! Whoever got in may stop the log, or take his line out of it before it was read. OpenSSH and Dropbear also write a
//! record of every session with a terminal to wtmp. A session that no login of the log explains is an alarm and never a
//! row: rows come from one source.
//!
//! A session is explained by a login of the same account from the same address in the day before, or by such a session
//! that was explained itself, because one connection may open terminals again and again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use collector_common::clock::Clock;
use collector_common::collector::{Closed, Context, Draft, Emitter, SourceCursor};
use collector_common::event::payload::{Diagnostic, LoginResult, Payload, Severity};
use collector_common::parse::login::{Account, Handler};
use tokio::time::Instant;

use super::books;
use super::file::Wake;
use super::place::Place;
use super::records::{Found, Reading, last_before, sessions};

/// How long the log may take to tell of a session: both are written within a second, but a busy machine reads late.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a login explains sessions.
const EXPLAINS_US: i64 = 24 * 3600 * 1_000_000;

/// The most logins that are kept in mind, and sessions that wait.
const MAX_KEPT: usize = 1024;

/// The name of the cursor.
const SOURCE: &str = "witness:wtmp";

/// The logins that were told and the sessions they explain, each account's and address's last.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<BTreeMap<(String, IpAddr), i64>>>);

/// A session that waits for its login.
struct Waiting {
    user: String,
    from: IpAddr,
    terminal: String,
    wall_us: i64,
    /// Where its record begins, and reading again if it still waits at a crash.
    before: Place,
    until: Instant,
}

impl Witness {
    /// Hears of a row that is on its way.
    pub fn hear(&self, draft: &Draft) {
        let Some(Payload::Login(rows)) = &draft.payload else { return };
        for row in rows.iter().filter(|row| row.result == LoginResult::Success) {
            if let Some(from) = row.remote_address {
                self.note(&row.user_name, from, draft.at.wall_us);
            }
        }
    }

    /// Takes down that an account came in from an address.
    pub fn note(&self, user: &str, from: IpAddr, wall_us: i64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = known.iter().min_by_key(|(_, wall_us)| **wall_us).map(|(key, _)| key.clone());
        let key = (user.to_owned(), from);
        if known.len() >= MAX_KEPT && !known.contains_key(&key) {
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        let last = known.entry(key).or_insert(wall_us);
        *last = wall_us.max(*last);
    }

    fn explains(&self, session: &Waiting) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = known.get(&(session.user.clone(), session.from));
        // A later login of the same account and address hides when the one before it was, and is as good.
        last.is_some_and(|last| session.wall_us - *last < EXPLAINS_US)
    }

    /// Watches wtmp until the agent stops.
    pub async fn watch(&self, cx: &Context) -> Result<Infallible, Closed> {
        let path = sessions(&cx.root);
        let place = cx.out.cursor(SOURCE).as_deref().and_then(Place::from_text);
        let mut reading = Reading::new(path.clone(), place);
        self.remember(&path, reading.place);
        let wake = Wake::new(&path);
        let (mut waiting, mut stored): (Vec<Waiting>, _) = (Vec::new(), place);
        loop {
            wake.watch(&path);
            // A file that cannot be read just now is looked at again, and so is one that holds more than may wait.
            while waiting.len() < MAX_KEPT
                && let Ok(look) = reading.look()
            {
                waiting.extend(look.records.iter().filter_map(Waiting::of));
                if look.records.is_empty() {
                    break;
                }
            }
            let (due, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|session| session.until <= Instant::now());
            waiting = rest;
            for session in &due {
                match self.explains(session) {
                    // Its connection is in use, and may open the next terminal more than a day after the login.
                    true => self.note(&session.user, session.from, session.wall_us),
                    false => cx.out.send(session.alarm(&cx.clock)).await?,
                }
            }
            // What still waits is read again after a restart.
            let done = waiting.first().map_or(reading.place, |oldest| Some(oldest.before));
            if done != stored {
                stored = done;
                store(&cx.out, &cx.clock, stored).await?;
            }
            match waiting.iter().map(|session| session.until).min() {
                Some(until) => tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = wake.wait() => {}
                },
                None => wake.wait().await,
            }
        }
    }

    /// The last sessions before a place: their connections may open another terminal.
    fn remember(&self, path: &Path, place: Option<Place>) {
        let before = place.and_then(|place| last_before(path, place).ok()).unwrap_or_default();
        for session in before.iter().filter_map(Waiting::of) {
            self.note(&session.user, session.from, session.wall_us);
        }
    }
}

impl Waiting {
    /// The session of a record, if it came over the network through a handler that logs.
    fn of(Found { record, before, .. }: &Found) -> Option<Waiting> {
        let (handler, verdict) = books::session(record)?;
        let (Handler::OpenSsh, Account::Known(user), Some(from)) = (handler, verdict.account, verdict.peer.address)
        else {
            return None;
        };
        let (terminal, wall_us) = (record.line.clone(), record.wall_us);
        Some(Waiting { user, from, terminal, wall_us, before: *before, until: Instant::now() + PATIENCE })
    }

    fn alarm(&self, clock: &Clock) -> Draft {
        let text = format!(
            "wtmp has a session that the log does not explain: {} from {} on {}. The log was stopped, or the line was taken out of it, before it was read, or its connection is older than a day: find out which. No row stands for this login.",
            self.user, self.from, self.terminal
        );
        let alarm = Diagnostic::new(Severity::Error, text).with("Source", "wtmp").with("SessionUser", &self.user);
        let alarm = alarm.with("SessionAddress", self.from).with("Terminal", &self.terminal);
        Draft::alarm(clock.from_source(self.wall_us), alarm)
    }
}

async fn store(out: &Emitter, clock: &Clock, place: Option<Place>) -> Result<(), Closed> {
    let Some(place) = place else { return Ok(()) };
    let cursor = SourceCursor { source: SOURCE.to_owned(), place: place.to_text() };
    out.send(Draft::cursor_only(clock.now(), cursor)).await
}

#[cfg(test)]
mod tests {
    use std::fs;

    use collector_common::root::Root;

    use super::super::records::tests::{append, record};
    use super::super::rig::Rig;
    use super::*;

    /// Of the moment in the line below.
    const THEN: u32 = 1_795_488_834;

    #[tokio::test(start_paused = true)]
    async fn a_session_that_the_log_does_not_explain_is_an_alarm_once_and_no_row() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/var/log")).unwrap();
        let (log, wtmp) = (root.path("/var/log/auth.log"), sessions(&root));
        let session = |user: &str, host: &str| append(&wtmp, &record(7, 9, "pts/0", user, host, THEN));
        session("known", "192.0.2.1");
        append(&log, b"");
        let mut rig = Rig::start(&root, BTreeMap::new());
        rig.started().await;
        rig.next().await;
        let line = "2026-11-24T02:53:55+00:00 vm sshd[9]: Accepted password for root from 192.0.2.7 port 9 ssh2\n";
        append(&log, line.as_bytes());
        session("root", "192.0.2.7");
        // A second terminal of a connection that is older than the agent.
        session("known", "192.0.2.1");
        // What does not come through a handler that logs: a terminal emulator, a multiplexer, and a console.
        session("root", ":0");
        session("root", "tmux(77).%0");
        append(&wtmp, &record(7, 9, "tty1", "root", "", THEN));
        session("mallory", "192.0.2.8");
        let cursors = rig.cursors.clone();
        let mut rows = 0;
        let alarm = loop {
            match rig.next_within(PATIENCE * 3).await.payload {
                Some(Payload::Login(_)) => rows += 1,
                Some(Payload::Diagnostic(alarm)) => break alarm,
                _ => {}
            }
        };
        assert_eq!((rows, &*alarm.extra_details["SessionUser"]), (1, "mallory"), "{alarm:?}");
        assert!(rig.next_within(PATIENCE * 3).await.payload.is_none(), "the place, and nothing else");
        // A crash while it waited: it is looked at again.
        rig.kill().await;
        let mut rig = Rig::start(&root, cursors);
        while rig.alarms.is_empty() {
            rig.next_within(PATIENCE * 3).await;
        }
        assert_eq!(rig.alarms[0].extra_details["SessionUser"], "mallory");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_whose_login_was_told_before_a_restart_is_no_alarm() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/var/log")).unwrap();
        let (log, wtmp) = (root.path("/var/log/auth.log"), sessions(&root));
        let session = || append(&wtmp, &record(7, 9, "pts/0", "root", "192.0.2.7", THEN));
        let stored = |rig: &Rig| Place::from_text(&rig.cursors[SOURCE]).unwrap().offset;
        append(&wtmp, &record(7, 9, "pts/0", "known", "192.0.2.1", THEN));
        append(&log, b"");
        let mut rig = Rig::start(&root, BTreeMap::new());
        rig.started().await;
        rig.next().await;
        let line = "2026-11-24T02:53:55+00:00 vm sshd[9]: Accepted password for root from 192.0.2.7 port 9 ssh2\n";
        append(&log, line.as_bytes());
        session();
        rig.login().await;
        let mut rig = Rig::start(&root, rig.kill().await);
        while stored(&rig) < 2 * 384 {
            rig.next_within(PATIENCE * 3).await;
        }
        // One is always waiting, and the place goes on nevertheless.
        session();
        for _ in 0..4 {
            session();
            let _none = tokio::time::timeout(PATIENCE * 2 / 3, rig.next_within(PATIENCE)).await;
        }
        assert!(stored(&rig) >= 4 * 384, "{}", stored(&rig));
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_goes_on_for_days_may_open_terminals() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/var/log")).unwrap();
        let (log, wtmp) = (root.path("/var/log/auth.log"), sessions(&root));
        append(&wtmp, b"");
        append(&log, b"");
        let mut rig = Rig::start(&root, BTreeMap::new());
        rig.started().await;
        rig.next().await;
        let line = "2026-11-24T02:53:55+00:00 vm sshd[9]: Accepted password for root from 192.0.2.7 port 9 ssh2\n";
        append(&log, line.as_bytes());
        rig.login().await;
        for hours in [1, 20, 40] {
            append(&wtmp, &record(7, 9, "pts/0", "root", "192.0.2.7", THEN + hours * 3600));
            rig.next_within(PATIENCE * 3).await;
        }
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
    }
}
