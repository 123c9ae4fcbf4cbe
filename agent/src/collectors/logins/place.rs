//! A place in a log file that is renamed, copied, emptied and compressed behind our back.
//!
//! A file is known by its device and inode and by the checksum of its first bytes: an inode number is used again as soon
//! as its file is deleted, and a copy of a file has another one. As text, for the cursor:
//!
//! ```text
//! dev=2049 inode=131 offset=48213 head=256:1c291ca3
//! dev=2049 inode=131 offset=0 head=0:00000000 newest=1795508242123456:256:1c291ca3:1795508242123999
//! ```
//!
//! A place at the beginning has no bytes by which a copy could be known. So it says which rotated file was the newest
//! then: a newer one holds what was written, copied and emptied before anybody read it. And it says when the log itself
//! was last written to: an empty one that was written to since was emptied.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's device.
    pub dev: u64,
    /// The file's inode.
    pub inode: u64,
    /// Bytes before the place: whole lines.
    pub offset: u64,
    /// What the file begins with.
    pub head: Head,
    /// For a place at the beginning: the newest rotated file when it was taken.
    pub newest: Option<Newest>,
}

/// The newest rotated file of a log; all zero where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Newest {
    /// When the last of them was written to, packed ones too: microseconds since the Unix epoch.
    pub modified_us: i64,
    /// What the newest that is not packed begins with.
    pub head: Head,
    /// When the log itself was last written to.
    pub log_us: i64,
}

/// What a look at the rotated files of a log shows.
#[derive(Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Where to go on reading, oldest first.
    pub rest: Vec<(PathBuf, u64)>,
    /// The newest of all.
    pub newest: Newest,
}

/// What was the log between two files.
#[derive(Debug, Default)]
pub struct Between {
    /// The files to read, oldest first.
    pub files: Vec<PathBuf>,
    /// Others are packed already.
    pub lost: bool,
}

/// The checksum of the first bytes of a file, of those before the place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How many bytes, at most [`Head::MAX_BYTES`].
    pub bytes: u64,
    /// Their CRC-32.
    pub crc: u32,
}

impl Head {
    /// Two lines or so: a time stamp makes them the file's own.
    pub const MAX_BYTES: u64 = 256;

    /// The head of a file for a place `offset` bytes into it.
    pub fn of(file: &File, offset: u64) -> io::Result<Head> {
        let mut buffer = [0; Head::MAX_BYTES as usize];
        let bytes = offset.min(Head::MAX_BYTES);
        let head = &mut buffer[..usize::try_from(bytes).unwrap_or(0)];
        file.read_exact_at(head, 0)?;
        Ok(Head { bytes, crc: crc32fast::hash(head) })
    }

    /// Whether a file begins with these bytes.
    pub fn is_of(self, file: &File) -> bool {
        Head::of(file, self.bytes).is_ok_and(|head| head == self)
    }

    /// The head of all that a file holds.
    fn of_all(file: &File) -> io::Result<Head> {
        Head::of(file, file.metadata()?.len())
    }
}

impl Place {
    /// A place in an open file.
    pub fn new(file: &File, offset: u64) -> io::Result<Place> {
        let meta = file.metadata()?;
        Ok(Place { dev: meta.dev(), inode: meta.ino(), offset, head: Head::of(file, offset)?, newest: None })
    }

    /// Whether an open file is the one of this place and still holds it.
    pub fn is_in(&self, file: &File) -> io::Result<bool> {
        let meta = file.metadata()?;
        Ok((meta.dev(), meta.ino()) == (self.dev, self.inode) && meta.len() >= self.offset && self.head.is_of(file))
    }

    /// Whether an open file holds this place, as the same file or as a copy of it.
    fn is_in_copy(&self, file: &File) -> io::Result<bool> {
        let copy = self.head.bytes > 0 && file.metadata()?.len() >= self.offset && self.head.is_of(file);
        Ok(copy || self.is_in(file)?)
    }

