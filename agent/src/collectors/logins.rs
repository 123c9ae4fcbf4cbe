//! Who tried to get in, from what the programs that let people in write to the system's log.
//!
//! ```text
//! journal.rs ─ journalctl ─┐                    ┌ attempts.rs  each attempt once
//! file.rs ──── auth.log ───┼▶ sink.rs ─ reader.rs              lines in, drafts out, no I/O
//! ring.rs ──── logread ────┘     ▲  ├ accounts.rs              name to uid
//!                                │  ├ unanswered.rs            names without a line that says how it ended
//! records.rs ─ wtmp, btmp ─ books.rs└ fold.rs                  repeated failures as one row, if asked for
//!                └▶ witness.rs      sessions that the log in use does not explain
//! ```
//!
//! One source at a time: two would tell every attempt twice. The journal comes first because the kernel vouches for who
//! wrote an entry; a plain log file proves nothing about the writer, and its rows say so (`ExtraDetails.Trust`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use collector_common::collector::{
    Closed, Collector, Context, Draft, Failure, LoginSource, Running, Settings, SourceCursor, Survey,
};
use collector_common::event::kind::Kind;
use collector_common::root::Root;

use self::journal::Journal;
use self::records::Records;
use self::ring::Ring;
use self::sink::{End, Sink};
use self::witness::Witness;

pub(crate) mod accounts;
pub(crate) mod books;
mod file;
mod fold;
mod journal;
mod lines;
mod place;
pub(crate) mod reader;
mod records;
mod ring;
mod sink;
mod skip;
mod unanswered;
mod witness;

#[cfg(test)]
mod forgery;
#[cfg(test)]
mod rig;

/// The collector of [`Kind::Login`].
pub struct Login;

/// The logs that hold logins where there is no journal, the most specific first.
const LOGS: [&str; 3] = ["/var/log/auth.log", "/var/log/secure", "/var/log/messages"];

/// How often to look for a better source than a log file.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// What no source tells.
const GAP: &str = "login(1) of busybox without PAM does not log when a user other than root comes in at a console";

/// What records do not tell.
const RECORDS_GAP: &str = "wtmp names only who got a terminal, so scp, sftp and single commands are not seen; no record has a method or a port, and Debian 13 writes no failures of sshd";

enum Source {
    Journal(Journal),
    /// The path as the machine names it.
    File(PathBuf),
    Ring(Ring),
    /// And why no log can be read.
    Records(Records, String),
}

impl Collector for Login {
    fn kind(&self) -> Kind {
        Kind::Login
    }

    fn survey(&self, root: &Root, settings: &Settings) -> Survey {
        let lacks = match (&settings.login_source, Journal::find(root)) {
            (LoginSource::File(_), _) | (_, Ok(_)) => Vec::new(),
            (_, Err(lack)) => vec![lack],
        };
        match choose(root, &settings.login_source) {
            Ok(Source::Records(records, lack)) => {
                Survey { backend: format!("records {}", records.names()), lacks: vec![lack] }
            }
            Ok(source) => Survey { backend: source.backend(), lacks },
            Err(Failure(reason)) => Survey { backend: "none".to_owned(), lacks: vec![reason] },
        }
    }

    fn run(&self, cx: Context) -> Running {
        Box::pin(run(cx))
    }
}

impl Source {
    fn backend(&self) -> String {
        match self {
            Source::Journal(_) => "systemd journal".to_owned(),
            Source::File(path) => format!("log file {}", path.display()),
            Source::Ring(_) => "log in memory (logread)".to_owned(),
            Source::Records(records, _) => format!("records {}", records.names()),
        }
    }

    fn gap(&self) -> String {
        match self {
            Source::Journal(_) => GAP.to_owned(),
            Source::Records(_, lack) => format!("{RECORDS_GAP}. {lack}"),
            Source::File(_) | Source::Ring(_) => format!("a log does not prove who wrote a line; {GAP}"),
        }
    }
}

