//! A machine to install on: a container with a systemd of its own, or an ARM board in an emulator.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::device::{Device, Init, succeed};
use crate::wait;

/// A machine that runs.
pub enum Machine {
    /// Debian of some release on this machine's kernel.
    Container(Device),
    /// Debian 12 with Debian's own kernel on an ARM processor.
    Board(Board),
}

/// An emulated board (scripts/board.sh).
pub struct Board {
    name: String,
    architecture: String,
}

/// What is in the environment: what to install, and where the boards are that were made before.
pub fn folder(variable: &str) -> PathBuf {
    let folder = std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set; run `make test-device`"));
    PathBuf::from(folder)
}

fn board_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/board.sh")
}

impl Machine {
    /// Boots one: `bullseye`, `bookworm` or `trixie` in a container, `arm64` or `armhf` as a board.
    pub fn start(name: &str) -> Machine {
        eprintln!("=== {name}");
        match name {
            "arm64" | "armhf" => {
                let board =
                    Board { name: format!("test-{}-{name}", std::process::id()), architecture: name.to_owned() };
                let image = folder("DEVICE_BOARDS").join(name);
                succeed(Command::new(board_script()).args(["up", &board.name]).arg(image));
                Machine::Board(board)
            }
            release => Machine::Container(Device::start(release, release, Init::Systemd)),
        }
    }

    /// Debian's word for its processor.
    pub fn architecture(&self) -> &str {
        match self {
            Machine::Container(_) => "amd64",
            Machine::Board(board) => &board.architecture,
        }
    }

    /// The address of this machine as that one sees it; on a board, what connects to it comes from there too.
    pub fn host(&self) -> IpAddr {
        match self {
            Machine::Container(device) => device.host,
            Machine::Board(_) => IpAddr::from([10, 0, 2, 2]),
        }
    }

    /// Where the broker has to listen to be reached under `host`.
    pub fn listen(&self) -> IpAddr {
        match self {
            Machine::Container(device) => device.host,
            // The emulator hands what is for `host` to the loopback device.
            Machine::Board(_) => IpAddr::from([127, 0, 0, 1]),
        }
    }

    /// Where its sshd is reached.
    pub fn ssh(&self) -> (IpAddr, u16) {
        match self {
            Machine::Container(device) => (device.addresses[0], 22),
            Machine::Board(board) => {
                let port = succeed(Command::new(board_script()).args(["port", &board.name]));
                (IpAddr::from([127, 0, 0, 1]), port.trim().parse().expect("a port"))
            }
        }
    }

    /// A shell script as root.
    pub fn command(&self, script: &str) -> Command {
        match self {
            Machine::Container(device) => device.command(&["sh", "-euc", script]),
            Machine::Board(board) => {
                let mut command = Command::new(board_script());
                command.args(["run", &board.name]).arg(format!("set -eu; {script}"));
                command.stdin(Stdio::null());
                command
            }
        }
    }

    /// Runs a shell script as root, which must succeed, and gives what it printed.
    pub fn shell(&self, script: &str) -> String {
        succeed(&mut self.command(script))
    }

    /// Puts a file there, for root alone.
    pub fn put(&self, file: &Path, to: &str) {
        match self {
            Machine::Container(device) => device.write(to, std::fs::read(file).unwrap()),
            Machine::Board(board) => {
                succeed(Command::new(board_script()).args(["put", &board.name]).arg(file).arg(to));
            }
        }
        self.shell(&format!("chmod 600 {to}"));
    }

    /// Restarts it as `reboot` does; the disk keeps what was written.
    pub fn reboot(&self) {
        self.shell("touch /run/before-the-reboot");
        self.command("systemctl reboot").output().ok();
        wait::until("the machine to come back", || {
            let mut up = self.command("ls /run/before-the-reboot 2>/dev/null || systemctl is-system-running");
            let out = up.stderr(Stdio::null()).output().unwrap();
            // `degraded` is up as well: a container is not allowed everything that a system would do.
            match String::from_utf8_lossy(&out.stdout).trim() {
                "running" | "degraded" => Ok(()),
                state => Err(state.to_owned()),
            }
        });
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        succeed(Command::new(board_script()).args(["down", &self.name]));
    }
}
