//! What happens to an agent between `apt-get install` and `apt-get purge`.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::arrivals::Arrival;
use crate::machine::Machine;
use crate::mosquitto::{Authority, Mosquitto};
use crate::{agent, package, wait};

/// What `docs/measurements.md` says of an idle agent and its children.
const PSS_KILOBYTES_AT_MOST: u64 = 10_240;

/// Tells the whole story and gives the machine's row of the field matrix.
pub fn life_of_a_package(machine: &Machine) -> String {
    let dir = TempDir::new().unwrap();
    let authority = Authority::for_address(machine.host());
    let mut broker = Mosquitto::start_tls_at(&authority, machine.listen());
    let new = package::of(machine.architecture());
    let old = package::earlier(&new, &dir);

    let before = traces(machine);
    install_and_stay_stopped(machine, &old);
    configure(machine, &authority, broker.tls_port, &dir);
    let back_end = start(machine);
    // In a container of this machine nothing tells of programs that end at once; `status` says why.
    four_kinds(machine, &broker, &dir, !back_end.contains("twice a second"));
    reboot_keeps_what_was_not_sent(machine, &mut broker, &authority);
    let memory = memory_of_agent_and_children(machine);
    upgrade_loses_nothing(machine, &mut broker, &authority, &new);
    removed_and_installed_again_it_runs(machine);
    machine.shell("DEBIAN_FRONTEND=noninteractive apt-get purge -q -y edgewarden");
    assert_eq!(traces(machine), before, "a purge leaves nothing");

    let system = machine.shell(". /etc/os-release; echo $PRETTY_NAME").trim().to_owned();
    let kernel = machine.shell("uname -r").trim().to_owned();
    let architecture = machine.architecture();
    format!(
        "| {architecture} | {system} | {kernel} | {back_end} | yes | yes | yes | yes | yes | yes | yes | {memory} kB |"
    )
}

/// Every path that has our name in it, outside of what is only while the machine runs, and our account.
fn traces(machine: &Machine) -> String {
    machine.shell(
        "find / -xdev -path /proc -prune -o -path /mnt -prune -o -name '*edgewarden*' -not -path '/root/*' -print | sort; \
         getent passwd edgewarden || true; getent group edgewarden || true",
    )
}

fn install_and_stay_stopped(machine: &Machine, package: &std::path::Path) {
    machine.put(package, "/root/edgewarden.deb");
    // As apt's own user apt could not read it there, and says so; as root it does.
    let said = machine.shell(
        "DEBIAN_FRONTEND=noninteractive apt-get install -q -y -o APT::Sandbox::User=root /root/edgewarden.deb 2>&1",
    );
    assert!(said.contains("edgewarden is installed and not running"), "{said}");
    assert_eq!(machine.shell("systemctl is-active edgewarden || true").trim(), "inactive");
    assert_eq!(machine.shell("systemctl is-enabled edgewarden || true").trim(), "disabled");
}

fn configure(machine: &Machine, authority: &Authority, port: u16, dir: &TempDir) {
    let twin = json!({
        "deviceId": "board",
        "connection": {
            "url": format!("mqtts://{}:{port}", machine.host()),
            "caFile": "/etc/edgewarden/ca.pem",
        },
        "properties": { "desired": { agent::DESIRED: {
            "highPriorityMessageFrequency": { "value": "PT1S" },
            "lowPriorityMessageFrequency": { "value": "PT2S" },
        } } },
    });
    let file = dir.path().join("twin.json");
    std::fs::write(&file, twin.to_string()).unwrap();
    machine.put(&file, "/etc/edgewarden/twin.json");
    machine.put(&authority.path("ca.pem"), "/etc/edgewarden/ca.pem");
    machine.shell("chown root:edgewarden /etc/edgewarden/*; chmod 640 /etc/edgewarden/*; edgewarden check");
}

/// Starts it as an operator would and gives what captures processes, in the words of `status`.
fn start(machine: &Machine) -> String {
    machine.shell("systemctl enable --now edgewarden");
    assert_eq!(machine.shell("systemctl is-active edgewarden").trim(), "active");
    let words = wait::until("the collectors to run", || {
        let words = machine.shell("edgewarden status || true");
        if words.contains("ProcessCreate") { Ok(words) } else { Err(words) }
    });
    eprintln!("{words}");
    let line = words.lines().find(|line| line.contains("ProcessCreate")).unwrap_or_default();
    let running = line.split_once("running with ").unwrap_or_else(|| panic!("{line}")).1;
    running.split(';').next().unwrap_or_default().to_owned()
}

