//! The journal of the shim (tests/support/powercut.c), which draws its format.

use std::path::{Path, PathBuf};

/// One record.
pub struct Op {
    pub act: Act,
    /// Microseconds of a clock that only goes forward.
    pub at_us: u64,
}

/// Without the data.
impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.act {
            Act::Write { inode, offset, data } => {
                write!(f, "{} bytes written to inode {inode} at {offset}", data.len())
            }
            Act::Sent { data, .. } => write!(f, "{} bytes sent", data.len()),
            Act::Received { data, .. } => write!(f, "{} bytes received", data.len()),
            act => write!(f, "{act:?}"),
        }
    }
}

/// What was done. A file is its inode, a connection its descriptor; both are used again by later ones.
#[derive(Debug)]
pub enum Act {
    Create { path: PathBuf, inode: u64 },
    Write { inode: u64, offset: usize, data: Vec<u8> },
    SetLength { inode: u64, bytes: usize },
    Sync { inode: u64 },
    SyncDirectory { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    MakeDirectory { path: PathBuf },
    Connect { socket: u64 },
    Sent { socket: u64, data: Vec<u8> },
    Received { socket: u64, data: Vec<u8> },
}

/// Reads all of it.
pub fn read(path: &Path) -> Vec<Op> {
    let (bytes, mut at, mut ops) = (std::fs::read(path).unwrap(), 0, Vec::new());
    while at < bytes.len() {
        let end = at + bytes[at..].iter().position(|byte| *byte == b'\n').expect("a record has a line");
        let line = std::str::from_utf8(&bytes[at..end]).unwrap();
        let [op, at_us, number, offset, length, path, path2] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("the shim wrote {line}")
        };
        at = end + 1 + length.parse::<usize>().unwrap();
        let (data, number) = (bytes[end + 1..at].to_vec(), number.parse().unwrap());
        let (path, path2, offset) = (PathBuf::from(path), PathBuf::from(path2), offset.parse().unwrap());
        let act = match op {
            "c" => Act::Create { path, inode: number },
            "w" => Act::Write { inode: number, offset, data },
            "t" => Act::SetLength { inode: number, bytes: offset },
            "s" => Act::Sync { inode: number },
            "d" => Act::SyncDirectory { path },
            "r" => Act::Rename { from: path, to: path2 },
            "u" => Act::Remove { path },
            "m" => Act::MakeDirectory { path },
            "o" => Act::Connect { socket: number },
            ">" => Act::Sent { socket: number, data },
            "<" => Act::Received { socket: number, data },
            _ => panic!("the agent made a call of which nobody knows what a power cut leaves: {line}"),
        };
        ops.push(Op { act, at_us: at_us.parse().unwrap() });
    }
    ops
}
