//! `demo`: hub and agent on this machine, real activity, the rows it led to, and what an investigator asks of them.
//!
//! Both are the real programs, on free ports and in a temporary directory. Every process it starts is in a guard that
//! kills, and everything it makes in one that removes, so any way out but SIGKILL leaves the machine as it was.

mod activity;
mod agent;
mod check;
mod child;
mod login;
mod questions;
mod table;

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::store::Store;
use crate::store::read::Filter;
use activity::OwnAddress;
use agent::{Agent, Counts};
use check::{Cause, Seen};
use child::Running;
use login::{LoginPart, Machine, Plan};
use questions::Answers;

/// What the user can choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Leave the directory with store and logs.
    pub keep: bool,
    /// The agent; without it, `edgewarden` beside this program.
    pub agent: Option<PathBuf>,
}

/// Runs the demo and tells of it on `out`.
///
/// # Errors
///
/// A sentence, when something does not start, a row is missing, or a signal ended it.
pub async fn run(options: &Options, out: &mut impl Write) -> Result<(), String> {
    let watch = |kind| signal(kind).map_err(|error| format!("cannot watch signals: {error}"));
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    let mut hang_up = watch(SignalKind::hangup())?;
    let mut dir = tempfile::Builder::new()
        .prefix("edgewarden-demo-")
        .tempdir()
        .map_err(|error| format!("cannot create a temporary directory: {error}"))?;
    dir.disable_cleanup(options.keep);
    // Dropping the story kills what it started; only then the directory goes.
    let told = tokio::select! {
        told = story(options, dir.path(), out) => told,
        () = tokio::time::sleep(DEADLINE) => Err(format!("not done after {DEADLINE:?}; everything it started is stopped")),
        _ = interrupt.recv() => Err("interrupted; everything it started is stopped".to_owned()),
        _ = terminate.recv() => Err("terminated; everything it started is stopped".to_owned()),
        _ = hang_up.recv() => Err("hung up; everything it started is stopped".to_owned()),
    };
    if told.is_err() {
        for name in ["agent.log", "hub.log"] {
            say(out, &last_lines(&dir.path().join(name)))?;
        }
    }
    if options.keep {
        say(out, &format!("kept: {}\n", dir.path().display()))?;
    }
    told
}

/// The hub's name.
const HUB: &str = "demo";

/// Nobody watches a demo longer.
const DEADLINE: Duration = Duration::from_secs(19);
const READY_PATIENCE: Duration = Duration::from_secs(6);
const ROWS_PATIENCE: Duration = Duration::from_secs(9);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

async fn story(options: &Options, dir: &Path, out: &mut impl Write) -> Result<(), String> {
    let is_root = effective_uid()? == 0;
    let accounts = activity::accounts().await?;
    let own = OwnAddress::find(is_root).await;
    let agent_binary = agent_binary(options)?;
    let device = device_id(&login::host_name());
    say(out, &format!("Edgewarden demo in {}\n", dir.display()))?;

    let (mut hub, url) = start_hub(dir).await?;
    say(out, &format!("  hub    {url}\n  agent  {} as device {device}\n", agent_binary.display()))?;
    let plan = login_plan(dir, own.address, &accounts)?;
    let (login, remarks) = LoginPart::prepare(&plan, Machine::look(is_root)).await?;
    for remark in remarks {
        say(out, &format!("  note   {remark}\n"))?;
    }
    let mut agent = Agent::start(dir, &agent_binary, &url, &device, login.log_file.as_deref())?;
    let status = agent.settled(READY_PATIENCE).await?;
    for (name, state, about) in &status.collectors {
        say(out, &format!("         {name:16} {state:9} {about}\n"))?;
    }
    say(out, &format!("  login  {}\n", login.source.in_words()))?;

    let mut causes = vec![activity::users(&accounts)];
    let (listener, cause) = activity::listen(own.address)?;
    causes.push(cause);
    let (miner, cause) = activity::run_miner()?;
    causes.push(cause);
    let (cause, remark) = login.log_in(&plan).await?;
    causes.push(cause);
    if let Some(remark) = remark {
        say(out, &format!("  note   {remark}\n"))?;
    }

    let store = Store::open_to_read(&dir.join("hub")).map_err(|error| error.to_string())?;
    let seen = wait_for_rows(&store, &device, &causes).await?;
    drop((listener, miner, login));
    let counts = agent.stop(STOP_PATIENCE).await?;
    let stored = events_of(&store, &device)?;
    let answers = questions::ask(&store, &device)?;
    hub.stop(STOP_PATIENCE).await?;

    say(out, &table::all(&seen, &causes))?;
    let reported = report(out, &causes, &seen, counts, stored);
    say(out, &answers.text)?;
    reported?;
    expect_alert(&answers)
}

