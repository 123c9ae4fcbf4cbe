//! Follows the systemd journal through `journalctl`, its own reader.
//!
//! A reader of our own would have to keep up with a binary format that changes with compression, keyed hashes and
//! rotation under the reader's feet; `journalctl` does, and when a rotation kills it, it is started again from the last
//! cursor. It is asked twice: once for what was missed, of any boot, and then for what comes, because what `--follow`
//! implies about `--boot` and `--lines` has changed between versions.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use collector_common::clock::{Origin, Reading};
use collector_common::event::payload::Severity;
use collector_common::parse::journal::{self, FIELDS};
use collector_common::parse::login::Handler;
use collector_common::root::Root;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use super::lines::Lines;
use super::reader::{Entry, Writer};
use super::sink::{End, REMEMBERED_LINES, REMEMBERED_US, Sink};

/// An entry as JSON; journald itself cuts a field at some 64 KiB from syslog, native clients may send more.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// How often `journalctl` may end soon after it began before that is a failure.
const MAX_STARTS: u32 = 6;

/// A `journalctl` that ran this long did its work.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// How long a question with a short answer may take: a big journal on slow flash needs seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The entries journald writes itself when it dropped those of a unit (`SD_MESSAGE_JOURNAL_DROPPED`).
const DROPPED: &str = "MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e";

/// A live journal.
#[derive(Debug)]
pub struct Journal {
    /// Where the machine to look at has its root, unless that is ours.
    root: Option<PathBuf>,
    program: PathBuf,
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Position {
    After(String),
    /// At the beginning of the running boot.
    Boot,
}

impl Journal {
    /// The journal of this machine, or a sentence that says why it is none.
    pub fn find(root: &Root) -> Result<Journal, String> {
        let live = ["/run/systemd/journal/socket", "/run/systemd/journal/stdout"];
        if !live.iter().any(|socket| root.path(socket).exists()) {
            return Err(
                "There is no systemd journal: journald does not run (no /run/systemd/journal/socket).".to_owned()
            );
        }
        let program =
            ["/usr/bin/journalctl", "/bin/journalctl"].map(PathBuf::from).into_iter().find(|path| path.exists());
        let Some(program) = program else {
            return Err("The systemd journal cannot be read: /usr/bin/journalctl does not exist.".to_owned());
        };
        // One that can be read is enough: the files of another machine's id may lie beside it.
        let opened: Vec<_> = journal_files(root).into_iter().map(|path| (File::open(&path), path)).collect();
        match opened.first() {
            None => Err("The systemd journal cannot be read: there is no file in /run/log/journal or /var/log/journal that the agent's user can see. Add that user to the group systemd-journal.".to_owned()),
            Some((Err(error), path)) if opened.iter().all(|(file, _)| file.is_err()) => Err(format!(
                "The systemd journal cannot be read: {}: {error}. Add the agent's user to the group systemd-journal.",
                path.display()
            )),
            Some(_) => Ok(Journal { root: (!root.is_host()).then(|| root.path("/")), program }),
        }
    }

