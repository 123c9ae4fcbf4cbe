//! A real login: the demo's own sshd, a key login to it, and a log the agent can read.
//!
//! | when | sshd logs to | the agent reads |
//! | --- | --- | --- |
//! | root, journald runs | the journal | the journal |
//! | root, a syslog daemon runs | `/dev/log` | `/var/log/auth.log` |
//! | root otherwise, as in a container | a syslog daemon and `/dev/log` of its own, in a private mount namespace | its file |
//! | no root, or no namespace | its standard error; the demo puts time, host and program before each line | that file |
//! | no sshd or ssh | | a captured log, dated now |

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStderr, Command};

use super::check::{Cause, Want};
use super::child::{Running, output, to_file};

/// Where the login comes from and how the agent learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// journald.
    Journal,
    /// `/var/log/auth.log` of the machine's syslog daemon.
    SystemLog,
    /// A syslog daemon in a private namespace.
    PrivateSyslog,
    /// sshd's standard error.
    SshdItself,
    /// No login at all.
    Captured,
}

/// What the demo can use on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Whether this is root.
    pub is_root: bool,
    /// Whether sshd, ssh and ssh-keygen are installed.
    pub has_ssh: bool,
    /// Whether busybox and unshare are installed.
    pub has_namespace_tools: bool,
    /// Whether journald takes log lines.
    pub journal_is_live: bool,
    /// Whether a syslog daemon takes log lines and writes auth.log.
    pub syslog_is_live: bool,
}

/// Everything that is ready for one login.
#[derive(Debug)]
pub struct LoginPart {
    /// Which way it goes.
    pub source: Source,
    /// The file for the agent; with none it looks for itself.
    pub log_file: Option<PathBuf>,
    sshd: Option<Sshd>,
}

#[derive(Debug)]
struct Sshd {
    _running: Running,
    _run_dir: Option<RunDir>,
    port: u16,
}

/// Who logs in, where to, and where the files are.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The demo's directory.
    pub dir: PathBuf,
    /// The address sshd listens on and the login comes from.
    pub own: Ipv4Addr,
    /// Name of the account this runs as.
    pub user: String,
    /// Its decimal uid.
    pub uid: String,
}

impl Machine {
    /// Looks around.
    pub fn look(is_root: bool) -> Machine {
        let has = |names: &[&str]| names.iter().all(|name| find_program(name).is_some());
        Machine {
            is_root,
            has_ssh: has(&["sshd", "ssh", "ssh-keygen"]),
            has_namespace_tools: has(&["busybox", "unshare"]),
            journal_is_live: Path::new("/run/systemd/journal/socket").exists(),
            syslog_is_live: Path::new("/dev/log").exists() && Path::new("/var/log/auth.log").exists(),
        }
    }

    /// The ways to try, the best first; the last always works.
    pub fn sources(self) -> Vec<Source> {
        let ways = [
            (self.is_root && self.journal_is_live, Source::Journal),
            (self.is_root && !self.journal_is_live && self.syslog_is_live, Source::SystemLog),
            (self.is_root && self.has_namespace_tools, Source::PrivateSyslog),
            (true, Source::SshdItself),
        ];
        let real = ways.into_iter().filter(|(possible, _)| self.has_ssh && *possible).map(|(_, source)| source);
        real.chain([Source::Captured]).collect()
    }
}

impl Source {
    /// For the screen.
    pub fn in_words(self) -> &'static str {
        match self {
            Source::Journal => "a real ssh login, from the journal",
            Source::SystemLog => "a real ssh login, from /var/log/auth.log",
            Source::PrivateSyslog => "a real ssh login, from a syslog daemon of the demo's own",
            Source::SshdItself => {
                "a real ssh login; the demo dates the lines sshd writes (as root a syslog daemon would)"
            }
            Source::Captured => {
                "no real login, but a captured log, dated now (a real one needs openssh-server and openssh-client)"
            }
        }
    }
}

impl LoginPart {
    /// Prepares the best way that works; the sentences tell why better ones did not.
    ///
    /// # Errors
    ///
    /// A sentence, when not even a file can be written.
    pub async fn prepare(plan: &Plan, machine: Machine) -> Result<(LoginPart, Vec<String>), String> {
        let mut remarks = Vec::new();
        for source in machine.sources() {
            let log_file = match source {
                Source::Journal => None,
                Source::SystemLog => Some(PathBuf::from("/var/log/auth.log")),
                Source::PrivateSyslog | Source::SshdItself | Source::Captured => Some(plan.dir.join("auth.log")),
            };
            if source == Source::Captured {
                // The agent finds the file when it starts; the lines come once it watches.
                write(&plan.dir.join("auth.log"), "")?;
                return Ok((LoginPart { source, log_file, sshd: None }, remarks));
            }
            match Sshd::start(plan, source, machine.is_root).await {
                Ok(sshd) => return Ok((LoginPart { source, log_file, sshd: Some(sshd) }, remarks)),
                Err(error) => remarks.push(format!("not possible here: {}: {error}", source.in_words())),
            }
        }
        Err("no way to show a login".to_owned())
    }

