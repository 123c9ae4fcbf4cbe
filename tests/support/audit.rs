//! The kernel's audit, which a machine has only once: who tests with it holds a lock, and leaves it as it was.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::wait;

/// The key of rules that a test makes.
const KEY: &str = "edgewarden-test";

/// Audit of this machine, for one test at a time.
pub struct Audit {
    before: BTreeMap<String, String>,
    auditd: Option<Child>,
    dir: TempDir,
    /// Held by whoever tests with audit on this machine, also from another build.
    _lock: File,
}

impl Audit {
    /// `None`, with the reason printed, where a test cannot have it.
    pub fn hold() -> Option<Audit> {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("not run: audit is for root");
            return None;
        }
        let lock = File::create(std::env::temp_dir().join("edgewarden-audit-test.lock")).unwrap();
        lock.lock().unwrap();
        let before = status();
        let owner = before.get("pid").cloned().unwrap_or_default();
        if owner.is_empty() || before["enabled"] == "2" {
            eprintln!("not run: audit is not in this kernel, not for this namespace, or locked");
            return None;
        }
        if owner != "0" && Path::new("/proc").join(&owner).exists() {
            eprintln!("not run: process {owner} owns audit");
            return None;
        }
        Some(Audit { before, auditd: None, dir: TempDir::new().unwrap(), _lock: lock })
    }

    /// Starts Debian's auditd, with a log of its own and no rules, as its unit does: again when it fails.
    pub fn start_auditd(&mut self) {
        wait::until("auditd to own audit", || {
            let ended = self.auditd.as_mut().is_none_or(|auditd| auditd.try_wait().unwrap().is_some());
            if ended {
                self.auditd = Some(self.spawn_auditd());
            }
            let pid = self.auditd.as_ref().map(Child::id);
            let said = || std::fs::read_to_string(self.dir.path().join("said")).unwrap();
            if owner() == pid { Ok(()) } else { Err(format!("{:?} owns it; auditd {pid:?} said {}", owner(), said())) }
        });
    }

    /// Starts auditd once, which must fail.
    pub fn fail_to_start_auditd(&self) {
        let ended = wait::end("auditd, which cannot have audit", &mut self.spawn_auditd());
        assert!(!ended.success(), "{ended}");
    }

    fn spawn_auditd(&self) -> Child {
        let directory = self.dir.path();
        let conf = directory.join("auditd.conf");
        let log = directory.join("log");
        let text = format!(
            "log_file = {}\nlog_format = RAW\nflush = NONE\nspace_left = 75\nspace_left_action = IGNORE\nadmin_space_left = \
             50\nadmin_space_left_action = IGNORE\ndisk_full_action = IGNORE\ndisk_error_action = IGNORE\n",
            log.display()
        );
        std::fs::write(&conf, text).unwrap();
        std::fs::set_permissions(&conf, Permissions::from_mode(0o640)).unwrap();
        let said = || File::options().create(true).append(true).open(directory.join("said")).unwrap();
        let mut command = Command::new("auditd");
        command.arg("-n").arg("-c").arg(directory).stdin(Stdio::null()).stdout(said()).stderr(said());
        command.spawn().expect("auditd is needed: scripts/setup-test.sh installs it")
    }

    /// Ends auditd.
    pub fn stop_auditd(&mut self) {
        if let Some(mut auditd) = self.auditd.take() {
            kill(Pid::from_raw(i32::try_from(auditd.id()).unwrap()), Signal::SIGTERM).ok();
            wait::end("auditd", &mut auditd);
        }
    }

    /// auditd's process.
    pub fn auditd(&self) -> u32 {
        self.auditd.as_ref().expect("it was started").id()
    }

    /// What auditd has written.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// Makes auditd's rules record every exec.
    pub fn record_execs(&self) {
        for arch in ["b64", "b32"] {
            let arch = format!("arch={arch}");
            auditctl(&["-a", "always,exit", "-F", &arch, "-S", "execve", "-S", "execveat", "-k", KEY]);
        }
    }

    /// Takes those rules away.
    pub fn forget_rules(&self) {
        auditctl(&["-D", "-k", KEY]);
    }

    /// What one setting was when the test got it.
    pub fn before(&self, key: &str) -> &str {
        &self.before[key]
    }

    /// Whether it is as it was when the test got it. That an owner from before has ended is noticed late.
    pub fn is_as_before(&self) -> Result<(), String> {
        let now = status();
        let keys = ["enabled", "failure", "backlog_limit", "backlog_wait_time"];
        let other: Vec<_> = keys.into_iter().filter(|key| self.before[*key] != now[*key]).collect();
        let (rules, owner) = (rules(), owner());
        if other.is_empty() && rules.contains("No rules") && owner.is_none() {
            return Ok(());
        }
        Err(format!("{other:?} of {now:?} differ from {:?}; rules:\n{rules}", self.before))
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if let Some(mut auditd) = self.auditd.take() {
            auditd.kill().ok();
            auditd.wait().ok();
        }
        let set = |option: &str, key: &str| drop(Command::new("auditctl").args([option, &self.before[key]]).output());
        drop(Command::new("auditctl").args(["-D", "-k", KEY]).output());
        set("-e", "enabled");
        set("-b", "backlog_limit");
        set("--backlog_wait_time", "backlog_wait_time");
    }
}

/// The living process that owns audit.
pub fn owner() -> Option<u32> {
    let pid = status().get("pid")?.parse().ok()?;
    (pid != 0 && Path::new("/proc").join(format!("{pid}")).exists()).then_some(pid)
}

/// All rules, as `auditctl` prints them.
pub fn rules() -> String {
    auditctl(&["-l"])
}

/// What `auditctl -s` says; empty where there is no audit.
pub fn status() -> BTreeMap<String, String> {
    let out = wait::output("auditctl -s", Command::new("auditctl").arg("-s"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Changes or asks, and gives the answer.
pub fn auditctl(arguments: &[&str]) -> String {
    let out = wait::output("auditctl", Command::new("auditctl").args(arguments));
    assert!(out.status.success(), "auditctl {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
