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
}
