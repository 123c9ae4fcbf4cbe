//! Follows wtmp and btmp, which stand in where no log can be read, and a wtmp beside the log for [`super::witness`].
//!
//! Records have a fixed length and are appended whole by programs that open the file for each, so every look opens it
//! anew. Their form is that of the C library that writes them, and is found from content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use collector_common::event::payload::Severity;
use collector_common::parse::utmp::{Layout, Record};
use collector_common::root::Root;

use super::books::{Book, Told};
use super::file::Wake;
use super::place::{Place, rotated_since};
use super::sink::{End, Sink};

/// The files, as the machine names them.
const FILES: [(Book, &str); 2] = [(Book::Sessions, "/var/log/wtmp"), (Book::Failures, "/var/log/btmp")];

/// How much of a file tells the form of its records.
const JUDGED_BYTES: usize = 32 * 1024;

/// How many records one look gives at most.
const MAX_RECORDS: usize = 1024;

/// The files of a machine that can be read.
#[derive(Debug)]
pub struct Records(Vec<(Book, PathBuf)>);

/// A file of records and how far it was read.
#[derive(Debug)]
pub struct Reading {
    path: PathBuf,
    /// Nothing before the file was seen.
    pub place: Option<Place>,
}

/// A record, and the places before and behind it.
#[derive(Debug)]
pub struct Found {
    pub record: Record,
    pub before: Place,
    pub after: Place,
}

/// What a look at a file gives.
#[derive(Debug, Default)]
pub struct Look {
    /// The records that were new.
    pub records: Vec<Found>,
    /// The place up to which it was read before is nowhere any more.
    pub lost: bool,
}

impl Records {
    /// The files that can be read, if any can.
    pub fn find(root: &Root) -> Option<Records> {
        let readable = FILES.into_iter().filter(|(_, path)| File::open(root.path(path)).is_ok());
        let files: Vec<_> = readable.map(|(book, path)| (book, PathBuf::from(path))).collect();
        (!files.is_empty()).then_some(Records(files))
    }

    /// Their names, for `status`.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|(_, path)| path.display().to_string()).collect();
        names.join(" and ")
    }
}

impl Reading {
    /// A file whose reading goes on at a place; without one, at its end.
    pub fn new(path: PathBuf, place: Option<Place>) -> Reading {
        let place = place.or_else(|| File::open(&path).and_then(|file| at_end(&file)).ok());
        Reading { path, place }
    }

    /// What is new, at most [`MAX_RECORDS`] of it.
    pub fn look(&mut self) -> io::Result<Look> {
        let mut look = Look::default();
        let current = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(look),
            opened => opened?,
        };
        let mut place = match self.place {
            Some(place) => place,
            // It was not there before, so all of it is new.
            None => Place::new(&current, 0)?,
        };
        if !place.is_in(&current)? {
            let rest = rotated_since(&self.path, &place).rest;
            look.lost = rest.is_empty() && place.offset > 0;
            for (path, offset) in rest {
                // It may be rotated on while we read: then it is found again at the next look.
                let Ok(file) = File::open(path) else { continue };
                place = Place::new(&file, offset)?;
                read(&file, &mut place, &mut look)?;
                if look.records.len() >= MAX_RECORDS {
                    self.place = Some(place);
                    return Ok(look);
                }
            }
            place = Place::new(&current, 0)?;
        }
        read(&current, &mut place, &mut look)?;
        self.place = Some(place);
        Ok(look)
    }
}