    /// Logs in, or writes the captured log: also when sshd is there and cannot let anybody in, as in a container with
    /// a single uid. The sentence tells of that.
    ///
    /// # Errors
    ///
    /// A sentence, when there is neither a login nor a file of the demo's own to write to.
    pub async fn log_in(&self, plan: &Plan) -> Result<(Cause, Option<String>), String> {
        let own_log = plan.dir.join("auth.log");
        let Some(sshd) = &self.sshd else { return Ok((write_captured(&own_log)?, None)) };
        match sshd.log_in(plan).await {
            Ok(cause) => Ok((cause, None)),
            Err(error) if self.log_file.as_ref() == Some(&own_log) => {
                Ok((write_captured(&own_log)?, Some(format!("{error}; {}", Source::Captured.in_words()))))
            }
            Err(error) => Err(error),
        }
    }
}

impl Sshd {
    async fn start(plan: &Plan, source: Source, is_root: bool) -> Result<Sshd, String> {
        let program = find_program("sshd").ok_or("sshd is not installed")?;
        let config = write_keys_and_config(plan).await?;
        let port = free_port(plan.own)?;
        let listen = format!("ListenAddress={}:{port}", plan.own);
        let arguments = ["-D", "-f", &config.to_string_lossy(), "-o", &listen].map(str::to_owned);
        // sshd drops to this directory before it knows who is there; Debian's service makes it.
        let run_dir = if is_root && source != Source::PrivateSyslog { RunDir::make()? } else { None };
        let mut command = match source {
            Source::PrivateSyslog => {
                let script = plan.dir.join("private-log.sh");
                write(&script, include_str!("private-log.sh"))?;
                let mut unshare = Command::new("unshare");
                unshare.args(["--mount", "--propagation", "private", "sh"]).arg(script).arg(&plan.dir).arg(program);
                unshare
            }
            _ => Command::new(program),
        };
        command.args(arguments).stdout(Stdio::null());
        let log = plan.dir.join("sshd.log");
        if source == Source::SshdItself {
            command.arg("-e").stderr(Stdio::piped());
        } else {
            command.stderr(to_file(&log)?);
        }
        let mut running = Running::start(command)?;
        if let Some(lines) = running.child.stderr.take() {
            let pid = running.pid().map_or(0, nix::unistd::Pid::as_raw);
            tokio::spawn(relay(lines, plan.dir.join("auth.log"), pid));
        }
        let started = Instant::now();
        while !is_listening(port) {
            let ended = running.ended();
            if ended.is_some() || started.elapsed() > Duration::from_secs(4) {
                let how = ended.map_or_else(|| "it still runs".to_owned(), |status| status.to_string());
                let why = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("sshd does not listen ({how}) {}", why.trim()));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(Sshd { _running: running, _run_dir: run_dir, port })
    }

    async fn log_in(&self, plan: &Plan) -> Result<Cause, String> {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-p", &self.port.to_string(), "-i"]).arg(plan.dir.join("key"));
        for option in
            ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "IdentitiesOnly=yes"]
        {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("{}@{}", plan.user, plan.own)).arg("true");
        output(ssh, Duration::from_secs(5)).await?;
        let row = login_row(&plan.user, "Success", &plan.own.to_string(), Some(&plan.uid));
        let what = format!("{} logged in with a key from {} to sshd on port {}", plan.user, plan.own, self.port);
        Ok(Cause { what, kind: "Login", rows: vec![row] })
    }
}

/// `/run/sshd`, when it was not there.
#[derive(Debug)]
struct RunDir;

impl RunDir {
    const PATH: &str = "/run/sshd";

    fn make() -> Result<Option<RunDir>, String> {
        match fs::create_dir(RunDir::PATH) {
            Ok(()) => Ok(Some(RunDir)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(format!("cannot create {}: {error}", RunDir::PATH)),
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Somebody else's sshd may use it by now, and then it stays.
        drop(fs::remove_dir(RunDir::PATH));
    }
}

async fn write_keys_and_config(plan: &Plan) -> Result<PathBuf, String> {
    for name in ["host_key", "key"] {
        let path = plan.dir.join(name);
        if !path.exists() {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "edgewarden-demo", "-f"]).arg(path);
            output(keygen, Duration::from_secs(5)).await?;
        }
    }
    let dir = plan.dir.display();
    // Without PAM sshd refuses an account whose password is locked, whatever key is shown.
    let use_pam = if password_is_locked(&fs::read_to_string("/etc/shadow").unwrap_or_default(), &plan.user) {
        "yes"
    } else {
        "no"
    };
    let config = plan.dir.join("sshd_config");
    let text = format!(
        "HostKey {dir}/host_key\nAuthorizedKeysFile {dir}/key.pub\nUsePAM {use_pam}\nStrictModes no\nPidFile none\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
    );
    write(&config, &text)?;
    Ok(config)
}

