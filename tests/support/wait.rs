//! Bounded waiting. No test measures time: each waits for what must come, and the limit only turns a hang into a
//! failure that says what was missing.

use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take before the test is told that it will not come. A dead link is noticed after up to two
/// keep-alive periods of a minute; everything else needs far less, also on a loaded machine with two cores.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Asks until the answer is there. `Err` is what is missing so far; the last one is shown when time is up.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(missing) if start.elapsed() > LIMIT => panic!("waited {LIMIT:?} for {what}: {missing}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Asks until it is true.
pub fn until_true(what: &str, mut ask: impl FnMut() -> bool) {
    until(what, || if ask() { Ok(()) } else { Err("not yet".to_owned()) });
}

/// Waits for a child that must end now, because it was killed or asked to.
pub fn end(what: &str, child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} for {what} to end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program that must end by itself.
pub fn output(what: &str, command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{what}: {error}"));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    receiver.recv_timeout(LIMIT).map(Result::unwrap).unwrap_or_else(|_| {
        kill(pid, Signal::SIGKILL).ok();
        panic!("waited {LIMIT:?} for {what} to end");
    })
}