    /// The place as the text of a cursor.
    pub fn to_text(self) -> String {
        let Place { dev, inode, offset, head, newest } = self;
        let newest = newest.map_or_else(String::new, |Newest { modified_us, head, log_us }| {
            format!(" newest={modified_us}:{}:{:08x}:{log_us}", head.bytes, head.crc)
        });
        format!("dev={dev} inode={inode} offset={offset} head={}:{:08x}{newest}", head.bytes, head.crc)
    }

    /// The place in the text of a cursor; nothing for a text that this program did not write.
    pub fn from_text(text: &str) -> Option<Place> {
        let keys = ["dev=", "inode=", "offset=", "head=", "newest="];
        let mut values = text.split(' ').zip(keys).map(|(part, key)| part.strip_prefix(key));
        let mut next = || values.next().flatten();
        let (dev, inode, offset) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
        let head = Head::from_text(next()?)?;
        let newest = next().and_then(|text| {
            let (modified_us, rest) = text.split_once(':')?;
            let (head, log_us) = rest.rsplit_once(':')?;
            let head = Head::from_text(head)?;
            Some(Newest { modified_us: modified_us.parse().ok()?, head, log_us: log_us.parse().ok()? })
        });
        Some(Place { dev, inode, offset, head, newest })
    }
}

impl Head {
    fn from_text(text: &str) -> Option<Head> {
        let (bytes, crc) = text.split_once(':')?;
        let head = Head { bytes: bytes.parse().ok()?, crc: u32::from_str_radix(crc, 16).ok()? };
        (head.bytes <= Head::MAX_BYTES).then_some(head)
    }
}

/// The rotated files of a log that hold a place or what came after it. None when the file with the place is gone or was
/// compressed, or is the log itself and nothing was copied from it before it was read.
pub fn rotated_since(log: &Path, place: &Place) -> Rotated {
    let siblings = rotated(log);
    let newest = newest(log, &siblings);
    let holds = |path: &PathBuf| File::open(path).and_then(|file| place.is_in_copy(&file)).unwrap_or(false);
    let first = siblings.iter().position(|(_, path)| holds(path));
    let copied = copied_since(log, &siblings, place);
    let is_rest = |(index, (_, path)): &(usize, &(SystemTime, PathBuf))| {
        first.is_some_and(|first| first <= *index) || copied.contains(path)
    };
    let begin = |index: usize| if first == Some(index) { place.offset } else { 0 };
    let rest = siblings.iter().enumerate().filter(is_rest);
    let rest = rest.map(|(index, (_, path))| (path.clone(), begin(index))).collect();
    Rotated { rest, newest }
}

/// What was the log and was rotated away between a file that was read to its end and the one that is the log now.
pub fn rotated_between(log: &Path, done: &Place, file: &File, next: &Place) -> Between {
    let Ok(modified) = file.metadata().and_then(|meta| meta.modified()) else { return Between::default() };
    let known = Newest { modified_us: micros(modified), head: Head::of_all(file).unwrap_or_default(), log_us: 0 };
    let mut files = copied_since(log, &rotated(log), &Place { newest: Some(known), ..*done });
    files.retain(|path| !File::open(path).and_then(|file| next.is_in(&file)).unwrap_or(false));
    // A packed file keeps the time of what it was made of, some to the second.
    let is_later = |(packed, path): &(SystemTime, PathBuf)| {
        micros(*packed) > known.modified_us + 1_000_000
            && is_numbered(log, path)
            && !path.with_extension("").exists()
            && holds_lines(path)
    };
    Between { files, lost: packed(log).iter().any(is_later) }
}

/// Whether a log was copied and emptied before anything of it was read.
pub fn was_copied_unread(log: &Path, place: &Place) -> bool {
    place.offset == 0 && !copied_since(log, &rotated(log), place).is_empty()
}

