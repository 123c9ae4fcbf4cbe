//! What the spool costs: `cargo bench -p edgewarden --bench spool`. It prints figures and asserts nothing; the directory
//! to measure in is the first argument that is one, else the system's temporary directory.
#![allow(clippy::print_stdout)]

#[path = "spool/day.rs"]
mod day;
#[path = "spool/rsyslog.rs"]
mod rsyslog;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use collector_common::clock::{Origin, Reading};
use collector_common::event::kind::{Kind, Lane};
use edgewarden::spool::record::{Record, StoredEvent};
use edgewarden::spool::{Entry, Spool};
use uuid::Uuid;

/// No quota is reached.
const QUOTA_BYTES: u64 = 1 << 32;

fn main() -> io::Result<()> {
    let place = std::env::args().skip(1).find(|argument| Path::new(argument).is_dir());
    let place = place.map_or_else(std::env::temp_dir, Into::into);
    println!("directory: {}", place.display());
    let fault = |error: edgewarden::spool::SpoolError| io::Error::other(error.to_string());
    for group in [1, 16, 256, 1024] {
        rate(&place, group, fault)?;
    }
    let lines: Vec<String> = (0..2048).map(|number| event(number).items.concat()).collect();
    rsyslog::print(&place, &lines)?;
    open_time(&place, fault)?;
    for a_day in [1_000, 50_000] {
        day::print(&place, a_day, event)?;
    }
    Ok(())
}

/// Appends and syncs in groups, beside the same bytes in the same groups without a spool. A disk is not the same from one
/// second to the next, so they take turns, and the median of the rounds counts.
fn rate(place: &Path, group: usize, fault: fn(edgewarden::spool::SpoolError) -> io::Error) -> io::Result<()> {
    const ROUNDS: usize = 11;
    let events = group * (4096 / group).clamp(24, 256);
    let directory = tempfile::tempdir_in(place)?;
    let (spool, _) = Spool::open(directory.path(), QUOTA_BYTES).map_err(fault)?;
    let mut files = [File::create(directory.path().join("raw"))?, File::create(directory.path().join("grouped"))?];
    let mut seconds = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        // What an event holds is made before: it costs the same with any spool.
        let entry = |number| Entry { lane: Lane::Low, record: Record::Event(event(round * events + number)) };
        let entries: Vec<Entry> = (0..events).map(entry).collect();
        let before = spool.stats().written_bytes;
        let begin = Instant::now();
        append_in_groups(&spool, entries, group)?;
        seconds[0].push(begin.elapsed().as_secs_f64());
        let frame = vec![0x5a; (spool.stats().written_bytes - before) as usize / events];
        let writes = [(frame.clone(), group), (frame.repeat(group), 1)];
        for (index, (bytes, times)) in writes.into_iter().enumerate() {
            let begin = Instant::now();
            for _ in 0..events / group {
                (0..times).try_for_each(|_| files[index].write_all(&bytes))?;
                files[index].sync_data()?;
            }
            seconds[index + 1].push(begin.elapsed().as_secs_f64());
        }
    }
    let [spooled, raw, grouped] = seconds.map(|seconds| events as f64 / median(seconds));
    let stats = spool.stats();
    println!(
        "groups of {group}: {spooled:.0} events/s through the spool; raw {raw:.0} with a write an event ({:.0} %), \
         {grouped:.0} with one a group ({:.0} %); {} bytes and {:.4} syncs an event",
        100.0 * spooled / raw,
        100.0 * spooled / grouped,
        stats.written_bytes / (ROUNDS * events) as u64,
        stats.syncs as f64 / (ROUNDS * events) as f64,
    );
    Ok(())
}

/// As the recorder does it: what waits is appended together, at most so many at once.
fn append_in_groups(spool: &Spool, mut entries: Vec<Entry>, group: usize) -> io::Result<()> {
    for group in entries.chunks_mut(group) {
        for waiting in group.chunks_mut(256) {
            append(spool, waiting)?;
        }
        spool.sync(Lane::Low)?;
    }
    Ok(())
}

fn append(spool: &Spool, entries: &mut [Entry]) -> io::Result<()> {
    let appended = spool.append_all(entries);
    appended.refused.map_or(Ok(()), Err)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A spool that a crash left: no end is written, and the last frame is torn.
fn open_time(place: &Path, fault: fn(edgewarden::spool::SpoolError) -> io::Error) -> io::Result<()> {
    let directory = tempfile::tempdir_in(place)?;
    let (spool, _) = Spool::open(directory.path(), QUOTA_BYTES).map_err(fault)?;
    let mut number = 0;
    while spool.stats().bytes < 64 << 20 {
        spool.append(Lane::Low, event(number), None).map_err(|(error, _)| error)?;
        number += 1;
    }
    drop(spool);
    let mut segments: Vec<_> = fs::read_dir(directory.path().join("spool/low"))?.collect::<Result<_, _>>()?;
    segments.sort_by_key(|entry| entry.path());
    if let Some(last) = segments.last() {
        File::options().append(true).open(last.path())?.write_all(b"EWfr half a frame")?;
    }
    let begin = Instant::now();
    let (_, opened) = Spool::open(directory.path(), QUOTA_BYTES).map_err(fault)?;
    let time = begin.elapsed().as_secs_f64() * 1000.0;
    println!("open of 64 MiB ({number} events) after a crash: {time:.1} ms, {} remark", opened.damage.len());
    Ok(())
}

/// As large as an exec of a shell script commonly is.
fn event(number: usize) -> StoredEvent {
    let at = Reading { boot: Uuid::nil(), boottime_us: 1, wall_us: 2, origin: Origin::Clock };
    let item = format!(
        r#"{{"Executable":"/usr/bin/dash","CommandLine":"/bin/sh /usr/lib/nagios/plugins/check_{number}","UserId":"1000","ProcessId":{number},"ParentProcessId":1,"ExtraDetails":{{"Script":"/usr/lib/nagios/plugins/check","ParentExecutable":"/usr/sbin/nrpe"}}}}"#
    );
    let kind = Kind::ProcessCreate as u8;
    StoredEvent { seq: 0, id: Uuid::now_v7(), kind, at, utc_offset_seconds: 3600, items: vec![item], cursor: None }
}