    /// `journalctl` with the arguments every call has.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            command.arg(format!("--root={}", root.display()));
        }
        command.args(["--all", "--output=json", "--no-pager", "--quiet", &format!("--output-fields={FIELDS}")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// The first entry `journalctl` prints for these arguments.
    async fn first(&self, arguments: &[&str]) -> Result<Option<journal::Entry>, String> {
        let mut command = self.command();
        let (_child, stdout, stderr) = spawn(command.args(arguments))?;
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        let bounded = async { (&mut stdout).take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line).await };
        match timeout(ANSWER_WITHIN, bounded).await {
            Ok(Ok(0)) => match said(stderr).await {
                words if words.is_empty() => Ok(None),
                words => Err(format!("journalctl {} said: {words}", arguments.join(" "))),
            },
            Ok(Ok(_)) => Ok(journal::parse(&line)),
            Ok(Err(error)) => Err(format!("reading from journalctl failed: {error}")),
            Err(_) => {
                Err(format!("journalctl {} gave no answer for {} s", arguments.join(" "), ANSWER_WITHIN.as_secs()))
            }
        }
    }

    /// The argument that names the boot which is being written: the newest entry's. The kernel's word for it is the
    /// host's in a container behind `ProtectKernelTunables=`, and by that `--follow` finds nothing.
    async fn boot(&self) -> Result<Option<String>, String> {
        let newest = self.first(&["--lines=1"]).await?;
        Ok(newest.and_then(|entry| entry.boot).map(|boot| format!("--boot={}", boot.simple())))
    }

    /// The last entries up to that of a cursor, the newest first, for the connections that were open there.
    async fn before(&self, last: &journal::Entry) -> Result<Vec<journal::Entry>, String> {
        let mut command = self.command();
        let (lines, cursor) = (format!("--lines={REMEMBERED_LINES}"), format!("--cursor={}", last.cursor));
        command.args(["--reverse", &lines, &cursor]).args(matches());
        // The wall clock may have been set in between.
        let age_us = |entry: &journal::Entry| match entry.boot == last.boot {
            true => i64::try_from(last.monotonic_us.saturating_sub(entry.monotonic_us)).unwrap_or(i64::MAX),
            false => last.wall_us.saturating_sub(entry.wall_us),
        };
        let (_child, mut stdout, stderr) = spawn(&mut command)?;
        let _drained = tokio::spawn(said(stderr));
        let (mut lines, mut chunk, mut entries) = (Lines::new(MAX_LINE_BYTES), vec![0; 16 * 1024], Vec::new());
        loop {
            match timeout(ANSWER_WITHIN, stdout.read(&mut chunk)).await {
                Ok(Ok(0)) => return Ok(entries),
                Ok(Ok(bytes)) => {
                    for entry in lines.feed(&chunk[..bytes]).iter().filter_map(|line| journal::parse(&line.bytes)) {
                        if age_us(&entry) > REMEMBERED_US {
                            return Ok(entries);
                        }
                        entries.push(entry);
                    }
                }
                Ok(Err(error)) => return Err(format!("reading from journalctl failed: {error}")),
                Err(_) => return Err(format!("journalctl gave no answer for {} s", ANSWER_WITHIN.as_secs())),
            }
        }
    }
}

/// Follows the journal until it cannot be read any more.
pub async fn follow(sink: &mut Sink, journal: &Journal) -> End {
    match follow_from_cursor(sink, journal).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

async fn follow_from_cursor(sink: &mut Sink, journal: &Journal) -> Result<std::convert::Infallible, End> {
    let mut position = begin(sink, journal).await?;
    let mut starts = 0;
    let mut words = String::new();
    loop {
        let began = Instant::now();
        for following in [false, true] {
            words = run(sink, journal, &mut position, following).await?;
        }
        starts = if began.elapsed() >= GOOD_RUN { 1 } else { starts + 1 };
        if starts >= MAX_STARTS {
            return Err(failure(&format!("journalctl ended {starts} times soon after it began; it said: {words}")));
        }
        tracing::warn!(%words, "journalctl ended and is started again");
        sleep(Duration::from_secs(1 << starts.min(5))).await;
    }
}

/// Where to begin: after the cursor if the journal still knows it; now, at the very first start.
async fn begin(sink: &mut Sink, journal: &Journal) -> Result<Position, End> {
    let Some(cursor) = sink.cursor() else {
        let last = journal.first(&["--lines=1"]).await.map_err(|words| failure(&words))?;
        let Some(last) = last else { return Ok(Position::Boot) };
        sink.store(last.cursor.clone()).await?;
        return Ok(Position::After(last.cursor));
    };
    // For a cursor it does not know, journalctl silently takes the entry closest in time.
    let nearest = journal.first(&[&format!("--cursor={cursor}")]).await.map_err(|words| failure(&words))?;
    if let Some(last) = nearest.filter(|entry| entry.cursor == cursor) {
        for entry in journal.before(&last).await.map_err(|words| failure(&words))?.iter().rev() {
            sink.remember(&as_entry(sink, entry));
        }
        return Ok(Position::After(cursor));
    }
    let rebooted = journal::boot_of(&cursor).is_some_and(|boot| boot != sink.clock().boot());
    let why = if rebooted {
        "the machine was started again and its journal does not outlive that"
    } else {
        "its files were deleted or vacuumed"
    };
    let text = format!(
        "The systemd journal no longer holds the place up to which logins were read: {why}. Logins between then and the oldest entry of this boot may be lost. Set Storage=persistent in journald.conf if they must not be."
    );
    sink.alarm(Severity::Warning, text).await?;
    // The first entry of a boot is the kernel's, so nothing is lost by beginning after it; and the place is stored at
    // once, so that the next start does not raise the same alarm.
    let boot = journal.boot().await.map_err(|words| failure(&words))?;
    let boot = boot.as_deref().unwrap_or("--boot");
    let Some(oldest) = journal.first(&[boot]).await.map_err(|words| failure(&words))? else {
        return Ok(Position::Boot);
    };
    sink.store(oldest.cursor.clone()).await?;
    Ok(Position::After(oldest.cursor))
}

/// Runs `journalctl` once and takes what it prints; gives what it said on standard error.
async fn run(sink: &mut Sink, journal: &Journal, position: &mut Position, following: bool) -> Result<String, End> {
    let mut command = journal.command();
    command.args(arguments(position, following));
    if following {
        command.args(journal.boot().await.map_err(|words| failure(&words))?);
    }
    let (mut child, mut stdout, stderr) = spawn(&mut command).map_err(|words| failure(&words))?;
    let stderr = tokio::spawn(said(stderr));
    let mut lines = Lines::new(MAX_LINE_BYTES);
    let mut chunk = vec![0; 16 * 1024];
    loop {
        // Before every read, because on a busy machine no read ever waits long.
        sink.idle(|| position.cursor()).await?;
        let read = match sink.idle_for() {
            Some(quiet) => match timeout(quiet, stdout.read(&mut chunk)).await {
                Ok(read) => read,
                Err(_) => continue,
            },
            None => stdout.read(&mut chunk).await,
        };
        let bytes = read.map_err(|error| failure(&format!("reading from journalctl failed: {error}")))?;
        if bytes == 0 {
            break;
        }
        for line in lines.feed(&chunk[..bytes]) {
            take(sink, &line.bytes, position).await?;
        }
        if let skipped @ 1.. = lines.take_skipped() {
            tracing::warn!(skipped, "journal entries of more than {MAX_LINE_BYTES} bytes were skipped");
        }
    }
    // It has closed its output, so it is at its end.
    let status = child.wait().await.map_err(|error| failure(&format!("waiting for journalctl failed: {error}")))?;
    let words = stderr.await.unwrap_or_default();
    Ok(if words.is_empty() { status.to_string() } else { format!("{words} ({status})") })
}

async fn take(sink: &mut Sink, line: &[u8], position: &mut Position) -> Result<(), End> {
    let Some(found) = journal::parse(line).filter(|found| !found.cursor.is_empty()) else {
        tracing::warn!("journalctl printed a line that is no entry");
        return Ok(());
    };
    let entry = as_entry(sink, &found);
    let after = Position::After(found.cursor.clone());
    if *position == after {
        return Ok(());
    }
    *position = after;
    sink.take(&entry, || found.cursor.clone()).await?;
    Ok(())
}

fn as_entry<'a>(sink: &Sink, found: &'a journal::Entry) -> Entry<'a> {
    let at = Reading {
        boot: found.boot.unwrap_or_else(|| sink.clock().boot()),
        boottime_us: found.monotonic_us,
        wall_us: found.wall_us,
        origin: Origin::Source,
    };
    let writer = Writer::Kernel { uid: found.uid, exe: found.exe.as_deref() };
    Entry { at, ident: &found.ident, pid: found.pid, message: &found.message, writer }
}

