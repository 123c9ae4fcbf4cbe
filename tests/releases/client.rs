//! Genuine clients whose address and port are known: each goes through a relay that binds its end first.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use crate::device::succeed;
use crate::wait;

/// Keys, and the program that answers when a client asks for a password.
pub struct Desk {
    dir: TempDir,
    runtime: Runtime,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Offers this password so many times, and runs a command.
    Password(&'static str, u32),
    /// Offers the key of this name, and runs a command.
    Key(&'static str),
    /// Copies a file with the key of this name, which needs no terminal.
    Copy(&'static str),
    /// Says nothing after its greeting until the server has enough.
    Silence,
}

impl Desk {
    pub fn new() -> Desk {
        let dir = TempDir::new().unwrap();
        let answer = dir.path().join("answer");
        std::fs::write(&answer, "#!/bin/sh\necho \"$ANSWER\"\n").unwrap();
        std::fs::set_permissions(&answer, std::fs::Permissions::from_mode(0o755)).unwrap();
        for key in ["right", "wrong"] {
            let path = dir.path().join(key);
            succeed(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path));
        }
        Desk { dir, runtime: Runtime::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The key's fingerprint, `SHA256:...`.
    pub fn fingerprint(&self, key: &str) -> String {
        let line = succeed(Command::new("ssh-keygen").arg("-lf").arg(self.path(key)));
        line.split(' ').nth(1).expect("a fingerprint").to_owned()
    }

    /// Lets connections to the port that is given through to `to`.
    pub fn relay(&self, at: IpAddr, to: SocketAddr) -> u16 {
        let listener = self.runtime.block_on(TcpListener::bind((at, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        self.runtime.spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
                });
            }
        });
        port
    }

    /// Comes from an address to a server, does its deed to the end, and gives the port it came from.
    pub fn visit(&self, from: IpAddr, to: SocketAddr, user: &str, deed: Deed) -> u16 {
        let socket = if from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut far = self.runtime.block_on(socket.connect(to)).unwrap();
        let port = far.local_addr().unwrap().port();
        if deed == Deed::Silence {
            self.runtime.block_on(async {
                far.try_write(b"SSH-2.0-silence\r\n").unwrap();
                far.read_to_end(&mut Vec::new()).await.ok();
            });
            return port;
        }
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let near = listener.local_addr().unwrap().port();
        let relay = self.runtime.spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
        });
        wait::output("ssh", &mut self.command(near, user, deed));
        self.runtime.block_on(relay).unwrap();
        port
    }

    fn command(&self, port: u16, user: &str, deed: Deed) -> Command {
        let null = Path::new("/dev/null").display();
        let mut options = format!(
            "StrictHostKeyChecking=no UserKnownHostsFile={null} IdentitiesOnly=yes IdentityAgent=none LogLevel=ERROR Port={port}"
        );
        let program = if matches!(deed, Deed::Copy(_)) { "scp" } else { "ssh" };
        let mut command = Command::new(program);
        command.args(["-F", "/dev/null"]);
        match deed {
            Deed::Password(password, times) => {
                options += &format!(
                    " PreferredAuthentications=password PubkeyAuthentication=no NumberOfPasswordPrompts={times}"
                );
                command.env("SSH_ASKPASS", self.path("answer")).env("SSH_ASKPASS_REQUIRE", "force");
                command.env("ANSWER", password);
            }
            Deed::Key(key) | Deed::Copy(key) => {
                options += " PreferredAuthentications=publickey";
                command.arg("-i").arg(self.path(key));
            }
            Deed::Silence => unreachable!("it needs no program"),
        }
        for option in options.split(' ') {
            command.args(["-o", option]);
        }
        match deed {
            // The older protocol, which Dropbear has, too.
            Deed::Copy(_) => command.arg("-O").arg(self.path("answer")).arg(format!("{user}@127.0.0.1:/tmp/{port}")),
            _ => command.args(["-T", "-l", user, "127.0.0.1", "true"]),
        };
        command.stdin(Stdio::null());
        command
    }
}
