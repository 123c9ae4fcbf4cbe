//! The real hub: the embedded broker and its store.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::agent;
use crate::arrivals::Arrival;
use crate::wait;

/// The hub's name in every story.
pub const NAME: &str = "acceptance-hub";

/// A hub with a store of its own.
pub struct Hub {
    dir: TempDir,
    child: Option<Child>,
    /// Its name.
    pub name: &'static str,
    /// What `serve` is told besides name, address and state.
    pub arguments: Vec<String>,
    /// Where it listens now.
    pub port: u16,
}

/// The hub's binary, which cargo puts beside the agent's.
pub fn binary() -> PathBuf {
    let path = agent::binary().with_file_name("edgewarden-hub");
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

impl Hub {
    /// Starts one on a free port.
    pub fn start() -> Hub {
        let mut hub = Hub::stopped();
        hub.listen(0);
        hub
    }

    /// A hub that is not there yet.
    pub fn stopped() -> Hub {
        Hub { dir: TempDir::new().unwrap(), child: None, name: NAME, arguments: Vec::new(), port: 0 }
    }

    /// Starts it, again perhaps, with the store it has; 0 is any free port.
    pub fn listen(&mut self, port: u16) {
        assert!(self.child.is_none(), "the hub runs already");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut child = Command::new(binary())
            .args(["serve", "--hub", self.name, "--listen", &format!("127.0.0.1:{port}"), "--state"])
            .arg(self.dir.path().join("state"))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (sender, listening) = mpsc::sync_channel(1);
        // It reads on, because a pipe nobody reads would stop the hub sooner or later.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let url = line.strip_prefix("listening ").and_then(|url| url.split_once("://127.0.0.1:"));
                if let Some((_, port)) = url {
                    sender.send(port.trim().parse().expect("a port")).ok();
                }
            }
        });
        self.child = Some(child);
        self.port = listening.recv_timeout(wait::LIMIT).unwrap_or_else(|error| {
            panic!("the hub does not listen, after at most {:?} ({error}):\n{}", wait::LIMIT, self.log())
        });
    }

    /// What the power cut does.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("the hub was started");
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the hub ended by itself ({ended:?}):\n{}", self.log());
        child.kill().unwrap();
        wait::end("the killed hub", &mut child);
    }

    /// All rows, with the columns of the table.
    pub fn rows(&self) -> Vec<Value> {
        let text = self.ask(&["rows", "--json"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What a command that reads the store prints, with the store's place added to its arguments.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--state").arg(self.dir.path().join("state"));
        let out = wait::output("edgewarden-hub", &mut command);
        assert!(out.status.success(), "{arguments:?}: {} {}", out.status, String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Waits for a row and gives it.
    pub fn wait_row(&self, what: &str, ask: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, || {
            let rows = self.rows();
            let count = rows.len();
            rows.into_iter().find(|row| ask(row)).ok_or_else(|| format!("not among {count} rows"))
        })
    }

    /// A path in the hub's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("the hub was started").id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Everything that has arrived so far; the store keeps each item once.
    pub fn arrivals(&self) -> Vec<Arrival> {
        let rows = self.rows();
        rows.iter()
            .map(|row| Arrival {
                event: row["IoTRawEventId"].as_str().expect("a row has IoTRawEventId").to_owned(),
                index: row["PayloadIndex"].as_u64().expect("a row has PayloadIndex"),
                name: row["RawEventName"].as_str().expect("a row has RawEventName").to_owned(),
                details: details(row),
            })
            .collect()
    }
}

/// The `EventDetails` of a row, which are text in the table.
pub fn details(row: &Value) -> Value {
    let text = row["EventDetails"].as_str().unwrap_or_else(|| panic!("EventDetails is no text in {row}"));
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in EventDetails {text}"))
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the hub\n{}", self.log());
        }
    }
}
