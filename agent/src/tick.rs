//! The one tick of everything that is done again and again.
//!
//! Each wake-up of a board that sleeps costs more than what is done then, so all of it is done at the same strokes:
//!
//! ```text
//! start of the agent   5 s    10 s   15 s   20 s   25 s   30 s
//! stroke               |      |      |      |      |      |
//! listening ports      x      x      x      x      x      x
//! watchdog                                                x
//! ```
//!
//! Whoever waits until a stroke waits for the very moment the others wait for, which one timer of the runtime serves.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval_at, sleep_until};

/// Between two strokes.
pub const TICK: Duration = Duration::from_secs(5);

/// Any moment would do; the first that asks sets it.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The last stroke within a time, and at least the next one. So what is done every so often, at strokes, is done at
/// every stroke or at every second one and so on.
pub fn within(time: Duration, now: Instant) -> Instant {
    let strokes = |time: Duration| u32::try_from(time.as_micros() / TICK.as_micros()).unwrap_or(u32::MAX);
    let since = now.saturating_duration_since(*START);
    let stroke = strokes(since.saturating_add(time)).max(strokes(since).saturating_add(1));
    *START + TICK * stroke
}

/// Waits for the last stroke within a time, and at least for the next one.
pub async fn wait(time: Duration) {
    sleep_until(within(time, now()).into()).await;
}

/// Strokes at most so long apart. What is shorter than the tick has its own time.
pub fn every(period: Duration) -> Interval {
    // A period of zero would be a panic.
    let period = period.max(Duration::from_millis(1));
    let (begin, period) = match u32::try_from(period.as_micros() / TICK.as_micros()) {
        Ok(0) | Err(_) => (now() + period, period),
        Ok(strokes) => (within(TICK * strokes, now()), TICK * strokes),
    };
    let mut strokes = interval_at(begin.into(), period);
    strokes.set_missed_tick_behavior(MissedTickBehavior::Skip);
    strokes
}

/// The runtime's clock, which tests hold.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wait_for_the_same_strokes_and_none_too_long() {
        let start = *START;
        let ms = Duration::from_millis;
        for (now, time, stroke) in [
            (0, 0, 5000),
            (0, 5000, 5000),
            (1, 5000, 5000),
            (4999, 5000, 5000),
            (5000, 5000, 10_000),
            (7000, 30_000, 35_000),
            (7000, 2000, 10_000),
            (7000, 3000, 10_000),
        ] {
            assert_eq!(within(ms(time), start + ms(now)), start + ms(stroke), "{time} ms from {now} ms on");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_at_strokes_is_done_at_the_same_ones() {
        tokio::time::advance(Duration::from_millis(1234)).await;
        let (mut each, mut sixth) = (every(TICK), every(TICK * 6 + Duration::from_secs(1)));
        let begin = now();
        for _ in 0..6 {
            each.tick().await;
        }
        sixth.tick().await;
        let first = now();
        assert!(first - begin > TICK * 5 && first - begin <= TICK * 6);
        wait(TICK * 6).await;
        sixth.tick().await;
        assert_eq!(now() - first, TICK * 6);
        let mut short = every(Duration::from_millis(500));
        short.tick().await;
        assert_eq!(now() - first, TICK * 6 + Duration::from_millis(500));
    }
}
