//! What the connections that broke, one after the other, say about the next: a decision without I/O.

use std::time::Duration;

/// The first pause after a failed connection, doubled with each failure up to the cap.
const BACK_OFF: Duration = Duration::from_secs(1);

/// No pause is longer.
const BACK_OFF_CAP: Duration = Duration::from_secs(300);

/// A connection that ended sooner after it was opened looks like one that somebody else took over.
const SHORT_LIVED: Duration = Duration::from_secs(60);

/// So many of those in a row are named, and the pauses grow although something gets through.
const TAKEOVERS: u32 = 3;

/// Where those pauses stop to grow: 2^5 s. A thousand cloned boards then make some sixty connections a second.
const TAKEOVER_DOUBLINGS: u32 = 5;

/// Connections that broke, since one was good or the endpoint was changed.
#[derive(Debug, Default)]
pub struct Streak {
    failures: u32,
    short_lived: u32,
    /// How many of the latest ended short-lived and with nothing under way.
    pushed_off: u32,
}

/// How one broke.
#[derive(Debug)]
pub struct Broken {
    /// The hub had taken us in.
    pub was_taken_in: bool,
    /// A message was acknowledged.
    pub got_through: bool,
    /// No message was under way at the end. A line that breaks mostly breaks while it is used.
    pub was_idle: bool,
    /// From its opening to its end.
    pub lived: Duration,
}

impl Streak {
    /// One more broke.
    pub fn add(&mut self, broken: &Broken) {
        // A connection over which something got through was a good one.
        self.failures = if broken.got_through { 1 } else { self.failures.saturating_add(1) };
        let is_short_lived = broken.was_taken_in && broken.lived < SHORT_LIVED;
        self.short_lived = if is_short_lived { self.short_lived.saturating_add(1) } else { 0 };
        self.pushed_off = if is_short_lived && broken.was_idle { self.pushed_off.saturating_add(1) } else { 0 };
    }

    /// How many there are since something got through.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A random pause between nothing and twice the last one, so that a fleet does not come back all at once, and two
    /// devices with one id do not push each other off as fast as they can.
    pub fn pause(&self, random: f64) -> Duration {
        let fights = if self.pushed_off < TAKEOVERS { 0 } else { self.pushed_off - 1 };
        let doublings = self.failures.min(16).max(fights.min(TAKEOVER_DOUBLINGS));
        let ceiling = BACK_OFF.saturating_mul(2_u32.saturating_pow(doublings));
        ceiling.min(BACK_OFF_CAP).mul_f64(random.clamp(0.05, 1.0))
    }

    /// A hub closes the older of two connections with one id (MQTT 3.1.1, 3.1.4-2), so two devices with one id push each
    /// other off for ever, and each sees connections that end soon after they were made.
    pub fn explain(&self, why: String, client_id: &str) -> String {
        if self.short_lived < TAKEOVERS {
            return why;
        }
        format!(
            "{why}; {} connections in a row ended soon after the hub took us in: does another device use the id \
             {client_id}?",
            self.short_lived
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Broken = Broken { was_taken_in: false, got_through: false, was_idle: true, lived: Duration::ZERO };
    const PUSHED_OFF: Broken = Broken { was_taken_in: true, got_through: true, ..REFUSED };

    fn after(broken: &Broken, times: u32) -> Streak {
        let mut streak = Streak::default();
        (0..times).for_each(|_| streak.add(broken));
        streak
    }

    #[test]
    fn repeated_takeovers_are_named() {
        let explained = |times| after(&PUSHED_OFF, times).explain("closed by peer".to_owned(), "press-17");
        assert_eq!(explained(2), "closed by peer");
        assert!(explained(3).ends_with("does another device use the id press-17?"));
        assert_eq!(after(&REFUSED, 9).explain("refused".to_owned(), "press-17"), "refused");
    }

    #[test]
    fn the_pause_grows_to_a_cap_and_is_spread() {
        let pause = |times, random| after(&REFUSED, times).pause(random);
        assert_eq!(pause(1, 1.0), Duration::from_secs(2));
        assert_eq!(pause(4, 0.5), Duration::from_secs(8));
        assert_eq!(pause(99, 1.0), BACK_OFF_CAP);
        assert!(pause(1, 0.0) > Duration::ZERO);
    }

    #[test]
    fn who_is_pushed_off_again_and_again_comes_back_more_slowly() {
        let pauses = |broken: &Broken| [1, 2, 3, 4, 5, 6, 99].map(|times| after(broken, times).pause(1.0).as_secs());
        assert_eq!(pauses(&PUSHED_OFF), [2, 2, 4, 8, 16, 32, 32]);
        // A line that breaks in the middle of its work, and one that lasts, are tried again soon.
        assert_eq!(pauses(&Broken { was_idle: false, ..PUSHED_OFF }), [2; 7]);
        assert_eq!(pauses(&Broken { lived: Duration::from_secs(3600), ..PUSHED_OFF }), [2; 7]);
    }
}
