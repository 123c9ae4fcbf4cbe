//! A place in a log file that is renamed, copied, emptied and compressed behind our back.
//!
//! A file is known by its device and inode and by the checksum of its first bytes: an inode number is used again as soon
//! as its file is deleted, and a copy of a file has another one. As text, for the cursor:
//!
//! ```text
//! dev=2049 inode=131 offset=48213 head=256:1c291ca3
//! ```

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
}

/// The checksum of the first bytes of a file, of those before the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Place {
    /// A place in an open file.
    pub fn new(file: &File, offset: u64) -> io::Result<Place> {
        let meta = file.metadata()?;
        Ok(Place { dev: meta.dev(), inode: meta.ino(), offset, head: Head::of(file, offset)? })
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
        let Place { dev, inode, offset, head } = self;
        format!("dev={dev} inode={inode} offset={offset} head={}:{:08x}", head.bytes, head.crc)
    }

    /// The place in the text of a cursor; nothing for a text that this program did not write.
    pub fn from_text(text: &str) -> Option<Place> {
        let mut values =
            text.split(' ').zip(["dev=", "inode=", "offset=", "head="]).map(|(part, key)| part.strip_prefix(key));
        let mut next = || values.next().flatten();
        let (dev, inode, offset) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
        let (bytes, crc) = next()?.split_once(':')?;
        let head = Head { bytes: bytes.parse().ok()?, crc: u32::from_str_radix(crc, 16).ok()? };
        (head.bytes <= Head::MAX_BYTES).then_some(Place { dev, inode, offset, head })
    }
}

/// The rotated files of a log that hold a place or what came after it: the path and where to begin, oldest first.
/// Empty when the file with the place is gone or was compressed.
pub fn rotated_since(log: &Path, place: &Place) -> Vec<(PathBuf, u64)> {
    let siblings = rotated(log);
    let holds = |path: &PathBuf| File::open(path).and_then(|file| place.is_in_copy(&file)).unwrap_or(false);
    let Some(first) = siblings.iter().position(|(_, path)| holds(path)) else { return Vec::new() };
    let (_, with_place) = &siblings[first];
    let later = siblings[first + 1..].iter().map(|(_, path)| (path.clone(), 0));
    std::iter::once((with_place.clone(), place.offset)).chain(later).collect()
}

/// `auth.log.1`, `auth.log-20261124` and the like that are not compressed, oldest first.
fn rotated(log: &Path) -> Vec<(SystemTime, PathBuf)> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| {
            let other = entry.file_name();
            let suffix = other.to_str().and_then(|other| other.strip_prefix(name)).unwrap_or("");
            suffix.starts_with(['.', '-'])
                && ![".gz", ".xz", ".bz2", ".zst", ".lz4"].iter().any(|end| suffix.ends_with(end))
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
        let place = Place { dev: 2049, inode: 131, offset: 48213, head: Head { bytes: 256, crc: 0x1c } };
        assert_eq!(place.to_text(), "dev=2049 inode=131 offset=48213 head=256:0000001c");
        assert_eq!(Place::from_text(&place.to_text()), Some(place));
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
        assert_eq!(rotated_since(&log, &place), [(old, 4), (newer, 0)]);
        let gone = Place { inode: 1, head: Head { bytes: 4, crc: 5 }, ..place };
        assert_eq!(rotated_since(&log, &gone), []);
    }
}
