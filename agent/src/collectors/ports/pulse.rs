//! Whether anything has happened at all, told by as little work as can be: most looks on most machines see nothing new,
//! and what they touch the processor has forgotten since the last one.

use collector_common::root::Root;

use super::source::{COUNTS, Kept};

/// What changes whenever a process is started, or a socket comes or goes in the agent's own network namespace.
pub(super) struct Pulse {
    load: Kept,
    counts: [Kept; 2],
    before: Vec<u8>,
    now: Vec<u8>,
}

impl Pulse {
    pub(super) fn of(root: &Root) -> Pulse {
        let (load, counts) = (Kept::open(&root.path("/proc/loadavg")), COUNTS.map(|(name, _)| Kept::count(root, name)));
        Pulse { load, counts, before: Vec::new(), now: Vec::new() }
    }

    /// Whether it is as it was when this was asked last. Never where the kernel does not tell it.
    pub(super) fn is_same(&mut self) -> bool {
        std::mem::swap(&mut self.before, &mut self.now);
        self.now.clear();
        if !self.load.append_to(&mut self.now) {
            return false;
        }
        // What comes before the number the newest process has is an average over minutes.
        let newest = self.now.iter().rposition(|byte| *byte == b' ').unwrap_or(0);
        self.now.drain(..newest);
        let [v4, v6] = &self.counts;
        // A kernel without IPv6 does not count it.
        let is_told = v4.append_to(&mut self.now);
        v6.append_to(&mut self.now);
        is_told && self.now == self.before
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn machine(load: &str, sockstat: Option<&str>) -> (tempfile::TempDir, Pulse) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("proc/self/net")).unwrap();
        fs::write(folder.path().join("proc/loadavg"), load).unwrap();
        if let Some(text) = sockstat {
            fs::write(folder.path().join("proc/self/net/sockstat"), text).unwrap();
        }
        let pulse = Pulse::of(&Root::at(folder.path()));
        (folder, pulse)
    }

    fn write(folder: &Path, file: &str, text: &str) {
        fs::write(folder.join("proc").join(file), text).unwrap();
    }

    #[test]
    fn a_process_and_a_socket_are_felt_and_the_load_is_not() {
        let (folder, mut pulse) = machine("0.46 0.66 0.70 1/104 32443\n", Some("sockets: used 37\n"));
        assert!(!pulse.is_same(), "nothing is known before the first");
        assert!(pulse.is_same());
        write(folder.path(), "loadavg", "0.12 0.65 0.70 2/105 32443\n");
        assert!(pulse.is_same());
        write(folder.path(), "loadavg", "0.12 0.65 0.70 2/105 32444\n");
        assert!(!pulse.is_same());
        write(folder.path(), "self/net/sockstat", "sockets: used 38\n");
        assert!(!pulse.is_same());
        assert!(pulse.is_same());
    }

    #[test]
    fn where_the_kernel_does_not_count_nothing_is_ever_the_same() {
        let (_folder, mut pulse) = machine("0.46 0.66 0.70 1/104 32443\n", None);
        assert!(!pulse.is_same());
        assert!(!pulse.is_same());
    }
}
