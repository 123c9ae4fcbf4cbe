//! Entries as `journalctl --output=export` and `systemd-journal-remote` write them (systemd,
//! `docs/JOURNAL_EXPORT_FORMATS.md`).
//!
//! ```text
//! __CURSOR=s=12ab...;i=3                      a field that is text: NAME=VALUE
//! MESSAGE                                     a field that is not: its name,
//! <8 bytes, least significant first><bytes>   its length, its bytes, a newline
//!                                             an empty line ends an entry
//! ```

use std::io::{self, BufRead, Read};

use super::Entry;

/// The fields that are kept.
const WANTED: [&str; 11] = [
    "MESSAGE",
    "SYSLOG_IDENTIFIER",
    "SYSLOG_PID",
    "_PID",
    "_UID",
    "_EXE",
    "_TRANSPORT",
    "_BOOT_ID",
    "_SOURCE_REALTIME_TIMESTAMP",
    "__REALTIME_TIMESTAMP",
    "__MONOTONIC_TIMESTAMP",
];

/// The most that is kept of a field.
const MAX_FIELD_BYTES: u64 = 64 * 1024;

/// What stands next in an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// An entry.
    Entry(Entry),
    /// Fields that make no entry.
    Broken,
    /// Nothing: this is the end.
    End,
}

/// Reads the next entry. Works on any reader, a slice included; what an entry holds too much is passed over, not kept.
///
/// # Errors
/// Those of the reader, and an end in the middle of a field.
pub fn next(reader: &mut impl BufRead) -> io::Result<Next> {
    let mut fields: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut any = false;
    loop {
        let mut line = Vec::new();
        let read = kept_line(reader, &mut line)?;
        match line.as_slice() {
            [] if read == 0 && !any => return Ok(Next::End),
            [] if any => break,
            [] => continue,
            _ => any = true,
        }
        let (name, value) = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => (&line[..at], line[at + 1..].to_vec()),
            None => (&line[..], binary(reader)?),
        };
        // The first value of a field counts, as in the JSON form.
        if let Some(wanted) = WANTED.iter().find(|wanted| wanted.as_bytes() == name)
            && fields.iter().all(|(known, _)| known != wanted)
        {
            fields.push((wanted, value));
        }
    }
    let field = |name: &str| {
        let value = fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value)?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    Ok(super::entry(field).map_or(Next::Broken, Next::Entry))
}

/// A line without its newline, at most so many bytes of it. Gives how many bytes it had.
fn kept_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    let mut read = reader.by_ref().take(MAX_FIELD_BYTES).read_until(b'\n', line)? as u64;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read == MAX_FIELD_BYTES {
        read += reader.skip_until(b'\n')? as u64;
    }
    Ok(read)
}

fn binary(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    reader.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut value = Vec::new();
    reader.by_ref().take(length.min(MAX_FIELD_BYTES)).read_to_end(&mut value)?;
    let rest = length - length.min(MAX_FIELD_BYTES);
    io::copy(&mut reader.by_ref().take(rest), &mut io::sink())?;
    let mut newline = [0];
    reader.read_exact(&mut newline)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(mut bytes: &[u8]) -> Vec<Next> {
        let mut all = Vec::new();
        loop {
            match next(&mut bytes) {
                Ok(Next::End) => return all,
                Ok(next) => all.push(next),
                Err(_) => return all,
            }
        }
    }

    #[test]
    fn text_and_binary_fields_are_read() {
        let mut export =
            b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=20\n_UID=0\n_TRANSPORT=syslog\nSYSLOG_IDENTIFIER=sshd\nMESSAGE\n"
                .to_vec();
        export.extend(7_u64.to_le_bytes());
        export.extend(b"a\n\nMESS\nOTHER=x\n\n\n");
        export.extend(b"MESSAGE=no time\n\n");
        let huge = "x".repeat(200_000);
        export.extend(format!("__REALTIME_TIMESTAMP=21\nMESSAGE={huge}\nSYSLOG_PID=9\n").bytes());
        let all = entries(&export);
        let [Next::Entry(first), Next::Broken, Next::Entry(last)] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((first.message.as_str(), first.uid, first.wall_us), ("a\n\nMESS", Some(0), 20));
        assert!(first.is_vouched_for && !last.is_vouched_for);
        assert_eq!((last.message.len() as u64, last.pid, last.wall_us), (MAX_FIELD_BYTES - 8, Some(9), 21));
    }

    #[test]
    fn a_length_that_is_a_lie_ends_the_export() {
        let mut export = b"__REALTIME_TIMESTAMP=20\nMESSAGE\n".to_vec();
        export.extend(u64::MAX.to_le_bytes());
        export.extend(b"short");
        assert!(next(&mut export.as_slice()).is_err());
    }

    #[test]
    fn mangled_exports_do_not_panic() {
        let mut seed = b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=20\nMESSAGE\n".to_vec();
        seed.extend(3_u64.to_le_bytes());
        seed.extend(b"a\nb\n_UID=0\n\n");
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes = seed.clone();
            let at = random.usize(0..bytes.len());
            bytes[at] = random.u8(..);
            bytes.truncate(random.usize(0..=bytes.len()));
            entries(&bytes);
        }
    }
}
