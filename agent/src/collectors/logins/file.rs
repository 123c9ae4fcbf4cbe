//! Follows a log file across rotation.
//!
//! The file is read through one open descriptor until its successor has something in it: between logrotate's rename and
//! the signal that makes the syslog daemon open the new file, lines still go to the old one. `inotify(7)` on the file
//! and on its directory wakes the reader; a slow look is the backstop where a file system does not report changes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use collector_common::event::payload::Severity;
use collector_common::root::Root;
use collector_common::sys::inotify::EventQueue;
use jiff::tz::TimeZone;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::lines::{Line, Lines};
use super::place::{
    Between, Head, Newest, Place, Rotated, newest_rotated, rotated_between, rotated_since, was_copied_unread,
    was_lost_unread,
};
use super::sink::{End, REMEMBERED_BYTES, REMEMBERED_US, Sink};
use crate::tick;

/// A syslog line has at most 8 KiB by default everywhere.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// How much is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long a change that nobody reported may go unseen.
const BACKSTOP: Duration = Duration::from_secs(10);

/// How long to let a burst of lines gather: one wake-up instead of one for each line.
const SETTLE: Duration = Duration::from_millis(200);

/// The place of a log that does not exist yet.
pub const BEGINNING: &str = "beginning";

/// Follows the log until it cannot be read any more. `path` is the machine's name for it.
pub async fn follow(sink: &mut Sink, root: &Root, path: &Path) -> End {
    let log = Log { path: root.path(path) };
    match log.follow(sink).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

struct Log {
    path: PathBuf,
}

/// An open file and how far it was read.
struct Tail {
    file: File,
    lines: Lines,
    /// Where reading began.
    begin: u64,
    /// Bytes read.
    read: u64,
    /// After the last whole line.
    place: Place,
}

/// What has become of the file under the log's name.
enum Fate {
    /// It is the one being read, or there is none now.
    Same,
    /// It was emptied.
    Emptied,
    /// It is another one, and somebody writes to it.
    Replaced,
}

impl Log {
    async fn follow(&self, sink: &mut Sink) -> Result<std::convert::Infallible, End> {
        let mut tail = self.begin(sink).await?;
        let wake = Wake::new(&self.path);
        loop {
            wake.watch(&self.path);
            // Before its first line is read, the log's own length does not tell that it was emptied.
            if was_copied_unread(&self.path, &tail.place) || was_lost_unread(&self.path, &tail.place) {
                tail = self.after_emptied(sink, tail).await?;
            }
            self.drain(sink, &mut tail).await?;
            match self.fate(&tail).map_err(|error| self.failure("reading", &error))? {
                Fate::Same => {}
                Fate::Emptied => {
                    tail = self.after_emptied(sink, tail).await?;
                    continue;
                }
                Fate::Replaced => {
                    self.drain(sink, &mut tail).await?;
                    self.finish(sink, &mut tail).await?;
                    tail = self.after_rotation(sink, &tail).await?;
                    continue;
                }
            }
            sink.idle(|| tail.place.to_text()).await?;
            wake.wait().await;
        }
    }

    /// Opens the log where it was left, and first finishes what was rotated away since.
    async fn begin(&self, sink: &mut Sink) -> Result<Tail, End> {
        let cursor = sink.cursor();
        let Some(place) = cursor.as_deref().and_then(Place::from_text) else {
            let tail = match cursor.as_deref() {
                Some(BEGINNING) => self.open_at_begin(newest_rotated(&self.path))?,
                _ => self.at_end()?,
            };
            sink.store(tail.place.to_text()).await?;
            return Ok(tail);
        };
        let current = File::open(&self.path).map_err(|error| self.failure("opening", &error))?;
        if place.is_in(&current).map_err(|error| self.failure("reading", &error))? {
            remember(sink, &current, place.offset).map_err(|error| self.failure("reading", &error))?;
            let tail = self.open(place.offset)?;
            // The place knows better than a look at what is there now which files were read.
            return Ok(Tail { place, ..tail });
        }
        self.after(sink, &place).await
    }

    /// Opens the log that follows a file that was read to its end, and first reads what was rotated away in between.
    async fn after_rotation(&self, sink: &mut Sink, done: &Tail) -> Result<Tail, End> {
        let mut next = self.open(0)?;
        let Between { files, lost } = rotated_between(&self.path, &done.place, &done.file, &next.place);
        if lost {
            self.gap(sink).await?;
        }
        for path in files {
            let Ok(file) = File::open(&path) else { continue };
            let mut tail = Tail::new(file, 0).map_err(|error| self.failure("reading", &error))?;
            self.drain(sink, &mut tail).await?;
            self.finish(sink, &mut tail).await?;
        }
        next.place.newest = Some(newest_rotated(&self.path));
        Ok(next)
    }

    async fn after_emptied(&self, sink: &mut Sink, mut tail: Tail) -> Result<Tail, End> {
        // What is left of a half line was in the file that is no more.
        tail.lines.finish();
        self.after(sink, &tail.place).await
    }

    /// What rotated files hold after a place, and then the log from its beginning. That is stored at once, so that the
    /// next start neither reads nor misses anything a second time.
    async fn after(&self, sink: &mut Sink, place: &Place) -> Result<Tail, End> {
        let newest = self.finish_rotated(sink, place).await?;
        let tail = self.open_at_begin(newest)?;
        sink.store(tail.place.to_text()).await?;
        Ok(tail)
    }

    /// Reads what rotated files hold after a place, or says that it is lost. Gives the newest of them.
    async fn finish_rotated(&self, sink: &mut Sink, place: &Place) -> Result<Newest, End> {
        let Rotated { rest, newest } = rotated_since(&self.path, place);
        if rest.is_empty() && place.offset > 0 || was_lost_unread(&self.path, place) {
            self.gap(sink).await?;
        }
        for (path, offset) in rest {
            // It may be rotated on while we read: then it is found again from the cursor at the next start.
            let Ok(file) = File::open(&path) else { continue };
            remember(sink, &file, offset).map_err(|error| self.failure("reading", &error))?;
            let mut tail = Tail::new(file, offset).map_err(|error| self.failure("reading", &error))?;
            self.drain(sink, &mut tail).await?;
            self.finish(sink, &mut tail).await?;
        }
        Ok(newest)
    }

    async fn gap(&self, sink: &mut Sink) -> Result<(), End> {
        let text = format!(
            "The log {} was emptied, or rotated away and compressed, before it was read to its end; login lines may be lost. Look whether somebody emptied it; if not, rotate it less often or with delaycompress.",
            self.path.display()
        );
        Ok(sink.alarm(Severity::Error, text).await?)
    }

    /// Reads all whole lines that are there.
    async fn drain(&self, sink: &mut Sink, tail: &mut Tail) -> Result<(), End> {
        loop {
            let lines = tail.next().map_err(|error| self.failure("reading", &error))?;
            let Some(lines) = lines else { return Ok(()) };
            let zone = sink.zone();
            for line in lines {
                self.take(sink, tail, &line, &zone).await?;
            }
            if let skipped @ 1.. = tail.lines.take_skipped() {
                tracing::warn!(log = %self.path.display(), skipped, "lines of more than {MAX_LINE_BYTES} bytes were skipped");
            }
        }
    }

    /// Takes the half line at the end of a file nobody writes to any more.
    async fn finish(&self, sink: &mut Sink, tail: &mut Tail) -> Result<(), End> {
        if let Some(line) = tail.lines.finish() {
            let zone = sink.zone();
            self.take(sink, tail, &line, &zone).await?;
        }
        Ok(())
    }

    async fn take(&self, sink: &mut Sink, tail: &mut Tail, line: &Line, zone: &TimeZone) -> Result<(), End> {
        tail.move_to(line.end).map_err(|error| self.failure("reading", &error))?;
        sink.take_line(&line.bytes, zone, || tail.place.to_text()).await?;
        Ok(())
    }

    fn fate(&self, tail: &Tail) -> io::Result<Fate> {
        let named = match fs::metadata(&self.path) {
            Ok(named) => named,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Fate::Same),
            Err(error) => return Err(error),
        };
        let same = (named.dev(), named.ino()) == (tail.place.dev, tail.place.inode);
        if !same {
            return Ok(if named.len() > 0 { Fate::Replaced } else { Fate::Same });
        }
        // Emptied and filled again beyond the old place, it has the right size and another beginning.
        let emptied = tail.file.metadata()?.len() < tail.begin + tail.read || !tail.place.head.is_of(&tail.file);
        Ok(if emptied { Fate::Emptied } else { Fate::Same })
    }

    fn open(&self, offset: u64) -> Result<Tail, End> {
        let file = File::open(&self.path).map_err(|error| self.failure("opening", &error))?;
        Tail::new(file, offset).map_err(|error| self.failure("reading", &error))
    }

    fn open_at_begin(&self, newest: Newest) -> Result<Tail, End> {
        let mut tail = self.open(0)?;
        tail.place.newest = Some(newest);
        Ok(tail)
    }

    /// The end of the log, or the beginning of the half line that stands there now.
    fn at_end(&self) -> Result<Tail, End> {
        let file = File::open(&self.path).map_err(|error| self.failure("opening", &error))?;
        let end = last_line_end(&file).map_err(|error| self.failure("reading", &error))?;
        if end == 0 {
            return self.open_at_begin(newest_rotated(&self.path));
        }
        Tail::new(file, end).map_err(|error| self.failure("reading", &error))
    }

    fn failure(&self, doing: &str, error: &io::Error) -> End {
        End::failed(format!(
            "The log {} is not followed: {doing} it failed: {error}. Check that it exists and that the agent's user may read it (group adm on Debian).",
            self.path.display()
        ))
    }
}

