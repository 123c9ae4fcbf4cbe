//! Records of `utmp(5)`: who is logged in (utmp), who was (wtmp), who failed (btmp).
//!
//! ```text
//! bytes  ABI of the C library that wrote it          pid  line id  user host  time     microseconds  address
//! 384    x86, arm, riscv64, mips, ppc64              4    8    40  44   76    340 (4)  344 (4)       348
//! 400    aarch64, s390x, loongarch64, alpha          4    8    40  44   76    344 (8)  352 (8)       360
//! 392    arc, or1k                                   4    8    40  44   76    340 (8)  348 (8)       356
//! 382    m68k                                        2    6    38  42   74    338 (4)  342 (4)       346
//! ```
//!
//! From glibc, `bits/utmp.h` and `utmp-size.h`. Nothing in a file says which it is, and its byte order is the writer's,
//! so both are found from what the records hold. The 32-bit seconds are unsigned since glibc 2.40.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The form of the records of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a record.
    pub record_bytes: usize,
    /// The most significant byte comes first.
    pub big_endian: bool,
    pid: usize,
    time: usize,
    time_bytes: usize,
}

/// What a record is, `ut_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Nothing: type 0, or a record that is all zero.
    Empty,
    /// The machine, not a user: run level, boot, a clock that was set.
    Machine,
    /// A process of init, or a getty that waits: `INIT_PROCESS`, `LOGIN_PROCESS`. In btmp the latter is a failure.
    Waiting,
    /// A user: `USER_PROCESS`.
    User,
    /// The end of a session: `DEAD_PROCESS`.
    Dead,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: Type,
    /// The process that wrote it.
    pub pid: u32,
    /// The terminal without `/dev/`, or `ssh:notty`.
    pub line: String,
    /// The end of the terminal's name, as the writer shortens it.
    pub id: String,
    /// The name, as it was typed; cut at 32 bytes by the writer. What is not plain text is written as `sshd` does it.
    pub user: String,
    /// Where from, as the writer has it.
    pub host: String,
    /// The same as an address; nothing for none.
    pub address: Option<IpAddr>,
    /// Microseconds since the Unix epoch.
    pub wall_us: i64,
}

/// `ut_line`, `ut_user` and `ut_host`.
const LINE_BYTES: usize = 32;
const ID_BYTES: usize = 4;
const HOST_BYTES: usize = 256;

/// How many records decide about the form.
const JUDGED: usize = 64;

/// 2000-01-01: no record is older; seconds.
const EARLIEST: i64 = 946_684_800;

/// 2106-02-07, where unsigned 32-bit seconds end.
const LATEST: i64 = 4_294_967_295;

const LAYOUTS: [(usize, usize, usize, usize); 4] =
    [(384, 4, 340, 4), (400, 4, 344, 8), (392, 4, 340, 8), (382, 2, 338, 4)];

impl Layout {
    /// The form that the first records of a file have; nothing when they are no such records. The beginning of a file
    /// of some 25 KiB is enough.
    pub fn detect(beginning: &[u8]) -> Option<Layout> {
        let all = LAYOUTS.into_iter().flat_map(|(record_bytes, pid, time, time_bytes)| {
            [false, true].map(|big_endian| Layout { record_bytes, big_endian, pid, time, time_bytes })
        });
        // The first of the best: the common ones stand first, and two bytes of padding more or less can look the same.
        let mut best = None;
        for layout in all {
            let score = layout.score(beginning);
            if score > best.map_or(0, |(score, _)| score) {
                best = Some((score, layout));
            }
        }
        best.map(|(_, layout)| layout)
    }

    /// How well records fit: 2 for each that can be true and names a terminal or a user, 1 for each other that can be
    /// true; 0 in all when not more than half of those that hold anything can be.
    fn score(&self, beginning: &[u8]) -> usize {
        let records = beginning.chunks_exact(self.record_bytes).take(JUDGED);
        let held: Vec<_> = records.filter(|record| record.iter().any(|byte| *byte != 0)).collect();
        let (mut good, mut score) = (0, 0);
        for read in held.iter().filter_map(|record| self.read(record)).filter(|read| read.kind != Type::Empty) {
            good += 1;
            score += if read.line.is_empty() && read.user.is_empty() { 1 } else { 2 };
        }
        if 2 * good > held.len() { score } else { 0 }
    }

