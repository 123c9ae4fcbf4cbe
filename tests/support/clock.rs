//! The wall clock of one agent and of the daemons whose log it reads, which a test can set: a shim between the agent and
//! the C library (`clock.c`) adds the seconds that stand in a file. The machine's own clock stays as it is.
//!
//! Debian's libfaketime can do this too, but leaves a semaphore and a piece of shared memory behind with each process
//! that is killed, and many here are.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};

/// A shared clock.
#[derive(Clone)]
pub struct Clock {
    shim: PathBuf,
    path: PathBuf,
    file: Arc<File>,
    shift_s: Arc<AtomicI64>,
    shown: Arc<Mutex<Vec<i64>>>,
}

/// What a clock can be set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The truth.
    Right,
    /// So many seconds beside it.
    Off(i64),
    /// The first minutes of 1970.
    Epoch,
}

impl Clock {
    /// A clock that is right, with its files in a directory.
    pub fn new(directory: &Path) -> Clock {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/clock.c");
        let (shim, path) = (directory.join("clock.so"), directory.join("clock"));
        let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).status();
        assert!(cc.expect("a C compiler is needed: scripts/setup-test.sh installs it").success());
        let file = Arc::new(File::options().create_new(true).write(true).open(&path).unwrap());
        let clock = Clock { shim, path, file, shift_s: Arc::default(), shown: Arc::default() };
        clock.set(Setting::Right);
        clock
    }

    /// What a process needs to have this clock.
    pub fn environment(&self) -> Vec<(String, String)> {
        let of = |name: &str, path: &Path| (name.to_owned(), path.display().to_string());
        vec![of("LD_PRELOAD", &self.shim), of("CLOCK_SHIFT", &self.path)]
    }

    /// Sets it, for everybody at once.
    pub fn set(&self, setting: Setting) {
        let shift_s = match setting {
            Setting::Right => 0,
            Setting::Off(seconds) => seconds,
            Setting::Epoch => -Timestamp::now().as_second(),
        };
        self.file.write_all_at(&shift_s.to_ne_bytes(), 0).unwrap();
        self.shift_s.store(shift_s, Ordering::SeqCst);
        if setting != Setting::Epoch {
            self.shown.lock().unwrap().push(shift_s);
        }
    }

    /// What it shows when it truly is `now`.
    pub fn shows(&self, now: Timestamp) -> Timestamp {
        now + SignedDuration::from_secs(self.shift_s.load(Ordering::SeqCst))
    }

    /// By how many seconds it was ever beside the truth, those times left out at which it could not be right.
    pub fn shifts_s(&self) -> Vec<i64> {
        self.shown.lock().unwrap().clone()
    }
}