impl Tail {
    fn new(file: File, offset: u64) -> io::Result<Tail> {
        let place = Place::new(&file, offset)?;
        Ok(Tail { file, lines: Lines::new(MAX_LINE_BYTES), begin: offset, read: 0, place })
    }

    /// The lines in the next chunk; nothing at the end of the file.
    fn next(&mut self) -> io::Result<Option<Vec<Line>>> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let bytes = self.file.read_at(&mut chunk, self.begin + self.read)?;
        self.read += bytes as u64;
        Ok((bytes > 0).then(|| self.lines.feed(&chunk[..bytes])))
    }

    fn move_to(&mut self, end: u64) -> io::Result<()> {
        self.place.offset = self.begin + end;
        self.place.newest = None;
        if self.place.head.bytes < Head::MAX_BYTES {
            self.place.head = Head::of(&self.file, self.place.offset)?;
        }
        Ok(())
    }
}

/// Reads once more what stands before a place, for the connections that were open there.
fn remember(sink: &mut Sink, file: &File, offset: u64) -> io::Result<()> {
    let zone = sink.zone();
    let mut at = remembered_from(sink, file, offset, &zone)?;
    let mut lines = Lines::new(MAX_LINE_BYTES);
    while at < offset {
        let chunk = chunk(file, at, offset)?;
        at += chunk.len() as u64;
        lines.feed(&chunk).iter().for_each(|line| sink.remember_line(&line.bytes, &zone));
    }
    Ok(())
}

