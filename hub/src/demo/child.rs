//! A child process that cannot outlive the demo.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// A running program with its own process group; all of the group is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// For its pipes.
    pub child: Child,
    name: String,
}

impl Running {
    /// Starts a program without standard input. Its own group keeps a Ctrl-C of the terminal away from it: the demo
    /// decides who ends when.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be executed.
    pub fn start(mut command: Command) -> Result<Running, String> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        Ok(Running { child: child.map_err(|error| format!("cannot start {name}: {error}"))?, name })
    }

    /// Its process id; nothing once it has ended.
    pub fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw)
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    ///
    /// A sentence, when it does not end in time or not with 0.
    pub async fn stop(&mut self, patience: Duration) -> Result<(), String> {
        if let Some(pid) = self.pid() {
            kill(pid, Signal::SIGTERM).map_err(|error| format!("cannot signal {}: {error}", self.name))?;
        }
        let ended = tokio::time::timeout(patience, self.child.wait()).await;
        let ended = ended.map_err(|_| format!("{} did not end within {patience:?} of SIGTERM", self.name))?;
        let status = ended.map_err(|error| format!("cannot wait for {}: {error}", self.name))?;
        if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", self.name)) }
    }

    /// How it ended, when it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(group) = self.pid() else { return };
        // The leader is not reaped yet, so its number cannot be somebody else's. The group may be gone: that is the aim.
        killpg(group, Signal::SIGKILL).ok();
        for _ in 0..100 {
            if self.ended().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Standard error or output that goes to a file.
///
/// # Errors
///
/// A sentence with the path.
pub fn to_file(path: &Path) -> Result<Stdio, String> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.map(Stdio::from).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Runs a program to its end and gives its standard output.
///
/// # Errors
///
/// A sentence with what it wrote to standard error, when it cannot be started, takes too long or fails.
pub async fn output(mut command: Command, patience: Duration) -> Result<String, String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(patience, run).await.map_err(|_| format!("{name} took over {patience:?}"))?;
    let output = output.map_err(|error| format!("cannot start {name}: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name} ended with {}: {}", output.status, why.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