/// Follows the source in force until dropped, and another one when the twin says so. There is no snapshot of logins, so
/// a one-shot run, too, observes until it is dropped.
async fn run(mut cx: Context) -> Result<(), Failure> {
    let witness = Witness::default();
    loop {
        let settings = Arc::clone(&cx.settings.borrow_and_update());
        let (asked, folds) = (settings.login_source.clone(), settings.fold_failed_logins);
        let source = choose(&cx.root, &asked);
        if asked == LoginSource::Auto && expect_logs(&cx, source.as_ref().ok()).await.is_err() {
            return Ok(());
        }
        let source = source?;
        let mut sink = source.sink(&cx).heard_by(&witness);
        cx.state.running(source.backend(), Some(source.gap()));
        let follow = async {
            match &source {
                Source::Journal(journal) => journal::follow(&mut sink, journal).await,
                Source::File(path) => file::follow(&mut sink, &cx.root, path).await,
                Source::Ring(ring) => ring::follow(&mut sink, ring).await,
                Source::Records(records, _) => records::follow(&mut sink, &cx.root, records).await,
            }
        };
        let watch = async {
            match &source {
                // It is the witness itself.
                Source::Records(..) => std::future::pending().await,
                _ => witness.watch(&cx).await,
            }
        };
        let mut settings = cx.settings.clone();
        let changed = async {
            let is_other = |new: &Settings| new.login_source != asked || new.fold_failed_logins != folds;
            settings.wait_for(|new| is_other(new)).await.is_ok()
        };
        let ended = tokio::select! {
            ended = follow => ended,
            watched = watch => match watched {
                Ok(never) => match never {},
                Err(Closed) => End::Closed,
            },
            () = better(&cx.root, &asked, &source) => continue,
            changed = changed => match changed {
                true => continue,
                false => return Ok(()),
            },
        };
        return match ended {
            End::Closed => Ok(()),
            End::Failed(failure) => Err(failure),
        };
    }
}

/// Remembers which logs that come before the source in use do not exist, so that one of them is read from its beginning
/// when it appears.
async fn expect_logs(cx: &Context, used: Option<&Source>) -> Result<(), Closed> {
    let better = used.map_or(LOGS.len(), |used| used.rank().saturating_sub(1).min(LOGS.len()));
    for log in &LOGS[..better] {
        let source = Source::File(PathBuf::from(log)).key();
        if cx.out.cursor(&source).is_none() && matches!(cx.root.path(log).try_exists(), Ok(false)) {
            let cursor = SourceCursor { source, place: file::BEGINNING.to_owned() };
            cx.out.send(Draft::cursor_only(cx.clock.now(), cursor)).await?;
        }
    }
    Ok(())
}

/// Waits until a source is there that comes before the one in use: the log of logins is made with its first line, and
/// for a moment of each rotation it does not exist. Never goes the other way, where two sources might tell the same.
async fn better(root: &Root, asked: &LoginSource, used: &Source) {
    while *asked == LoginSource::Auto && used.rank() > 0 {
        crate::tick::wait(LOOK_AGAIN).await;
        if choose(root, asked).is_ok_and(|found| found.rank() < used.rank()) {
            return;
        }
    }
    std::future::pending().await
}

impl Source {
    /// The place in the order in which sources are tried, the journal first.
    fn rank(&self) -> usize {
        match self {
            Source::Journal(_) => 0,
            Source::File(path) => 1 + LOGS.iter().position(|log| Path::new(log) == path).unwrap_or(LOGS.len()),
            Source::Ring(_) => 2 + LOGS.len(),
            Source::Records(..) => 3 + LOGS.len(),
        }
    }

    /// The name of the source's cursor.
    fn key(&self) -> String {
        match self {
            Source::Journal(_) => "journal".to_owned(),
            Source::File(path) => format!("file:{}", path.display()),
            Source::Ring(_) => "logread".to_owned(),
            Source::Records(..) => "records".to_owned(),
        }
    }