/// Where to begin with that: the first chunk back whose beginning is old enough.
fn remembered_from(sink: &Sink, file: &File, offset: u64, zone: &TimeZone) -> io::Result<u64> {
    let (mut begin, mut last_us) = (offset, None);
    while begin > 0 && offset - begin < REMEMBERED_BYTES {
        let end = begin;
        begin = end.saturating_sub(CHUNK_BYTES as u64);
        let lines = Lines::new(MAX_LINE_BYTES).feed(&chunk(file, begin, end)?);
        let time_of = |line: &Line| sink.time_of(&line.bytes, zone);
        last_us = last_us.or_else(|| lines.iter().rev().find_map(time_of));
        // The very first is the rest of one.
        let first_us = lines.iter().skip(1).find_map(time_of);
        if first_us.zip(last_us).is_some_and(|(first_us, last_us)| last_us - first_us > REMEMBERED_US) {
            break;
        }
    }
    Ok(begin)
}

/// The bytes from one place to another, one chunk at most.
fn chunk(file: &File, begin: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end - begin).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)];
    file.read_exact_at(&mut bytes, begin)?;
    Ok(bytes)
}

/// After the last newline within what a line can be long, else the end.
fn last_line_end(file: &File) -> io::Result<u64> {
    let end = file.metadata()?.len();
    let begin = end.saturating_sub(MAX_LINE_BYTES as u64);
    let mut last = vec![0; usize::try_from(end - begin).unwrap_or(MAX_LINE_BYTES)];
    let bytes = file.read_at(&mut last, begin)?;
    let newline = last[..bytes].iter().rposition(|byte| *byte == b'\n');
    Ok(newline.map_or(if begin == 0 { 0 } else { end }, |at| begin + at as u64 + 1))
}

/// Wakes when the file or its directory changes.
pub struct Wake(Option<EventQueue>);

