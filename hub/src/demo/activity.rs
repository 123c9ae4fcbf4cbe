//! Real activity: a listener with a client, a process, and the accounts that are there anyway.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::check::{Cause, Want};
use super::child::{Running, output};

/// An address of this machine that is not loopback.
#[derive(Debug)]
pub struct OwnAddress {
    /// The address; loopback when the machine has no other and none could be added.
    pub address: Ipv4Addr,
    /// Whether it was added and has to go again.
    added: bool,
}

/// TEST-NET-1 (RFC 5737): belongs to nobody, so adding it for some seconds hides nothing.
const LENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

impl OwnAddress {
    /// Takes the machine's own, else lends one to `lo` (as root), else loopback.
    pub async fn find(is_root: bool) -> OwnAddress {
        let own = nix::ifaddrs::getifaddrs().into_iter().flatten().find_map(|interface| {
            let address = interface.address?.as_sockaddr_in()?.ip();
            (!address.is_loopback() && !address.is_link_local() && !address.is_unspecified()).then_some(address)
        });
        if let Some(address) = own {
            return OwnAddress { address, added: false };
        }
        let mut ip = Command::new("ip");
        ip.args(["addr", "add", &format!("{LENT}/32"), "dev", "lo"]);
        let added = is_root && output(ip, Duration::from_secs(2)).await.is_ok();
        OwnAddress { address: if added { LENT } else { Ipv4Addr::LOCALHOST }, added }
    }
}

impl Drop for OwnAddress {
    fn drop(&mut self) {
        if self.added {
            let del = ["addr", "del", &format!("{LENT}/32"), "dev", "lo"];
            // There is nobody left to tell when it fails.
            drop(std::process::Command::new("ip").args(del).stderr(Stdio::null()).status());
        }
    }
}

/// A listening socket and a client connected to it, open as long as this lives.
#[derive(Debug)]
pub struct Listener {
    _sockets: (TcpListener, TcpStream),
}

/// Opens port 8888, which the published smoke test of this schema opens too, or another one when it is taken.
///
/// # Errors
///
/// A sentence, when no socket can be had.
pub fn listen(own: Ipv4Addr) -> Result<(Listener, Cause), String> {
    let any = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    let listener = any(8888).or_else(|_| any(0)).map_err(|error| format!("cannot listen on a port: {error}"))?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let client = TcpStream::connect_timeout(&SocketAddr::new(IpAddr::V4(own), port), Duration::from_secs(2))
        .map_err(|error| format!("cannot connect to {own}:{port}: {error}"))?;
    let client_address = client.local_addr().map_err(|error| error.to_string())?;
    let text = |value: &dyn ToString| Want::Text(value.to_string());
    let listening = vec![
        ("Protocol", text(&"TCP")),
        ("LocalAddress", text(&"0.0.0.0")),
        ("LocalPort", text(&port)),
        ("RemotePort", text(&"*")),
    ];
    let connected = vec![
        ("Protocol", text(&"TCP")),
        ("LocalPort", text(&port)),
        ("RemoteAddress", text(&client_address.ip())),
        ("RemotePort", text(&client_address.port())),
    ];
    let what = format!("TCP port {port} was opened and {client_address} connected to it");
    Ok((
        Listener { _sockets: (listener, client) },
        Cause { what, kind: "ListeningPorts", rows: vec![listening, connected] },
    ))
}

/// Runs what the published smoke test runs, and lets it live long enough to be seen in /proc.
///
/// # Errors
///
/// A sentence, when there is no `sh`.
pub fn run_miner() -> Result<(Running, Cause), String> {
    let script = "echo cpuminer-multi; sleep 2";
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdout(Stdio::null());
    let running = Running::start(command)?;
    let pid = running.pid().map_or(0, |pid| i64::from(pid.as_raw()));
    let image = std::fs::read_link(format!("/proc/{pid}/exe")).map_err(|error| format!("cannot see sh: {error}"))?;
    let row = vec![
        ("CommandLine", Want::Part(script.to_owned())),
        ("Executable", Want::Text(image.to_string_lossy().into_owned())),
        ("ProcessId", Want::Number(pid)),
    ];
    let what = format!("process {pid} ran sh -c '{script}'");
    Ok((running, Cause { what, kind: "ProcessCreate", rows: vec![row] }))
}

/// Name and decimal uid of every account in the files of this machine.
///
/// # Errors
///
/// A sentence, when `getent` cannot be run.
pub async fn accounts() -> Result<Vec<(String, String)>, String> {
    let mut getent = Command::new("getent");
    getent.args(["-s", "files", "passwd"]);
    Ok(read_accounts(&output(getent, Duration::from_secs(2)).await?))
}

/// The accounts as something the agent has to report.
pub fn users(accounts: &[(String, String)]) -> Cause {
    let row = |(name, uid): &(String, String)| {
        vec![("UserName", Want::Text(name.clone())), ("UserId", Want::Text(uid.clone()))]
    };
    let what = format!("this machine has {} accounts", accounts.len());
    Cause { what, kind: "LocalUsers", rows: accounts.iter().map(row).collect() }
}

/// `name:password:uid:...`, passwd(5).
fn read_accounts(passwd: &str) -> Vec<(String, String)> {
    let account = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.to_owned()))
    };
    passwd.lines().filter_map(account).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_name_and_uid() {
        let read = read_accounts("root:x:0:0:root:/root:/bin/bash\nbroken\nweb:x:33:33::/:/bin/false\n");
        assert_eq!(read, [("root".to_owned(), "0".to_owned()), ("web".to_owned(), "33".to_owned())]);
    }

    #[test]
    fn a_listener_has_a_row_for_itself_and_one_for_its_client() {
        let (_listener, cause) = listen(Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!(cause.rows.len(), 2);
        assert!(cause.rows[1].contains(&("RemoteAddress", Want::Text("127.0.0.1".to_owned()))));
    }
}
