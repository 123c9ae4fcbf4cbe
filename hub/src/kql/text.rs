//! Searching in strings: substrings, ends and terms, with and without case.
//!
//! A term is a longest run of letters and digits (learn.microsoft.com/kusto/query/datatypes-string-operators).

/// What is searched for, folded once when it is known beforehand.
#[derive(Clone, Debug)]
pub struct Needle {
    text: String,
    fold: bool,
}

/// Where in the string it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere.
    Inside,
    /// At the start.
    Start,
    /// At the end.
    End,
    /// As whole terms.
    Term,
    /// At the start of a term.
    TermStart,
    /// At the end of a term.
    TermEnd,
}

impl Needle {
    /// `fold`: upper and lower case are the same.
    pub fn new(text: &str, fold: bool) -> Needle {
        Needle { text: if fold { folded(text) } else { text.to_owned() }, fold }
    }

    /// Whether the string has it there.
    pub fn is_in(&self, hay: &str, place: Place) -> bool {
        if self.fold && !self.text.is_ascii() && !hay.is_ascii() {
            return self.find(&folded(hay), place, false);
        }
        self.find(hay, place, self.fold)
    }

    fn find(&self, hay: &str, place: Place, fold: bool) -> bool {
        let (bytes, needle) = (hay.as_bytes(), self.text.as_bytes());
        let same = |part: &[u8]| if fold { part.eq_ignore_ascii_case(needle) } else { part == needle };
        match place {
            Place::Start => bytes.get(..needle.len()).is_some_and(same),
            Place::End => bytes.len().checked_sub(needle.len()).is_some_and(|at| bytes.get(at..).is_some_and(same)),
            _ if needle.is_empty() => true,
            _ => {
                let mut from = 0;
                while let Some(at) = next_match(bytes, needle, from, fold) {
                    if place == Place::Inside || self.bounded(hay, at, place) {
                        return true;
                    }
                    from = at + 1;
                }
                false
            }
        }
    }

    /// Whether the match neither begins nor ends inside a term, as far as that matters.
    fn bounded(&self, hay: &str, at: usize, place: Place) -> bool {
        let end = at + self.text.len();
        let word = |char: Option<char>| char.is_some_and(char::is_alphanumeric);
        let before = hay.get(..at).and_then(|before| before.chars().next_back());
        let after = hay.get(end..).and_then(|after| after.chars().next());
        let start_ok = !word(self.text.chars().next()) || !word(before);
        let end_ok = !word(self.text.chars().next_back()) || !word(after);
        match place {
            Place::TermStart => start_ok,
            Place::TermEnd => end_ok,
            _ => start_ok && end_ok,
        }
    }
}

fn next_match(hay: &[u8], needle: &[u8], from: usize, fold: bool) -> Option<usize> {
    let first = *needle.first()?;
    let other = if fold { first.to_ascii_uppercase() } else { first };
    let last = hay.len().checked_sub(needle.len())?;
    let mut at = from;
    while at <= last {
        let skip = hay.get(at..=last)?.iter().position(|byte| *byte == first || *byte == other)?;
        at += skip;
        let part = hay.get(at..at + needle.len())?;
        if if fold { part.eq_ignore_ascii_case(needle) } else { part == needle } {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Lower case, character by character, so that no length changes the meaning of a place.
pub fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars()
        .map(|char| {
            let mut lower = char.to_lowercase();
            match (lower.next(), lower.next()) {
                (Some(lower), None) => lower,
                _ => char,
            }
        })
        .collect()
}

/// Whether two strings differ in nothing but case.
pub fn same_folded(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() { a.eq_ignore_ascii_case(b) } else { folded(a) == folded(b) }
}