    fn sink(&self, cx: &Context) -> Sink {
        let sink = Sink::new(cx, &self.key());
        match self {
            Source::Journal(_) | Source::File(_) | Source::Records(..) => sink,
            Source::Ring(_) => sink.called("logread"),
        }
    }
}

fn choose(root: &Root, asked: &LoginSource) -> Result<Source, Failure> {
    match asked {
        LoginSource::File(path) => readable(&root.path(path)).map(|()| Source::File(path.clone())).map_err(|error| {
            Failure(format!(
                "The log file {} cannot be read: {error}. Name an existing file in edgewarden.loginSource and let the agent's user read it (group adm on Debian).",
                path.display()
            ))
        }),
        LoginSource::Journal => Journal::find(root).map(Source::Journal).map_err(|lack| {
            Failure(format!("{lack} Where there is no journal, leave edgewarden.loginSource at auto or name a log file."))
        }),
        LoginSource::Auto => match Journal::find(root) {
            Ok(journal) => Ok(Source::Journal(journal)),
            Err(lack) => first_log(root, &lack).or_else(|lack| last_resort(root, lack)),
        },
    }
}

/// What tells of logins where no log file can be read, and why none can.
fn last_resort(root: &Root, lack: Failure) -> Result<Source, Failure> {
    if let Some(ring) = Ring::find(root) {
        return Ok(Source::Ring(ring));
    }
    match Records::find(root) {
        Some(records) => Ok(Source::Records(records, lack.0)),
        None => Err(lack),
    }
}

