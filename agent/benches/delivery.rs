//! From a full spool through the real agent to a real broker: events a second, CPU and bytes an event, memory.
//!
//! ```text
//! cargo bench -p edgewarden --bench delivery [-- EVENTS]         1,000,000 unless told otherwise
//! ```
//!
//! A spool is filled as an agent that was offline for weeks would leave it. Then the agent (the binary beside this
//! bench, so the release one) is started against Debian's mosquitto, and a subscriber counts the ids it has not seen
//! before. The peer in the same run is `mosquitto_pub` sending messages of the same size to the same broker with QoS 1.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a bench is a test that prints")]

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use collector_common::clock::Clock;
use collector_common::event::kind::{Kind, Lane};
use collector_common::root::Root;
use edgewarden::spool::record::{Record, StoredEvent};
use edgewarden::spool::{Entry, Spool};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use uuid::Uuid;

const QUOTA_BYTES: u64 = 1 << 30;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.0.kill();
        let _status = self.0.wait();
    }
}

fn main() {
    let events = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1_000_000);
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    fill(&state, events);

    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let _broker = broker(directory.path(), port);
    let arrivals = subscribe(port, events);
    let twin = directory.path().join("twin.json");
    fs::write(&twin, configuration(&state, port)).unwrap();
    let started = Instant::now();
    let agent = Command::new(env!("CARGO_BIN_EXE_edgewarden")).arg("run").arg("--config").arg(&twin).spawn().unwrap();
    let agent = Running(agent);
    let (seen, messages, payload_bytes, wire_bytes) = arrivals.recv().unwrap();
    let took = started.elapsed();
    println!("delivered {seen} events once each in {messages} messages, {:.1} s", took.as_secs_f64());
    println!("rate      {:.0} events/s, {:.0} messages/s", per(seen, took), per(messages, took));
    println!("payload   {} bytes an event, {} a message", payload_bytes / seen, payload_bytes / messages);
    println!("wire      {} bytes an event with MQTT's headers and PUBACKs, without TCP's", wire_bytes / seen);
    println!("cpu       {:.1} us an event", cpu_seconds(agent.0.id()) * 1e6 / seen as f64);
    println!("memory    {} kB at the most (VmHWM)", peak_kb(agent.0.id()));
    drop(agent);
    peer(directory.path(), port, (payload_bytes / messages) as usize);
}

/// What an agent leaves that recorded logins and could not send them. Each group is synced, and beside it the same bytes
/// are written and synced without a spool.
fn fill(state: &Path, events: u64) {
    const GROUP: u64 = 256;
    let (spool, _) = Spool::open(state, QUOTA_BYTES).unwrap();
    let mut raw = tempfile::tempfile_in(state).unwrap();
    let clock = Clock::new(&Root::host());
    let (mut spooled, mut limit) = (Duration::ZERO, Duration::ZERO);
    for first in (0..events).step_by(GROUP as usize) {
        let group = first..events.min(first + GROUP);
        let entry = |number| Entry { lane: Lane::High, record: Record::Event(event(number, &clock)) };
        let mut entries: Vec<_> = group.map(entry).collect();
        let before = spool.stats().written_bytes;
        let begin = Instant::now();
        let appended = spool.append_all(&mut entries);
        spool.sync(Lane::High).unwrap();
        spooled += begin.elapsed();
        assert!(appended.dropped.is_empty(), "the quota is too small for {events} events");
        assert_eq!(appended.stored, entries.len(), "{:?}", appended.refused);
        let bytes = vec![0x5a; (spool.stats().written_bytes - before) as usize];
        let begin = Instant::now();
        raw.write_all(&bytes).unwrap();
        raw.sync_data().unwrap();
        limit += begin.elapsed();
    }
    let stats = spool.stats();
    println!("recorded  {:.0} events/s in groups of {GROUP}, each synced", per(events, spooled));
    println!("limit     {:.0} events/s: the same bytes in one write and one fdatasync a group", per(events, limit));
    let (bytes, syncs) = (stats.written_bytes / events, stats.syncs as f64 / events as f64);
    println!("disk      {bytes} bytes and {syncs:.4} syncs an event");
}

