//! What the log says of what the disk refuses: the first time at once, then a count at most once a minute. A full disk
//! refuses every event, and a log on the same disk, or on a serial console, is no place for as many lines.

use std::time::{Duration, Instant};

/// The log hears of refusals at most this often.
const TELL: Duration = Duration::from_secs(60);

/// Refusals that the log has not heard of.
#[derive(Debug, Default)]
pub struct Refusals {
    told: Option<Instant>,
    more: u64,
    last: String,
}

impl Refusals {
    /// Something was refused. Returns what to say about it now, if anything.
    pub fn note(&mut self, now: Instant, sentence: String) -> Option<String> {
        if self.more == 0 && !self.is_too_soon(now) {
            self.told = Some(now);
            return Some(sentence);
        }
        self.more += 1;
        self.last = sentence;
        self.due(now)
    }

    /// What to say about those that nothing was said of, once it is time.
    pub fn due(&mut self, now: Instant) -> Option<String> {
        if self.more == 0 || self.is_too_soon(now) { None } else { self.rest(now) }
    }

    /// The same, at once: it is the last chance.
    pub fn rest(&mut self, now: Instant) -> Option<String> {
        let told = self.told.replace(now)?;
        let more = std::mem::take(&mut self.more);
        let seconds = now.saturating_duration_since(told).as_secs();
        (more > 0).then(|| format!("{}; {more} such refusals in the last {seconds} s", std::mem::take(&mut self.last)))
    }

    fn is_too_soon(&self, now: Instant) -> bool {
        self.told.is_some_and(|told| now.saturating_duration_since(told) < TELL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_is_told_at_once_and_the_others_are_counted_once_a_minute() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let told: Vec<_> = (0..150)
            .filter_map(|second| refusals.note(at(second), format!("no room at {second}")).map(|text| (second, text)))
            .collect();
        let expected = [
            (0, "no room at 0".to_owned()),
            (60, "no room at 60; 60 such refusals in the last 60 s".to_owned()),
            (120, "no room at 120; 60 such refusals in the last 60 s".to_owned()),
        ];
        assert_eq!(told, expected);
        assert_eq!(refusals.due(at(170)), None);
        assert_eq!(refusals.due(at(200)), Some("no room at 149; 29 such refusals in the last 80 s".to_owned()));
        assert_eq!((refusals.due(at(300)), refusals.rest(at(300))), (None, None));
        assert_eq!(refusals.note(at(400), "again".to_owned()), Some("again".to_owned()));
    }
}