/// shadow(5): a `!` before the password locks it.
fn password_is_locked(shadow: &str, user: &str) -> bool {
    shadow.lines().any(|line| {
        let mut fields = line.split(':');
        fields.next() == Some(user) && fields.next().is_some_and(|password| password.starts_with('!'))
    })
}

/// Puts before each line what a syslog daemon would: sshd does not date what it writes to standard error.
async fn relay(lines: ChildStderr, to: PathBuf, pid: i32) {
    let file = tokio::task::spawn_blocking(move || fs::OpenOptions::new().create(true).append(true).open(to)).await;
    let Ok(Ok(mut file)) = file else { return };
    let mut lines = BufReader::new(lines).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        use std::io::Write;
        let line = format!("{} {} sshd[{pid}]: {line}\n", stamp(), host_name());
        if file.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

/// Writes the captured lines as of now.
fn write_captured(to: &Path) -> Result<Cause, String> {
    let lines = include_str!("captured-auth.log").replace("{stamp}", &stamp()).replace("{host}", &host_name());
    let append = fs::OpenOptions::new().append(true).open(to).and_then(|mut file| {
        use std::io::Write;
        file.write_all(lines.as_bytes())
    });
    append.map_err(|error| format!("cannot write {}: {error}", to.display()))?;
    let rows = vec![
        login_row("root", "Success", "198.51.100.7", None),
        login_row("(invalid user)", "Fail", "203.0.113.5", None),
    ];
    Ok(Cause { what: "a captured log with a login and a failed one was fed".to_owned(), kind: "Login", rows })
}

fn login_row(user: &str, result: &str, address: &str, uid: Option<&str>) -> super::check::Pattern {
    let mut row =
        vec![("UserName", user), ("Result", result), ("RemoteAddress", address), ("Executable", "/usr/sbin/sshd")];
    row.extend(uid.map(|uid| ("UserId", uid)));
    row.into_iter().map(|(key, text)| (key, Want::Text(text.to_owned()))).collect()
}

/// As rsyslog writes it by default: RFC 3339 with microseconds.
fn stamp() -> String {
    format!("{:.6}", Timestamp::now()).replace('Z', "+00:00")
}

/// The machine's name.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// sshd wants to be started with its full path, and it is not in everybody's PATH.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn free_port(own: Ipv4Addr) -> Result<u16, String> {
    let port = std::net::TcpListener::bind((own, 0)).and_then(|listener| listener.local_addr());
    Ok(port.map_err(|error| format!("no free port on {own}: {error}"))?.port())
}

/// Asks the kernel, because a test connection would be one more line in sshd's log.
fn is_listening(port: u16) -> bool {
    fs::read_to_string("/proc/net/tcp").is_ok_and(|table| has_listener(&table, port))
}

/// `sl local_address rem_address st ...`, the port in hexadecimal, state 0A is LISTEN (proc_pid_net(5)).
fn has_listener(table: &str, port: u16) -> bool {
    let port = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: Machine = Machine {
        is_root: false,
        has_ssh: true,
        has_namespace_tools: true,
        journal_is_live: true,
        syslog_is_live: true,
    };

    #[test]
    fn the_best_way_comes_first_and_the_captured_log_last() {
        use Source::{Captured, Journal, PrivateSyslog, SshdItself, SystemLog};
        let cases = [
            (Machine { is_root: true, ..BARE }, vec![Journal, PrivateSyslog, SshdItself, Captured]),
            (
                Machine { is_root: true, journal_is_live: false, ..BARE },
                vec![SystemLog, PrivateSyslog, SshdItself, Captured],
            ),
            (
                Machine { is_root: true, journal_is_live: false, syslog_is_live: false, ..BARE },
                vec![PrivateSyslog, SshdItself, Captured],
            ),
            (BARE, vec![SshdItself, Captured]),
            (Machine { is_root: true, has_ssh: false, ..BARE }, vec![Captured]),
        ];
        for (machine, ways) in cases {
            assert_eq!(machine.sources(), ways, "{machine:?}");
        }
    }

    #[test]
    fn a_listener_is_found_by_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n   1: 0100007F:0016 0100007F:D431 01 0:0\n";
        assert!(has_listener(table, 8080));
        assert!(!has_listener(table, 22));
        assert!(!has_listener("", 22));
    }

    #[test]
    fn a_locked_password_is_seen() {
        let shadow = "root:!*:1::\nweb:*:1::\nann:$y$x:1::\n";
        assert!(password_is_locked(shadow, "root"));
        assert!(
            !password_is_locked(shadow, "web") && !password_is_locked(shadow, "ann") && !password_is_locked("", "x")
        );
    }

    #[test]
    fn captured_lines_are_dated_now() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cause = write_captured(file.path()).unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        assert_eq!(cause.rows.len(), 2);
        for line in text.lines() {
            let (stamp, rest) = line.split_once(' ').unwrap();
            stamp.parse::<Timestamp>().unwrap();
            assert!(rest.contains(" sshd[") && !rest.contains('{'), "{line}");
        }
    }
}