/// The arguments that differ from run to run.
fn arguments(position: &Position, following: bool) -> Vec<String> {
    let mut arguments = vec![match position {
        // Not `--after-cursor`: it passes over two matching entries to be after the first, so that one is lost if the
        // cursor's own does not match. We pass over the cursor's own ourselves.
        Position::After(cursor) => format!("--cursor={cursor}"),
        Position::Boot => "--boot".to_owned(),
    }];
    if following {
        // Without the second it shows only the last ten entries of what it has, cursor or not.
        arguments.extend(["--follow".to_owned(), "--no-tail".to_owned()]);
    }
    arguments.extend(matches());
    arguments
}

/// The entries wanted. Matches of one field are alternatives; `+` begins another set.
fn matches() -> impl Iterator<Item = String> {
    let handlers = Handler::IDENTS.iter().map(|ident| format!("SYSLOG_IDENTIFIER={ident}"));
    handlers.chain(["+".to_owned(), DROPPED.to_owned()])
}

impl Position {
    fn cursor(&self) -> String {
        match self {
            Position::After(cursor) => cursor.clone(),
            Position::Boot => String::new(),
        }
    }
}

fn spawn(command: &mut Command) -> Result<(Child, ChildStdout, ChildStderr), String> {
    let cannot = |error: io::Error| format!("journalctl cannot be run: {error}");
    let mut child = command.spawn().map_err(cannot)?;
    match (child.stdout.take(), child.stderr.take()) {
        (Some(stdout), Some(stderr)) => Ok((child, stdout, stderr)),
        _ => Err(cannot(io::Error::other("it has no output"))),
    }
}

