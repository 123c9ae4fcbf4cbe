//! A fleet from one process: many devices, one broker that is not ours, one hub.
//!
//! ```text
//! cargo bench -p edgewarden-hub --bench fleet [-- DEVICES MESSAGES]      1,000 devices, 20 messages each unless told
//!
//! DEVICES connections ──▶ mosquitto ──bridge, QoS 1──▶ edgewarden-hub serve ──▶ events.db
//! ```
//!
//! Each device is a connection of its own with messages as the agent writes them. Two times are told: until mosquitto
//! has acknowledged everything, and until everything is a row. It prints figures and asserts only that all rows are there.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a bench is a test that prints")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use collector_common::event::wire;
use edgewarden_hub::store::Store;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use uuid::Uuid;

/// As many events as the agent puts into a message of the default size when they are executions.
const EVENTS_A_MESSAGE: u64 = 15;

/// Devices that connect at the same time; a fleet that does not jitter its first connection is another matter.
const CONNECTING: usize = 64;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.0.kill();
        let _status = self.0.wait();
    }
}

fn main() {
    let mut numbers = std::env::args().filter_map(|word| word.parse::<u64>().ok());
    let (devices, messages) = (numbers.next().unwrap_or(1_000), numbers.next().unwrap_or(20));
    // Each device is a socket here and another one in the broker.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let (hub, hub_port) = hub(&state);
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let broker = broker(directory.path(), port, hub_port);

    // What is measured is not the bridge's start.
    publish(port, 1, 1);
    wait_for(&state, EVENTS_A_MESSAGE, Duration::from_secs(30));
    let begin = Instant::now();
    let bytes = publish(port, devices, messages);
    let acknowledged = begin.elapsed();
    let expected = devices * messages * EVENTS_A_MESSAGE;
    wait_for(&state, expected + EVENTS_A_MESSAGE, Duration::from_secs(600));
    let took = begin.elapsed();

    let (all, rows) = (devices * messages, expected as f64);
    println!("fleet     {devices} devices, {all} messages of {} bytes, {expected} rows", bytes / all);
    println!("broker    {:.0} messages/s acknowledged by mosquitto", all as f64 / acknowledged.as_secs_f64());
    println!("hub       {:.0} rows/s stored, {:.1} s in all", rows / took.as_secs_f64(), took.as_secs_f64());
    println!(
        "cpu       hub {:.1} us a row, mosquitto {:.1} us a message",
        cpu_us(&hub) / rows,
        cpu_us(&broker) / all as f64
    );
    println!("memory    hub {} kB, mosquitto {} kB at the most (VmHWM)", peak_kb(&hub), peak_kb(&broker));
    println!("disk      {:.0} bytes a row", disk_bytes(&state) as f64 / rows);
}

fn hub(state: &Path) -> (Running, u16) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgewarden-hub"))
        .args(["serve", "--hub", "bench", "--listen", "127.0.0.1:0", "--state"])
        .arg(state)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
    (Running(child), port)
}

/// The bridge keeps its session, so what the hub has not acknowledged stays in mosquitto.
fn broker(directory: &Path, port: u16, hub_port: u16) -> Running {
    let conf = directory.join("mosquitto.conf");
    let text = format!(
        "allow_anonymous true\npersistence false\nmax_queued_messages 0\nuser root\nlistener {port} 127.0.0.1\n\
         connection hub\naddress 127.0.0.1:{hub_port}\ntopic edgewarden/+/security out 1\ncleansession false\n\
         notifications false\ntry_private false\nbridge_protocol_version mqttv311\n"
    );
    fs::write(&conf, text).unwrap();
    let broker = Command::new("mosquitto").arg("-c").arg(&conf).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let broker = Running(broker.expect("mosquitto is installed by scripts/setup-test.sh"));
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        thread::sleep(Duration::from_millis(20));
    }
    broker
}

/// Returns when every message was acknowledged: their bytes.
#[tokio::main(flavor = "current_thread")]
async fn publish(port: u16, devices: u64, messages: u64) -> u64 {
    let connecting = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTING));
    let mut running = Vec::new();
    for device in 0..devices {
        let connecting = connecting.clone();
        running.push(tokio::spawn(async move {
            let turn = connecting.acquire_owned().await.unwrap();
            let mut options = MqttOptions::new(format!("fleet-{device}"), "127.0.0.1", port);
            options.set_max_packet_size(1 << 20, 1 << 20).set_inflight(16);
            let (client, mut events) = AsyncClient::new(options, 16);
            while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::ConnAck(_))) {}
            drop(turn);
            let topic = format!("edgewarden/board-{device:05}/security");
            let (mut sent, mut acknowledged, mut bytes) = (0, 0, 0);
            while acknowledged < messages {
                if sent < messages && sent - acknowledged < 16 {
                    let message = message(device, sent);
                    bytes += message.len() as u64;
                    client.publish(&topic, QoS::AtLeastOnce, false, message).await.unwrap();
                    sent += 1;
                }
                if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
                    acknowledged += 1;
                }
            }
            bytes
        }));
    }
    let mut bytes = 0;
    for device in running {
        bytes += device.await.unwrap();
    }
    bytes
}

/// What a board sends that runs a check every few seconds.
fn message(device: u64, number: u64) -> String {
    let events: Vec<String> = (0..EVENTS_A_MESSAGE)
        .map(|event| {
            let pid = number * EVENTS_A_MESSAGE + event;
            format!(
                r#"{{"Id":"{}","TimestampLocal":"2026-11-24T09:00:00.000+01:00","TimestampUTC":"2026-11-24T08:00:00.000Z","Category":"Triggered","Name":"ProcessCreate","EventType":"Security","IsEmpty":false,"PayloadSchemaVersion":"1.0","Payload":[{{"Executable":"/usr/bin/dash","CommandLine":"/bin/sh /usr/lib/nagios/plugins/check_{pid} --host board-{device}","UserId":"1000","ProcessId":{pid},"ParentProcessId":1,"ExtraDetails":{{"ParentExecutable":"/usr/sbin/nrpe"}}}}]}}"#,
                Uuid::now_v7()
            )
        })
        .collect();
    wire::message("0.1.0", Uuid::from_u128(u128::from(device)), &events)
}

fn wait_for(state: &Path, expected: u64, at_most: Duration) {
    let begin = Instant::now();
    loop {
        let stored: u64 = Store::open_to_read(state).unwrap().counts().unwrap().iter().map(|count| count.rows).sum();
        if stored >= expected {
            assert_eq!(stored, expected, "rows in the store");
            return;
        }
        assert!(begin.elapsed() < at_most, "{stored} of {expected} rows are in the store after {at_most:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

fn disk_bytes(state: &Path) -> u64 {
    fs::read_dir(state).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// User and system time so far, from `/proc/PID/stat`, fields 14 and 15 (proc_pid_stat(5)).
fn cpu_us(process: &Running) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.0.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks * 10_000.0
}

fn peak_kb(process: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
