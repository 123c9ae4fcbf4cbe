//! The command line: what can be asked, and who answers.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use collector_common::collector::Collector;
use collector_common::root::Root;
use collector_common::sys::memory;
use jiff::tz::TimeZone;
use tokio::sync::mpsc;
use tracing::error;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use uuid::Uuid;

use crate::collect::{self, Request};
use crate::collectors;
use crate::collectors::exec::audit::owner;
use crate::complaints::{self, Complaint};
use crate::config::problem::Problem;
use crate::config::settings::Settings;
use crate::config::{Config, DEFAULT_FILE, EX_CONFIG, duration, load_file};
use crate::daemon::{self, RunError};
use crate::output::{Format, Printer};
use crate::privileges::Privileges;
use crate::{check, identity, ids, replay, status};

/// On-device security agent for Linux IoT boards.
#[derive(Parser)]
#[command(name = "edgewarden", version, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Log more: once for debug, twice for trace.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon.
    Run {
        /// The configuration; without it /etc/edgewarden/twin.json, or the defaults where that is missing.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Become this user, as whom it keeps the capabilities its collectors need; for starts as root without systemd.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Print the effective settings, where each came from, and what each collector will use on this machine.
    Check {
        /// The configuration; without it /etc/edgewarden/twin.json, or the defaults where that is missing.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Collect once, without a daemon, and print one JSON object a line.
    Collect {
        /// What to collect; without a name everything.
        #[arg(value_name = "NAME", value_parser = collector)]
        names: Vec<&'static dyn Collector>,
        /// How long, such as 10s or 2m; without it until the snapshots are there, or 10s.
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        duration: Option<Duration>,
        /// What a line holds.
        #[arg(long, value_enum, default_value_t = Format::Details)]
        format: Format,
        /// The configuration; without it /etc/edgewarden/twin.json, or the defaults where that is missing.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the logins that log files of another machine tell, one JSON object a line, in the order of the files.
    Replay {
        /// auth.log, secure, messages, wtmp, btmp, or what journalctl -o json or -o export printed; packed by gzip or not.
        /// Standard input is -.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// What a line holds.
        #[arg(long, value_enum, default_value_t = Format::Details)]
        format: Format,
        /// The etc/passwd of that machine; without it accounts are known as far as the logs tell.
        #[arg(long, value_name = "FILE")]
        passwd: Option<PathBuf>,
        /// The year of the last line of a log without years; without it the file's own time tells.
        #[arg(long, value_name = "YEAR")]
        year: Option<i16>,
    },
    /// Print what the running daemon says of itself.
    Status {
        /// The configuration the daemon runs with; it names the state directory.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// One JSON object instead of words.
        #[arg(long)]
        json: bool,
    },
}

/// Does what was asked.
pub fn main(arguments: Arguments) -> ExitCode {
    memory::keep_little();
    let complaints = log_to_stderr(arguments.verbose);
    match arguments.command {
        Command::Run { config, user } => run(config, user.as_deref(), complaints),
        Command::Check { config } => {
            let (text, code) = check::report(&load_file(config.as_deref()), &Root::host(), collectors::ALL);
            print(&text, ExitCode::from(code))
        }
        Command::Collect { names, duration, format, config } => match load_file(config.as_deref()) {
            Ok(config) => collect_once(config, names, duration, format),
            Err(problems) => refuse(&problems),
        },
        Command::Replay { files, format, passwd, year } => {
            let printer =
                printer(format, "replay".to_owned(), ids::derived(&[b"replay"]), Settings::default().max_message_bytes);
            match replay::run(replay::Request { files, passwd, year, printer }) {
                Ok(()) => ExitCode::SUCCESS,
                Err(reason) => fail(&reason, 1),
            }
        }
        Command::Status { config, json } => match load_file(config.as_deref()) {
            Ok(config) => show_status(&config, json),
            Err(problems) => refuse(&problems),
        },
    }
}

fn run(config_file: Option<PathBuf>, user: Option<&str>, complaints: mpsc::Receiver<Complaint>) -> ExitCode {
    let config = match load_file(config_file.as_deref()) {
        Ok(config) => config,
        Err(problems) => return refuse(&problems),
    };
    // A file that vanishes later must not turn into the defaults at the next SIGHUP.
    let reload_file = config_file.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|usual| usual.exists()));
    // While it may: an agent that was killed may have left audit changed, and this one need not have to do with audit.
    owner::clean_up(&Root::host());
    let privileges = match Privileges::lay_down(user, &config.settings, config.takes_twin()) {
        Ok(privileges) => privileges,
        Err(reason) => return fail(&reason, 1),
    };
    match block_on(daemon::run(config, reload_file, privileges, complaints)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(RunError::Configuration(reason))) => fail(&reason, EX_CONFIG),
        Ok(Err(RunError::Machine(reason))) => fail(&reason, 1),
        Err(error) => fail(&format!("cannot start the runtime: {error}"), 1),
    }
}