/// Whether lines were written to a log, of which nothing was read, that are in no file any more that can be read: the
/// log was emptied, or its copy was packed at once. A file that is being packed still lies beside its packed form.
pub fn was_lost_unread(log: &Path, place: &Place) -> bool {
    let Some(known) = place.newest.filter(|_| place.offset == 0) else { return false };
    let is_newer = |(modified, _): &&(SystemTime, PathBuf)| micros(*modified) > known.modified_us;
    let packed = packed(log);
    if packed.iter().filter(is_newer).any(|(_, path)| !path.with_extension("").exists() && holds_lines(path)) {
        return true;
    }
    let is_explained = || rotated(log).iter().chain(&packed).any(|file| is_newer(&file));
    let written = |meta: fs::Metadata| meta.len() == 0 && meta.modified().is_ok_and(|at| micros(at) > known.log_us);
    fs::metadata(log).is_ok_and(written) && !is_explained()
}

/// Whether a packed file holds anything. gzip says at its end how much; the others need some bytes for nothing.
fn holds_lines(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let bytes = file.metadata().map_or(0, |meta| meta.len());
    if path.extension().is_none_or(|end| end != "gz") {
        return bytes > 64;
    }
    let mut unpacked = [0; 4];
    bytes > 4 && file.read_exact_at(&mut unpacked, bytes - 4).is_ok() && unpacked != [0; 4]
}

/// The newest rotated file of a log.
pub fn newest_rotated(log: &Path) -> Newest {
    newest(log, &rotated(log))
}

fn newest(log: &Path, siblings: &[(SystemTime, PathBuf)]) -> Newest {
    let told = |(modified, path): &(SystemTime, PathBuf)| {
        let head = File::open(path).and_then(|file| Head::of_all(&file)).ok().filter(|head| head.bytes > 0)?;
        Some((micros(*modified), head))
    };
    let (modified_us, head) = siblings.iter().rev().find_map(told).unwrap_or_default();
    let packed_us = packed(log).last().map_or(0, |(modified, _)| micros(*modified));
    let log_us = fs::metadata(log).and_then(|meta| meta.modified()).map_or(0, micros);
    Newest { modified_us: modified_us.max(packed_us), head, log_us }
}

/// The files that came after the newest known one, other than the log itself under a new name. One that begins like the
/// log is being copied from it now, and one that begins like an older file is a copy somebody made of that: what they
/// hold would be told twice.
fn copied_since(log: &Path, siblings: &[(SystemTime, PathBuf)], place: &Place) -> Vec<PathBuf> {
    let Some(known) = place.newest else { return Vec::new() };
    let begins_like = |head: Head, path: &Path| File::open(path).is_ok_and(|file| head.is_of(&file));
    let is_new = |(index, (modified, path)): &(usize, &(SystemTime, PathBuf))| {
        if micros(*modified) < known.modified_us || !is_numbered(log, path) {
            return false;
        }
        let looked = File::open(path).and_then(|file| Ok((place.is_in(&file)?, Head::of_all(&file)?)));
        let Ok((false, head)) = looked else { return false };
        let is_known = known.head.bytes > 0 && begins_like(known.head, path);
        let is_copy = || siblings[..*index].iter().any(|(_, older)| begins_like(head, older));
        head.bytes > 0 && !is_known && !begins_like(head, log) && !is_copy()
    };
    siblings.iter().enumerate().filter(is_new).map(|(_, (_, path))| path.clone()).collect()
}

/// Whether a rotated file is named as logrotate does it, by a number or a date: `auth.log.remote` may be another log.
fn is_numbered(log: &Path, path: &Path) -> bool {
    let names = log.file_name().and_then(|log| log.to_str()).zip(path.file_name().and_then(|name| name.to_str()));
    let suffix = names.and_then(|(log, name)| name.strip_prefix(log));
    suffix.and_then(|suffix| suffix.as_bytes().get(1)).is_some_and(u8::is_ascii_digit)
}

fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// `auth.log.1`, `auth.log-20261124` and the like that are not packed, oldest first.
fn rotated(log: &Path) -> Vec<(SystemTime, PathBuf)> {
    siblings(log, |suffix| !is_packed(suffix))
}

/// The same for those that are.
fn packed(log: &Path) -> Vec<(SystemTime, PathBuf)> {
    siblings(log, is_packed)
}

fn is_packed(suffix: &str) -> bool {
    [".gz", ".xz", ".bz2", ".zst", ".lz4"].iter().any(|end| suffix.ends_with(end))
}

fn siblings(log: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<(SystemTime, PathBuf)> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| {
            let other = entry.file_name();
            let suffix = other.to_str().and_then(|other| other.strip_prefix(name)).unwrap_or("");
            suffix.starts_with(['.', '-']) && is_wanted(suffix)
        })
        .filter_map(|entry| {
            let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((meta.modified().ok()?, entry.path()))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_text() {
        let place = Place { dev: 2049, inode: 131, offset: 48213, head: Head { bytes: 256, crc: 0x1c }, newest: None };
        assert_eq!(place.to_text(), "dev=2049 inode=131 offset=48213 head=256:0000001c");
        assert_eq!(Place::from_text(&place.to_text()), Some(place));
        let begin =
            Place { newest: Some(Newest { modified_us: 17, head: Head { bytes: 9, crc: 0x2d }, log_us: 18 }), ..place };
        assert!(begin.to_text().ends_with(" newest=17:9:0000002d:18"));
        assert_eq!(Place::from_text(&begin.to_text()), Some(begin));
        for text in ["", "dev=1", "dev=1 inode=2 offset=x head=1:1", "dev=1 inode=2 offset=3 head=999:1", "s=abc;i=1"] {
            assert_eq!(Place::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn the_renamed_file_and_all_after_it_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("auth.log");
        let write = |name: &str, text: &str, age: u64| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
            path
        };
        let old = write("auth.log.2", "one\ntwo\n", 200);
        let newer = write("auth.log.1", "three\n", 100);
        write("auth.log.3.gz", "one\ntwo\n", 300);
        write("auth.logger", "one\ntwo\n", 10);
        write("auth.log", "four\n", 0);
        let place = Place::new(&File::open(&old).unwrap(), 4).unwrap();
        assert_eq!(rotated_since(&log, &place).rest, [(old, 4), (newer, 0)]);
        let gone = Place { inode: 1, head: Head { bytes: 4, crc: 5 }, ..place };
        assert_eq!(rotated_since(&log, &gone).rest, []);
    }

    #[test]
    fn what_was_copied_away_unread_is_found_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let log = path("auth.log");
        let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
        write("auth.log.1", "one\n");
        write("auth.log", "");
        let newest = Some(newest_rotated(&log));
        let place = Place { newest, ..Place::new(&File::open(&log).unwrap(), 0).unwrap() };
        let rest = || rotated_since(&log, &place).rest;
        assert_eq!(rest(), []);
        // A late line in the file that is known.
        write("auth.log.1", "one\nlate\n");
        write("auth.log", "two\n");
        write("auth.log.2", "tw");
        assert_eq!(rest(), [], "it is being copied from the log, which is read in a moment");
        write("auth.log.2", "two\n");
        write("auth.log", "three\n");
        assert_eq!(rest(), [(path("auth.log.2"), 0)]);
        write("auth.log.4", "two\n");
        write("auth.log.5", "one\nlate\n");
        write("auth.log.remote", "four\n");
        assert_eq!(rest().len(), 1, "copies of what is there, and another log");
        fs::remove_file(path("auth.log.4")).unwrap();
        fs::remove_file(path("auth.log.remote")).unwrap();
        fs::remove_file(path("auth.log.5")).unwrap();
        fs::rename(&log, path("auth.log.3")).unwrap();
        assert_eq!(rest(), [(path("auth.log.2"), 0), (path("auth.log.3"), 0)]);
    }
}
