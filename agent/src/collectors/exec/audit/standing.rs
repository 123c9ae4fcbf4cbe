//! How audit stands on this machine, and what can be done with it. Looks, and changes nothing.

use std::fs;

use collector_common::parse::audit_control::{Coverage, Rule, Status, coverage};
use collector_common::root::Root;
use collector_common::sys::audit;

use super::super::image::may;
use super::owner;

const CAP_AUDIT_CONTROL: u32 = 30;
const CAP_AUDIT_READ: u32 = 37;

/// Nobody can change rules before the next boot.
const LOCKED: u32 = 2;
/// The machine halts when a record is lost.
const HALT: u32 = 2;

/// What is wanted of audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Every exec, and no change to the machine.
    Beside,
    /// Every exec, where nobody has it.
    Own,
    /// What can be had, because it was asked for by name.
    Any,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Reading what the rules of the process that owns it record.
    Beside {
        /// That process.
        owner: u32,
        /// Which execs its rules record.
        coverage: Coverage,
    },
    /// Owning it, with rules of ours.
    Own,
}

/// What can be done with audit as it stands.
///
/// # Errors
/// Why that is nothing, in words that follow "because".
pub fn look(root: &Root, demand: Demand) -> Result<Way, String> {
    may_be_used(root)?;
    let status = audit::status().map_err(|error| error.to_string())?;
    let rules = audit::rules().map_err(|error| error.to_string())?;
    let way = decide(status, &rules, is_alive(root, status.owner), demand)
        .map_err(|why| why.replace("{owner}", &named(root, status.owner)))?;
    match (way, owner::is_left_to()) {
        (Way::Beside { .. }, _) => may_listen(root)?,
        (Way::Own, Some(other)) => {
            return Err(format!(
                "it is left free for ten minutes, because process {other} wanted to own it: start it again"
            ));
        }
        (Way::Own, None) => {}
    }
    Ok(way)
}

/// A process as `PID (NAME)`.
pub fn named(root: &Root, pid: u32) -> String {
    let name = fs::read_to_string(root.path(format!("/proc/{pid}/comm"))).unwrap_or_default();
    if name.is_empty() { pid.to_string() } else { format!("{pid} ({})", name.trim_end()) }
}

/// The kernel notices that an owner has ended only when it has something for it.
pub fn is_alive(root: &Root, pid: u32) -> bool {
    pid != 0 && root.path(format!("/proc/{pid}")).exists()
}

fn may_be_used(root: &Root) -> Result<(), String> {
    if !root.is_host() {
        return Err("audit tells only of the running machine".to_owned());
    }
    if !may(root, CAP_AUDIT_CONTROL) {
        return Err("the agent may not ask who owns audit: give it CAP_AUDIT_CONTROL and CAP_AUDIT_READ".to_owned());
    }
    if audit::abis_here().is_empty() {
        return Err("the numbers of system calls that rules of audit need are not known for this machine".to_owned());
    }
    Ok(())
}

fn may_listen(root: &Root) -> Result<(), String> {
    if !may(root, CAP_AUDIT_READ) {
        return Err("the agent may not read audit beside its owner: give it CAP_AUDIT_READ".to_owned());
    }
    let namespace = |of: &str| fs::read_link(root.path(format!("/proc/{of}/ns/net"))).ok();
    match (namespace("1"), namespace("self")) {
        (Some(first), Some(own)) if first != own => {
            Err("audit can be read beside its owner only in the host's network namespace".to_owned())
        }
        _ => Ok(()),
    }
}

fn decide(status: Status, rules: &[Rule], has_owner: bool, demand: Demand) -> Result<Way, String> {
    let coverage = if status.enabled == 0 { Coverage::None } else { coverage(rules, audit::abis_here()) };
    let refused = |why: &str| Err(why.to_owned());
    match (has_owner, demand, coverage) {
        (true, Demand::Own, _) => refused("process {owner} owns audit"),
        (true, _, Coverage::None) => refused(
            "process {owner} owns audit, and its rules record no exec: add rules for execve and execveat of each \
             architecture to it, or stop it",
        ),
        (true, Demand::Beside, Coverage::Some) => refused(
            "process {owner} owns audit, and its rules record only some execs: add rules for execve and execveat of \
             each architecture without any condition, or set processBackend to \"audit\" to have those",
        ),
        (true, _, _) => Ok(Way::Beside { owner: status.owner, coverage }),
        (false, Demand::Beside, _) => refused(
            "nobody owns it, and to own it makes every system call of the machine slower and keeps its messages out of \
             the kernel's log, so that is done only for processBackend \"audit\", or where the process connector does \
             not work",
        ),
        (false, _, _) if status.enabled == LOCKED => {
            refused("its rules are locked until the next boot, and nobody owns it who would pass on records")
        }
        (false, _, _) if status.failure == HALT => {
            refused("the kernel is told to halt the machine when audit loses a record")
        }
        (false, _, _) => Ok(Way::Own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_common::parse::audit_control::Mark;

    #[test]
    fn audit_is_owned_only_when_it_is_free_and_read_beside_its_owner_only_when_that_helps() {
        let mark = Mark { pid: 1, enabled: 1, backlog_limit: 64, backlog_wait: 0 };
        let all: Vec<Rule> = audit::abis_here().iter().map(|abi| Rule::of_execs(*abi, mark)).collect();
        if all.len() < 2 {
            return eprintln!("not run: this machine has only one architecture");
        }
        let on = Status { enabled: 1, owner: 7, failure: 1, ..Status::default() };
        let beside = |coverage| Ok(Way::Beside { owner: 7, coverage });
        for (demand, rules, expected) in [
            (Demand::Beside, &all[..], beside(Coverage::All)),
            (Demand::Any, &all[..], beside(Coverage::All)),
            (Demand::Any, &all[..1], beside(Coverage::Some)),
        ] {
            assert_eq!(decide(on, rules, true, demand), expected);
        }
        let refused = |status, rules: &[Rule], has_owner, demand| decide(status, rules, has_owner, demand).unwrap_err();
        assert!(refused(on, &all, true, Demand::Own).contains("owns audit"));
        assert!(refused(on, &all[..1], true, Demand::Beside).contains("only some execs"));
        assert!(refused(on, &[], true, Demand::Any).contains("record no exec"));
        let off = Status { enabled: 0, ..on };
        assert!(refused(off, &all, true, Demand::Any).contains("record no exec"));
        assert!(refused(off, &[], false, Demand::Beside).contains("nobody owns it"));
        for demand in [Demand::Own, Demand::Any] {
            assert_eq!(decide(off, &[], false, demand), Ok(Way::Own));
            assert!(refused(Status { enabled: LOCKED, ..on }, &[], false, demand).contains("locked"));
            assert!(refused(Status { failure: HALT, ..on }, &[], false, demand).contains("halt"));
        }
    }

    #[test]
    fn another_machine_cannot_be_looked_at() {
        assert!(look(&Root::at("/nonexistent"), Demand::Any).unwrap_err().contains("running machine"));
    }
}
