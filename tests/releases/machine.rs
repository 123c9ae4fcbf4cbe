//! A machine with users, daemons that let them in, a log, and the agent that reads it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::agent::DESIRED;
use crate::attempts::{Row, SHA1};
use crate::client::Desk;
use crate::device::{Device, Init, succeed};
use crate::hub::Hub;
use crate::{agent, hub, wait};

/// Who keeps what the daemons say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    Journal,
    Rsyslog,
    Busybox,
    /// Kept in memory.
    Ring,
}

pub struct Machine {
    pub desk: Desk,
    pub device: Device,
    /// Addresses of clients, three of each kind.
    pub clients: Vec<IpAddr>,
    pub release: &'static str,
    /// Of each user of the machine.
    pub uids: BTreeMap<String, String>,
    log: Log,
    hub: Hub,
    agent: Child,
    words: Vec<String>,
}

const OPENSSH: &str = "\
Port 22
PermitRootLogin no
MaxAuthTries 3
MaxStartups 100
PasswordAuthentication yes
KbdInteractiveAuthentication no
UsePAM yes
DenyUsers denied
Subsystem sftp internal-sftp
";

/// The same names and passwords on every machine.
const USERS: &str = "\
for user in tester denied shellless; do
    useradd --create-home --shell /bin/bash $user
    mkdir -p /home/$user/.ssh
    cp /mnt/share/right.pub /home/$user/.ssh/authorized_keys
    chown -R $user: /home/$user
done
usermod --shell /bin/none shellless
printf '%s:right\\n' root tester denied shellless | chpasswd
mkdir -p /run/sshd /etc/dropbear
dropbearkey -t ed25519 -f /etc/dropbear/key >/dev/null 2>&1
";

impl Log {
    fn backend(self) -> &'static str {
        match self {
            Log::Journal => "systemd journal",
            Log::Rsyslog => "log file /var/log/auth.log",
            Log::Busybox => "log file /var/log/messages",
            Log::Ring => "log in memory (logread)",
        }
    }

    /// What starts the log and OpenSSH.
    fn start(self) -> &'static str {
        match self {
            Log::Journal => "systemctl restart ssh",
            Log::Rsyslog => "sed -i /imklog/d /etc/rsyslog.conf; touch /var/log/auth.log; rsyslogd; /usr/sbin/sshd",
            Log::Busybox => "touch /var/log/messages; busybox syslogd; /usr/sbin/sshd",
            Log::Ring => "ln -s \"$(command -v busybox)\" /sbin/logread; busybox syslogd -C256; /usr/sbin/sshd",
        }
    }
}

