//! What a power cut leaves. `kill -9` leaves the page cache and proves nothing about syncs; here the agent runs under
//! a shim that journals its writes and syncs (tests/support/powercut.c), and for every place in the journal a disk is
//! made that a power cut there may leave. What was synced is there; of the rest nothing, or a seeded part. A name counts
//! only once its directory was synced, which is stricter than any file system in use.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "the helpers of tests are tests too")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use collector_common::event::kind::Lane;
use edgewarden::spool::Spool;
use edgewarden::spool::record::Record;
use serde_json::json;

#[derive(Debug)]
struct Op {
    code: u8,
    inode: u64,
    offset: usize,
    path: PathBuf,
    to: PathBuf,
    data: Vec<u8>,
}

/// A write at a place, or without data a truncation to it.
type Change = (usize, Option<Vec<u8>>);

/// A disk: what is safe, and what is still on its way.
#[derive(Default)]
struct Disk {
    content: BTreeMap<u64, Vec<u8>>,
    pending: BTreeMap<u64, Vec<Change>>,
    /// Names as the agent sees them, and as they are safe. A directory has the inode 0.
    names: BTreeMap<PathBuf, u64>,
    safe_names: BTreeMap<PathBuf, u64>,
    /// Ids of events written to a file since its last sync, and of those that are safe.
    written: BTreeMap<u64, BTreeSet<String>>,
    safe: BTreeSet<String>,
}

fn apply(content: &mut Vec<u8>, (offset, data): &Change) {
    let end = offset + data.as_ref().map_or(0, Vec::len);
    if data.is_none() || content.len() < end {
        content.resize(end, 0);
    }
    if let Some(data) = data {
        content[*offset..end].copy_from_slice(data);
    }
}

impl Disk {
    fn step(&mut self, op: &Op) {
        match op.code {
            b'c' => {
                self.names.insert(op.path.clone(), op.inode);
                self.content.insert(op.inode, Vec::new());
                self.pending.remove(&op.inode);
                self.written.remove(&op.inode);
            }
            b'w' => {
                self.written.entry(op.inode).or_default().extend(ids(&op.data));
                self.pending.entry(op.inode).or_default().push((op.offset, Some(op.data.clone())));
            }
            b't' => self.pending.entry(op.inode).or_default().push((op.offset, None)),
            b's' if op.path.is_dir() => {
                self.safe_names.retain(|path, _| path.parent() != Some(&op.path));
                let names = self.names.iter().filter(|(path, _)| path.parent() == Some(&op.path));
                self.safe_names.extend(names.map(|(path, inode)| (path.clone(), *inode)));
            }
            b's' => {
                let content = self.content.entry(op.inode).or_default();
                self.pending.remove(&op.inode).unwrap_or_default().iter().for_each(|change| apply(content, change));
                self.safe.extend(self.written.remove(&op.inode).unwrap_or_default());
            }
            b'r' => {
                let inode = self.names.remove(&op.path).expect("what is renamed was created");
                self.names.insert(op.to.clone(), inode);
            }
            b'u' => drop(self.names.remove(&op.path)),
            b'm' => drop(self.names.insert(op.path.clone(), 0)),
            code => panic!("the shim wrote {code}"),
        }
    }

    /// Makes the state directory `to` as it may be found; without a seed nothing is there that was not synced.
    fn build(&self, root: &Path, to: &Path, mut random: Option<fastrand::Rng>) {
        for (path, inode) in &self.safe_names {
            let target = to.join(path.strip_prefix(root).unwrap());
            if !target.parent().unwrap().is_dir() {
                continue;
            }
            if *inode == 0 {
                std::fs::create_dir_all(&target).unwrap();
                continue;
            }
            let mut content = self.content[inode].clone();
            for (offset, data) in self.pending.get(inode).into_iter().flatten() {
                let Some(random) = &mut random else { break };
                match (random.u8(..3), data) {
                    (0, _) => {}
                    (1, Some(data)) => {
                        apply(&mut content, &(*offset, Some(data[..random.usize(..=data.len())].to_vec())))
                    }
                    _ => apply(&mut content, &(*offset, data.clone())),
                }
            }
            std::fs::write(&target, content).unwrap();
        }
    }
}

/// Ids of the events in what was written.
fn ids(data: &[u8]) -> Vec<String> {
    let starts = data.windows(4).enumerate().filter(|(_, magic)| magic == b"EWfr");
    let body = |(at, _): (usize, &[u8])| {
        let length = u32::from_le_bytes(data.get(at + 4..at + 8)?.try_into().ok()?);
        match Record::decode(data.get(at + 12..at + 12 + length as usize)?) {
            Ok(Record::Event(event) | Record::FirstRow(event)) => Some(event.id.to_string()),
            _ => None,
        }
    };
    starts.filter_map(body).collect()
}

