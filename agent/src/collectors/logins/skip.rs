//! What a stream from a log in memory repeats of what was read of it before.

/// Finds out which lines at the beginning of a stream were read before: it begins with what the ring held when it was
/// asked, less what was written over since.
pub struct Skip<'a> {
    /// What the ring held.
    held: &'a [u32],
    /// How much of that was read before.
    read: usize,
    /// Where in it the stream may have begun, by the lines seen so far. The same lines may stand in it twice; the
    /// longest that fits counts.
    begins: Vec<usize>,
    seen: usize,
    /// The lines read before were found.
    found: bool,
    /// The stream begins with the first line that was not read.
    goes_on: bool,
}

impl Skip<'_> {
    /// Of what the ring held, and how much of that was read before.
    pub fn new(held: &[u32], read: usize) -> Skip<'_> {
        Skip { held, read, begins: (0..read).collect(), seen: 0, found: false, goes_on: read == 0 }
    }

    /// Takes the next line; whether it and all before it were read before.
    pub fn was_read(&mut self, crc: u32) -> bool {
        let at = self.seen;
        self.goes_on |= at == 0 && self.held.get(self.read) == Some(&crc);
        self.seen += 1;
        self.begins.retain(|begin| self.held[begin + at] == crc);
        // The others began earlier, and there is more of them to come.
        let is_whole = self.begins.last().is_some_and(|begin| begin + self.seen == self.read);
        if is_whole {
            self.begins.pop();
            self.found = true;
        }
        is_whole
    }

    /// Whether the lines read before were found, though there may be more of them.
    pub fn has_found(&self) -> bool {
        self.found
    }

    /// Whether all lines that come now are new.
    pub fn is_decided(&self) -> bool {
        self.begins.is_empty()
    }

    /// Whether lines were written over that nobody has read.
    pub fn has_gap(&self) -> bool {
        self.seen > 0 && self.is_decided() && !self.found && !self.goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stream_repeats_is_skipped_and_nothing_else() {
        // What the ring held, how much of it was read, the stream, what is new in it, and whether something is missing.
        for (held, read, stream, new, gap) in [
            ("abcd", 3, "abcde", "de", false),
            ("abcd", 3, "cde", "de", false),
            ("abcd", 4, "abcd", "", false),
            ("abb", 2, "abb", "b", false),
            ("abb", 3, "abbb", "b", false),
            ("abab", 4, "ababab", "ab", false),
            ("bb", 2, "bc", "c", false),
            ("abcd", 3, "de", "de", false),
            ("abcde", 3, "ef", "ef", true),
            ("abcd", 4, "xy", "xy", true),
            ("abcd", 0, "abcd", "abcd", false),
            ("", 0, "ab", "ab", false),
        ] {
            let crcs = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
            let held = crcs(held);
            let mut skip = Skip::new(&held, read);
            let mut left = Vec::new();
            for crc in crcs(stream) {
                match !skip.is_decided() && skip.was_read(crc) {
                    true => left.clear(),
                    false => left.push(crc),
                }
            }
            assert_eq!((left, skip.has_gap()), (crcs(new), gap), "{held:?} {read} {stream}");
        }
    }
}