/// The first log that can be read, or a sentence that says what became of every source.
fn first_log(root: &Root, journal_lack: &str) -> Result<Source, Failure> {
    let mut denied = Vec::new();
    for log in LOGS {
        match readable(&root.path(log)) {
            Ok(()) => return Ok(Source::File(PathBuf::from(log))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => denied.push(format!("{log}: {error}")),
        }
    }
    Err(Failure(match denied.is_empty() {
        true => format!(
            "No log of logins: {journal_lack} None of {} exists. Run journald or a syslog daemon that writes auth messages, or name its file in edgewarden.loginSource.",
            LOGS.join(", ")
        ),
        false => format!(
            "No log of logins can be read: {journal_lack} {}. Add the agent's user to the group that may (adm on Debian).",
            denied.join("; ")
        ),
    }))
}

fn readable(path: &Path) -> io::Result<()> {
    fs::File::open(path).and_then(|file| match file.metadata()?.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is no regular file")),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::io::Write;

    use collector_common::event::payload::Payload;

    use super::rig::{Rig, settings};
    use super::*;

    fn append(path: &Path, port: u16) {
        let line =
            format!("2026-11-24T02:53:54+00:00 vm sshd[7]: Failed password for bob from 192.0.2.7 port {port} ssh2\n");
        File::options().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn another_source_is_followed_when_the_twin_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/var/log")).unwrap();
        let (secure, other) = (root.path("/var/log/secure"), root.path("/var/log/other"));
        append(&secure, 1);
        append(&other, 1);
        let mut rig = Rig::start(&root, BTreeMap::new());
        rig.started().await;
        append(&secure, 2);
        assert_eq!(rig.ports(1).await, ["2"]);
        rig.change(settings(LoginSource::File("/var/log/other".into())));
        rig.started().await;
        append(&other, 3);
        assert_eq!(rig.ports(1).await, ["3"]);
        assert_eq!(rig.backend(), "log file /var/log/other");
        assert_eq!(
            rig.cursors.keys().collect::<Vec<_>>(),
            ["file:/var/log/auth.log", "file:/var/log/other", "file:/var/log/secure"]
        );
    }

    #[tokio::test]
    async fn folded_failures_are_told_when_the_source_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/var/log")).unwrap();
        let log = root.path("/var/log/auth.log");
        append(&log, 1);
        let mut rig = Rig::start(&root, BTreeMap::new());
        rig.started().await;
        rig.change(collector_common::collector::Settings { fold_failed_logins: true, ..settings(LoginSource::Auto) });
        append(&log, 2);
        assert_eq!(rig.login().await.extra_details.get("HitCount"), None);
        for port in 3..6 {
            append(&log, port);
        }
        // Another address does not wait for them, and shows that they were read.
        let other = "2026-11-24T02:53:54+00:00 vm sshd[8]: Failed password for bob from 192.0.2.8 port 9 ssh2\n";
        File::options().append(true).open(&log).unwrap().write_all(other.as_bytes()).unwrap();
        assert_eq!(rig.ports(1).await, ["9"]);
        rig.change(settings(LoginSource::Auto));
        let folded = rig.login().await;
        assert_eq!(folded.extra_details.get("HitCount").map(String::as_str), Some("3"));
        assert_eq!(folded.remote_port.as_deref(), Some("5"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_appears_is_read_from_its_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/var/log")).unwrap();
        // None is there at all, and the collector ends.
        let mut rig = Rig::start(&root, BTreeMap::new());
        for _ in LOGS {
            rig.next().await;
        }
        let cursors = rig.cursors.clone();
        assert!(rig.ended().await.is_err());
        append(&root.path("/var/log/messages"), 1);
        let mut rig = Rig::start(&root, cursors);
        assert_eq!(rig.ports(1).await, ["1"]);
        // Another one is in use.
        append(&root.path("/var/log/auth.log"), 2);
        while !matches!(rig.next_within(LOOK_AGAIN * 3).await.payload, Some(Payload::Login(_))) {}
        assert_eq!(rig.backend(), "log file /var/log/auth.log");
        let mut rig = Rig::start(&root, rig.kill().await);
        append(&root.path("/var/log/auth.log"), 3);
        assert_eq!(rig.ports(1).await, ["3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_better_source_is_waited_for_and_a_worse_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/var/log")).unwrap();
        append(&root.path("/var/log/messages"), 1);
        let auto = LoginSource::Auto;
        let messages = choose(&root, &auto).unwrap();
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, better(&root, &auto, &messages)).await.is_err());
        append(&root.path("/var/log/auth.log"), 1);
        let auth = choose(&root, &auto).unwrap();
        assert_eq!(auth.backend(), "log file /var/log/auth.log");
        assert!(tokio::time::timeout(hour, better(&root, &auto, &messages)).await.is_ok());
        assert!(tokio::time::timeout(hour, better(&root, &auto, &auth)).await.is_err());
        let named = LoginSource::File("/var/log/messages".into());
        assert!(tokio::time::timeout(hour, better(&root, &named, &messages)).await.is_err());
        fs::remove_file(root.path("/var/log/auth.log")).unwrap();
        assert!(tokio::time::timeout(hour, better(&root, &auto, &auth)).await.is_err());
    }

    #[test]
    fn a_survey_says_what_would_be_used_and_what_is_lacking() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        let survey = Login.survey(&root, &settings(LoginSource::Auto));
        assert_eq!((survey.backend.as_str(), survey.lacks.len()), ("none", 1));
        fs::create_dir_all(root.path("/var/log")).unwrap();
        fs::write(root.path("/var/log/wtmp"), "").unwrap();
        let survey = Login.survey(&root, &settings(LoginSource::Auto));
        assert_eq!(survey.backend, "records /var/log/wtmp");
        assert!(survey.lacks[0].contains("None of /var/log/auth.log"), "{:?}", survey.lacks);
        fs::write(root.path("/var/log/messages"), "").unwrap();
        let survey = Login.survey(&root, &settings(LoginSource::Auto));
        assert_eq!(survey.backend, "log file /var/log/messages");
        assert!(survey.lacks[0].contains("journald does not run"), "{:?}", survey.lacks);
        let survey = Login.survey(&root, &settings(LoginSource::File("/var/log/messages".into())));
        assert_eq!((survey.backend.as_str(), survey.lacks.len()), ("log file /var/log/messages", 0));
        let survey = Login.survey(&root, &settings(LoginSource::File("/nowhere".into())));
        assert!(survey.lacks[0].contains("/nowhere"), "{:?}", survey.lacks);
    }
}