fn read_journal(path: &Path) -> Vec<Op> {
    let (bytes, mut at, mut ops) = (std::fs::read(path).unwrap(), 0, Vec::new());
    while at < bytes.len() {
        let end = at + bytes[at..].iter().position(|byte| *byte == b'\n').expect("a record has a line");
        let line = std::str::from_utf8(&bytes[at..end]).unwrap();
        let [code, inode, offset, length, path, to] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let data_end = end + 1 + length.parse::<usize>().unwrap();
        ops.push(Op {
            code: code.as_bytes()[0],
            inode: inode.parse().unwrap(),
            offset: offset.parse().unwrap(),
            path: path.into(),
            to: to.into(),
            data: bytes[end + 1..data_end].to_vec(),
        });
        at = data_end;
    }
    ops
}

fn run_agent(dir: &Path) -> Vec<Op> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/powercut.c");
    let shim = dir.join("powercut.so");
    let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).arg("-ldl").status();
    assert!(cc.expect("a C compiler is needed: scripts/setup-test.sh installs it").success());
    let (state, log) = (dir.join("state"), dir.join("auth.log"));
    std::fs::create_dir(&state).unwrap();
    std::fs::write(&log, "").unwrap();
    let twin = json!({
        "deviceId": "press-80", "moduleId": "azureiotsecurity", "stateDirectory": state,
        "connection": { "profile": "mqtt", "url": "mqtt://127.0.0.1:9" },
        "properties": { "desired": { "edgewarden": { "loginSource": log, "processBackend": "poll", "spoolSyncHigh": "PT1S" } } },
    });
    std::fs::write(dir.join("twin.json"), twin.to_string()).unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_edgewarden"))
        .args(["run", "--config"])
        .arg(dir.join("twin.json"))
        .env("LD_PRELOAD", &shim)
        .env("POWERCUT_ROOT", &state)
        .env("POWERCUT_JOURNAL", dir.join("journal"))
        .stderr(std::fs::File::create(dir.join("log")).unwrap())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let mut port = 20_000;
    while start.elapsed() < Duration::from_secs(12) {
        std::thread::sleep(Duration::from_millis(300));
        let mut file = std::fs::File::options().append(true).open(&log).unwrap();
        for _ in 0..8 {
            port += 1;
            let now = jiff::Timestamp::now();
            let line =
                format!("{now:.6} board sshd[{port}]: Failed password for root from 198.51.100.7 port {port} ssh2\n");
            std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
        }
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    read_journal(&dir.join("journal"))
}

fn check(disk: &Disk, root: &Path, log: &str, seed: Option<u64>, place: usize) -> Option<String> {
    let found = tempfile::tempdir().unwrap();
    disk.build(root, found.path(), seed.map(fastrand::Rng::with_seed));
    let opened = Spool::open(found.path(), 64 << 20);
    let (spool, opened) = opened.unwrap_or_else(|error| panic!("cut {place}, seed {seed:?}: {error}"));
    let (mut recovered, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for lane in Lane::ALL {
        while let Some(event) = spool.read(lane).unwrap() {
            assert!(recovered.insert(event.id.to_string()), "cut {place}: one event twice");
            let port = event.items.concat().split_once(r#""RemotePort":""#).map(|(_, rest)| rest[..5].to_owned());
            ports.extend(port.filter(|port| port.starts_with("20")));
        }
    }
    // Lines before the cursor are events, and those behind it are not: each will be read once.
    if seed.is_none() {
        let place_in_log = opened.cursors.values().find_map(|cursor| cursor.split_once("offset="));
        let offset = place_in_log.map_or(0, |(_, rest)| rest.split(' ').next().unwrap().parse().unwrap());
        let before: BTreeSet<String> = log[..offset]
            .lines()
            .map(|line| line.split_once(" port ").unwrap().1.split(' ').next().unwrap().to_owned())
            .collect();
        assert_eq!(ports, before, "cut {place}: the cursor and the events disagree");
    }
    let missing = disk.safe.difference(&recovered).count();
    (missing > 0)
        .then(|| format!("cut {place}, seed {seed:?}: {missing} of {} synced events are gone", disk.safe.len()))
}

#[test]
fn what_was_synced_before_a_power_cut_is_there_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let ops = run_agent(dir.path());
    let root = dir.path().join("state");
    let mut disk = Disk::default();
    let mut faults = Vec::new();
    let log = std::fs::read_to_string(dir.path().join("auth.log")).unwrap();
    for (place, op) in ops.iter().enumerate() {
        disk.step(op);
        for seed in [None, Some(place as u64)] {
            faults.extend(check(&disk, &root, &log, seed, place));
        }
    }
    assert!(ops.len() >= 200 && disk.safe.len() > 50, "too little was done: {} {}", ops.len(), disk.safe.len());
    assert!(faults.is_empty(), "{} faults, the first: {:?}", faults.len(), &faults[..faults.len().min(5)]);
}
