//! Since when the recorder has been at one piece of work. A piece is short, so a long one waits for the disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After this time the disk will not answer any more. Slow flash is idle again long before: a request to a card may take
/// 60 s before the kernel ends it (drivers/mmc/core/queue.c), one to a SCSI disk 30 s (drivers/scsi/sd.h), and after
/// 120 s it calls a task hung itself (kernel.hung_task_timeout_secs).
const HUNG: Duration = Duration::from_secs(120);

/// Shared between the recorder, the watchdog and `status`.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Option<Instant>>>);

impl Progress {
    /// A piece of work begins, and with it the one before has ended.
    pub fn begin(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// There is nothing to do.
    pub fn idle(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How long the piece of work has taken so far.
    pub fn busy_for(&self, now: Instant) -> Duration {
        let begun = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun))
    }

    /// Whether nothing more can be expected of it.
    pub fn is_hung(&self, now: Instant) -> bool {
        self.busy_for(now) > HUNG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_piece_of_work_that_does_not_end_is_a_hung_recorder() {
        let (progress, start) = (Progress::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!progress.is_hung(at(1000)));
        progress.begin(start);
        assert_eq!((progress.busy_for(at(90)), progress.is_hung(at(90))), (Duration::from_secs(90), false));
        progress.begin(at(100));
        assert!(!progress.is_hung(at(200)));
        assert!(progress.is_hung(at(221)));
        progress.idle();
        assert_eq!(progress.busy_for(at(300)), Duration::ZERO);
    }
}
