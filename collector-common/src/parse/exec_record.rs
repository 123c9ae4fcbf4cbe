//! What the programs in the kernel write for an exec (`bpf/record.h`), in the machine's own byte order:
//!
//! ```text
//!   0  u64  time since boot, ns        start of the process since boot, ns     address and length of the arguments
//!  32  u32  pid   parent's pid   real uid   effective uid   login uid   pid namespace   net namespace   flags
//!  64  u16  lengths of: head, tail, path, parent's path, file name, interpreter, directory, control group
//!  80  name of the process, 16 bytes
//!  96  those eight parts, one behind the other
//!
//! path, directory, control group    names from the last to the first, each with a NUL: dash\0 bin\0 usr\0
//! file name, interpreter            one string with its NUL
//! ```
//!
//! `bpf/exec_nobtf.bpf.c` knows less: no path but the file name as it was asked for.

use super::cmdline::ArgumentArea;

const HEADER_BYTES: usize = 96;
const LENGTHS_AT: usize = 64;
const NAME_AT: usize = 80;

const DELETED: u32 = 1 << 0;
const PATH_CUT: u32 = 1 << 1;
const PARENT_CUT: u32 = 1 << 2;
const DIRECTORY_CUT: u32 = 1 << 3;
const CGROUP_CUT: u32 = 1 << 4;
const ARGUMENTS_UNREAD: u32 = 1 << 5;
const LOGIN_UID_KNOWN: u32 = 1 << 6;

/// A login uid nobody has set, `(uid_t) -1`.
const UNSET: u32 = u32::MAX;

/// One exec. `None` is what the program could not read, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRecord {
    /// When it executed, in nanoseconds since boot, suspend included.
    pub boottime_ns: u64,
    /// When the process was made, on the same clock; 0 when unknown.
    pub start_boottime_ns: u64,
    /// Where in its memory the arguments are, which another exec would have elsewhere; 0 when unknown.
    pub arguments_at: u64,
    /// The process.
    pub pid: i32,
    /// Its parent; 0 when unknown.
    pub parent_pid: i32,
    /// Who started it.
    pub uid: u32,
    /// Whose rights it has.
    pub effective_uid: u32,
    /// Who logged in, a long way up.
    pub login_uid: Option<u32>,
    /// The number of its pid namespace.
    pub pid_namespace: u32,
    /// The number of its network namespace.
    pub net_namespace: u32,
    /// The program's file is in no directory any more, or never was.
    pub deleted: bool,
    /// The kernel's name of the process, at most 15 bytes.
    pub name: Vec<u8>,
    /// The arguments.
    pub arguments: Option<ArgumentArea>,
    /// The path of the program that runs.
    pub path: Option<Vec<u8>>,
    /// The path of the parent's program; a thread of the kernel has none.
    pub parent_path: Option<Vec<u8>>,
    /// What was asked to be executed.
    pub asked: Option<Vec<u8>>,
    /// The same, when the kernel found that another program has to do it.
    pub script: Option<Vec<u8>>,
    /// Where the process was then, if the script's name does not begin at the root.
    pub directory: Option<Vec<u8>>,
    /// The path of its control group in the version 2 hierarchy, or in an older one when it is in that one's root.
    pub cgroup: Option<Vec<u8>>,
}

impl ExecRecord {
    /// Reads a record. `None` when it is not one, which only a program of another version could have written.
    pub fn parse(record: &[u8]) -> Option<ExecRecord> {
        let flags = word(record, 60)?;
        let is = |flag: u32| flags & flag != 0;
        let mut rest = record.get(HEADER_BYTES..)?;
        let mut parts = [&rest[..0]; 8];
        for (index, part) in parts.iter_mut().enumerate() {
            let at = LENGTHS_AT + index * 2;
            let bytes = u16::from_ne_bytes(record.get(at..at + 2)?.try_into().ok()?);
            (*part, rest) = rest.split_at_checked(usize::from(bytes))?;
        }
        let [head, tail, path, parent_path, file_name, interpreter, directory, cgroup] = parts;
        let total = long(record, 24)?;
        let read = u64::try_from(head.len() + tail.len()).ok()?;
        let area = ArgumentArea { head: head.to_vec(), unread_bytes: total.saturating_sub(read), tail: tail.to_vec() };
        let login_uid = word(record, 48)?;
        let name = record.get(NAME_AT..HEADER_BYTES)?;
        Some(ExecRecord {
            boottime_ns: long(record, 0)?,
            start_boottime_ns: long(record, 8)?,
            arguments_at: long(record, 16)?,
            pid: i32::try_from(word(record, 32)?).ok()?,
            parent_pid: i32::try_from(word(record, 36)?).ok()?,
            uid: word(record, 40)?,
            effective_uid: word(record, 44)?,
            login_uid: (is(LOGIN_UID_KNOWN) && login_uid != UNSET).then_some(login_uid),
            pid_namespace: word(record, 52)?,
            net_namespace: word(record, 56)?,
            deleted: is(DELETED),
            name: string(name).to_vec(),
            arguments: (!is(ARGUMENTS_UNREAD)).then_some(area),
            path: whole_path(path, is(PATH_CUT)).filter(|path| path != b"/"),
            parent_path: whole_path(parent_path, is(PARENT_CUT)).filter(|path| path != b"/"),
            asked: (!file_name.is_empty()).then(|| string(file_name).to_vec()),
            script: (!interpreter.is_empty() && !file_name.is_empty()).then(|| string(file_name).to_vec()),
            directory: whole_path(directory, is(DIRECTORY_CUT)),
            cgroup: whole_path(cgroup, is(CGROUP_CUT)),
        })
    }
}

