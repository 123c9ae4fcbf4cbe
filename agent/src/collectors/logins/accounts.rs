//! The uid of a name, from `passwd(5)`: `NAME:x:UID:GID:...`, one account a line.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The accounts of the machine, read again when the file changed.
#[derive(Debug)]
pub struct Accounts {
    path: PathBuf,
    version: Option<(u64, u64, i64, i64)>,
    uids: HashMap<String, u32>,
}

impl Accounts {
    /// The accounts in this file.
    pub fn new(path: PathBuf) -> Accounts {
        Accounts { path, version: None, uids: HashMap::new() }
    }

    /// The uid of an account; nothing for a name that is none. While the file cannot be read the last one read counts.
    pub fn uid(&mut self, name: &str) -> Option<u32> {
        let version =
            fs::metadata(&self.path).ok().map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        if version.is_some()
            && version != self.version
            && let Ok(bytes) = fs::read(&self.path)
        {
            self.uids = uids(&String::from_utf8_lossy(&bytes));
            self.version = version;
        }
        self.uids.get(name).copied()
    }
}

/// The uid of each name in a passwd file. The first line of a name counts, as it does for the C library.
pub fn uids(passwd: &str) -> HashMap<String, u32> {
    let mut uids = HashMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok())) {
            uids.entry(name.to_owned()).or_insert(uid);
        }
    }
    uids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_once_it_was_added() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwd");
        let mut accounts = Accounts::new(path.clone());
        assert_eq!(accounts.uid("root"), None);
        fs::write(&path, "root:x:0:0::/root:/bin/sh\nroot:x:5:0::/:/bin/sh\nbroken\nx:y:z\n").unwrap();
        assert_eq!(accounts.uid("root"), Some(0));
        fs::write(&path, "root:x:0:0::/root:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n").unwrap();
        assert_eq!((accounts.uid("bob"), accounts.uid("x")), (Some(1001), None));
    }
}