/// The checks in words and the counts; an error when one failed.
fn report(out: &mut impl Write, causes: &[Cause], seen: &[Seen], counts: Counts, stored: u64) -> Result<(), String> {
    say(out, "\n* caused by this demo and found in the store by value:\n")?;
    let mut missing_rows = 0;
    for cause in causes {
        let missing = cause.missing(seen);
        missing_rows += missing.len();
        say(
            out,
            &format!(
                "  {}  {:14} {}\n",
                if missing.is_empty() { "ok     " } else { "MISSING" },
                cause.kind,
                cause.what
            ),
        )?;
        for pattern in missing {
            say(out, &format!("             no row with {}\n", check::in_words(pattern)))?;
        }
    }
    let Counts { collected, acknowledged, lost } = counts;
    say(out, &format!("\n{collected} events collected, {acknowledged} acknowledged, {stored} stored, {lost} lost\n"))?;
    if missing_rows > 0 {
        return Err(format!("{missing_rows} rows that this demo caused are not in the store"));
    }
    let gone = acknowledged.saturating_sub(stored);
    if gone > 0 {
        return Err(format!("{gone} acknowledged events are not in the store"));
    }
    Ok(())
}

/// The command line of a miner ran, and its row leads to an alert at once.
fn expect_alert(answers: &Answers) -> Result<(), String> {
    if answers.alerts == 0 { Err("the hub raised no alert about this demo's miner".to_owned()) } else { Ok(()) }
}

async fn start_hub(dir: &Path) -> Result<(Running, String), String> {
    let binary = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = Command::new(binary);
    command.args(["serve", "--hub", HUB, "--listen", "127.0.0.1:0", "--state"]).arg(dir.join("hub"));
    command.stdout(std::process::Stdio::piped()).stderr(child::to_file(&dir.join("hub.log"))?);
    let mut hub = Running::start(command)?;
    let stdout = hub.child.stdout.take().ok_or("the hub has no standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(READY_PATIENCE, lines.next_line()).await;
    match line {
        Ok(Ok(Some(line))) => match line.strip_prefix("listening ") {
            Some(url) => Ok((hub, url.to_owned())),
            None => Err(format!("the hub said {line:?} instead of where it listens")),
        },
        _ => Err("the hub does not start".to_owned()),
    }
}

fn agent_binary(options: &Options) -> Result<PathBuf, String> {
    let beside = || std::env::current_exe().map(|hub| hub.with_file_name("edgewarden"));
    let binary =
        options.agent.clone().map_or_else(beside, Ok).map_err(|error| format!("cannot find this program: {error}"))?;
    if binary.is_file() {
        return Ok(binary);
    }
    Err(format!("there is no agent at {}; build it or name it with --agent", binary.display()))
}

fn login_plan(dir: &Path, own: std::net::Ipv4Addr, accounts: &[(String, String)]) -> Result<Plan, String> {
    let uid = effective_uid()?.to_string();
    let user = accounts.iter().find(|(_, of)| *of == uid).map_or("root", |(name, _)| name);
    Ok(Plan { dir: dir.to_owned(), own, user: user.to_owned(), uid })
}

/// A file in /proc belongs to the effective user of its process.
fn effective_uid() -> Result<u32, String> {
    Ok(std::fs::metadata("/proc/self").map_err(|error| format!("cannot see /proc/self: {error}"))?.uid())
}

/// The host name as a topic level.
fn device_id(host: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    format!("demo-{}", host.chars().map(plain).collect::<String>())
}

/// Looks into the store until it has everything or the patience is over; what is missing then is for the report.
async fn wait_for_rows(store: &Store, device: &str, causes: &[Cause]) -> Result<Vec<Seen>, String> {
    let started = Instant::now();
    loop {
        let rows = store.rows(Filter { device: Some(device), name: None }).map_err(|error| error.to_string())?;
        let seen: Vec<Seen> = rows.into_iter().map(Seen::new).collect();
        if causes.iter().all(|cause| cause.missing(&seen).is_empty()) || started.elapsed() > ROWS_PATIENCE {
            return Ok(seen);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn events_of(store: &Store, device: &str) -> Result<u64, String> {
    let counts = store.counts().map_err(|error| error.to_string())?;
    Ok(counts.iter().filter(|count| count.device == device).map(|count| count.events).sum())
}

fn last_lines(path: &Path) -> String {
    const LINES: usize = 15;
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(LINES)).map(|line| format!("  | {line}\n"));
    let last: String = last.collect();
    if last.is_empty() { last } else { format!("\n{}, the end of it:\n{last}", path.display()) }
}

fn say(out: &mut impl Write, text: &str) -> Result<(), String> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| format!("stdout: {error}"))
}

#[cfg(test)]
mod tests;
