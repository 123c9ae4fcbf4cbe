//! Asks the store what a rule needs to know, and keeps what it decides.
//!
//! An alert is written in the transaction of the row that completes it, under an id made of its facts: a crash loses
//! neither and a second delivery adds neither. Rows may come in any order: a decision looks at the times in the rows,
//! and a login that comes late makes the logins behind it be judged again. So the alerts of a set of rows do not depend
//! on the order they came in.
//!
//! The work a row makes is bounded: a login reads at most 5 rows, a late one besides that 12 rows and 5 for each. What
//! lists of accounts lead to is decided later, see `store::settle`.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Transaction, params};
use serde::Deserialize;

use super::moment;
use crate::alerts::logins::{FAILURES, Login, LoginItem, WINDOW};
use crate::alerts::miners::{Process, ProcessItem};
use crate::alerts::{self, Decide, Finding, RULES, Rule};

/// What the rules read in a row.
pub(super) enum Subject {
    Login(Timestamp, LoginItem),
    Process(Timestamp, ProcessItem),
    Users,
    Other,
}

impl Subject {
    pub fn of(name: &str, at: &str, details: &str) -> Subject {
        let subject = match name {
            "LocalUsers" => Some(Subject::Users),
            "Login" => read_at(at, details).map(|(at, item)| Subject::Login(at, item)),
            "ProcessCreate" => read_at(at, details).map(|(at, item)| Subject::Process(at, item)),
            _ => None,
        };
        subject.unwrap_or(Subject::Other)
    }

    /// By which logins of one address are found again, failed ones apart from the others.
    pub fn login_key(&self) -> Option<String> {
        let Subject::Login(_, item) = self else { return None };
        item.remote_address.as_ref().map(|address| login_key(&item.result, address))
    }
}

const FAILURES_BEFORE: &str = "SELECT TimeStamp FROM SecurityIoTRawEvent INDEXED BY LoginsOfAddress
    WHERE DeviceId = ? AND LoginKey = ? AND TimeStamp BETWEEN ? AND ? ORDER BY TimeStamp DESC LIMIT ?";

const LOGINS_AFTER: &str = "SELECT TimeStamp, EventDetails FROM SecurityIoTRawEvent INDEXED BY LoginsOfAddress
    WHERE DeviceId = ? AND LoginKey = ? AND TimeStamp BETWEEN ? AND ? ORDER BY TimeStamp LIMIT ?";

fn login_key(result: &str, address: &str) -> String {
    format!("{result} {address}")
}

/// Where a rule's findings about one device go.
pub(super) struct Deriver<'a> {
    pub to: &'a Transaction<'a>,
    pub resource_id: &'a str,
    /// As [`moment`] writes it.
    pub now: &'a str,
    pub device: &'a str,
}

