//! Owning audit: taken with rules of ours, and given back as it was, also by the next agent when this one is killed.
//!
//! ```text
//! take     owner = we   rule -a always,exit -F arch=... -S execve -S execveat -k edgewarden-PID-...   backlog   on
//! release  rules gone   off, if it was   backlog as it was   owner = nobody       unless somebody set it meanwhile
//! ```
//!
//! What was set before stands in the key of the rules, so there is no file that could be lost or tell of another boot.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use collector_common::parse::audit_control::{Change, Coverage, Mark, Rule, Status, coverage};
use collector_common::root::Root;
use collector_common::sys::audit::{self, AuditError, Records};
use nix::errno::Errno;

use super::standing::is_alive;

/// Records that may wait: a second of more than a thousand execs, some 4 MiB of the kernel's memory at the most.
const BACKLOG: u32 = 8192;

/// A system call never waits for us: what has no room is dropped and counted.
const NO_WAIT: u32 = 0;

const ON: u32 = 1;

/// How long audit is left free when it was given back: who wants it has to try again, maybe by hand.
const LEFT_FREE: Duration = Duration::from_secs(600);

/// Whom it was given back to, and when.
static GIVEN_BACK: Mutex<Option<(Instant, String)>> = Mutex::new(None);

/// Audit, as long as it is ours.
#[derive(Debug)]
pub struct Owner {
    records: Records,
    rules: Vec<Rule>,
    before: Mark,
}

impl Owner {
    /// Takes audit, which nobody has.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn take() -> Result<Owner, String> {
        let status = audit::status().map_err(words)?;
        let before = Mark {
            pid: std::process::id(),
            enabled: status.enabled,
            backlog_limit: status.backlog_limit,
            backlog_wait: status.backlog_wait,
        };
        let records = Records::own().map_err(words)?;
        let rules = audit::abis_here().iter().map(|abi| Rule::of_execs(*abi, before)).collect();
        // From here on dropping it undoes what was done.
        let owner = Owner { records, rules, before };
        for rule in &owner.rules {
            audit::add(rule).map_err(words)?;
        }
        let (limit, wait) = backlog(before);
        audit::set(Change::Backlog(limit, wait)).map_err(words)?;
        audit::set(Change::Enabled(ON)).map_err(words)?;
        owner.check()?;
        Ok(owner)
    }

    /// Where the records come.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Whether everything is still as it was made, and how many records the kernel dropped.
    pub fn check(&self) -> Result<u32, String> {
        let status = audit::status().map_err(words)?;
        if status.owner != self.before.pid {
            return Err("audit has another owner now, or the kernel gave up on this one".to_owned());
        }
        if status.enabled == 0 {
            return Err("somebody turned audit off".to_owned());
        }
        match coverage(&audit::rules().map_err(words)?, audit::abis_here()) {
            Coverage::All => Ok(status.lost),
            Coverage::Some | Coverage::None => {
                Err("somebody's rules keep execs out of audit, or the agent's own rules were removed".to_owned())
            }
        }
    }

    /// Records nothing more. What was recorded can still be read.
    pub fn stop_recording(&self) {
        for rule in &self.rules {
            said(audit::remove(rule));
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.stop_recording();
        // Who took it meanwhile has set it as he likes.
        if audit::status().is_ok_and(|status| status.owner == self.before.pid) {
            restore(self.before);
            said(self.records.disown());
        }
    }
}

/// Remembers that another process wants audit, so that it can have it at its next attempt.
pub fn leave_to(other: String) {
    *GIVEN_BACK.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), other));
}

/// Whom audit is left to at present.
pub fn is_left_to() -> Option<String> {
    let given_back = GIVEN_BACK.lock().unwrap_or_else(PoisonError::into_inner);
    given_back.as_ref().filter(|(since, _)| since.elapsed() < LEFT_FREE).map(|(_, other)| other.clone())
}

/// Undoes what agents left behind that were killed.
pub fn clean_up(root: &Root) {
    if !root.is_host() {
        return;
    }
    let (Ok(status), Ok(rules)) = (audit::status(), audit::rules()) else { return };
    let is_at_work = |mark: Mark| mark.pid == status.owner && is_alive(root, mark.pid);
    let left = rules.iter().filter_map(|rule| Some((rule, rule.mark()?))).filter(|(_, mark)| !is_at_work(*mark));
    let mut before = None;
    for (rule, mark) in left {
        tracing::warn!("removing a rule of audit that agent {} left behind when it was killed", mark.pid);
        said(audit::remove(rule));
        before = Some(mark);
    }
    if let Some(before) = before.filter(|_| !is_alive(root, status.owner)) {
        restore(before);
    }
}

fn restore(before: Mark) {
    let (Ok(status), Ok(rules)) = (audit::status(), audit::rules()) else {
        return tracing::warn!("audit may not be as it was before; auditctl -s and auditctl -l show how it is");
    };
    let has_other_rules = rules.iter().any(|rule| rule.mark().is_none());
    for change in undone(before, status, has_other_rules) {
        said(audit::set(change));
    }
}

/// What undoes what was set, and leaves what somebody else has set since. Who has rules wants audit to be on.
fn undone(before: Mark, now: Status, has_other_rules: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    if before.enabled != now.enabled && now.enabled == ON && !has_other_rules {
        changes.push(Change::Enabled(before.enabled));
    }
    let (ours_limit, ours_wait) = backlog(before);
    let limit = if now.backlog_limit == ours_limit { before.backlog_limit } else { now.backlog_limit };
    let wait = if now.backlog_wait == ours_wait { before.backlog_wait } else { now.backlog_wait };
    if (limit, wait) != (now.backlog_limit, now.backlog_wait) {
        changes.push(Change::Backlog(limit, wait));
    }
    changes
}

/// What is set while audit is ours.
fn backlog(before: Mark) -> (u32, u32) {
    (before.backlog_limit.max(BACKLOG), NO_WAIT)
}

fn said(result: Result<(), AuditError>) {
    if let Err(error) = result {
        tracing::warn!("audit is not as it was before: {error}; auditctl -s and auditctl -l show how it is");
    }
}

fn words(error: AuditError) -> String {
    match error.errno {
        Errno::EEXIST => "somebody else became its owner a moment ago".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_still_as_it_was_set_is_undone() {
        let before = Mark { pid: 7, enabled: 0, backlog_limit: 64, backlog_wait: 15_000 };
        let ours = Status { enabled: ON, backlog_limit: BACKLOG, backlog_wait: NO_WAIT, ..Status::default() };
        let back = Change::Backlog(64, 15_000);
        assert_eq!(undone(before, ours, false), [Change::Enabled(0), back]);
        assert_eq!(undone(before, ours, true), [back]);
        let wider = Status { backlog_limit: 32_768, ..ours };
        assert_eq!(undone(before, wider, true), [Change::Backlog(32_768, 15_000)]);
        let off = Status { enabled: 0, backlog_wait: 1, ..wider };
        assert_eq!(undone(before, off, false), []);
        assert_eq!(undone(Mark { enabled: ON, ..before }, ours, false), [back]);
    }
}
