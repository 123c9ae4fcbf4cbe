//! Asks the store what a rule needs to know, and keeps what it decides.
//!
//! An alert is written in the transaction of the row that completes it, under an id made of its facts: a crash loses
//! neither and a second delivery adds neither. Rows may come in any order: a decision looks at the times in the rows,
//! and a login that comes late makes the logins behind it be judged again. So the alerts of a set of rows do not depend
//! on the order they came in.
//!
//! A snapshot of accounts may be cut into several messages, so it is compared with the one before it when nothing more
//! of it came for [`SETTLE`]; until then a row of `PendingSnapshot` remembers it. When a part comes later still, or a
//! snapshot between two that were compared, both comparisons are made again, and an alert they no longer give is set to
//! `Dismissed`.
//!
//! The work a row makes is bounded: a login reads at most 5 rows, a late one besides that 12 rows and 5 for each. A
//! snapshot beyond [`MAX_ACCOUNTS`] rows is not compared.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, Transaction, params};
use serde::Deserialize;
use uuid::Uuid;

use super::{Store, StoreError, moment};
use crate::alerts::logins::{FAILURES, Login, LoginItem, WINDOW};
use crate::alerts::miners::{Process, ProcessItem};
use crate::alerts::users::{Snapshot, UserItem};
use crate::alerts::{self, Decide, Finding, RULES, Rule};
use crate::schema::Event;

/// How long the hub waits for more of a snapshot.
pub const SETTLE: SignedDuration = SignedDuration::from_secs(5);

/// A board has some dozens of accounts.
const MAX_ACCOUNTS: usize = 10_000;

/// More changes than this between two snapshots are one change, and it needs no more alerts.
const MAX_FINDINGS: usize = 100;

/// Where a rule's findings about one device go.
pub(super) struct Deriver<'a> {
    pub to: &'a Transaction<'a>,
    pub resource_id: &'a str,
    /// As [`moment`] writes it.
    pub now: &'a str,
    pub device: &'a str,
}