fn event(number: u64, clock: &Clock) -> StoredEvent {
    let item = format!(
        r#"{{"ProcessId":{},"UserId":"0","UserName":"root","Operation":"LoginFailed","Executable":"/usr/sbin/sshd","RemoteAddress":"198.51.100.7","RemotePort":"{}","Result":"Fail","ExtraDetails":{{"Method":"password","Source":"journal","Trust":"executable"}}}}"#,
        1000 + number % 30_000,
        1024 + number % 60_000,
    );
    let (id, kind) = (Uuid::now_v7(), Kind::Login as u8);
    StoredEvent { seq: 0, id, kind, at: clock.now(), utc_offset_seconds: 0, items: vec![item], cursor: None }
}

fn configuration(state: &Path, port: u16) -> String {
    let off = |kind: &str| format!(r#""eventPriority{kind}":{{"value":"Off"}}"#);
    let off = ["LocalUsers", "ListeningPorts", "Login", "ProcessCreate"].map(off).join(",");
    format!(
        r#"{{"deviceId":"bench","stateDirectory":{:?},"connection":{{"url":"mqtt://127.0.0.1:{port}"}},
        "properties":{{"desired":{{"ms_iotn:urn_azureiot_Security_SecurityAgentConfiguration":
        {{{off},"maxLocalCacheSizeInBytes":{{"value":{QUOTA_BYTES}}}}}}}}}}}"#,
        state.display().to_string()
    )
}

fn broker(directory: &Path, port: u16) -> Running {
    let conf = directory.join("mosquitto.conf");
    let text = format!(
        "allow_anonymous true\npersistence false\nmax_queued_messages 0\nuser root\nlistener {port} 127.0.0.1\n"
    );
    fs::write(&conf, text).unwrap();
    let broker = Command::new("mosquitto").arg("-c").arg(&conf).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let broker = Running(broker.expect("mosquitto is installed by scripts/setup-test.sh"));
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        thread::sleep(Duration::from_millis(20));
    }
    broker
}

/// Tells once so many different events have arrived: events, messages, payload bytes, bytes on the wire.
fn subscribe(port: u16, events: u64) -> mpsc::Receiver<(u64, u64, u64, u64)> {
    let (done, arrivals) = mpsc::sync_channel(1);
    let (ready, is_ready) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut options = MqttOptions::new("witness", "127.0.0.1", port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::new(options, 16);
        client.subscribe("edgewarden/bench/security", QoS::AtLeastOnce).unwrap();
        let (mut ids, mut messages, mut bytes, mut wire_bytes) = (HashSet::new(), 0, 0, 0);
        for event in connection.iter() {
            match event.unwrap() {
                Event::Incoming(Packet::SubAck(_)) => ready.send(()).unwrap(),
                Event::Incoming(Packet::Publish(publish)) => {
                    messages += 1;
                    bytes += publish.payload.len() as u64;
                    // With QoS 1 both ways the agent's PUBLISH had the size of this one; a PUBACK has 4 bytes.
                    wire_bytes += publish.size() as u64 + 4;
                    let text = std::str::from_utf8(&publish.payload).unwrap();
                    ids.extend(
                        text.match_indices(r#"{"Id":""#)
                            .map(|(at, key)| Uuid::parse_str(&text[at + key.len()..][..36]).unwrap().as_u128()),
                    );
                    if ids.len() as u64 >= events {
                        done.send((ids.len() as u64, messages, bytes, wire_bytes)).unwrap();
                        return;
                    }
                }
                _ => {}
            }
        }
    });
    is_ready.recv().unwrap();
    arrivals
}

/// The same broker, messages of the same size, Mosquitto's own publisher.
fn peer(directory: &Path, port: u16, bytes: usize) {
    const MESSAGES: u64 = 20_000;
    let lines = directory.join("lines");
    let mut file = fs::File::create(&lines).unwrap();
    let line = "x".repeat(bytes) + "\n";
    (0..MESSAGES).for_each(|_| file.write_all(line.as_bytes()).unwrap());
    let started = Instant::now();
    let mut publisher = Command::new("mosquitto_pub");
    publisher.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", "peer", "-l"]);
    let status = publisher.stdin(fs::File::open(&lines).unwrap()).status().unwrap();
    assert!(status.success());
    println!("peer      mosquitto_pub -q 1: {:.0} messages/s of {bytes} bytes", per(MESSAGES, started.elapsed()));
}

fn per(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Fields 14 and 15 of `/proc/PID/stat`, in hundredths of a second.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn peak_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
