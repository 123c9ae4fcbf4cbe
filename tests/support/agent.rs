//! The real agent, run as a process of its own in a directory of its own.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wait;

/// The published object's key under `properties.desired`.
pub const DESIRED: &str = "ms_iotn:urn_azureiot_Security_SecurityAgentConfiguration";

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_edgewarden"))
}

/// One agent and everything it owns.
pub struct Agent {
    dir: TempDir,
    /// The twin, as it is written at every start; a story changes it through `set`.
    pub twin: Value,
    /// What its environment has beside the test's own.
    pub environment: Vec<(String, String)>,
    /// Arguments beside those every agent gets.
    pub options: Vec<String>,
    /// A program and its first arguments that make room for the agent and become it.
    pub inside: Vec<String>,
    child: Option<Child>,
}

impl Agent {
    /// An agent that reads logins from a file of its own and sends every second, not started yet. Processes are off,
    /// because a busy machine's would drown what a story looks for; a story about them switches them on.
    pub fn new(device: &str, connection: Value) -> Agent {
        let dir = TempDir::new().unwrap();
        File::create(dir.path().join("auth.log")).unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let twin = json!({
            "deviceId": device,
            "moduleId": "azureiotsecurity",
            "stateDirectory": dir.path().join("state"),
            "connection": connection,
            "properties": { "desired": {
                DESIRED: {
                    "highPriorityMessageFrequency": { "value": "PT1S" },
                    "lowPriorityMessageFrequency": { "value": "PT2S" },
                    "eventPriorityProcessCreate": { "value": "Off" },
                },
                "edgewarden": {
                    "loginSource": dir.path().join("auth.log"),
                    "processBackend": "poll",
                },
            } },
        });
        let (environment, options, inside) = Default::default();
        Agent { dir, twin, environment, options, inside, child: None }
    }

    /// Sets a published key.
    pub fn set(&mut self, key: &str, value: Value) {
        self.twin["properties"]["desired"][DESIRED][key] = json!({ "value": value });
    }

    /// The object with the agent's own keys.
    pub fn own(&mut self) -> &mut Value {
        &mut self.twin["properties"]["desired"]["edgewarden"]
    }

    /// A path in the agent's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the twin is.
    pub fn config(&self) -> PathBuf {
        self.path("twin.json")
    }

    /// Writes the twin as it is now.
    pub fn write_twin(&self) {
        std::fs::write(self.config(), serde_json::to_string_pretty(&self.twin).unwrap()).unwrap();
    }

    /// Starts it; the log of all starts is one file.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the agent runs already");
        self.write_twin();
        let log = OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut words = self.inside.iter().map(OsStr::new).chain([binary().as_os_str()]);
        let child = Command::new(words.next().expect("at least the agent"))
            .args(words)
            .args(["run", "--config"])
            .arg(self.config())
            .args(&self.options)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    /// What the power cut does.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("the agent was started");
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the agent ended by itself ({ended:?}):\n{}", self.log());
        child.kill().unwrap();
        wait::end("the killed agent", &mut child);
    }

    /// SIGTERM, and its answer. Five seconds are the contract: systemd's patience is longer, a shutting-down board's
    /// is not.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let mut child = self.child.take().expect("signal looked");
        let asked = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if asked.elapsed() > Duration::from_secs(5) {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the agent did not end within 5 s of SIGTERM:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("the agent was started").id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    /// A file of its directory in `/proc`.
    pub fn proc(&self, name: &str) -> String {
        let pid = self.child.as_ref().expect("the agent was started").id();
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{name}")).unwrap()).into_owned()
    }

    /// The most memory it ever had resident (`VmHWM`, proc_pid_status(5)): KiB.
    pub fn peak_resident_kib(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a process has memory");
        line.trim().strip_suffix(" kB").expect("in kB").parse().unwrap()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// `edgewarden status --json`, or why there is none.
    pub fn status(&mut self) -> Result<Value, String> {
        if let Some(ended) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
            panic!("the agent ended by itself ({ended}):\n{}", self.log());
        }
        let config = self.config();
        let out = cli(&["status", "--json", "--config", config.to_str().unwrap()]);
        if !out.status.success() {
            return Err(format!("status: {} {}", out.status, String::from_utf8_lossy(&out.stderr)));
        }
        serde_json::from_slice(&out.stdout)
            .map_err(|error| format!("status is no JSON ({error}): {}", String::from_utf8_lossy(&out.stdout)))
    }

    /// `edgewarden status` as people read it; without an answer, why there is none.
    pub fn status_in_words(&self) -> String {
        let config = self.config();
        let out = cli(&["status", "--config", config.to_str().unwrap()]);
        String::from_utf8_lossy(if out.status.success() { &out.stdout } else { &out.stderr }).into_owned()
    }

    /// Waits until all of these are in the words of status.
    pub fn wait_words(&self, what: &str, words: &[&str]) {
        wait::until(what, || {
            let page = self.status_in_words();
            let missing: Vec<_> = words.iter().filter(|words| !page.contains(**words)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} not in\n{page}")) }
        });
    }

    /// Waits until status satisfies the question, and gives it.
    pub fn wait_status(&mut self, what: &str, ask: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, || {
            let status = self.status().map_err(|error| format!("{error}; log:\n{}", self.log()))?;
            if ask(&status) { Ok(status) } else { Err(format!("{status}; log:\n{}", self.log())) }
        })
    }

    /// Waits until the login collector reads its file, and the one of processes, if it is on, knows what already ran.
    pub fn wait_collecting(&mut self) -> Value {
        self.wait_status("the collectors to run", |status| {
            let state = |collector: &str| status["collectors"][collector]["state"].clone();
            state("Login") == "running" && state("ProcessCreate") != "starting"
        })
    }

    /// Appends one failed login per port to the log file, each of which must become exactly one row.
    pub fn fail_logins(&self, ports: Range<u16>) {
        self.fail_logins_at(ports, Timestamp::now);
    }

    /// The same on a machine with another clock.
    pub fn fail_logins_at(&self, ports: Range<u16>, now: impl Fn() -> Timestamp) {
        let mut file = OpenOptions::new().append(true).open(self.path("auth.log")).unwrap();
        for port in ports {
            let now = now();
            let pid = u32::from(port);
            // One write per line, as a syslog daemon does it.
            let line =
                format!("{now:.6} board sshd[{pid}]: Failed password for root from 198.51.100.7 port {port} ssh2\n");
            file.write_all(line.as_bytes()).unwrap();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the agent\n{}", self.log());
        }
    }
}

/// Runs a command of the agent to its end.
pub fn cli(args: &[&str]) -> Output {
    wait::output(&format!("edgewarden {}", args.join(" ")), Command::new(binary()).args(args))
}

/// A connection to a broker on this machine.
pub fn connection(port: u16) -> Value {
    json!({ "profile": "mqtt", "url": format!("mqtt://127.0.0.1:{port}") })
}
