//! What a process of the machine can hold up is done in a thread of its own, which is left behind when it does not come
//! back: a file system that answers when it likes may be under a program, and the runtime has one thread for everything.

use std::fmt;
use std::io;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// Why something is not done.
#[derive(Debug)]
pub enum Undone {
    /// It goes on, and nobody waits for it any more.
    HeldUp,
    /// It could not be begun, or ended halfway.
    Failed(String),
}

impl fmt::Display for Undone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Undone::HeldUp => out.write_str("it takes too long"),
            Undone::Failed(why) => out.write_str(why),
        }
    }
}

/// Does something in a thread of this name and waits at most so long for it. When the future is dropped, it is done all
/// the same.
pub async fn done<T: Send + 'static>(
    name: &str,
    stack_bytes: usize,
    at_most: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Undone> {
    let (tell, told) = oneshot::channel();
    let work = move || drop(tell.send(work()));
    let no_thread = |error: io::Error| Undone::Failed(format!("no thread could be started: {error}"));
    thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(work).map_err(no_thread)?;
    match timeout(at_most, told).await {
        Ok(done) => done.map_err(|_| Undone::Failed("its thread died".to_owned())),
        Err(_) => Err(Undone::HeldUp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn what_is_held_up_is_left_behind() {
        let (go_on, held) = mpsc::sync_channel::<()>(1);
        let (began, begun) = mpsc::sync_channel(1);
        let work = move || {
            began.send(()).unwrap();
            assert!(held.recv().is_err());
        };
        let undone = done("held-up", 64 * 1024, Duration::from_millis(1), work).await;
        assert!(matches!(undone, Err(Undone::HeldUp)), "{undone:?}");
        begun.recv().unwrap();
        drop(go_on);
        assert_eq!(done("quick", 64 * 1024, Duration::from_secs(60), || 7).await.unwrap(), 7);
    }
}
