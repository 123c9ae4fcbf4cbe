//! What the agent may do once it runs, looked at from outside: in `/proc`, where the kernel says it.

use std::net::TcpListener;

use nix::sys::signal::Signal;
use nix::unistd::{User, chown};

use crate::agent::{Agent, connection};
use crate::hub::{Hub, details};
use crate::wait;

/// `capabilities(7)`: the bits of CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE.
const READ: u64 = 1 << 2;
const TRACE: u64 = 1 << 19;

fn set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    u64::from_str_radix(line.unwrap_or_else(|| panic!("no {name} in\n{status}")).trim(), 16).unwrap()
}

/// Started as root, as an init script does: it becomes somebody else, keeps what its collectors need, and with that
/// still finds out whose a socket of root is.
#[test]
fn an_agent_started_as_root_keeps_what_its_collectors_need_and_nothing_else() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: only root can become somebody else");
        return;
    }
    let hub = Hub::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut agent = Agent::new("press-80", connection(hub.port));
    let nobody = User::from_name("nobody").unwrap().expect("every system has nobody");
    chown(&agent.path("state"), Some(nobody.uid), Some(nobody.gid)).unwrap();
    agent.options = vec!["--user".to_owned(), "nobody".to_owned()];
    agent.start();
    let told = agent.wait_collecting();
    assert_eq!(told["privileges"]["user"], "nobody");
    assert_eq!(told["privileges"]["capabilities"], serde_json::json!(["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"]));
    assert_eq!(told["privileges"]["troubles"], serde_json::json!([]));

    let status = agent.proc("status");
    let uids = format!("Uid:\t{0}\t{0}\t{0}\t{0}", nobody.uid);
    assert!(status.contains(&uids) && status.contains("NoNewPrivs:\t1"), "{status}");
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(set(&status, name), READ | TRACE, "{name} in\n{status}");
    }
    // What journalctl gets.
    for name in ["CapInh", "CapAmb"] {
        assert_eq!(set(&status, name), READ, "{name} in\n{status}");
    }
    let own = std::env::current_exe().unwrap();
    let row = hub.wait_row("the socket of root", |row| {
        row["RawEventName"] == "ListeningPorts" && details(row)["LocalPort"] == port.as_str()
    });
    assert_eq!(details(&row)["ExtraDetails"]["Executable"], own.to_string_lossy().as_ref());

    agent.set("eventPriorityProcessCreate", "High".into());
    agent.own()["processBackend"] = "connector".into();
    agent.write_twin();
    agent.signal(Signal::SIGHUP);
    wait::until_true("the agent to say what it gave back", || {
        agent.log().contains("collectors that were off when the agent started need CAP_NET_ADMIN CAP_SYS_NICE")
    });
    assert!(agent.terminate().success());
}