impl Deriver<'_> {
    /// The alerts a new row leads to: how many are new.
    pub fn row(&self, event: &Event, item: &str) -> rusqlite::Result<usize> {
        // The moment as the store has it, so that a row is judged the same when it is read again.
        let at = Timestamp::from_microsecond(event.at.as_microsecond()).unwrap_or(event.at);
        match event.name {
            "Login" => self.login(at, item),
            "ProcessCreate" => self.process(at, item),
            _ => Ok(0),
        }
    }

    /// What an event with new rows leads to besides.
    pub fn event(&self, event: &Event) -> rusqlite::Result<()> {
        if event.name != "LocalUsers" {
            return Ok(());
        }
        self.to
            .prepare_cached(
                "INSERT INTO PendingSnapshot (DeviceId, TimeStamp, ResourceId, Received) VALUES (?, ?, ?, ?)
                 ON CONFLICT (DeviceId, TimeStamp) DO UPDATE SET Received = excluded.Received",
            )?
            .execute(params![self.device, moment(event.at), self.resource_id, self.now])?;
        Ok(())
    }

    fn process(&self, at: Timestamp, item: &str) -> rusqlite::Result<usize> {
        let Some(item) = read::<ProcessItem>(item) else { return Ok(0) };
        let process = Process { at, item };
        self.keep_all(|decide| match decide {
            Decide::Process(decide) => decide(&process),
            _ => None,
        })
    }

    fn login(&self, at: Timestamp, item: &str) -> rusqlite::Result<usize> {
        let Some(item) = read::<LoginItem>(item) else { return Ok(0) };
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
        let sql = "SELECT TimeStamp FROM SecurityIoTRawEvent INDEXED BY LoginsOfAddress
            WHERE RawEventName = 'Login' AND DeviceId = ? AND json_extract(EventDetails, '$.RemoteAddress') = ?
            AND json_extract(EventDetails, '$.Result') = 'Fail' AND TimeStamp BETWEEN ? AND ?
            ORDER BY TimeStamp DESC LIMIT ?";
        let from = moment(up_to.saturating_sub(WINDOW).unwrap_or(Timestamp::MIN));
        let mut statement = self.to.prepare_cached(sql)?;
        let rows = statement
            .query_map(params![self.device, address, from, moment(up_to), sql_limit(FAILURES)], |row| {
                row.get::<_, String>(0)
            })?;
        rows.filter_map(|text| text.map(|text| text.parse().ok()).transpose()).collect()
    }

    /// The logins whose judgement a failure at this moment can change: the next failures, and the successes, within
    /// the window.
    fn later_logins(&self, address: &str, at: Timestamp) -> rusqlite::Result<Vec<(Timestamp, LoginItem)>> {
        const SUCCESSES: usize = 8;
        let sql = "SELECT TimeStamp, EventDetails FROM SecurityIoTRawEvent INDEXED BY LoginsOfAddress
            WHERE RawEventName = 'Login' AND DeviceId = ? AND json_extract(EventDetails, '$.RemoteAddress') = ?
            AND json_extract(EventDetails, '$.Result') = ? AND TimeStamp BETWEEN ? AND ?
            ORDER BY TimeStamp LIMIT ?";
        let until = moment(at.saturating_add(WINDOW).unwrap_or(Timestamp::MAX));
        let just_after = moment(at.saturating_add(SignedDuration::from_micros(1)).unwrap_or(Timestamp::MAX));
        let mut statement = self.to.prepare_cached(sql)?;
        let mut found = Vec::new();
        // A log may tell whole seconds, so a success of the same moment counts as later.
        for (result, from, limit) in [("Fail", just_after, FAILURES - 1), ("Success", moment(at), SUCCESSES)] {
            let mut rows = statement.query(params![self.device, address, result, from, until, sql_limit(limit)])?;
            while let Some(row) = rows.next()? {
                let (at, details): (String, String) = (row.get(0)?, row.get(1)?);
                found.extend(at.parse().ok().zip(read::<LoginItem>(&details)));
            }
        }
        Ok(found)
    }

    fn keep_all(&self, judge: impl Fn(Decide) -> Option<Finding>) -> rusqlite::Result<usize> {
        let mut new = 0;
        for rule in RULES {
            if let Some(finding) = judge(rule.decide) {
                new += self.keep(rule, &finding)?;
            }
        }
        Ok(new)
    }

    /// Writes an alert that is new, or was dismissed and is true after all.
    fn keep(&self, rule: &Rule, finding: &Finding) -> rusqlite::Result<usize> {
        let id = alerts::id(rule, self.device, finding).to_string();
        self.to
            .prepare_cached(
                "INSERT INTO SecurityAlert (TimeGenerated, AlertName, AlertSeverity, AlertType, CompromisedEntity,
                    Description, DisplayName, EndTime, ExtendedProperties, ProcessingEndTime, ProductName, ProviderName,
                    RemediationSteps, ResourceId, SourceSystem, StartTime, Status, SystemAlertId, Tactics, Techniques,
                    VendorName, VendorOriginalId)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?2, ?7, ?8, ?1, 'edgewarden-hub', 'edgewarden-hub', ?9, ?10,
                    'Detection', ?11, 'New', ?12, ?13, ?14, 'Edgewarden', ?12)
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

    /// Compares a snapshot with the one before it. Without one before it there is nothing to say.
    fn compare(&self, at: &str) -> rusqlite::Result<usize> {
        let before = "SELECT MAX(TimeStamp) FROM SecurityIoTRawEvent
            WHERE DeviceId = ? AND RawEventName = 'LocalUsers' AND TimeStamp < ?";
        let Some(before) = self.neighbour(before, at)? else { return Ok(0) };
        let (Some(before), Some(after)) = (self.snapshot(&before)?, self.snapshot(at)?) else {
            tracing::warn!(device = self.device, at, "a list of users is too long to be compared");
            return Ok(0);
        };
        let mut wanted: Vec<(&Rule, Finding)> = Vec::new();
        for rule in RULES {
            if let Decide::Users(decide) = rule.decide {
                wanted.extend(decide(&before, &after).into_iter().take(MAX_FINDINGS).map(|finding| (rule, finding)));
            }
        }
        let ids: Vec<Uuid> = wanted.iter().map(|(rule, finding)| alerts::id(rule, self.device, finding)).collect();
        self.dismiss_others(at, &ids)?;
        wanted.iter().map(|(rule, finding)| self.keep(rule, finding)).sum()
    }

    fn dismiss_others(&self, at: &str, wanted: &[Uuid]) -> rusqlite::Result<()> {
        let sql = "SELECT SystemAlertId, AlertType FROM SecurityAlert
            WHERE CompromisedEntity = ? AND EndTime = ? AND Status = 'New'";
        let mut statement = self.to.prepare_cached(sql)?;
        let told = statement.query_map([self.device, at], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (id, alert_type) in told.collect::<rusqlite::Result<Vec<(String, String)>>>()? {
            let of_users = |rule: &&Rule| rule.alert_type == alert_type && matches!(rule.decide, Decide::Users(_));
            let still_true = wanted.iter().any(|wanted| wanted.to_string() == id);
            if !still_true && RULES.iter().any(|rule| of_users(&rule)) {
                let sql = "UPDATE SecurityAlert SET Status = 'Dismissed',
                    Description = 'Withdrawn, because rows that came later say otherwise. ' || Description
                    WHERE SystemAlertId = ?";
                self.to.prepare_cached(sql)?.execute([id])?;
            }
        }
        Ok(())
    }

    fn neighbour(&self, sql: &str, at: &str) -> rusqlite::Result<Option<String>> {
        self.to.prepare_cached(sql)?.query_row([self.device, at], |row| row.get(0))
    }

    fn snapshot(&self, at: &str) -> rusqlite::Result<Option<Snapshot>> {
        let sql = "SELECT EventDetails FROM SecurityIoTRawEvent
            WHERE DeviceId = ? AND RawEventName = 'LocalUsers' AND TimeStamp = ? LIMIT ?";
        let mut statement = self.to.prepare_cached(sql)?;
        let rows = statement
            .query_map(params![self.device, at, sql_limit(MAX_ACCOUNTS + 1)], |row| row.get::<_, String>(0))?;
        let details = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        let moment = at.parse().ok().filter(|_| details.len() <= MAX_ACCOUNTS);
        Ok(moment.map(|at| Snapshot::new(at, details.iter().filter_map(|text| read::<UserItem>(text)))))
    }
}

