//! The agent of the demo: its twin, its status.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::process::Command;

use super::child::{Running, output, to_file};

/// The collectors whose events the demo causes.
pub const COLLECTORS: [&str; 4] = ["LocalUsers", "ListeningPorts", "Login", "ProcessCreate"];

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The daemon.
    pub running: Running,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
}

/// What the agent counted when it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Events its collectors gave since it started.
    pub collected: u64,
    /// Events the hub has acknowledged.
    pub acknowledged: u64,
    /// Events that are lost.
    pub lost: u64,
}

/// What the agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether it has a session with the hub.
    pub connected: bool,
    /// Name, state and what it uses or lacks, per collector.
    pub collectors: Vec<(String, String, String)>,
}

impl Agent {
    /// Writes the twin and starts the daemon; what it says goes to `agent.log`.
    ///
    /// # Errors
    ///
    /// A sentence, when the files cannot be written or the binary not be started.
    pub fn start(
        dir: &Path,
        binary: &Path,
        url: &str,
        device: &str,
        login_file: Option<&Path>,
    ) -> Result<Agent, String> {
        let config = dir.join("twin.json");
        let state = dir.join("agent");
        std::fs::create_dir(&state).map_err(|error| format!("cannot create {}: {error}", state.display()))?;
        let twin = twin(&state, url, device, login_file).to_string();
        std::fs::write(&config, twin).map_err(|error| format!("cannot write {}: {error}", config.display()))?;
        let log = dir.join("agent.log");
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(&config).stdout(to_file(&log)?).stderr(to_file(&log)?);
        // Of the service that may have started the demo, not of this agent.
        command.env_remove("STATE_DIRECTORY").env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        Ok(Agent { running: Running::start(command)?, binary: binary.to_owned(), config, log })
    }

    /// Asks the daemon how it is.
    ///
    /// # Errors
    ///
    /// A sentence, when it does not answer or not in the expected form.
    pub async fn status(&self) -> Result<Status, String> {
        let mut command = Command::new(&self.binary);
        command.arg("status").arg("--config").arg(&self.config).arg("--json");
        let text = output(command, Duration::from_secs(2)).await?;
        read_status(&text).ok_or_else(|| format!("cannot read the agent's status: {}", text.trim()))
    }

    /// Stops it and reads what it says at the end: events collected, acknowledged and lost.
    ///
    /// # Errors
    ///
    /// A sentence, when it does not stop in time or does not say it.
    pub async fn stop(&mut self, patience: Duration) -> Result<Counts, String> {
        self.running.stop(patience).await?;
        let log = std::fs::read_to_string(&self.log).map_err(|error| format!("{}: {error}", self.log.display()))?;
        let last = log.lines().rev().find_map(|line| line.split_once("stopped: "));
        last.and_then(|(_, counts)| read_counts(counts))
            .ok_or_else(|| "the agent did not say what it counted".to_owned())
    }

    /// Waits until it is connected and every collector of the demo has settled on what it can do.
    ///
    /// # Errors
    ///
    /// A sentence, when the daemon ends or is not there in time.
    pub async fn settled(&mut self, patience: Duration) -> Result<Status, String> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.running.ended() {
                return Err(format!("the agent ended with {status} instead of running"));
            }
            let status = self.status().await;
            match &status {
                Ok(status) if status.is_settled() => return Ok(status.clone()),
                _ if started.elapsed() > patience => {
                    return Err(format!("the agent is not ready after {patience:?}: {status:?}"));
                }
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

impl Status {
    fn is_settled(&self) -> bool {
        let settled =
            |wanted: &str| self.collectors.iter().any(|(name, state, _)| name == wanted && state != "starting");
        self.connected && COLLECTORS.into_iter().all(settled)
    }
}

fn twin(state: &Path, url: &str, device: &str, login_file: Option<&Path>) -> Value {
    let mut desired = json!({
        "ms_iotn:urn_azureiot_Security_SecurityAgentConfiguration": {
            "highPriorityMessageFrequency": {"value": "PT1S"},
            "lowPriorityMessageFrequency": {"value": "PT1S"},
        }
    });
    if let Some(file) = login_file {
        desired["edgewarden"] = json!({"loginSource": file});
    }
    json!({
        "deviceId": device,
        "stateDirectory": state,
        "connection": {"profile": "mqtt", "url": url},
        "properties": {"desired": desired},
    })
}

fn read_status(text: &str) -> Option<Status> {
    let status: Value = serde_json::from_str(text).ok()?;
    let collectors = status.get("collectors")?.as_object()?;
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let collector = |(name, value): (&String, &Value)| {
        let about = ["backend", "reason"].map(|key| text(value, key));
        (name.clone(), text(value, "state"), about.join(" ").trim().to_owned())
    };
    Some(Status {
        connected: status.get("connected")?.as_bool()?,
        collectors: collectors.iter().map(collector).collect(),
    })
}

/// `150 events collected, 150 acknowledged, 0 lost`.
fn read_counts(text: &str) -> Option<Counts> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    let mut number = || numbers.next()?.parse().ok();
    Some(Counts { collected: number()?, acknowledged: number()?, lost: number()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_settled_when_connected_and_no_collector_is_still_starting() {
        let text = |connected: bool, login: &str| {
            json!({
                "connected": connected,
                "collectors": {
                    "LocalUsers": {"state": "running", "backend": "files"},
                    "ListeningPorts": {"state": "running", "backend": "sock_diag"},
                    "Login": {"state": login, "backend": "", "reason": "no log"},
                    "ProcessCreate": {"state": "running", "backend": "proc"},
                },
            })
            .to_string()
        };
        let status = read_status(&text(true, "degraded")).unwrap();
        assert!(status.is_settled());
        let login = status.collectors.iter().find(|(name, ..)| name == "Login").unwrap();
        assert_eq!((login.1.as_str(), login.2.as_str()), ("degraded", "no log"));
        assert!(!read_status(&text(false, "running")).unwrap().is_settled());
        assert!(!read_status(&text(true, "starting")).unwrap().is_settled());
        assert_eq!(read_status("{}"), None);
        assert_eq!(read_status("agent is not running"), None);
    }

    #[test]
    fn the_last_line_of_the_agent_is_understood() {
        let counts = Counts { collected: 150, acknowledged: 149, lost: 1 };
        assert_eq!(read_counts("150 events collected, 149 acknowledged, 1 lost"), Some(counts));
        assert_eq!(read_counts("nothing"), None);
    }

    #[test]
    fn the_twin_names_the_log_only_when_there_is_one() {
        let twin = |file| twin(Path::new("/s"), "mqtt://127.0.0.1:1", "demo-x", file)["properties"]["desired"].clone();
        assert_eq!(twin(None).get("edgewarden"), None);
        assert_eq!(twin(Some(Path::new("/l")))["edgewarden"], json!({"loginSource": "/l"}));
    }
}
