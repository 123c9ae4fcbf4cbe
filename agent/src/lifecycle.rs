//! Whether the agent's last run ended as it should, so that the hub can tell silence from death.
//!
//! ```text
//! <state directory>/lifecycle    "running BOOT" while an agent runs, "stopped BOOT" after it ended on request
//! ```

use std::fs;
use std::io;
use std::path::Path;

use uuid::Uuid;

use crate::spool::state::replace_file;

const FILE: &str = "lifecycle";

/// How the run before this one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// There was none.
    First,
    /// It was stopped.
    Stopped,
    /// It was killed or crashed, and the machine went on.
    Killed,
    /// It ended together with the machine, which was not shut down.
    PowerLost,
}

impl Before {
    /// The word in the event.
    pub fn name(self) -> &'static str {
        match self {
            Before::First => "first",
            Before::Stopped => "stopped",
            Before::Killed => "killed",
            Before::PowerLost => "powerLost",
        }
    }
}

/// Notes that the agent runs, and tells how its last run ended.
pub fn begin(state_directory: &Path, boot: Uuid) -> io::Result<Before> {
    let path = state_directory.join(FILE);
    let before = before(fs::read_to_string(&path).ok().as_deref(), boot);
    replace_file(&path, format!("running {boot}\n").as_bytes())?;
    Ok(before)
}

/// Notes that the agent ended on request.
pub fn end(state_directory: &Path, boot: Uuid) -> io::Result<()> {
    replace_file(&state_directory.join(FILE), format!("stopped {boot}\n").as_bytes())
}

fn before(text: Option<&str>, boot: Uuid) -> Before {
    match text.and_then(|text| text.trim().split_once(' ')) {
        None => Before::First,
        Some(("stopped", _)) => Before::Stopped,
        Some((_, of)) if of == boot.to_string() => Before::Killed,
        Some(_) => Before::PowerLost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let (boot, next) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(begin(directory.path(), boot).unwrap(), Before::First);
        assert_eq!(begin(directory.path(), boot).unwrap(), Before::Killed);
        end(directory.path(), boot).unwrap();
        assert_eq!(begin(directory.path(), boot).unwrap(), Before::Stopped);
        assert_eq!(begin(directory.path(), next).unwrap(), Before::PowerLost);
        fs::write(directory.path().join(FILE), "").unwrap();
        assert_eq!(begin(directory.path(), next).unwrap(), Before::First);
    }
}