/// Something real of each kind, and its row with the right values.
fn four_kinds(machine: &Machine, broker: &Mosquitto, dir: &TempDir, sees_all: bool) {
    login(machine, "firstlogin");
    wait_row(broker, "the refused login", "Login", |row| {
        row.details["ExtraDetails"]["AttemptedUserName"] == "firstlogin"
            && row.text("RemoteAddress") == machine.host().to_string()
            && row.text("Result") == "Fail"
            && row.text("Executable") == "/usr/sbin/sshd"
    });

    machine.shell("useradd -m -s /bin/bash -G sudo firstuser");
    wait_row(broker, "the new account", "LocalUsers", |row| {
        row.text("UserName") == "firstuser" && row.text("GroupNames").split(';').any(|group| group == "sudo")
    });

    log_in(machine, "firstuser", dir);
    let user_id = machine.shell("id -u firstuser");
    wait_row(broker, "the login", "Login", |row| {
        row.text("UserName") == "firstuser"
            && row.text("UserId") == user_id.trim()
            && row.text("RemoteAddress") == machine.host().to_string()
            && row.text("Result") == "Success"
            && row.text("Executable") == "/usr/sbin/sshd"
    });

    // Of another user, so that the agent proves it may look into a process that is not its own, sandbox and all.
    machine.shell(
        "setpriv --reuid=65534 --regid=65534 --clear-groups busybox nc -ll -p 4711 -e true </dev/null >/dev/null 2>&1 &",
    );
    wait_row(broker, "the new listener", "ListeningPorts", |row| {
        row.text("LocalPort") == "4711"
            && row.text("Protocol") == "TCP"
            && row.details["ExtraDetails"]["UserId"] == "65534"
            && row.details["ExtraDetails"]["Executable"].as_str().is_some_and(|path| path.ends_with("/bin/busybox"))
    });

    machine.shell(&long_program("firstexec"));
    wait_row(broker, "the program that ran", "ProcessCreate", |row| {
        row.text("CommandLine") == long_program("firstexec")
            && row.text("Executable").ends_with("/bin/dash")
            && row.text("UserId") == "0"
    });
    if sees_all {
        machine.shell("/bin/echo shortexec 'with a space' >/dev/null");
        wait_row(broker, "the program that ended at once", "ProcessCreate", |row| {
            row.text("CommandLine") == "/bin/echo shortexec 'with a space'"
                && row.text("Executable").ends_with("/bin/echo")
        });
    }
}

/// One that every back end sees, also the one that looks twice a second.
fn long_program(name: &str) -> String {
    format!("sh -c 'sleep 3; : {name}'")
}

/// A name that no account has.
fn stranger(name: &str) -> String {
    format!("no-{name}")
}

/// Somebody on this machine who may not come in.
fn login(machine: &Machine, user: &str) {
    let out = ssh(machine, user, &[]);
    assert!(!out.status.success(), "{user} got in");
}

/// With a key that the account gets for it.
fn log_in(machine: &Machine, user: &str, dir: &TempDir) {
    let key = dir.path().join("key").display().to_string();
    let out = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).output();
    assert!(out.expect("ssh-keygen runs; scripts/setup-test.sh installs it").status.success());
    machine.put(&dir.path().join("key.pub"), "/root/key.pub");
    machine.shell(&format!(
        "install -d -m 700 -o {user} ~{user}/.ssh && install -m 600 -o {user} /root/key.pub ~{user}/.ssh/authorized_keys"
    ));
    wait::until("the account to be let in", || {
        let out = ssh(machine, user, &["-i", &key]);
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    });
}

fn ssh(machine: &Machine, user: &str, with: &[&str]) -> Output {
    let (address, port) = machine.ssh();
    Command::new("ssh")
        .args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", "PreferredAuthentications=publickey", "-F", "none", "-p", &port.to_string()])
        .args(with)
        .args([&format!("{user}@{address}"), "true"])
        .stdin(Stdio::null())
        .output()
        .expect("ssh runs; scripts/setup-test.sh installs it")
}

fn reboot_keeps_what_was_not_sent(machine: &Machine, broker: &mut Mosquitto, authority: &Authority) {
    happen_unheard(machine, broker, "beforereboot");
    machine.reboot();
    assert_eq!(machine.shell("systemctl is-active edgewarden").trim(), "active", "enabled means after a reboot too");
    broker.start_again_tls(authority);
    each_once(broker, "beforereboot");
}

