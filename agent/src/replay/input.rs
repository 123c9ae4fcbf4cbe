//! A file to read: opened once, read from its beginning as often as needed, unpacked on the way.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use collector_common::parse::utmp::{self, Layout};
use flate2::bufread::{GzDecoder, MultiGzDecoder};

/// The most a packed file may become. Logs shrink to a tenth, a bomb to a thousandth.
const MAX_UNPACKED_BYTES: u64 = 16 << 30;

/// How much of a file tells what it is.
const JUDGED_BYTES: u64 = 32 * 1024;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Nothing,
    /// Lines of a syslog daemon.
    Text,
    /// `journalctl --output=json`.
    Json,
    /// `journalctl --output=export`.
    Export,
    /// utmp, wtmp or btmp.
    Records(Layout),
}

/// An open file.
#[derive(Debug)]
pub struct Input {
    /// As it was named.
    pub name: String,
    /// When it was last written to: nothing in it is younger. Microseconds since the Unix epoch.
    pub modified_us: i64,
    file: File,
    packed: bool,
}

impl Input {
    /// Opens a file; `-` is standard input. What cannot be read twice, such as a pipe, is put into a temporary file
    /// that has no name.
    pub fn open(path: &Path) -> Result<Input, String> {
        let name = path.display().to_string();
        let failed = |error: io::Error| format!("cannot read {name}: {error}");
        let opened = match name.as_str() {
            "-" => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            _ => File::open(path),
        };
        let file = opened.map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let is_pipe = meta.file_type().is_fifo() || meta.file_type().is_socket() || meta.file_type().is_char_device();
        if !meta.is_file() && !(is_pipe && (name == "-" || meta.file_type().is_fifo())) {
            return Err(format!("cannot read {name}: it is no file; name the log files themselves"));
        }
        let (file, modified_us) = match meta.is_file() {
            true => (file, meta.mtime().saturating_mul(1_000_000)),
            false => (spooled(file).map_err(failed)?, now_us()),
        };
        let mut input = Input { name: name.clone(), modified_us, file, packed: false };
        input.look_into().map_err(|error| format!("cannot read {name}: {error}"))?;
        Ok(input)
    }

    /// Finds out whether it is packed. gzip keeps the time of what it packed, which a copy of the file may have lost.
    fn look_into(&mut self) -> io::Result<()> {
        (&self.file).rewind()?;
        let mut magic = Vec::new();
        (&self.file).take(2).read_to_end(&mut magic)?;
        self.packed = magic == [0x1f, 0x8b];
        if self.packed {
            (&self.file).rewind()?;
            let packer = GzDecoder::new(BufReader::new(&self.file));
            let packed_us = packer.header().map_or(0, |header| i64::from(header.mtime()) * 1_000_000);
            if packed_us > 0 {
                self.modified_us = self.modified_us.min(packed_us);
            }
        }
        Ok(())
    }

    /// What is in it, unpacked, from its beginning.
    pub fn reader(&self) -> Result<Box<dyn BufRead + '_>, String> {
        (&self.file).rewind().map_err(|error| self.failure(&error))?;
        let file = BufReader::with_capacity(64 * 1024, &self.file);
        if !self.packed {
            return Ok(Box::new(file));
        }
        let unpacked = Bounded { inner: MultiGzDecoder::new(file), left: MAX_UNPACKED_BYTES };
        Ok(Box::new(BufReader::with_capacity(64 * 1024, unpacked)))
    }

    /// The sentence for a read that failed.
    pub fn failure(&self, error: &io::Error) -> String {
        format!("cannot read {} to its end: {error}; the rows of what came before are printed", self.name)
    }

    /// What it holds, by its beginning; a sentence for what is not read.
    pub fn content(&self) -> Result<Content, String> {
        let mut beginning = Vec::new();
        if let Err(error) = self.reader()?.take(JUDGED_BYTES).read_to_end(&mut beginning)
            && beginning.is_empty()
        {
            return Err(self.failure(&error));
        }
        if let Some(why) = refusal(&beginning, self.file_name()) {
            return Err(format!("{} is not read: {why}", self.name));
        }
        Ok(content(&beginning))
    }

    /// The last part of its name.
    pub fn file_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }
}