/// SQLite's numbers are `i64`.
fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The schema has been checked, so what cannot be read is of no interest.
fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    serde_json::from_str(text).ok()
}

impl Store {
    /// Compares the snapshots of which nothing more came for [`SETTLE`], or all that wait: how many alerts are new.
    ///
    /// # Errors
    ///
    /// When SQLite cannot write.
    pub fn settle_snapshots(&mut self, now: Timestamp, all: bool) -> Result<usize, StoreError> {
        let due = if all { Timestamp::MAX } else { now.saturating_sub(SETTLE).unwrap_or(Timestamp::MIN) };
        let mut alerts = 0;
        // Each in its own transaction, so that a flood of snapshots does not hold the writer up as one.
        while let Some(new) = self.settle_one(now, due)? {
            alerts += new;
        }
        Ok(alerts)
    }

    fn settle_one(&mut self, now: Timestamp, due: Timestamp) -> Result<Option<usize>, StoreError> {
        let sql = "SELECT DeviceId, TimeStamp, ResourceId FROM PendingSnapshot WHERE Received <= ?
            ORDER BY Received LIMIT 1";
        let next: rusqlite::Result<Option<(String, String, String)>> =
            self.db.prepare_cached(sql).and_then(|mut find| {
                find.query_row([moment(due)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
            });
        let Some((device, at, resource_id)) = next.map_err(|error| self.failed("read", error))? else {
            return Ok(None);
        };
        self.change("write to", |to| {
            let deriver = Deriver { to, resource_id: &resource_id, now: &moment(now), device: &device };
            let mut alerts = deriver.compare(&at)?;
            // The next one was compared with an older one; one that waits itself will be compared in any case.
            let next = "SELECT MIN(TimeStamp) FROM SecurityIoTRawEvent
                WHERE DeviceId = ? AND RawEventName = 'LocalUsers' AND TimeStamp > ?";
            if let Some(next) = deriver.neighbour(next, &at)? {
                alerts += deriver.compare(&next)?;
            }
            to.prepare_cached("DELETE FROM PendingSnapshot WHERE DeviceId = ? AND TimeStamp = ?")?
                .execute([&device, &at])?;
            Ok(Some(alerts))
        })
    }

    /// Raises an alert for each device that was not heard of for 72 hours, once per silence: how many are new.
    ///
    /// # Errors
    ///
    /// When SQLite cannot write.
    pub fn tell_silent(&mut self, now: Timestamp) -> Result<usize, StoreError> {
        let until = moment(now.saturating_sub(alerts::SILENT_AFTER).unwrap_or(Timestamp::MIN));
        self.change("write to", |to| {
            let sql = "SELECT DeviceId, ResourceId, LastSeen FROM Device WHERE LastSeen <= ? AND SilenceTold = 0";
            let silent = to
                .prepare_cached(sql)?
                .query_map([until], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<Vec<(String, String, String)>>>()?;
            let mut new = 0;
            for (device, resource_id, last_seen) in silent {
                let Ok(last_seen) = last_seen.parse() else { continue };
                let deriver = Deriver { to, resource_id: &resource_id, now: &moment(now), device: &device };
                new += deriver.keep_all(|decide| match decide {
                    Decide::Silence(decide) => decide(last_seen, now),
                    _ => None,
                })?;
                to.prepare_cached("UPDATE Device SET SilenceTold = 1 WHERE DeviceId = ?")?.execute([&device])?;
            }
            Ok(new)
        })
    }
}

#[cfg(test)]
mod tests;