/// Reads whole records behind a place and moves it.
fn read(file: &File, place: &mut Place, look: &mut Look) -> io::Result<()> {
    let Some(layout) = layout(file)? else { return Ok(()) };
    let mut bytes = vec![0; layout.record_bytes];
    while look.records.len() < MAX_RECORDS {
        match file.read_exact_at(&mut bytes, place.offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        let (before, after) = (*place, Place::new(file, place.offset + bytes.len() as u64)?);
        *place = after;
        if let Some(record) = layout.read(&bytes) {
            look.records.push(Found { record, before, after });
        }
    }
    Ok(())
}

/// The last records up to a place, at most [`MAX_RECORDS`].
pub fn last_before(path: &Path, place: Place) -> io::Result<Vec<Found>> {
    let file = File::open(path)?;
    let Some(layout) = layout(&file)?.filter(|_| place.is_in(&file).unwrap_or(false)) else { return Ok(Vec::new()) };
    let record_bytes = layout.record_bytes as u64;
    let begin = place.offset.saturating_sub(MAX_RECORDS as u64 * record_bytes);
    let (mut at, mut look) = (Place::new(&file, begin)?, Look::default());
    read(&file, &mut at, &mut look)?;
    look.records.retain(|found| found.after.offset <= place.offset);
    Ok(look.records)
}

fn layout(file: &File) -> io::Result<Option<Layout>> {
    let mut beginning = vec![0; JUDGED_BYTES];
    let bytes = file.read_at(&mut beginning, 0)?;
    Ok(Layout::detect(&beginning[..bytes]))
}

/// Behind the last whole record.
fn at_end(file: &File) -> io::Result<Place> {
    let bytes = file.metadata()?.len();
    let half = layout(file)?.map_or(0, |layout| bytes % layout.record_bytes as u64);
    Place::new(file, bytes - half)
}

/// Follows the files until one cannot be read any more.
pub async fn follow(sink: &mut Sink, root: &Root, records: &Records) -> End {
    match follow_all(sink, root, records).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

async fn follow_all(sink: &mut Sink, root: &Root, records: &Records) -> Result<std::convert::Infallible, End> {
    let cursor = sink.cursor();
    let mut places = cursor.as_deref().unwrap_or_default().split(';').map(Place::from_text);
    let of = |(book, path): &(Book, PathBuf), place| (*book, Reading::new(root.path(path), place));
    let mut files: Vec<_> = records.0.iter().map(|file| of(file, places.next().flatten())).collect();
    if cursor.is_none() {
        sink.store(to_text(&files)).await?;
    }
    let wake = Wake::new(&files[0].1.path);
    let mut told = remembered(sink, &files);
    loop {
        files.iter().for_each(|(_, file)| wake.watch(&file.path));
        for at in 0..files.len() {
            while take(sink, &mut files, at, &mut told).await? {}
        }
        sink.idle(|| to_text(&files)).await?;
        wake.wait().await;
    }
}

/// What was told before the places: a connection's second record may still come.
fn remembered(sink: &mut Sink, files: &[(Book, Reading)]) -> Told {
    let mut told = Told::default();
    for (book, file) in files {
        let before = file.place.and_then(|place| last_before(&file.path, place).ok()).unwrap_or_default();
        for Found { record, .. } in before {
            let _told_before = book.attempt(&record, &mut told, |record| sink.is_account(&record.user));
        }
    }
    told
}

/// Takes what is new in one of the files; gives whether there may be more.
async fn take(sink: &mut Sink, files: &mut [(Book, Reading)], at: usize, told: &mut Told) -> Result<bool, End> {
    let (book, file) = &mut files[at];
    let (book, before) = (*book, file.place);
    let look = file.look().map_err(|error| {
        End::failed(format!("{} is not followed: reading it failed: {error}.", file.path.display()))
    })?;
    if look.lost {
        let text = format!(
            "{} was emptied, or rotated away and compressed, before it was read to its end; logins may be lost. Look whether somebody emptied it.",
            file.path.display()
        );
        sink.alarm(Severity::Error, text).await?;
    }
    let (is_more, after) = (look.records.len() >= MAX_RECORDS, file.place);
    for Found { record, after, .. } in look.records {
        let attempt = book.attempt(&record, told, |record| sink.is_account(&record.user));
        files[at].1.place = Some(after);
        if let Some((handler, verdict)) = attempt {
            sink.take_record(&record, handler, &verdict, book.name(), || to_text(files)).await?;
        }
    }
    files[at].1.place = after;
    if before != after {
        sink.moved();
    }
    Ok(is_more)
}

fn to_text(files: &[(Book, Reading)]) -> String {
    let places: Vec<_> = files.iter().map(|(_, file)| file.place.map_or_else(String::new, Place::to_text)).collect();
    places.join(";")
}

/// The path of the sessions on a machine.
pub fn sessions(root: &Root) -> PathBuf {
    root.path(Path::new(FILES[0].1))
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::Write;

    use super::super::rig::Rig;
    use super::*;

    /// A record of 384 bytes, as glibc on x86 and arm writes it.
    pub fn record(kind: u8, pid: u32, line: &str, user: &str, host: &str, seconds: u32) -> Vec<u8> {
        let mut bytes = vec![0; 384];
        bytes[0] = kind;
        bytes[4..8].copy_from_slice(&pid.to_le_bytes());
        bytes[8..8 + line.len()].copy_from_slice(line.as_bytes());
        let id = &line[line.len().saturating_sub(4)..];
        bytes[40..40 + id.len()].copy_from_slice(id.as_bytes());
        bytes[44..44 + user.len()].copy_from_slice(user.as_bytes());
        bytes[76..76 + host.len()].copy_from_slice(host.as_bytes());
        bytes[340..344].copy_from_slice(&seconds.to_le_bytes());
        bytes
    }

    pub fn append(path: &Path, bytes: &[u8]) {
        File::options().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    const THEN: u32 = 1_795_488_000;

    #[tokio::test]
    async fn without_a_log_sessions_and_failures_are_rows_once_over_restarts_and_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/var/log")).unwrap();
        fs::create_dir_all(root.path("/etc")).unwrap();
        fs::write(root.path("/etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        let [wtmp, btmp] = FILES.map(|(_, path)| root.path(path));
        append(&wtmp, &record(7, 1, "pts/0", "root", "192.0.2.1", THEN));
        append(&btmp, &[]);
        let mut rig = Rig::start(&root, BTreeMap::new());
        rig.started().await;
        assert_eq!(rig.backend(), "records /var/log/wtmp and /var/log/btmp");
        // A half record is waited for.
        let second = record(7, 2, "pts/0", "root", "192.0.2.2", THEN);
        append(&wtmp, &second[..100]);
        append(&btmp, &record(6, 3, "ssh:notty", "nosuch", "192.0.2.3", THEN));
        let login = rig.login().await;
        assert_eq!((login.process_id, login.user_name.as_str()), (3, "(invalid user)"));
        assert_eq!((&*login.extra_details["Source"], &*login.extra_details["Trust"]), ("btmp", "file"));
        append(&wtmp, &second[100..]);
        let login = rig.login().await;
        assert_eq!((login.process_id, login.user_id.as_deref()), (2, Some("0")));
        assert_eq!(login.remote_address, "192.0.2.2".parse().ok());
        // The second record of a name that is no account is the first one's password.
        append(&btmp, &record(6, 3, "ssh:notty", "nosuch", "192.0.2.3", THEN + 1));
        append(&btmp, &record(6, 4, "ssh:notty", "root", "192.0.2.3", THEN + 1));
        assert_eq!(rig.login().await.process_id, 4);
        let cursors = rig.kill().await;
        append(&wtmp, &record(7, 5, "pts/1", "root", "192.0.2.4", THEN));
        fs::rename(&wtmp, root.path("/var/log/wtmp.1")).unwrap();
        append(&wtmp, &record(7, 6, "pts/1", "root", "192.0.2.4", THEN));
        let mut rig = Rig::start(&root, cursors);
        assert_eq!([rig.login().await.process_id, rig.login().await.process_id], [5, 6]);
        // The same with a restart in between.
        append(&btmp, &record(6, 8, "ssh:notty", "nosuch", "192.0.2.3", THEN + 2));
        assert_eq!(rig.login().await.process_id, 8);
        let mut rig = Rig::start(&root, rig.kill().await);
        append(&btmp, &record(6, 8, "ssh:notty", "nosuch", "192.0.2.3", THEN + 3));
        append(&btmp, &record(6, 9, "ssh:notty", "root", "192.0.2.3", THEN + 3));
        assert_eq!(rig.login().await.process_id, 9);
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
        File::create(&wtmp).unwrap();
        append(&wtmp, &record(7, 7, "pts/1", "root", "192.0.2.4", THEN + 7));
        assert_eq!(rig.login().await.process_id, 7);
        assert_eq!(rig.alarms.len(), 1, "somebody emptied it");
    }
}