/// The share of the machine's memory that an idle agent takes with what it started, in kB (`Pss` of proc_pid_smaps(5)).
fn memory_of_agent_and_children(machine: &Machine) -> u64 {
    wait::until("the agent to settle", || {
        let shares = machine.shell(
            "main=$(systemctl show -p MainPID --value edgewarden)
             for process in $main $(cat /proc/$main/task/*/children); do
                 sed -n 's/^Pss: *\\([0-9]*\\) kB$/\\1/p' /proc/$process/smaps_rollup
             done",
        );
        let memory = shares.lines().map(|share| share.parse::<u64>().unwrap()).sum();
        if (1..=PSS_KILOBYTES_AT_MOST).contains(&memory) { Ok(memory) } else { Err(shares) }
    })
}

fn upgrade_loses_nothing(machine: &Machine, broker: &mut Mosquitto, authority: &Authority, new: &std::path::Path) {
    let configured = machine.shell("cat /etc/edgewarden/twin.json");
    happen_unheard(machine, broker, "beforeupgrade");
    machine.put(new, "/root/edgewarden.deb");
    let old_process = machine.shell("systemctl show -p MainPID --value edgewarden");
    machine
        .shell("DEBIAN_FRONTEND=noninteractive apt-get install -q -y -o APT::Sandbox::User=root /root/edgewarden.deb");
    let installed = machine.shell("dpkg-query -W -f '${Version}' edgewarden");
    assert_eq!(installed, package::version(new));
    assert_eq!(machine.shell("cat /etc/edgewarden/twin.json"), configured, "what the operator wrote stays");
    assert_eq!(machine.shell("systemctl is-active edgewarden").trim(), "active");
    let new_process = machine.shell("systemctl show -p MainPID --value edgewarden");
    assert_ne!(new_process, old_process, "the new version takes over");
    broker.start_again_tls(authority);
    each_once(broker, "beforeupgrade");
}

/// It was enabled and still is; nobody would notice before the next boot that it does not run.
fn removed_and_installed_again_it_runs(machine: &Machine) {
    machine.shell("DEBIAN_FRONTEND=noninteractive apt-get remove -q -y edgewarden");
    machine
        .shell("DEBIAN_FRONTEND=noninteractive apt-get install -q -y -o APT::Sandbox::User=root /root/edgewarden.deb");
    assert_eq!(machine.shell("systemctl is-active edgewarden || true").trim(), "active");
}

/// How many events of a kind the agent has collected since it started.
fn collected(machine: &Machine, kind: &str) -> u64 {
    let text = machine.shell("edgewarden status --json");
    let status: Value = serde_json::from_str(&text).unwrap();
    status["events"]["byKind"][kind].as_u64().unwrap_or_else(|| panic!("no {kind} in {text}"))
}

/// A program, an account and a login of this name while there is no broker; ends when the agent has noticed.
fn happen_unheard(machine: &Machine, broker: &mut Mosquitto, name: &str) {
    broker.kill_9();
    let before = ["Login", "LocalUsers"].map(|kind| (kind, collected(machine, kind)));
    machine.shell(&format!("{}; useradd -M {name}", long_program(name)));
    login(machine, &stranger(name));
    for (kind, before) in before {
        wait::until_true(kind, || collected(machine, kind) > before);
    }
}

/// A login, an account and a program of this name have each arrived as one event, however often it was delivered.
fn each_once(broker: &Mosquitto, name: &str) {
    let is_login = |row: &Arrival| row.details["ExtraDetails"]["AttemptedUserName"] == stranger(name);
    let is_exec = |row: &Arrival| row.text("CommandLine") == long_program(name);
    let login = wait_row(broker, "the login of before", "Login", is_login);
    let exec = wait_row(broker, "the program of before", "ProcessCreate", is_exec);
    wait_row(broker, "the account of before", "LocalUsers", |row| row.text("UserName") == name);
    for row in broker.arrivals() {
        let (kind, first) = match &*row.name {
            "Login" if is_login(&row) => ("login", &login),
            "ProcessCreate" if is_exec(&row) => ("program", &exec),
            _ => continue,
        };
        assert_eq!(row.event, first.event, "the {kind} became two events");
        assert_eq!(row.details, first.details, "a redelivery is the same word for word");
    }
}

fn wait_row(broker: &Mosquitto, what: &str, kind: &str, ask: impl Fn(&Arrival) -> bool) -> Arrival {
    wait::until(what, || {
        let rows = broker.arrivals();
        match rows.iter().find(|row| row.name == kind && ask(row)) {
            Some(row) => Ok(row.clone()),
            None => {
                let of_kind: Vec<_> = rows.iter().filter(|row| row.name == kind).rev().take(5).collect();
                Err(format!("the last of {} rows: {of_kind:#?}", rows.len()))
            }
        }
    })
}