    /// Reads one record; nothing for one that cannot be true, as damage leaves them.
    pub fn read(&self, record: &[u8]) -> Option<Record> {
        if record.len() != self.record_bytes {
            return None;
        }
        if record.iter().all(|byte| *byte == 0) {
            return Some(Record::empty());
        }
        let line = self.pid + 4;
        let id = line + LINE_BYTES;
        let user = id + ID_BYTES;
        let host = user + LINE_BYTES;
        let kind = match self.integer(record, 0, 2)? {
            0 => Type::Empty,
            1..=4 => Type::Machine,
            5 | 6 => Type::Waiting,
            7 => Type::User,
            8 | 9 => Type::Dead,
            _ => return None,
        };
        let seconds = self.integer(record, self.time, self.time_bytes)?;
        let micros = self.integer(record, self.time + self.time_bytes, self.time_bytes)?;
        let is_dated = (EARLIEST..=LATEST).contains(&seconds) || (kind == Type::Empty && seconds == 0);
        if !is_dated || !(0..1_000_000).contains(&micros) || !is_text(field(record, line, LINE_BYTES)?) {
            return None;
        }
        Some(Record {
            kind,
            pid: u32::try_from(self.integer(record, self.pid, 4)?).ok()?,
            line: visible(field(record, line, LINE_BYTES)?),
            id: visible(field(record, id, ID_BYTES)?),
            user: visible(field(record, user, LINE_BYTES)?),
            host: visible(field(record, host, HOST_BYTES)?),
            address: self.address(record),
            wall_us: seconds * 1_000_000 + micros,
        })
    }

    /// Four or eight bytes as time and pid have them, or two; 32-bit numbers are taken as unsigned.
    fn integer(&self, record: &[u8], at: usize, bytes: usize) -> Option<i64> {
        let mut wide = [0; 8];
        let source = record.get(at..at + bytes)?;
        for (place, byte) in source.iter().enumerate() {
            let significance = if self.big_endian { bytes - 1 - place } else { place };
            wide[significance] = *byte;
        }
        Some(i64::from_le_bytes(wide))
    }

    /// Network order whatever the machine's. One word of four is an IPv4 address.
    fn address(&self, record: &[u8]) -> Option<IpAddr> {
        let at = self.time + 2 * self.time_bytes;
        let bytes: [u8; 16] = record.get(at..at + 16)?.try_into().ok()?;
        let [a, b, c, d, rest @ ..] = bytes;
        let address = match rest.iter().all(|byte| *byte == 0) {
            true => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            false => IpAddr::V6(Ipv6Addr::from(bytes)),
        };
        (!address.is_unspecified()).then_some(address)
    }
}

impl Record {
    fn empty() -> Record {
        Record {
            kind: Type::Empty,
            pid: 0,
            line: String::new(),
            id: String::new(),
            user: String::new(),
            host: String::new(),
            address: None,
            wall_us: 0,
        }
    }
}

/// Whether this may be the beginning of a lastlog(5): one record of 292 or 296 bytes (time, terminal, host) for each
/// uid, most of them empty.
pub fn is_lastlog(beginning: &[u8]) -> bool {
    [(292, 4), (296, 8)].into_iter().any(|(record_bytes, time_bytes)| {
        let mut held = beginning
            .chunks_exact(record_bytes)
            .filter(|record| record.iter().any(|byte| *byte != 0))
            .take(JUDGED)
            .peekable();
        // Records are padded; text is not.
        held.peek().is_some()
            && held.all(|record| {
                let line = field(record, time_bytes, LINE_BYTES).unwrap_or_default();
                let is_dated = |seconds: i64| (EARLIEST..=LATEST).contains(&seconds);
                let (little, big) = (number(record, time_bytes, false), number(record, time_bytes, true));
                (is_dated(little) || is_dated(big)) && record.ends_with(&[0]) && !line.is_empty() && is_text(line)
            })
    })
}

fn number(record: &[u8], bytes: usize, big_endian: bool) -> i64 {
    let mut wide = [0; 8];
    for (place, byte) in record.iter().take(bytes).enumerate() {
        wide[if big_endian { bytes - 1 - place } else { place }] = *byte;
    }
    i64::from_le_bytes(wide)
}

/// A text up to its NUL; one that fills its field has none.
fn field(record: &[u8], at: usize, bytes: usize) -> Option<&[u8]> {
    let field = record.get(at..at + bytes)?;
    Some(field.split(|byte| *byte == 0).next().unwrap_or(field))
}

/// The name of a terminal is never an attacker's, so it tells records from noise.
fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| (0x20..0x7f).contains(byte))
}

