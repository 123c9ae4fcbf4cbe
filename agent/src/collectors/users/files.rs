//! Reads files that somebody hostile may have put there.
//!
//! A path is opened without touching what it names (`O_PATH`), looked at, and only a regular file is then opened to be
//! read, through `/proc/self/fd`: a FIFO would block, and opening a device can do something, such as arm a watchdog.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// There is none.
    Missing,
    /// The agent may not.
    Denied(io::Error),
    /// It will not be, and why.
    Refused(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::Missing => f.write_str("there is none"),
            Unread::Denied(error) => write!(f, "{error}: run as root or with CAP_DAC_READ_SEARCH"),
            Unread::Refused(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Unread {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unread::Missing,
            io::ErrorKind::PermissionDenied => Unread::Denied(error),
            _ => Unread::Refused(error.to_string()),
        }
    }
}

/// Reads a regular file of at most so many bytes.
pub(super) fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Unread> {
    read_if(path, max_bytes, |_| Ok(()))
}

/// The same, if what is known of the file without opening it pleases the caller.
pub(super) fn read_if(
    path: &Path,
    max_bytes: u64,
    pleases: impl FnOnce(&Metadata) -> Result<(), String>,
) -> Result<Vec<u8>, Unread> {
    let named = fs::OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(path)?;
    let meta = named.metadata()?;
    if !meta.is_file() {
        return Err(Unread::Refused("it is no regular file".to_owned()));
    }
    pleases(&meta).map_err(Unread::Refused)?;
    if meta.len() > max_bytes {
        return Err(Unread::Refused(format!("it has {} bytes, and {max_bytes} are the most that is read", meta.len())));
    }
    let file = File::open(format!("/proc/self/fd/{}", named.as_raw_fd()))?;
    let mut bytes = Vec::new();
    // It may grow meanwhile.
    file.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The names in a folder, sorted as bytes, at most so many.
pub(super) fn names_in(path: &Path, at_most: usize) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(path)?.take(at_most);
    let mut names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
