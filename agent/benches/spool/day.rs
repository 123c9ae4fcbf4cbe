//! A day of a board with a hub in reach, without waiting for it: what the flash and the link have to bear.
//!
//! One event in ten is High, the rest Low, at even distances; intervals, sync times and message size are the defaults.
//! The clock of the day is a number here, and what is due by it is done: the spool, the batcher and the count of what was
//! sent are the real ones.

use std::fs;
use std::io;
use std::path::Path;

use collector_common::clock::Clock;
use collector_common::event::kind::Lane;
use collector_common::root::Root;
use edgewarden::config::settings::Settings;
use edgewarden::render::Renderer;
use edgewarden::spool::Spool;
use edgewarden::spool::record::StoredEvent;
use edgewarden::uplink::batch::{Batcher, Limits};
use edgewarden::uplink::budget::Budget;
use uuid::Uuid;

const TOPIC: &str = "edgewarden/press-17/security";

/// PINGREQ and PINGRESP each minute (MQTT 3.1.1, sections 3.12 and 3.13): bytes a day.
const PING_BYTES: u64 = 24 * 60 * 4;

/// Prints a day with so many events.
pub fn print(place: &Path, events: u64, event: impl Fn(usize) -> StoredEvent) -> io::Result<()> {
    let directory = tempfile::tempdir_in(place)?;
    let (settings, clock) = (Settings::default(), Clock::new(&Root::host()));
    let opened = Spool::open(directory.path(), settings.max_cache_bytes);
    let (spool, _) = opened.map_err(|error| io::Error::other(error.to_string()))?;
    let mut batcher = Batcher::new(spool.clone(), Renderer::new(spool.clone(), clock), Uuid::nil());
    let mut budget = Budget::load(directory.path().join("sent.json"), &clock.now());
    let intervals = [settings.high_interval.as_secs(), settings.low_interval.as_secs()];
    let sync_delays = [settings.spool_sync_high, settings.spool_sync_low].map(|delay| delay.as_secs().max(1));
    let (mut next, mut sync_at, mut send_at) = (0, [None; 2], [None; 2]);
    let (mut messages, mut sent_bytes, mut stores) = (0, 0, 0);
    let before = written_bytes()?;
    for second in 0..=86_400 + settings.low_interval.as_secs() {
        while next < events && next * 86_400 / events <= second {
            let lane = if next % 10 == 0 { Lane::High } else { Lane::Low };
            let event = StoredEvent { at: clock.now(), ..event(next as usize) };
            spool.append(lane, event, None).map_err(|(error, _)| error)?;
            sync_at[lane.index()].get_or_insert(second + sync_delays[lane.index()]);
            send_at[lane.index()].get_or_insert(second + intervals[lane.index()]);
            next += 1;
        }
        let is_due = |at: &Option<u64>| at.is_some_and(|at| at <= second);
        let sends = send_at.iter().any(is_due);
        for lane in Lane::ALL {
            if sends || is_due(&sync_at[lane.index()]) {
                sync_at[lane.index()] = None;
                spool.sync(lane)?;
            }
        }
        if !sends {
            continue;
        }
        let limits = Limits { max_bytes: settings.max_message_bytes, hold_suspect: true, with_low: true };
        let through = spool.stats().recorded;
        // A Low event goes along where there is room, and asks for a message of its own when it is due.
        while batcher.next_seq()[0] <= through[0] || is_due(&send_at[1]) && batcher.next_seq()[1] <= through[1] {
            let Some(message) = batcher.next(limits)? else { break };
            messages += 1;
            // Packet id, topic length and the fixed header, and the PUBACK.
            sent_bytes += (message.text.len() + TOPIC.len() + 2 + 2 + 4 + 4) as u64;
            budget.spend(&clock.now(), TOPIC.len(), message.text.len())?;
            for (lane, through) in Lane::ALL.into_iter().zip(message.through) {
                spool.acknowledge(lane, through.unwrap_or(0))?;
            }
        }
        spool.store_acknowledged()?;
        stores += 1;
        send_at = Lane::ALL
            .map(|lane| send_at[lane.index()].filter(|_| batcher.next_seq()[lane.index()] <= through[lane.index()]));
    }
    let (written, stats) = (written_bytes()? - before, spool.stats());
    if stats.acked != stats.recorded {
        return Err(io::Error::other(format!("{:?} of {:?} were acknowledged", stats.acked, stats.recorded)));
    }
    // Each time the state is replaced, its file and its directory are synced.
    println!(
        "a day of {events} events, one in ten High: {:.2} MB written, {} syncs; {messages} messages, {:.2} MB to and from the hub",
        written as f64 / 1e6,
        stats.syncs + 2 * stores,
        (sent_bytes + PING_BYTES) as f64 / 1e6,
    );
    Ok(())
}

/// What this process has given to `write` and its like so far, whatever the file (proc_pid_io(5)).
fn written_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/io")?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok());
    bytes.ok_or_else(|| io::Error::other("/proc/self/io has no wchar"))
}