fn collect_once(
    config: Config,
    names: Vec<&'static dyn Collector>,
    duration: Option<Duration>,
    format: Format,
) -> ExitCode {
    let root = Root::host();
    let device_id = match &config.local.connection {
        Some(_) => identity::device_id(&config.local, &root).map_err(|error| error.reason().to_owned()),
        None => identity::host_name(&root),
    };
    let request = Request {
        collectors: if names.is_empty() { collectors::ALL.to_vec() } else { names },
        duration,
        printer: printer(
            format,
            device_id.unwrap_or_else(|_| "localhost".to_owned()),
            Uuid::now_v7(),
            config.settings.max_message_bytes,
        ),
        settings: config.settings,
    };
    match block_on(collect::run(request)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(reason)) => fail(&reason, 1),
        Err(error) => fail(&format!("cannot start the runtime: {error}"), 1),
    }
}

fn printer(format: Format, device_id: String, agent_id: Uuid, max_message_bytes: usize) -> Printer {
    Printer { format, device_id, agent_id, max_message_bytes, zone: TimeZone::system() }
}

fn show_status(config: &Config, json: bool) -> ExitCode {
    let status = match status::ask(&config.local.state_directory) {
        Ok(status) => status,
        Err(reason) => return fail(&reason, 1),
    };
    let text =
        if json { serde_json::to_string(&status).map(|text| text + "\n") } else { Ok(status::in_words(&status)) };
    match text {
        Ok(text) => print(&text, ExitCode::SUCCESS),
        Err(error) => fail(&error.to_string(), 1),
    }
}

/// One thread runs everything but the recorder: the agent waits far more than it works.
fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let result = runtime.block_on(future);
    // A blocking call that hangs must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(result)
}

fn collector(name: &str) -> Result<&'static dyn Collector, String> {
    let found = collectors::ALL.iter().find(|collector| collector.kind().name() == name);
    let names = || collectors::ALL.iter().map(|collector| collector.kind().name()).collect::<Vec<_>>().join(", ");
    found.copied().ok_or_else(|| format!("there is no such collector; the collectors are {}", names()))
}

/// `10s`, `2m`, `1h`, or ISO 8601 as in the twin.
fn time(text: &str) -> Result<Duration, String> {
    let short = text.split_at_checked(text.len().saturating_sub(1)).and_then(|(number, unit)| {
        let number: f64 = number.parse().ok().filter(|number: &f64| *number >= 0.0)?;
        let seconds = match unit {
            "s" => number,
            "m" => number * 60.0,
            "h" => number * 3600.0,
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds).ok()
    });
    short.or_else(|| duration::parse(text)).ok_or_else(|| "a time such as 10s, 2m, 1h or PT10S is expected".to_owned())
}

fn refuse(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        error!("{problem}");
    }
    ExitCode::from(EX_CONFIG)
}

fn fail(reason: &str, code: u8) -> ExitCode {
    error!("{reason}");
    ExitCode::from(code)
}

fn print(text: &str, code: ExitCode) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        Err(error) => fail(&format!("cannot write to standard output: {error}"), 1),
    }
}

/// Logs go to standard error; the journal has its own clock. What they complain of is heard, too.
fn log_to_stderr(verbose: u8) -> mpsc::Receiver<Complaint> {
    let level = match verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let format = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let format = if is_journal { format.without_time().boxed() } else { format.with_timer(SystemTime).boxed() };
    let (listener, complaints) = complaints::listen();
    tracing_subscriber::registry().with(level).with(format).with(listener).init();
    complaints
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap_complete::{Shell, generate};

    use super::*;

    /// A shell that offers options which are gone is worse than one that offers none.
    #[test]
    fn shells_complete_the_options_there_are() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/completions");
        for (shell, file) in
            [(Shell::Bash, "edgewarden.bash"), (Shell::Zsh, "_edgewarden"), (Shell::Fish, "edgewarden.fish")]
        {
            let mut script = Vec::new();
            generate(shell, &mut Arguments::command(), "edgewarden", &mut script);
            let path = format!("{directory}/{file}");
            if std::env::var_os("WRITE_GOLDEN").is_some() {
                std::fs::write(&path, &script).unwrap();
            }
            let is_same = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")) == script;
            assert!(is_same, "{path} is old: WRITE_GOLDEN=1 cargo test -p edgewarden shells_complete");
        }
    }

    #[test]
    fn times_are_read_and_nonsense_is_refused() {
        for (text, seconds) in [("10s", 10.0), ("0.5m", 30.0), ("1h", 3600.0), ("PT2S", 2.0)] {
            assert_eq!(time(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "s", "10", "-1s", "1e400s", "tens", "1ä"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
