//! The peer: the disk queue of Debian's rsyslog with `queue.syncQueueFiles`, its hub out of reach. It syncs each message,
//! so the spool in groups of one stands beside it.

use std::fs;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Hands rsyslog so many lines, and prints what became of them.
pub fn print(place: &Path, lines: &[String]) -> io::Result<()> {
    let is_there =
        |program: &str| Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !is_there("rsyslogd") {
        println!("rsyslog: skipped, it is not installed (apt-get install rsyslog)");
        return Ok(());
    }
    let directory = tempfile::tempdir_in(place)?;
    let seconds = queue(directory.path(), &mut Command::new("rsyslogd"), lines)?;
    let (records, bytes) = queued(directory.path())?;
    println!(
        "rsyslog: {records} of {} events in its disk queue, {:.0} events/s, {} bytes an event",
        lines.len(),
        records as f64 / seconds,
        bytes / records.max(1) as u64,
    );
    if !is_there("strace") {
        println!("rsyslog: its syncs are not counted, strace is not installed");
        return Ok(());
    }
    let (directory, trace) = (tempfile::tempdir_in(place)?, tempfile::NamedTempFile::new()?);
    let mut strace = Command::new("strace");
    strace.args(["-f", "--seccomp-bpf", "-e", "trace=fdatasync,fsync", "-o"]).arg(trace.path()).arg("rsyslogd");
    queue(directory.path(), &mut strace, lines)?;
    let syncs = fs::read_to_string(trace.path())?.matches("sync(").count();
    println!("rsyslog: {:.4} syncs an event", syncs as f64 / queued(directory.path())?.0.max(1) as f64);
    Ok(())
}

/// Returns the seconds from the first line until the queue does not grow any more.
fn queue(directory: &Path, rsyslogd: &mut Command, lines: &[String]) -> io::Result<f64> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let (conf, pid) = (directory.join("conf"), directory.join("pid"));
    let text = format!(
        r#"global(workDirectory="{}" maxMessageSize="8k")
        module(load="imptcp")
        input(type="imptcp" address="127.0.0.1" port="{port}" ruleset="out")
        ruleset(name="out") {{ action(type="omfwd" target="127.0.0.1" port="9" protocol="tcp"
            action.resumeRetryCount="-1" queue.type="Disk" queue.filename="peer" queue.size="10000000"
            queue.maxFileSize="1m" queue.syncQueueFiles="on" queue.checkpointInterval="256"
            queue.timeoutEnqueue="60000") }}"#,
        directory.display()
    );
    fs::write(&conf, text)?;
    let mut running = rsyslogd.args(["-n", "-f"]).arg(&conf).arg("-i").arg(&pid).stderr(Stdio::null()).spawn()?;
    let started = Instant::now();
    let mut input = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(input) => break input,
            Err(error) if started.elapsed() > Duration::from_secs(10) => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    };
    let begin = Instant::now();
    for line in lines {
        input.write_all(format!("<13>Nov 24 08:00:00 board exec: {line}\n").as_bytes())?;
    }
    drop(input);
    let (mut bytes, mut grown) = (0, Instant::now());
    while grown.elapsed() < Duration::from_secs(1) {
        let now = queued(directory)?.1;
        if now != bytes {
            (bytes, grown) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(20));
    }
    // Under strace it is not our child.
    let pid = fs::read_to_string(&pid)?.trim().parse().map_err(io::Error::other)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    running.wait()?;
    Ok((grown - begin).as_secs_f64())
}

/// How many records are in the queue's files, and how many bytes the files have.
fn queued(directory: &Path) -> io::Result<(usize, u64)> {
    let (mut records, mut bytes) = (0, 0);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("peer.0") {
            let content = fs::read(entry.path())?;
            records += content.windows(6).filter(|window| window == b"<Obj:1").count();
            bytes += content.len() as u64;
        }
    }
    Ok((records, bytes))
}