impl Machine {
    pub fn start(release: &'static str, log: Log) -> Machine {
        let init = if log == Log::Journal { Init::Systemd } else { Init::None };
        let device = Device::start(&format!("logins-{release}-{log:?}").to_lowercase(), release, init);
        let desk = Desk::new();
        let net = |at: usize| -> Vec<String> {
            let text = device.addresses[at].to_string();
            let network = text.strip_suffix('2').expect("the machine is the second of its net");
            (11..14).map(|host| format!("{network}{host}")).collect()
        };
        let clients = [net(0), net(1)].concat();
        for address in &clients {
            let (bits, nodad) = if address.contains(':') { ("64", &["nodad"][..]) } else { ("24", &[][..]) };
            let mut add = std::process::Command::new("ip");
            succeed(add.args(["addr", "add", &format!("{address}/{bits}"), "dev", &device.link]).args(nodad));
        }
        std::fs::copy(desk.path("right.pub"), device.share.join("right.pub")).unwrap();
        std::fs::copy(desk.path("right"), device.share.join("right")).unwrap();
        device.shell(USERS);
        let penalties = if release == "trixie" { "PerSourcePenalties no\n" } else { "" };
        device.write("/etc/ssh/sshd_config", format!("{OPENSSH}{penalties}"));
        device.shell(log.start());
        device.shell("/usr/sbin/sshd -p 2022 -o LoginGraceTime=3; dropbear -p 2222 -r /etc/dropbear/key -w -T 3");

        let hub = Hub::start();
        let host = net(0)[0].replace(".11", ".1").parse().expect("the host's end of the link");
        let port = desk.relay(host, ([127, 0, 0, 1], hub.port).into());
        let twin = json!({
            "deviceId": release,
            "stateDirectory": "/var/lib/edgewarden",
            "connection": { "profile": "mqtt", "url": format!("mqtt://{host}:{port}") },
            "properties": { "desired": { DESIRED: {
                "highPriorityMessageFrequency": { "value": "PT1S" },
                "eventPriorityProcessCreate": { "value": "Off" },
                "eventPriorityListeningPorts": { "value": "Off" },
            } } },
        });
        device.write("/mnt/share/twin.json", twin.to_string());
        device.shell("mkdir -p /var/lib/edgewarden");
        let words = device.install(agent::binary());
        let agent = edgewarden(&device, &words, &["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let clients = clients.iter().map(|address| address.parse().unwrap()).collect();
        let passwd = device.shell("cat /etc/passwd");
        let uid = |line: &str| Some((line.split(':').next()?.to_owned(), line.split(':').nth(2)?.to_owned()));
        let uids = passwd.lines().filter_map(uid).collect();
        Machine { desk, device, clients, release, uids, log, hub, agent, words }
    }

    /// `check` and `status` name the source, and what comes through it becomes rows.
    pub fn says_its_source(&self) {
        let check = succeed(&mut edgewarden(&self.device, &self.words, &["check"]));
        assert!(check.contains(self.log.backend()), "{check}");
        wait::until("the agent to follow the log", || {
            let out = edgewarden(&self.device, &self.words, &["status"]).output().unwrap();
            let page = String::from_utf8_lossy(&out.stdout).into_owned();
            if page.contains(self.log.backend()) { Ok(()) } else { Err(page + &String::from_utf8_lossy(&out.stderr)) }
        });
        wait::until("the first row", || {
            self.probe(1);
            let rows = self.hub.rows().iter().filter(|row| row["RawEventName"] == "Login").count();
            if rows > 0 { Ok(()) } else { Err("none".to_owned()) }
        });
    }

    /// Attempts that are not counted, by somebody who is not there.
    fn probe(&self, times: u32) {
        let ssh = "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -l probe 127.0.0.1 true 2>&1 || true";
        self.device.shell(&format!("for time in $(seq {times}); do {ssh}; done"));
    }

    /// A journal that takes few lines of a unit says so when it takes some again, and that is told.
    pub fn tells_what_the_journal_suppressed(&self) {
        let limit = "[Journal]\nRateLimitIntervalSec=5s\nRateLimitBurst=1\n";
        self.device.shell("mkdir -p /etc/systemd/journald.conf.d");
        self.device.write("/etc/systemd/journald.conf.d/limit.conf", limit);
        self.device.shell("systemctl restart systemd-journald");
        wait::until("a word of suppressed lines", || {
            self.probe(20);
            let rows = self.hub.rows();
            let is_told = |row: &Value| row["EventDetails"].as_str().is_some_and(|text| text.contains(": Suppressed "));
            if rows.iter().any(is_told) { Ok(()) } else { Err(self.log_tail()) }
        });
    }

    /// Waits until the attempts are rows, and sees that nothing else is.
    pub fn wait_for_rows(&self, expected: Vec<Row>) {
        let count = |rows: Vec<Row>| {
            let mut counts = BTreeMap::new();
            rows.into_iter().for_each(|row| *counts.entry(row).or_insert(0) += 1);
            counts
        };
        let expected = count(expected);
        wait::until("a row of each attempt", || {
            let rows = count(self.rows());
            let odd = |one: &BTreeMap<Row, u32>, other: &BTreeMap<Row, u32>| -> Vec<String> {
                one.iter().filter(|(row, times)| other.get(row) != Some(times)).map(|row| format!("{row:?}")).collect()
            };
            let (missing, extra) = (odd(&expected, &rows), odd(&rows, &expected));
            if missing.is_empty() && extra.is_empty() {
                return Ok(());
            }
            Err(format!("missing:\n{}\nextra:\n{}\n{}", missing.join("\n"), extra.join("\n"), self.log_tail()))
        });
    }

    fn rows(&self) -> Vec<Row> {
        let rows = self.hub.rows();
        let rows = rows.iter().filter(|row| row["RawEventName"] == "Login").map(hub::details);
        // Those that showed that the log is followed are not counted.
        let is_probe = |details: &Value| details["ExtraDetails"]["AttemptedUserName"] == "probe";
        rows.filter(|details| !is_probe(details)).map(|details| Row::of(&details)).collect()
    }

    fn log_tail(&self) -> String {
        self.device.shell(match self.log {
            Log::Journal => "journalctl -o short-iso SYSLOG_IDENTIFIER=sshd SYSLOG_IDENTIFIER=sshd-session SYSLOG_IDENTIFIER=dropbear",
            Log::Rsyslog => "cat /var/log/auth.log",
            Log::Busybox => "cat /var/log/messages",
            Log::Ring => "logread",
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.agent.kill().ok();
        self.agent.wait().ok();
    }
}

fn edgewarden(device: &Device, words: &[String], arguments: &[&str]) -> std::process::Command {
    let words: Vec<&str> = words.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
    let mut command = device.command(&words);
    command.args(["--config", "/mnt/share/twin.json"]);
    command
}

impl Row {
    /// The row as the attempts name it.
    pub fn of(details: &Value) -> Row {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let key = text(&details["ExtraDetails"]["KeyFingerprint"]);
        Row {
            result: text(&details["Result"]).expect("a result"),
            user: text(&details["UserName"]).expect("a user"),
            uid: text(&details["UserId"]),
            address: text(&details["RemoteAddress"]),
            port: text(&details["RemotePort"]),
            handler: text(&details["Executable"]).expect("a handler"),
            method: text(&details["ExtraDetails"]["Method"]),
            key: key.map(|key| if key.starts_with(SHA1) { SHA1.to_owned() } else { key }),
        }
    }
}