impl Wake {
    /// Without inotify (its instances are few on some machines) the backstop alone wakes.
    pub fn new(path: &Path) -> Wake {
        let watches = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(io::Error::from)
            .and_then(EventQueue::new)
            .and_then(|watches| {
                if let Some(directory) = path.parent() {
                    watches.add_watch(directory, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
                }
                Ok(watches)
            });
        if let Err(error) = &watches {
            tracing::warn!(log = %path.display(), %error, "inotify is not available: the log is looked at every {} s", BACKSTOP.as_secs());
        }
        Wake(watches.ok())
    }

    /// Watches the file that has the log's name now; the one that had it stays watched, too, until it is deleted.
    pub fn watch(&self, path: &Path) {
        if let Some(watches) = &self.0 {
            // It may not exist just now; the directory tells when it does.
            let _watched = watches.add_watch(path, AddWatchFlags::IN_MODIFY);
        }
    }

    /// Waits for a change, or for long enough.
    pub async fn wait(&self) {
        let Some(watches) = &self.0 else { return tick::wait(BACKSTOP).await };
        // When the event loop shuts down this future is dropped, so errors need no answer but must not spin.
        let changed = tokio::select! {
            _ = watches.next() => true,
            () = tick::wait(BACKSTOP) => false,
        };
        if changed {
            tokio::time::sleep(SETTLE).await;
            // What was written meanwhile is read now; it needs no second look.
            let _taken = tokio::time::timeout(Duration::ZERO, watches.next()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::time::SystemTime;

    use collector_common::event::payload::Payload;

    use super::super::rig::Rig;
    use super::*;

    /// A machine with a log and no journal.
    struct Machine {
        directory: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Machine {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir_all(directory.path().join("var/log")).unwrap();
            fs::create_dir_all(directory.path().join("etc")).unwrap();
            fs::write(directory.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
            let machine = Machine { directory };
            machine.append("auth.log", &line(1));
            machine
        }

        fn root(&self) -> Root {
            Root::at(self.directory.path())
        }

        fn log(&self, name: &str) -> PathBuf {
            self.directory.path().join("var/log").join(name)
        }

        fn append(&self, name: &str, text: &str) {
            let mut file = File::options().create(true).append(true).open(self.log(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.log(from), self.log(to)).unwrap();
        }

        fn start(&self, cursors: BTreeMap<String, String>) -> Rig {
            Rig::start(&self.root(), cursors)
        }
    }

    /// A failed login that is known by its port.
    fn line(port: u16) -> String {
        format!(
            "2026-11-24T02:53:{:02}.169365+00:00 board sshd[{port}]: Failed password for root from 192.0.2.7 port {port} ssh2\n",
            port % 60
        )
    }

    #[tokio::test]
    async fn the_first_start_begins_at_the_end_and_rows_are_whole() {
        let machine = Machine::new();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        machine.append("auth.log", &line(2));
        let login = rig.login().await;
        assert_eq!((login.remote_port.as_deref(), login.user_id.as_deref()), (Some("2"), Some("0")));
        assert_eq!(login.extra_details["Trust"], "file");
        assert_eq!(rig.backend(), "log file /var/log/auth.log");
    }

    #[tokio::test]
    async fn half_lines_nuls_and_overlong_lines_lose_no_other_line() {
        let machine = Machine::new();
        machine.append("auth.log", &line(2)[..30]);
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        machine.append("auth.log", &line(2)[30..]);
        assert_eq!(rig.ports(1).await, ["2"]);
        machine.append("auth.log", &"\0".repeat(5000));
        machine.append("auth.log", &line(3));
        machine.append("auth.log", &"x".repeat(3 * MAX_LINE_BYTES));
        machine.append("auth.log", &format!("\n{}", line(4)));
        assert_eq!(rig.ports(2).await, ["3", "4"]);
        assert!(rig.alarms.is_empty());
    }

    #[tokio::test]
    async fn a_renamed_log_is_finished_before_its_successor() {
        let machine = Machine::new();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        machine.append("auth.log", &line(2));
        assert_eq!(rig.ports(1).await, ["2"]);
        machine.rename("auth.log", "auth.log.1");
        machine.append("auth.log", "");
        // The syslog daemon still has the old file open, and dies within a line.
        machine.append("auth.log.1", &line(3));
        assert_eq!(rig.ports(1).await, ["3"]);
        machine.append("auth.log.1", line(4).trim_end());
        machine.append("auth.log", &line(5));
        assert_eq!(rig.ports(2).await, ["4", "5"]);
        assert!(rig.alarms.is_empty());
    }

    #[tokio::test]
    async fn a_log_that_was_rotated_twice_before_it_was_looked_at_is_read_whole() {
        let machine = Machine::new();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        machine.append("auth.log", &line(2));
        assert_eq!(rig.ports(1).await, ["2"]);
        let written = |name: &str, seconds_ago: u64| {
            let file = File::options().append(true).open(machine.log(name)).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(60) - Duration::from_secs(seconds_ago)).unwrap();
        };
        for (port, to, seconds_ago) in [(3, "auth.log.2", 80), (4, "auth.log.1", 70)] {
            machine.append("auth.log", &line(port));
            machine.rename("auth.log", to);
            written(to, seconds_ago);
        }
        machine.append("auth.log", &line(5));
        assert_eq!(rig.ports(3).await, ["3", "4", "5"]);
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
        // Packed at once, that of another log and the one that was read are no gap, and one in between is.
        let packed = |name: &str, seconds_ago: u64| {
            fs::write(machine.log(name), b"\x1f\x8b...\x07\0\0\0").unwrap();
            written(name, seconds_ago);
        };
        fs::remove_file(machine.log("auth.log")).unwrap();
        packed("auth.log.3.gz", 65);
        packed("auth.log.remote.gz", 0);
        machine.append("auth.log", &line(6));
        assert_eq!(rig.ports(1).await, ["6"]);
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
        fs::remove_file(machine.log("auth.log")).unwrap();
        packed("auth.log.4.gz", 0);
        machine.append("auth.log", &line(7));
        assert_eq!(rig.ports(1).await, ["7"]);
        assert_eq!(rig.alarms.len(), 1, "{:?}", rig.alarms);
    }

    #[tokio::test]
    async fn a_copied_and_emptied_log_is_read_from_its_beginning() {
        let machine = Machine::new();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        machine.append("auth.log", &line(2));
        assert_eq!(rig.ports(1).await, ["2"]);
        fs::copy(machine.log("auth.log"), machine.log("auth.log.1")).unwrap();
        File::create(machine.log("auth.log")).unwrap();
        machine.append("auth.log", &line(3));
        assert_eq!(rig.ports(1).await, ["3"]);
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
        // Emptied without a copy: somebody wipes traces.
        File::create(machine.log("auth.log")).unwrap();
        machine.append("auth.log", &line(4));
        assert_eq!(rig.ports(1).await, ["4"]);
        assert_eq!(rig.alarms.len(), 1);
    }

    #[tokio::test]
    async fn what_was_copied_and_emptied_before_it_was_read_is_read_from_the_copy() {
        let machine = Machine::new();
        let rotate = |to: &str| {
            fs::copy(machine.log("auth.log"), machine.log(to)).unwrap();
            File::create(machine.log("auth.log")).unwrap();
        };
        rotate("auth.log-1");
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        for (port, to) in [(2, "auth.log-2"), (3, "auth.log-3")] {
            machine.append("auth.log", &line(port));
            rotate(to);
        }
        machine.append("auth.log", &line(4));
        assert_eq!(rig.ports(3).await, ["2", "3", "4"]);
        rotate("auth.log-4");
        // It has seen that and stored its place at the beginning.
        rig.started().await;
        let cursors = rig.kill().await;
        machine.append("auth.log", &line(5));
        rotate("auth.log-5");
        machine.append("auth.log", &line(6));
        let mut rig = machine.start(cursors);
        assert_eq!(rig.ports(2).await, ["5", "6"]);
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
    }

    #[tokio::test]
    async fn what_was_written_and_emptied_before_it_was_read_is_a_gap_told_once() {
        let machine = Machine::new();
        File::create(machine.log("auth.log")).unwrap();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        let cursors = rig.kill().await;
        let restart = |cursors| async {
            let mut rig = machine.start(cursors);
            machine.append("auth.log", "");
            machine.append("auth.log", &line(5));
            assert_eq!(rig.ports(1).await, ["5"]);
            File::create(machine.log("auth.log")).unwrap();
            rig.alarms.len()
        };
        assert_eq!(restart(cursors.clone()).await, 0, "nothing was written");
        // Rotated while it was empty.
        File::create(machine.log("auth.log.1")).unwrap();
        File::create(machine.log("auth.log")).unwrap();
        assert_eq!(restart(cursors.clone()).await, 0, "an empty copy explains it");
        // Copied, emptied and packed at once; the end of the file says that it holds 7 bytes.
        fs::remove_file(machine.log("auth.log.1")).unwrap();
        fs::write(machine.log("auth.log.1.gz"), b"\x1f\x8b...\x07\0\0\0").unwrap();
        assert_eq!(restart(cursors.clone()).await, 1, "it was packed unread");
        fs::write(machine.log("auth.log.1.gz"), b"\x1f\x8b...\0\0\0\0").unwrap();
        assert_eq!(restart(cursors.clone()).await, 0, "nothing is in it");
        // Emptied without a copy.
        fs::remove_file(machine.log("auth.log.1.gz")).unwrap();
        File::create(machine.log("auth.log")).unwrap();
        let mut rig = machine.start(cursors);
        // The alarm, and the place that keeps it from being raised again.
        rig.next().await;
        rig.started().await;
        assert_eq!(rig.alarms.len(), 1);
        assert!(rig.alarms[0].message.contains("was emptied"), "{}", rig.alarms[0].message);
        let cursors = rig.kill().await;
        assert_eq!(restart(cursors).await, 0, "it was told");
    }

    #[tokio::test]
    async fn a_crash_loses_and_doubles_nothing() {
        let machine = Machine::new();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        machine.append("auth.log", &[line(2), line(3), line(4)].concat());
        assert_eq!(rig.ports(2).await, ["2", "3"]);
        let cursors = rig.kill().await;
        machine.append("auth.log", &line(5));
        let mut rig = machine.start(cursors);
        assert_eq!(rig.ports(2).await, ["4", "5"]);
        // Its connection closes after the next start: that is no attempt of its own.
        let closing = "2026-11-24T02:54:00+00:00 board sshd[5]: Connection closed by authenticating user root 192.0.2.7 port 5 [preauth]\n";
        machine.append("auth.log", closing);
        // Rotated twice while nobody looked.
        let cursors = rig.kill().await;
        machine.append("auth.log", &line(6));
        machine.rename("auth.log", "auth.log.2");
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        File::options().append(true).open(machine.log("auth.log.2")).unwrap().set_modified(hour_ago).unwrap();
        machine.append("auth.log.1", &line(7));
        machine.append("auth.log", &line(8));
        let mut rig = machine.start(cursors);
        assert_eq!(rig.ports(3).await, ["6", "7", "8"]);
        assert!(rig.alarms.is_empty());
        // Rotated away: what is left is read, and the gap is told once.
        let cursors = rig.kill().await;
        fs::remove_file(machine.log("auth.log")).unwrap();
        fs::remove_file(machine.log("auth.log.1")).unwrap();
        fs::remove_file(machine.log("auth.log.2")).unwrap();
        machine.append("auth.log", &line(9));
        let mut rig = machine.start(cursors);
        assert_eq!(rig.ports(1).await, ["9"]);
        assert_eq!(rig.alarms.len(), 1);
        assert!(rig.alarms[0].message.contains("auth.log"), "{}", rig.alarms[0].message);
    }

    #[tokio::test]
    async fn a_connection_is_known_after_a_restart_in_a_flood() {
        let machine = Machine::new();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        machine.append("auth.log", &line(2));
        let other = "2026-11-24T02:54:10+00:00 board sshd[1]: Received signal 15; terminating, and whatever else there is to say.\n";
        machine.append("auth.log", &other.repeat(5000));
        machine.append("auth.log", &line(3));
        assert_eq!(rig.ports(2).await, ["2", "3"]);
        let cursors = rig.kill().await;
        let closing = "2026-11-24T02:54:20+00:00 board sshd[2]: Connection closed by authenticating user root 192.0.2.7 port 2 [preauth]\n";
        machine.append("auth.log", closing);
        machine.append("auth.log", &line(4));
        assert_eq!(machine.start(cursors).ports(1).await, ["4"]);
    }

    #[tokio::test]
    async fn repeated_rows_and_the_place_behind_them_are_one_event() {
        let machine = Machine::new();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        let repeated = line(2).replace("Failed", "message repeated 2 times: [ Failed").replace("ssh2", "ssh2]");
        machine.append("auth.log", &repeated);
        let draft = rig.next().await;
        assert!(matches!(draft.payload, Some(Payload::Login(rows)) if rows.len() == 2));
        let place = Place::from_text(&draft.cursor.unwrap().place).unwrap();
        assert_eq!(place.offset, fs::metadata(machine.log("auth.log")).unwrap().len());
    }

    #[tokio::test]
    async fn no_log_at_all_is_a_failure_with_something_to_do() {
        let machine = Machine::new();
        fs::remove_file(machine.log("auth.log")).unwrap();
        let failure = machine.start(BTreeMap::new()).ended().await.unwrap_err();
        assert!(failure.0.contains("edgewarden.loginSource"), "{failure}");
    }
}