/// Turns names from the last to the first into a path.
fn whole_path(names: &[u8], is_cut: bool) -> Option<Vec<u8>> {
    if is_cut {
        return None;
    }
    let mut path = Vec::with_capacity(names.len() + 1);
    for name in names.strip_suffix(b"\0").unwrap_or(names).rsplit(|byte| *byte == 0) {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    Some(path)
}

fn string(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn word(record: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(record.get(at..at + 4)?.try_into().ok()?))
}

fn long(record: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(record.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with these parts.
    fn record(flags: u32, parts: [&[u8]; 8]) -> Vec<u8> {
        let mut out = Vec::new();
        for long in [5_000_000_000, 4_990_000_000, 77, 10_u64] {
            out.extend(long.to_ne_bytes());
        }
        for word in [42, 41, 1000, 0, 1001, 4_026_531_836, 4_026_531_833, flags] {
            out.extend(u32::to_ne_bytes(word));
        }
        for part in parts {
            out.extend(u16::try_from(part.len()).unwrap().to_ne_bytes());
        }
        out.extend(b"x.sh\0old bytes!\0");
        out.extend(parts.concat());
        out
    }

    const PARTS: [&[u8]; 8] = [
        b"sh\0./x.sh",
        b"\0",
        b"dash\0bin\0usr\0",
        b"bash\0bin\0usr\0",
        b"./x.sh\0",
        b"/bin/sh\0",
        b"u\0home\0",
        b"docker-1.scope\0system.slice\0",
    ];

    #[test]
    fn every_part_is_where_the_program_puts_it() {
        let read = ExecRecord::parse(&record(LOGIN_UID_KNOWN | DELETED, PARTS)).unwrap();
        assert_eq!((read.boottime_ns, read.start_boottime_ns, read.arguments_at), (5_000_000_000, 4_990_000_000, 77));
        assert_eq!((read.pid, read.parent_pid, read.uid, read.effective_uid), (42, 41, 1000, 0));
        assert_eq!(
            (read.login_uid, read.pid_namespace, read.net_namespace),
            (Some(1001), 4_026_531_836, 4_026_531_833)
        );
        assert_eq!((read.name.as_slice(), read.deleted), (&b"x.sh"[..], true));
        assert_eq!(read.asked.as_deref(), Some(&b"./x.sh"[..]));
        let area = ArgumentArea { head: b"sh\0./x.sh".to_vec(), unread_bytes: 0, tail: b"\0".to_vec() };
        assert_eq!(read.arguments, Some(area));
        assert_eq!(read.path.as_deref(), Some(&b"/usr/bin/dash"[..]));
        assert_eq!(read.parent_path.as_deref(), Some(&b"/usr/bin/bash"[..]));
        assert_eq!((read.script.as_deref(), read.directory.as_deref()), (Some(&b"./x.sh"[..]), Some(&b"/home/u"[..])));
        assert_eq!(read.cgroup.as_deref(), Some(&b"/system.slice/docker-1.scope"[..]));
    }

    #[test]
    fn what_was_cut_or_not_read_is_nothing() {
        let flags = PATH_CUT | PARENT_CUT | DIRECTORY_CUT | CGROUP_CUT | ARGUMENTS_UNREAD;
        let read = ExecRecord::parse(&record(flags, PARTS)).unwrap();
        assert_eq!((read.path, read.parent_path, read.directory, read.cgroup), (None, None, None, None));
        assert_eq!((read.arguments, read.login_uid), (None, None));
        let read = ExecRecord::parse(&record(0, [&b"a\0"[..], b"", b"a\0", b"", b"/a\0", b"", b"", b""])).unwrap();
        assert_eq!((read.script, read.parent_path, read.cgroup), (None, None, Some(b"/".to_vec())));
        assert_eq!(read.arguments.unwrap().unread_bytes, 8);
    }

    #[test]
    fn mangled_records_never_panic() {
        let whole = record(LOGIN_UID_KNOWN, PARTS);
        let mut random = fastrand::Rng::with_seed(11);
        for bytes in 0..whole.len() {
            assert_eq!(ExecRecord::parse(&whole[..bytes]), None, "{bytes}");
        }
        for _ in 0..5000 {
            let mut mangled = whole.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..mangled.len());
                mangled[at] = random.u8(..);
            }
            drop(ExecRecord::parse(&mangled));
        }
    }
}
