//! Execs that were noticed and are not handed over yet.
//!
//! An exec is here before anything of its process is read, so that none is gone when a process holds up whoever reads
//! its files. Of one that executes twice in a row both notices may be read too late for the first: the kernel says when
//! each was, and that tells it.

use collector_common::clock::Reading;

use crate::collectors::exec::image::Image;

/// One exec.
#[derive(Debug)]
pub struct Noticed {
    /// The process.
    pub pid: i32,
    /// When it was.
    pub at: Reading,
    /// What was read of the process; `None` while that is still to be done.
    pub image: Option<Image>,
    /// When reading was over, and when the process executed next: nanoseconds of `CLOCK_MONOTONIC`.
    read_ns: u64,
    next_exec_ns: u64,
}

impl Noticed {
    fn into_image(self) -> Image {
        let mut image = self.image.unwrap_or_default();
        let is_anything = image.executable.is_some() || image.arguments.is_some();
        image.changed |= is_anything && self.next_exec_ns < self.read_ns;
        image
    }
}

/// Execs in the order of their notices.
#[derive(Debug, Default)]
pub struct Execs {
    execs: Vec<Noticed>,
    /// Behind those whose process was read, or is being read.
    looked_at: usize,
}

impl Execs {
    /// Adds an exec.
    pub fn add(&mut self, pid: i32, at: Reading, exec_ns: u64) {
        if let Some(before) = self.execs.iter_mut().rev().find(|exec| exec.pid == pid) {
            before.next_exec_ns = exec_ns;
        }
        self.execs.push(Noticed { pid, at, image: None, read_ns: 0, next_exec_ns: u64::MAX });
    }

    /// The next process to read.
    pub fn next_to_read(&mut self) -> Option<i32> {
        let pid = self.execs.get(self.looked_at)?.pid;
        self.looked_at += 1;
        Some(pid)
    }

    /// Adds what was read of the process that [`Execs::next_to_read`] gave. Not when the exec was handed over without it.
    pub fn add_image(&mut self, image: Image, read_ns: u64) {
        if let Some(exec) = self.looked_at.checked_sub(1).and_then(|last| self.execs.get_mut(last)) {
            (exec.image, exec.read_ns) = (Some(image), read_ns);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.execs.len()
    }

    /// Takes the first of them, at most so many, whether they were read or not.
    pub fn take(&mut self, at_most: usize) -> Vec<(i32, Reading, Image)> {
        let taken = at_most.min(self.execs.len());
        self.looked_at = self.looked_at.saturating_sub(taken);
        self.execs.drain(..taken).map(|exec| (exec.pid, exec.at, exec.into_image())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_common::clock::Clock;
    use collector_common::root::Root;

    fn image(path: &str) -> Image {
        Image { executable: Some(path.into()), ..Image::default() }
    }

    #[test]
    fn a_process_that_executed_again_before_it_was_read_is_marked() {
        let (at, mut execs) = (Clock::new(&Root::host()).now(), Execs::default());
        for (pid, exec_ns) in [(7, 100), (8, 110), (7, 120)] {
            execs.add(pid, at, exec_ns);
        }
        for read_ns in [130, 140, 150] {
            let pid = execs.next_to_read().unwrap();
            execs.add_image(image(&pid.to_string()), read_ns);
        }
        execs.add(8, at, 145);
        execs.add(9, at, 146);
        execs.add(9, at, 147);
        assert_eq!(execs.next_to_read(), Some(8));
        let mut taken = execs.take(2);
        taken.extend(execs.take(usize::MAX));
        let seen: Vec<_> =
            taken.iter().map(|(pid, _, image)| (*pid, image.executable.is_some(), image.changed)).collect();
        // The last read of 8 is not over, and nothing is known of what did not happen yet.
        let expected = [
            (7, true, true),
            (8, true, false),
            (7, true, false),
            (8, false, false),
            (9, false, false),
            (9, false, false),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_was_handed_over_while_it_was_read_is_not_filled_in_later() {
        let (at, mut execs) = (Clock::new(&Root::host()).now(), Execs::default());
        execs.add(7, at, 100);
        assert_eq!(execs.next_to_read(), Some(7));
        assert_eq!(execs.take(usize::MAX).len(), 1);
        execs.add_image(image("/7"), 110);
        execs.add(8, at, 120);
        execs.add_image(image("/7"), 120);
        assert_eq!((execs.count(), execs.next_to_read()), (1, Some(8)));
        assert_eq!(execs.take(1)[0].2, Image::default());
    }
}