fn content(beginning: &[u8]) -> Content {
    let text = beginning.trim_ascii_start();
    if let Some(layout) = Layout::detect(beginning) {
        return Content::Records(layout);
    }
    match text {
        [] => Content::Nothing,
        [b'{' | 0x1e, ..] => Content::Json,
        _ if is_export(text) => Content::Export,
        _ => Content::Text,
    }
}

/// Whether the first line is a field of a journal's entry, which is `__CURSOR` or another name in capitals.
fn is_export(text: &[u8]) -> bool {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let name = line.split(|byte| *byte == b'=').next().unwrap_or_default();
    let is_name = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    !name.is_empty() && name.iter().all(is_name) && text.windows(20).any(|window| window == b"__REALTIME_TIMESTAMP")
}

/// Why a file of this kind is not read, and what to do instead.
fn refusal(beginning: &[u8], name: &str) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 5] = [
        (
            b"SQLite format 3\0",
            "it is an SQLite database, such as wtmp.db of wtmpdb(8) or lastlog2.db. Ask wtmpdb(8): `wtmpdb last -f FILE`; sshd's sessions stand in the wtmp beside it, too",
        ),
        (
            b"LPKSHHRH",
            "it is a binary file of the systemd journal. Let journalctl read it: `journalctl --file=FILE -o export | edgewarden replay -`",
        ),
        (b"\xfd7zXZ\0", "it is packed by xz. Unpack it: `xzcat FILE | edgewarden replay -`"),
        (b"\x28\xb5\x2f\xfd", "it is packed by zstd. Unpack it: `zstdcat FILE | edgewarden replay -`"),
        (b"BZh", "it is packed by bzip2. Unpack it: `bzcat FILE | edgewarden replay -`"),
    ];
    let known = KINDS.iter().find(|(magic, _)| beginning.starts_with(magic)).map(|(_, why)| *why);
    let is_lastlog = || {
        let is_empty = !beginning.is_empty() && beginning.iter().all(|byte| *byte == 0);
        utmp::is_lastlog(beginning) || (name.starts_with("lastlog") && is_empty)
    };
    known.or_else(|| {
        is_lastlog().then_some(
            "it is a lastlog, which holds the last login of each account and no attempts; wtmp and btmp hold them",
        )
    })
}

/// The rest of a pipe, in a file that goes away with us.
fn spooled(mut pipe: File) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("edgewarden-replay-{:016x}", fastrand::u64(..)));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    io::copy(&mut Bounded { inner: &mut pipe, left: MAX_UNPACKED_BYTES }, &mut file)?;
    Ok(file)
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A reader that fails where it would give more than it may.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(bytes as u64)
            .ok_or_else(|| io::Error::other(format!("it unpacks to more than {} GiB", MAX_UNPACKED_BYTES >> 30)))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_told_by_content() {
        let cases: [(&[u8], Content); 7] = [
            (b"", Content::Nothing),
            (b"\n\n", Content::Nothing),
            (b"Nov 24 02:53:51 vm sshd[77]: x\n", Content::Text),
            (b"no log at all\n", Content::Text),
            (b"{\"MESSAGE\":\"x\"}\n", Content::Json),
            (b"\x1e{\"MESSAGE\":\"x\"}\n", Content::Json),
            (b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=20\n", Content::Export),
        ];
        for (beginning, expected) in cases {
            assert_eq!(content(beginning), expected, "{beginning:?}");
        }
    }

    #[test]
    fn what_is_not_read_is_refused_with_a_way_out() {
        assert!(refusal(b"SQLite format 3\0...", "wtmp.db").unwrap().contains("wtmpdb"));
        assert!(refusal(b"LPKSHHRH...", "system.journal").unwrap().contains("-o export"));
        assert!(refusal(&[0; 400], "lastlog").unwrap().contains("lastlog"));
        assert_eq!(refusal(b"Nov 24 02:53:51 vm sshd[77]: x\n", "lastlog"), None);
    }

    #[test]
    fn a_bomb_is_an_error_and_no_memory() {
        let mut bounded = Bounded { inner: io::repeat(0), left: 100_000 };
        let mut buffer = [0; 4096];
        let error = loop {
            if let Err(error) = bounded.read(&mut buffer) {
                break error;
            }
        };
        assert!(error.to_string().contains("unpacks to more than"), "{error}");
    }
}
