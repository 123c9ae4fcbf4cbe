//! What was found damaged, until the recorder tells it.

/// No more sentences are kept; what is beyond them is counted. A broken disk has the same thing to say each time.
const SENTENCES_KEPT: usize = 4;

/// Damage of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// What happened, one sentence each.
    pub sentences: Vec<String>,
    /// So many more sentences there were.
    pub more: u64,
    /// Events that are lost by it. Their numbers are missing, so this is exact, but nobody can tell their kinds.
    pub lost: u64,
}

impl Damage {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Damage::default()
    }

    /// Adds a sentence.
    pub fn note(&mut self, sentence: String) {
        if self.sentences.len() < SENTENCES_KEPT && !self.sentences.contains(&sentence) {
            self.sentences.push(sentence);
        } else {
            self.more += 1;
        }
    }

    /// Adds what was found elsewhere or later.
    pub fn add(&mut self, other: &Damage) {
        other.sentences.iter().cloned().for_each(|sentence| self.note(sentence));
        self.more += other.more;
        self.lost += other.lost;
    }
}

/// So many gaps are remembered. Beyond them one that is met again counts again, which is better than not at all.
const GAPS_KEPT: usize = 1024;

/// Numbers that are known to be lost and were counted, so that reading them again counts nothing.
#[derive(Debug, Default)]
pub struct Counted(Vec<(u64, u64)>);

impl Counted {
    /// Counts the numbers from one to another; returns how many of them are new.
    pub fn add(&mut self, from: u64, through: u64) -> u64 {
        if from > through {
            return 0;
        }
        let within = |gap: &(u64, u64)| (gap.1.min(through) + 1).saturating_sub(gap.0.max(from));
        let known: u64 = self.0.iter().map(within).sum();
        let (mut low, mut high) = (from, through);
        self.0.retain(|gap| {
            let touches = gap.0 <= high && gap.1 >= low;
            if touches {
                (low, high) = (low.min(gap.0), high.max(gap.1));
            }
            !touches
        });
        if self.0.len() < GAPS_KEPT {
            self.0.push((low, high));
        }
        through - from + 1 - known
    }

    /// Numbers below this one are never met again.
    pub fn forget_below(&mut self, seq: u64) {
        self.0.retain(|gap| gap.1 >= seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_counted_once() {
        let mut counted = Counted::default();
        let adds = [(5, 9, 5), (1, 2, 2), (7, 12, 3), (1, 20, 10), (3, 4, 0), (20, 21, 1), (9, 8, 0)];
        for (from, through, new) in adds {
            assert_eq!(counted.add(from, through), new, "{from} to {through}");
        }
        counted.forget_below(22);
        assert!(counted.0.is_empty());
    }
}
