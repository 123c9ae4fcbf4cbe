//! Bounded waiting. No test measures time: each waits for what must come, and the limit only turns a hang into a
//! failure that says what was missing.

use std::time::{Duration, Instant};

/// How long anything may take before the test is told that it will not come. A dead link is noticed after up to two
/// keep-alive periods of a minute; everything else needs far less, also on a loaded machine with two cores.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Asks until the answer is there. `Err` is what is missing so far; the last one is shown when time is up.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(missing) if start.elapsed() > LIMIT => panic!("waited {LIMIT:?} for {what}: {missing}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Asks until it is true.
pub fn until_true(what: &str, mut ask: impl FnMut() -> bool) {
    until(what, || if ask() { Ok(()) } else { Err("not yet".to_owned()) });
}