/// What it says on standard error, to the end; the first 1000 bytes are kept.
async fn said(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(bytes @ 1..) = stderr.read(&mut chunk).await {
        let room = 1000_usize.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..bytes.min(room)]);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

fn failure(words: &str) -> End {
    End::failed(format!(
        "The systemd journal is not followed: {words}. Try `journalctl --lines=1` as the agent's user; it needs the group systemd-journal."
    ))
}

/// The journal files that are written to now.
fn journal_files(root: &Root) -> Vec<PathBuf> {
    let machines = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten();
    ["/run/log/journal", "/var/log/journal"]
        .iter()
        .flat_map(|directory| machines(&root.path(directory)))
        .map(|machine| machine.path().join("system.journal"))
        .filter(|path| {
            fs::symlink_metadata(path).map_or_else(|error| error.kind() == io::ErrorKind::PermissionDenied, |_| true)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::process;

    use super::super::rig::Rig;
    use super::*;

    #[test]
    fn entries_come_after_the_cursor_and_from_handlers_only() {
        let cursor = "s=1;i=2;b=3".to_owned();
        let missed = arguments(&Position::After(cursor.clone()), false).join(" ");
        assert!(missed.starts_with("--cursor=s=1;i=2;b=3 SYSLOG_IDENTIFIER=sshd "), "{missed}");
        assert!(
            missed.contains(" SYSLOG_IDENTIFIER=login ")
                && missed.ends_with(" + MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e"),
            "{missed}"
        );
        assert!(arguments(&Position::After(cursor), true).contains(&"--no-tail".to_owned()));
        assert_eq!(arguments(&Position::Boot, false)[0], "--boot");
    }

    #[test]
    fn a_machine_without_journald_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let lack = Journal::find(&Root::at(directory.path())).unwrap_err();
        assert!(lack.contains("journald does not run"), "{lack}");
    }

    /// A real journald whose `/run` is a directory of ours.
    struct Journald {
        directory: tempfile::TempDir,
        process: process::Child,
    }

    impl Drop for Journald {
        fn drop(&mut self) {
            let _killed = self.process.kill();
            let _status = self.process.wait();
        }
    }

    const DAEMON: &str = "/lib/systemd/systemd-journald";

    impl Journald {
        /// Only root can start one, in a mount namespace of its own.
        fn can_run() -> bool {
            let can = nix::unistd::geteuid().is_root() && Path::new(DAEMON).exists();
            if !can {
                eprintln!("not run: it needs root and {DAEMON}");
            }
            can
        }

        fn start() -> Journald {
            Journald::start_in_boot(None)
        }

        /// A journald to which the kernel tells another id of this boot than to everybody else, as in a container.
        fn start_in_boot(boot: Option<&str>) -> Journald {
            let directory = tempfile::Builder::new().prefix("jd").tempdir().unwrap();
            let at = |path: &str| directory.path().join(path);
            for path in ["run/log/journal", "run/systemd/journald.conf.d", "sbin", "etc"] {
                fs::create_dir_all(at(path)).unwrap();
            }
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(at("etc/passwd"), "root:x:0:0::/root:/bin/sh\ntester:x:1000:1000::/:/bin/sh\n").unwrap();
            let settings = "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitBurst=0\n";
            fs::write(at("run/systemd/journald.conf.d/test.conf"), settings).unwrap();
            // The kernel names a program by its path, so the handler of the test must lie where a handler lies.
            fs::copy("/usr/bin/logger", at("sbin/sshd")).unwrap();
            if let Some(boot) = boot {
                fs::write(at("boot_id"), boot).unwrap();
            }
            let process = Journald::spawn(directory.path());
            let journald = Journald { directory, process };
            journald.wait();
            journald
        }

        fn spawn(directory: &Path) -> process::Child {
            let script = "mount --make-rprivate / && mount --bind \"$1/run\" /run && \
                          mount --bind \"$1/sbin\" /usr/local/sbin && \
                          if [ -e \"$1/boot_id\" ]; then mount --bind \"$1/boot_id\" /proc/sys/kernel/random/boot_id; fi && \
                          exec \"$2\"";
            let mut command = process::Command::new("unshare");
            command.args(["--mount", "sh", "-c", script, "sh"]).arg(directory).arg(DAEMON);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        }

        /// Until it takes messages and has its file.
        fn wait(&self) {
            for _ in 0..300 {
                if self.root().path("/run/systemd/journal/dev-log").exists() && !journal_files(&self.root()).is_empty()
                {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            panic!("journald did not start");
        }

        fn root(&self) -> Root {
            Root::at(self.directory.path())
        }

        /// Writes as the program that lies at `/usr/local/sbin/sshd` there.
        fn log(&self, uid: u32, message: &str) {
            let mut command = process::Command::new("nsenter");
            command.arg(format!("--mount=/proc/{}/ns/mnt", self.process.id()));
            command.args([format!("--setuid={uid}"), format!("--setgid={uid}")]);
            command.args(["/usr/local/sbin/sshd", "--socket", "/run/systemd/journal/dev-log", "--tag", "sshd"]);
            assert!(command.arg("--").arg(message).status().unwrap().success());
        }

        /// A program at that place that writes each line it is given, as one process.
        fn session(&self) -> process::Child {
            let mut command = process::Command::new("nsenter");
            command.arg(format!("--mount=/proc/{}/ns/mnt", self.process.id()));
            command.args(["/usr/local/sbin/sshd", "--socket", "/run/systemd/journal/dev-log", "--tag", "sshd"]);
            command.stdin(Stdio::piped()).spawn().unwrap()
        }

        /// Kills the `journalctl` that follows this journal.
        fn kill_reader(&self) {
            let ours = format!("--root={}", self.root().path("/").display());
            let follows = |pid: &str| {
                let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let words: Vec<_> = words.split(|byte| *byte == 0).collect();
                words.contains(&ours.as_bytes()) && words.contains(&b"--follow".as_slice())
            };
            let pids = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let readers: Vec<_> = pids.filter(|pid| pid.parse::<u32>().is_ok() && follows(pid)).collect();
            assert_eq!(readers.len(), 1, "{readers:?}");
            assert!(process::Command::new("kill").args(["-KILL", &readers[0]]).status().unwrap().success());
        }

        /// Writes as a program of this machine.
        fn send(&self, ident: &str, uid: u32, message: &str) {
            let mut command = process::Command::new("logger");
            command.arg("--socket").arg(self.root().path("/run/systemd/journal/dev-log"));
            command.args(["--tag", ident, "--id=4242", "--", message]).uid(uid).gid(uid);
            assert!(command.status().unwrap().success());
        }
    }

    fn accepted(port: u16) -> String {
        format!("Accepted password for tester from 192.0.2.7 port {port} ssh2")
    }

    #[tokio::test]
    async fn a_journal_of_a_boot_that_we_know_by_another_id_is_followed() {
        if !Journald::can_run() {
            return;
        }
        let journald = Journald::start_in_boot(Some("00000000-1111-4222-8333-444444444444\n"));
        journald.send("kernel", 0, "something else");
        let mut rig = Rig::start(&journald.root(), BTreeMap::new());
        rig.started().await;
        journald.log(0, &accepted(1));
        assert_eq!(rig.ports(1).await, ["1"]);
    }

    #[tokio::test]
    async fn a_real_journal_gives_logins_once_and_names_the_forger() {
        if !Journald::can_run() {
            return;
        }
        let journald = Journald::start();
        journald.log(0, &accepted(1));
        // The last entry, after which a first start begins, is seldom one of a handler.
        journald.send("kernel", 0, "something else");
        let mut rig = Rig::start(&journald.root(), BTreeMap::new());
        rig.started().await;
        assert_eq!(rig.backend(), "systemd journal");
        journald.send("sshd", 1000, &accepted(666));
        for port in 2..20 {
            journald.log(0, &accepted(port));
        }
        let login = rig.login().await;
        assert_eq!((login.remote_port.as_deref(), login.user_id.as_deref()), (Some("2"), Some("1000")));
        assert_eq!(login.extra_details["Source"], "journal");
        assert_eq!(rig.alarms.len(), 1, "{:?}", rig.alarms);
        assert_eq!(rig.alarms[0].extra_details["WriterUserId"], "1000");
        assert_eq!(rig.ports(3).await, ["3", "4", "5"]);

        // More was missed than the ten entries that --follow shows by itself.
        let cursors = rig.kill().await;
        journald.log(0, &accepted(20));
        let mut rig = Rig::start(&journald.root(), cursors);
        let expected: Vec<String> = (6..=20).map(|port: u16| port.to_string()).collect();
        assert_eq!(rig.ports(15).await, expected);
        journald.log(0, &accepted(21));
        assert_eq!(rig.ports(1).await, ["21"]);

        // Its reader dies, as it does when a rotation goes wrong.
        journald.kill_reader();
        journald.log(0, &accepted(22));
        assert_eq!(rig.ports(1).await, ["22"]);

        // A connection whose verdict was told before a restart is not told again when it closes.
        let mut session = journald.session();
        let lines = session.stdin.as_mut().unwrap();
        writeln!(lines, "Failed password for tester from 192.0.2.7 port 23 ssh2").unwrap();
        assert_eq!(rig.ports(1).await, ["23"]);
        let mut other = journald.session();
        let harmless = "Received signal 15; terminating.\n".repeat(300);
        other.stdin.take().unwrap().write_all(harmless.as_bytes()).unwrap();
        assert!(other.wait().unwrap().success());
        journald.log(0, &accepted(24));
        assert_eq!(rig.ports(1).await, ["24"]);
        let mut rig = Rig::start(&journald.root(), rig.kill().await);
        writeln!(lines, "Connection closed by authenticating user tester 192.0.2.7 port 23 [preauth]").unwrap();
        drop(session.stdin.take());
        assert!(session.wait().unwrap().success());
        journald.log(0, &accepted(25));
        assert_eq!(rig.ports(1).await, ["25"]);
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
    }

    #[tokio::test]
    async fn a_cursor_that_did_not_outlive_the_journal_is_a_gap_told_once() {
        if !Journald::can_run() {
            return;
        }
        let journald = Journald::start();
        journald.log(0, &accepted(1));
        let lost = "s=00000000000000000000000000000001;i=5;b=00000000000000000000000000000002;m=1;t=1;x=1";
        let cursors = BTreeMap::from([("journal".to_owned(), lost.to_owned())]);
        let mut rig = Rig::start(&journald.root(), cursors);
        assert_eq!(rig.ports(1).await, ["1"]);
        assert_eq!(rig.alarms.len(), 1, "{:?}", rig.alarms);
        assert!(rig.alarms[0].message.contains("started again"), "{}", rig.alarms[0].message);
        let mut rig = Rig::start(&journald.root(), rig.kill().await);
        journald.log(0, &accepted(2));
        assert_eq!(rig.ports(1).await, ["2"]);
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
    }
}
