//! A Debian machine of another release, with its own processes, files and network (scripts/device.sh).

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::agent;

/// What runs as the first process of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Its own systemd, with everything that starts at boot.
    Systemd,
    /// Nothing: the machine has what a test starts in it.
    None,
}

/// A machine that runs.
pub struct Device {
    name: String,
    /// What the machine sees as `/mnt/share`.
    pub share: PathBuf,
    /// The host's network link to it.
    pub link: String,
    /// Its addresses on that link.
    pub addresses: [IpAddr; 2],
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/device.sh")
}

/// Whether machines can run here. In continuous integration they must.
pub fn can_run() -> bool {
    let can = nix::unistd::geteuid().is_root();
    assert!(can || std::env::var_os("CI").is_none(), "machines need root");
    if !can {
        eprintln!("not run: machines of other releases need root");
    }
    can
}

impl Device {
    /// Starts a machine of a release; its root file system is made the first time, and kept beside what cargo builds.
    pub fn start(name: &str, release: &str, init: Init) -> Device {
        let target = agent::binary().ancestors().nth(2).expect("the target directory");
        let roots = std::env::var_os("EDGEWARDEN_ROOTS").map_or(target.join("roots"), PathBuf::from);
        let root = roots.join(release);
        succeed(Command::new(script()).args(["root", release]).arg(&root));
        let name = format!("{name}-{}", std::process::id());
        let mut up = Command::new(script());
        up.args(["up", &name]).arg(&root).env("KEEPER", std::process::id().to_string());
        if init == Init::None {
            up.arg("--no-init");
        }
        let words = succeed(&mut up);
        let words: Vec<_> = words.split_whitespace().collect();
        let [share, link, v4, v6] = words[..] else { panic!("{words:?}") };
        Device {
            name,
            share: share.into(),
            link: link.to_owned(),
            addresses: [v4, v6].map(|address| address.parse().unwrap()),
        }
    }

    /// The command that runs a program in the machine.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(script());
        command.args(["run", &self.name]).args(words);
        command
    }

    /// Runs a shell script in the machine and gives what it printed.
    pub fn shell(&self, script: &str) -> String {
        succeed(self.command(&["sh", "-euc", script]).stdin(Stdio::null()))
    }

    /// Writes a file in the machine.
    pub fn write(&self, path: &str, text: &str) {
        let mut child = self.command(&["sh", "-c", "cat >\"$0\"", path]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().expect("piped").write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{path}");
    }

    /// Puts a program of the host into the machine with the libraries it was linked to, whose C library may be older,
    /// and gives the words that start it there.
    pub fn install(&self, program: &Path) -> Vec<String> {
        let libraries = succeed(Command::new("ldd").arg(program));
        let paths: Vec<&str> = libraries.split_whitespace().filter(|word| word.starts_with('/')).collect();
        let loader = paths.iter().find(|path| path.contains("/ld-linux")).expect("a dynamic loader");
        let mut copy = Command::new("cp");
        succeed(copy.arg("--dereference").args(&paths).arg(program).arg(&self.share));
        let shared =
            |path: &Path| format!("/mnt/share/{}", path.file_name().expect("a file").to_str().expect("a name"));
        vec![shared(Path::new(loader)), "--library-path".to_owned(), "/mnt/share".to_owned(), shared(program)]
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = std::fs::read_to_string(self.share.with_file_name("console")).unwrap_or_default();
            eprintln!("--- console of {}\n{console}", self.name);
        }
        succeed(Command::new(script()).args(["down", &self.name]));
    }
}

/// Runs a program that must do what it is asked, and gives what it printed.
pub fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}{said}");
    out.into_owned()
}