/// As `sshd` writes names into its log (`vis(3)`, C style and octal), so that a name is the same text from both.
fn visible(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => text.push_str(r"\\"),
            b'\n' => text.push_str(r"\n"),
            b'\t' => text.push_str(r"\t"),
            b'\r' => text.push_str(r"\r"),
            0x20..0x7f => text.push(char::from(*byte)),
            _ => text.push_str(&format!(r"\{byte:03o}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record in the form of a layout, written byte by byte.
    fn record(layout: &Layout, kind: i64, pid: i64, texts: [&[u8]; 4], seconds: i64, address: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; layout.record_bytes];
        let mut put = |at: usize, count: usize, value: i64| {
            for place in 0..count {
                let significance = if layout.big_endian { count - 1 - place } else { place };
                bytes[at + place] = value.to_le_bytes()[significance];
            }
        };
        put(0, 2, kind);
        put(layout.pid, 4, pid);
        put(layout.time, layout.time_bytes, seconds);
        put(layout.time + layout.time_bytes, layout.time_bytes, 250_000);
        let mut at = layout.pid + 4;
        for (text, room) in texts.into_iter().zip([LINE_BYTES, ID_BYTES, LINE_BYTES, HOST_BYTES]) {
            bytes[at..at + text.len()].copy_from_slice(text);
            at += room;
        }
        let at = layout.time + 2 * layout.time_bytes;
        bytes[at..at + address.len()].copy_from_slice(address);
        bytes
    }

    fn layouts() -> impl Iterator<Item = Layout> {
        LAYOUTS.into_iter().flat_map(|(record_bytes, pid, time, time_bytes)| {
            [false, true].map(|big_endian| Layout { record_bytes, big_endian, pid, time, time_bytes })
        })
    }

    #[test]
    fn every_layout_in_both_byte_orders_is_found_from_content() {
        for layout in layouts() {
            // 9600 bytes are 25 records of 384 bytes and 24 of 400, so the length says nothing.
            let mut file = vec![0; layout.record_bytes];
            for pid in 1..30 {
                let texts: [&[u8]; 4] = [b"pts/0", b"ts/0", b"tester", b"192.0.2.7"];
                file.extend(record(&layout, 7, pid, texts, 4_000_000_000, &[192, 0, 2, 7]));
            }
            file.truncate(9600);
            assert_eq!(Layout::detect(&file), Some(layout));
            let second = layout.read(&file[2 * layout.record_bytes..3 * layout.record_bytes]).unwrap();
            assert_eq!((second.kind, second.pid, second.line.as_str()), (Type::User, 2, "pts/0"));
            assert_eq!((second.user.as_str(), second.host.as_str()), ("tester", "192.0.2.7"));
            assert_eq!((second.wall_us, second.id.as_str()), (4_000_000_000_250_000, "ts/0"));
            assert_eq!(second.address, "192.0.2.7".parse().ok());
            assert_eq!(layout.read(&file[..layout.record_bytes]).unwrap().kind, Type::Empty);
        }
    }

    #[test]
    fn a_single_record_without_a_name_is_no_record_of_another_layout() {
        let layout = layouts().next().unwrap();
        let texts: [&[u8]; 4] = [b"ssh:notty", b"", b"", b"192.0.2.7"];
        let mut bytes = record(&layout, 6, 9, texts, 1_795_488_000, &[]);
        bytes[344..348].fill(0);
        assert_eq!(Layout::detect(&bytes), Some(layout));
    }

    #[test]
    fn names_of_an_attacker_fill_their_field_and_are_made_visible() {
        let layout = layouts().next().unwrap();
        let host = [b'h'; HOST_BYTES];
        let texts: [&[u8]; 4] = [b"ssh:notty", b"", b"a\x1b[31m\tb\\\xc3\xa9", &host];
        let read = layout.read(&record(&layout, 6, 9, texts, 1_795_487_993, &[0x20, 1, 0xd, 0xb8, 1])).unwrap();
        assert_eq!((read.kind, read.user.as_str()), (Type::Waiting, r"a\033[31m\tb\\\303\251"));
        assert_eq!(read.host.len(), HOST_BYTES);
        assert_eq!(read.address, "2001:db8:100::".parse().ok());
    }

    #[test]
    fn other_files_are_no_records() {
        assert_eq!(Layout::detect(b""), None);
        assert_eq!(Layout::detect(&[0; 9600]), None);
        assert_eq!(Layout::detect("Nov 24 02:53:51 vm sshd[77]: Failed password\n".repeat(500).as_bytes()), None);
        let mut lastlog = vec![0; 292 * 50];
        let at = 292 * 40;
        lastlog[at..at + 4].copy_from_slice(&1_795_487_993_u32.to_le_bytes());
        lastlog[at + 4..at + 9].copy_from_slice(b"pts/0");
        assert_eq!((Layout::detect(&lastlog), is_lastlog(&lastlog)), (None, true));
        assert!(!is_lastlog(&[0; 9600]) && !is_lastlog(b"x"));
    }

    #[test]
    fn mangled_records_do_not_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        for layout in layouts() {
            let texts: [&[u8]; 4] = [b"pts/0", b"ts/0", b"tester", b"192.0.2.7"];
            let seed = record(&layout, 7, 5, texts, 1_795_487_993, &[192, 0, 2, 7]);
            for _ in 0..2_000 {
                let mut bytes = seed.repeat(3);
                for _ in 0..random.usize(0..20) {
                    let at = random.usize(0..bytes.len());
                    bytes[at] = random.u8(..);
                }
                bytes.truncate(random.usize(0..=bytes.len()));
                is_lastlog(&bytes);
                if let Some(found) = Layout::detect(&bytes) {
                    bytes.chunks(found.record_bytes).for_each(|record| drop(found.read(record)));
                }
            }
        }
    }
}
