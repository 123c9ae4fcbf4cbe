//! The `AgentId`: made once, kept in the state directory, bound to the machine.
//!
//! ```text
//! STATE/agent-id    {"agentId":"UUID","machine":"64 hexadecimal digits or null"}
//! ```
//!
//! A card that is copied carries its state directory along, and two boards must not speak as one agent. So the file
//! says which machine it was made on, by a keyed hash of the machine id (HMAC-SHA-256, the machine id as the key), as
//! machine-id(5) asks for: the id itself is not to be seen where others look.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use collector_common::root::Root;
use ring::hmac;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::machine_id;

/// The id of this installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentId {
    /// `AgentId` of every message.
    pub id: Uuid,
    /// What an operator should know about how it came to be.
    pub warning: Option<String>,
}

/// What the hash is made for, so that no other program's hash of the same machine id equals ours.
const PURPOSE: &[u8] = b"edgewarden agent-id 1";
const FILE: &str = "agent-id";
/// The file has about 130 bytes.
const MAX_FILE_BYTES: u64 = 4096;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored {
    agent_id: Uuid,
    machine: Option<String>,
}

/// The id of this installation, made and written down when there is none or when it belongs to another machine.
///
/// # Errors
/// A sentence when the state directory cannot be read or written.
pub fn agent_id(state_directory: &Path, root: &Root) -> Result<AgentId, String> {
    let path = state_directory.join(FILE);
    let machine = machine_id(root).ok().map(|id| fingerprint(&id));
    let stored = match read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let decision = decide(stored.as_deref(), machine, &path.display().to_string(), Uuid::now_v7);
    if let Some(text) = &decision.write {
        write(state_directory, text).map_err(|error| {
            format!(
                "cannot write {}: {error}; the agent has to be able to write to its state directory",
                path.display()
            )
        })?;
    }
    Ok(decision.agent)
}

struct Decision {
    agent: AgentId,
    /// What the file has to hold from now on, when it does not.
    write: Option<String>,
}

/// A machine that tells no id keeps what is stored, and one that tells it for the first time binds it.
fn decide(stored: Option<&[u8]>, machine: Option<String>, path: &str, make: impl Fn() -> Uuid) -> Decision {
    let parsed = stored.map(serde_json::from_slice::<Stored>);
    let (agent_id, warning, is_new) = match (&parsed, &machine) {
        (Some(Ok(Stored { agent_id, machine: Some(theirs) })), Some(ours)) if theirs != ours => {
            let warning = format!(
                "{path} was made on another machine (a copied image?): this one gets a new AgentId instead of {agent_id}"
            );
            (make(), Some(warning), true)
        }
        (Some(Ok(Stored { agent_id, machine: None })), Some(_)) => (*agent_id, None, true),
        (Some(Ok(Stored { agent_id, .. })), _) => (*agent_id, None, false),
        (Some(Err(error)), _) => {
            (make(), Some(format!("{path} cannot be understood ({error}): this machine gets a new AgentId")), true)
        }
        (None, _) => (make(), None, true),
    };
    let write = is_new.then(|| serde_json::json!(Stored { agent_id, machine }).to_string() + "\n");
    Decision { agent: AgentId { id: agent_id, warning }, write }
}

fn fingerprint(machine_id: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, machine_id.as_bytes()), PURPOSE);
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(path)?, MAX_FILE_BYTES), &mut bytes)?;
    Ok(bytes)
}

/// Either the old file or the whole new one is there after a power cut.
fn write(state_directory: &Path, text: &str) -> io::Result<()> {
    let (fresh, path) = (state_directory.join("agent-id.new"), state_directory.join(FILE));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    File::open(state_directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/machine-id"), format!("{id}\n")).unwrap();
        let root = Root::at(directory.path());
        (directory, root)
    }

    #[test]
    fn an_id_is_made_once_and_a_copied_card_gets_another() {
        let state = tempfile::tempdir().unwrap();
        let (_one, first) = machine("0123456789abcdef0123456789abcdef");
        let (_two, second) = machine("fedcba9876543210fedcba9876543210");
        let made = agent_id(state.path(), &first).unwrap();
        assert_eq!(made.warning, None);
        assert_eq!(agent_id(state.path(), &first).unwrap(), made);

        let copied = agent_id(state.path(), &second).unwrap();
        assert_ne!(copied.id, made.id);
        assert!(copied.warning.unwrap().contains("another machine"));
        assert_eq!(agent_id(state.path(), &second).unwrap(), AgentId { id: copied.id, warning: None });
        let text = fs::read_to_string(state.path().join("agent-id")).unwrap();
        assert!(!text.contains("fedcba98"), "the machine id is not to be read in {text}");
    }

    #[test]
    fn a_machine_id_that_comes_later_is_bound_and_one_that_goes_changes_nothing() {
        let state = tempfile::tempdir().unwrap();
        let nowhere = tempfile::tempdir().unwrap();
        let bare = Root::at(nowhere.path());
        let made = agent_id(state.path(), &bare).unwrap();
        let (_one, first) = machine("0123456789abcdef0123456789abcdef");
        let (_two, second) = machine("fedcba9876543210fedcba9876543210");
        assert_eq!(agent_id(state.path(), &first).unwrap(), made);
        assert_eq!(agent_id(state.path(), &bare).unwrap(), made);
        assert_ne!(agent_id(state.path(), &second).unwrap().id, made.id);
    }

    #[test]
    fn a_torn_file_gives_a_new_id_and_says_so() {
        let whole = serde_json::json!(Stored { agent_id: Uuid::nil(), machine: Some("ab".repeat(32)) }).to_string();
        for end in 0..whole.len() {
            let decision = decide(Some(&whole.as_bytes()[..end]), None, "agent-id", Uuid::max);
            assert_eq!(decision.agent.id, Uuid::max(), "{end}");
            assert!(decision.agent.warning.unwrap().contains("cannot be understood"));
            assert!(decision.write.is_some());
        }
    }

    #[test]
    fn a_state_directory_that_cannot_be_written_is_named() {
        let nowhere = tempfile::tempdir().unwrap();
        let error = agent_id(&nowhere.path().join("missing"), &Root::host()).unwrap_err();
        assert!(error.contains("missing/agent-id") && error.contains("state directory"), "{error}");
    }
}
