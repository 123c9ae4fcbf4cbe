//! A model of a disk: what is safe on it, and what a power cut may or may not leave of the rest.
//!
//! ```text
//!              safe                             on its way: any of it may be lost
//! file         content at its last sync         writes and lengths, each whole, in part, or not at all
//! directory    names at its last sync           changes of names, kept up to any one of them: a file system with a
//!                                               journal may write them early, but in order, and a rename at once
//! ```
//!
//! A name counts only once its directory was synced, and a file's sync makes no name safe: that is stricter than any
//! file system in use.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::journal::Act;

/// What a name stands for: the number of a file, or a directory.
type Node = Option<usize>;

/// Names that change at once; `None` for one that goes.
type NameChange = Vec<(PathBuf, Option<Node>)>;

/// A write at a place, or without data a new length.
type Change = (usize, Option<Vec<u8>>);

#[derive(Default)]
struct File {
    safe: Vec<u8>,
    pending: Vec<Change>,
}

/// The disk below one directory.
pub struct Disk {
    root: PathBuf,
    files: Vec<File>,
    /// The file that has an inode now: a number is used again when its file is gone.
    numbers: HashMap<u64, usize>,
    /// As the agent sees them.
    names: BTreeMap<PathBuf, Node>,
    safe_names: BTreeMap<PathBuf, Node>,
    pending_names: BTreeMap<PathBuf, Vec<NameChange>>,
}

fn apply(content: &mut Vec<u8>, offset: usize, data: Option<&[u8]>) {
    let end = offset + data.map_or(0, <[u8]>::len);
    if data.is_none() || content.len() < end {
        content.resize(end, 0);
    }
    if let Some(data) = data {
        content[offset..end].copy_from_slice(data);
    }
}

fn rename(names: &mut BTreeMap<PathBuf, Node>, change: &NameChange) {
    for (path, node) in change {
        match node {
            Some(node) => drop(names.insert(path.clone(), *node)),
            None => drop(names.remove(path)),
        }
    }
}

impl Disk {
    /// An empty one, on which only the directory itself is.
    pub fn new(root: &Path) -> Disk {
        Disk {
            root: root.to_owned(),
            files: Vec::new(),
            numbers: HashMap::new(),
            names: BTreeMap::new(),
            safe_names: BTreeMap::new(),
            pending_names: BTreeMap::new(),
        }
    }

    /// Does what the agent did.
    pub fn step(&mut self, act: &Act) {
        match act {
            Act::Create { path, inode } => {
                self.numbers.insert(*inode, self.files.len());
                self.change_names(vec![(path.clone(), Some(Some(self.files.len())))]);
                self.files.push(File::default());
            }
            Act::Write { inode, offset, data } => self.file(*inode).pending.push((*offset, Some(data.clone()))),
            Act::SetLength { inode, bytes } => self.file(*inode).pending.push((*bytes, None)),
            Act::Sync { inode } => {
                let file = self.file(*inode);
                for (offset, data) in file.pending.drain(..) {
                    apply(&mut file.safe, offset, data.as_deref());
                }
            }
            Act::SyncDirectory { path } => {
                for change in self.pending_names.remove(path).unwrap_or_default() {
                    rename(&mut self.safe_names, &change);
                }
            }
            Act::Rename { from, to } => {
                assert_eq!(from.parent(), to.parent(), "the agent renames within a directory");
                let node = self.names[from];
                self.change_names(vec![(from.clone(), None), (to.clone(), Some(node))]);
            }
            Act::Remove { path } => self.change_names(vec![(path.clone(), None)]),
            Act::MakeDirectory { path } => self.change_names(vec![(path.clone(), Some(None))]),
            Act::Connect { .. } | Act::Sent { .. } | Act::Received { .. } => {}
        }
    }

    fn file(&mut self, inode: u64) -> &mut File {
        let number = self.numbers.get(&inode).expect("the agent writes to files it made");
        &mut self.files[*number]
    }

    fn change_names(&mut self, change: NameChange) {
        rename(&mut self.names, &change);
        let directory = change[0].0.parent().expect("below the root");
        self.pending_names.entry(directory.to_owned()).or_default().push(change);
    }

    /// Makes the directory `to` as it may be found; without randomness nothing is there that was not synced.
    pub fn build(&self, to: &Path, mut random: Option<fastrand::Rng>) {
        let mut names = self.safe_names.clone();
        if let Some(random) = &mut random {
            for pending in self.pending_names.values() {
                for change in &pending[..random.usize(..=pending.len())] {
                    rename(&mut names, change);
                }
            }
        }
        self.write(&names, to, |file| {
            let mut content = self.files[file].safe.clone();
            for (offset, data) in &self.files[file].pending {
                let Some(random) = &mut random else { break };
                let data = data.as_deref();
                let part = random.usize(..=data.map_or(0, <[u8]>::len));
                match (random.u8(..5), data) {
                    (0, _) => {}
                    // Its pages may reach the disk in any order.
                    (1, Some(data)) => apply(&mut content, *offset, Some(&data[..part])),
                    (2, Some(data)) => apply(&mut content, offset + part, Some(&data[part..])),
                    _ => apply(&mut content, *offset, data),
                }
            }
            content
        });
    }

    fn write(&self, names: &BTreeMap<PathBuf, Node>, to: &Path, mut content: impl FnMut(usize) -> Vec<u8>) {
        for (path, node) in names {
            let target = to.join(path.strip_prefix(&self.root).unwrap());
            // A directory comes before what is in it; without its own name nothing in it is found.
            match node {
                _ if !target.parent().unwrap().is_dir() => {}
                None => std::fs::create_dir(&target).unwrap(),
                Some(file) => std::fs::write(&target, content(*file)).unwrap(),
            }
        }
    }

    /// The model is right only if the shim saw everything: with all that is on its way, it is the directory as it is.
    pub fn assert_complete(&self) {
        let all = tempfile::tempdir().unwrap();
        self.write(&self.names, all.path(), |file| {
            let mut content = self.files[file].safe.clone();
            self.files[file].pending.iter().for_each(|(offset, data)| apply(&mut content, *offset, data.as_deref()));
            content
        });
        assert_eq!(tree(all.path()), tree(&self.root), "the shim missed something");
    }
}

/// Names below a directory, and what is in the files.
fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = path.strip_prefix(root).unwrap().to_owned();
            if kind.is_dir() {
                found.insert(name, None);
                open.push(path);
            } else if kind.is_file() {
                found.insert(name, Some(std::fs::read(path).unwrap()));
            }
        }
    }
    found
}