impl Deriver<'_> {
    /// What a new row leads to at once: how many alerts are new.
    pub fn row(&self, at: &str, subject: Subject) -> rusqlite::Result<usize> {
        match subject {
            Subject::Login(at, item) => self.login(at, item),
            Subject::Process(at, item) => {
                let process = Process { at, item };
                self.keep_all(|decide| match decide {
                    Decide::Process(decide) => decide(&process),
                    _ => None,
                })
            }
            Subject::Users => self.snapshot_grew(at),
            Subject::Other => Ok(0),
        }
    }

    /// It will be compared when nothing more of it comes.
    fn snapshot_grew(&self, at: &str) -> rusqlite::Result<usize> {
        self.to
            .prepare_cached(
                "INSERT INTO PendingSnapshot (DeviceId, TimeStamp, ResourceId, Received) VALUES (?, ?, ?, ?)
                 ON CONFLICT (DeviceId, TimeStamp) DO UPDATE SET Received = excluded.Received
                    WHERE Received < excluded.Received",
            )?
            .execute(params![self.device, at, self.resource_id, self.now])?;
        Ok(0)
    }

    fn login(&self, at: Timestamp, item: LoginItem) -> rusqlite::Result<usize> {
        let mut new = 0;
        if let Some(address) = item.remote_address.as_deref().filter(|_| !item.succeeded()) {
            for (at, item) in self.later_logins(address, at)? {
                new += self.judge_login(at, item)?;
            }
        }
        Ok(new + self.judge_login(at, item)?)
    }

    fn judge_login(&self, at: Timestamp, item: LoginItem) -> rusqlite::Result<usize> {
        let failures = match &item.remote_address {
            Some(address) => self.failures(address, at)?,
            None => Vec::new(),
        };
        let login = Login { at, item, failures };
        self.keep_all(|decide| match decide {
            Decide::Login(decide) => decide(&login),
            _ => None,
        })
    }

    fn failures(&self, address: &str, up_to: Timestamp) -> rusqlite::Result<Vec<Timestamp>> {
        let key = login_key("Fail", address);
        let from = moment(up_to.saturating_sub(WINDOW).unwrap_or(Timestamp::MIN));
        let mut statement = self.to.prepare_cached(FAILURES_BEFORE)?;
        let rows = statement.query_map(params![self.device, key, from, moment(up_to), sql_limit(FAILURES)], |row| {
            row.get::<_, String>(0)
        })?;
        rows.filter_map(|text| text.map(|text| text.parse().ok()).transpose()).collect()
    }

    /// The logins whose judgement a failure at this moment can change: the next failures, and the successes, within
    /// the window.
    fn later_logins(&self, address: &str, at: Timestamp) -> rusqlite::Result<Vec<(Timestamp, LoginItem)>> {
        const SUCCESSES: usize = 8;
        let until = moment(at.saturating_add(WINDOW).unwrap_or(Timestamp::MAX));
        let just_after = moment(at.saturating_add(SignedDuration::from_micros(1)).unwrap_or(Timestamp::MAX));
        let mut statement = self.to.prepare_cached(LOGINS_AFTER)?;
        let mut found = Vec::new();
        // A log may tell whole seconds, so a success of the same moment counts as later.
        for (result, from, limit) in [("Fail", just_after, FAILURES - 1), ("Success", moment(at), SUCCESSES)] {
            let mut rows =
                statement.query(params![self.device, login_key(result, address), from, until, sql_limit(limit)])?;
            while let Some(row) = rows.next()? {
                let (at, details): (String, String) = (row.get(0)?, row.get(1)?);
                found.extend(read_at::<LoginItem>(&at, &details));
            }
        }
        Ok(found)
    }

    pub fn keep_all(&self, judge: impl Fn(Decide) -> Option<Finding>) -> rusqlite::Result<usize> {
        let mut new = 0;
        for rule in RULES {
            if let Some(finding) = judge(rule.decide) {
                new += self.keep(rule, &finding)?;
            }
        }
        Ok(new)
    }

    /// Writes an alert that is new, or was dismissed and is true after all.
    pub fn keep(&self, rule: &Rule, finding: &Finding) -> rusqlite::Result<usize> {
        let id = alerts::id(rule, self.device, finding).to_string();
        // In a flood nearly every finding is an alert already, and making its texts is most of the work.
        let there = "SELECT 1 FROM SecurityAlert WHERE SystemAlertId = ? AND Status <> 'Dismissed'";
        if self.to.prepare_cached(there)?.exists([&id])? {
            return Ok(0);
        }
        self.to
            .prepare_cached(
                "INSERT INTO SecurityAlert (TimeGenerated, AlertName, AlertSeverity, AlertType, CompromisedEntity,
                    Description, DisplayName, EndTime, ExtendedProperties, ProcessingEndTime, ProductName, ProviderName,
                    RemediationSteps, ResourceId, SourceSystem, StartTime, Status, SystemAlertId, Tactics, Techniques,
                    VendorName, VendorOriginalId, Stored)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?2, ?7, ?8, ?1, 'edgewarden-hub', 'edgewarden-hub', ?9, ?10,
                    'Detection', ?11, 'New', ?12, ?13, ?14, 'Edgewarden', ?12, ?1)
                 ON CONFLICT (SystemAlertId) DO UPDATE SET Status = 'New', Description = excluded.Description
                    WHERE Status = 'Dismissed'",
            )?
            .execute(params![
                self.now,
                rule.name,
                rule.severity.name(),
                rule.alert_type,
                self.device,
                format!("{} {}", rule.description, finding.sentence),
                moment(finding.to),
                alerts::properties(self.device, finding),
                rule.remediation,
                self.resource_id,
                moment(finding.from),
                id,
                rule.tactics,
                rule.techniques,
            ])
    }
}

/// SQLite's numbers are `i64`.
pub(super) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// What a rule needs of a row. Messages obey the schema; a row from a file that does not leads to nothing.
pub(super) fn read<'a, T: Deserialize<'a>>(details: &'a str) -> Option<T> {
    serde_json::from_str(details).ok()
}

fn read_at<'a, T: Deserialize<'a>>(at: &str, details: &'a str) -> Option<(Timestamp, T)> {
    at.parse().ok().zip(read(details))
}

#[cfg(test)]
mod tests;
