//! What time decides: whether a list of accounts is whole, and whether a device is silent.
//!
//! A list of accounts, a snapshot, may be cut into several messages, so it is compared with the one before it when
//! nothing more of it came for [`SETTLE`]; until then a row of `PendingSnapshot` remembers it. When a part comes later
//! still, or a snapshot between two that were compared, both comparisons are made again, and an alert they no longer
//! give is set to `Dismissed`.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Transaction, params};
use uuid::Uuid;

use super::derive::{Deriver, read, sql_limit};
use super::{Store, StoreError, moment};
use crate::alerts::users::{Snapshot, UserItem};
use crate::alerts::{self, Decide, Finding, RULES, Rule};

/// How long the hub waits for more of a snapshot.
pub const SETTLE: SignedDuration = SignedDuration::from_secs(5);

/// A board has some dozens of accounts.
const MAX_ACCOUNTS: usize = 10_000;

/// More changes than this between two snapshots are one change, and it needs no more alerts.
const MAX_FINDINGS: usize = 100;

/// A turn ends after so many snapshots, or when it has read so many rows: deliveries wait meanwhile.
const SNAPSHOTS_OF_A_TURN: usize = 100;
const ROWS_OF_A_TURN: usize = 50_000;

/// Devices that are found silent at a time.
const SILENT_AT_ONCE: usize = 5000;

/// What became of snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Settled {
    snapshots: usize,
    rows_read: usize,
    alerts: usize,
}

impl Store {
    /// Compares some of the snapshots of which nothing more came for five seconds: how many alerts are new.
    ///
    /// # Errors
    ///
    /// When SQLite cannot write.
    pub fn settle_snapshots(&mut self, now: Timestamp) -> Result<usize, StoreError> {
        let due = now.saturating_sub(SETTLE).unwrap_or(Timestamp::MIN);
        Ok(self.settle_some(now, due)?.alerts)
    }

    /// Compares all snapshots, because nothing more will come: how many alerts are new.
    ///
    /// # Errors
    ///
    /// When SQLite cannot write.
    pub fn settle_all_snapshots(&mut self, now: Timestamp) -> Result<usize, StoreError> {
        let mut alerts = 0;
        loop {
            let settled = self.settle_some(now, Timestamp::MAX)?;
            alerts += settled.alerts;
            if settled.snapshots == 0 {
                return Ok(alerts);
            }
        }
    }

    fn settle_some(&mut self, now: Timestamp, due: Timestamp) -> Result<Settled, StoreError> {
        self.change("write to", |to| {
            let sql = "SELECT DeviceId, TimeStamp, ResourceId FROM PendingSnapshot WHERE Received <= ?
                ORDER BY Received LIMIT ?";
            let pending = to
                .prepare_cached(sql)?
                .query_map(params![moment(due), sql_limit(SNAPSHOTS_OF_A_TURN)], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect::<rusqlite::Result<Vec<(String, String, String)>>>()?;
            let mut settled = Settled::default();
            for (device, at, resource_id) in pending {
                if settled.rows_read >= ROWS_OF_A_TURN {
                    break;
                }
                let deriver = Deriver { to, resource_id: &resource_id, now: &moment(now), device: &device };
                settle(&deriver, to, &at, &mut settled)?;
            }
            Ok(settled)
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
            let sql = "SELECT DeviceId, ResourceId, LastSeen FROM Device
                WHERE LastSeen <= ? AND SilenceTold = 0 LIMIT ?";
            let silent = to
                .prepare_cached(sql)?
                .query_map(params![until, sql_limit(SILENT_AT_ONCE)], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect::<rusqlite::Result<Vec<(String, String, String)>>>()?;
            let mut new = 0;
            for (device, resource_id, last_seen) in silent {
                to.prepare_cached("UPDATE Device SET SilenceTold = 1 WHERE DeviceId = ?")?.execute([&device])?;
                let Ok(last_seen) = last_seen.parse() else { continue };
                let deriver = Deriver { to, resource_id: &resource_id, now: &moment(now), device: &device };
                new += deriver.keep_all(|decide| match decide {
                    Decide::Silence(decide) => decide(last_seen, now),
                    _ => None,
                })?;
            }
            Ok(new)
        })
    }
}

/// Compares a snapshot with the one before, and the one behind with it, which was compared with an older one.
fn settle(deriver: &Deriver, to: &Transaction, at: &str, settled: &mut Settled) -> rusqlite::Result<()> {
    deriver.compare(at, settled)?;
    let next = "SELECT MIN(TimeStamp) FROM SecurityIoTRawEvent
        WHERE DeviceId = ? AND RawEventName = 'LocalUsers' AND TimeStamp > ?";
    if let Some(next) = deriver.neighbour(next, at)? {
        deriver.compare(&next, settled)?;
    }
    to.prepare_cached("DELETE FROM PendingSnapshot WHERE DeviceId = ? AND TimeStamp = ?")?
        .execute([deriver.device, at])?;
    settled.snapshots += 1;
    Ok(())
}

impl Deriver<'_> {
    /// Compares a snapshot with the one before it. Without one before it there is nothing to say.
    fn compare(&self, at: &str, settled: &mut Settled) -> rusqlite::Result<()> {
        let before = "SELECT MAX(TimeStamp) FROM SecurityIoTRawEvent
            WHERE DeviceId = ? AND RawEventName = 'LocalUsers' AND TimeStamp < ?";
        let Some(before) = self.neighbour(before, at)? else { return Ok(()) };
        let (Some(before), Some(after)) = (self.snapshot(&before)?, self.snapshot(at)?) else {
            tracing::warn!(device = self.device, at, "a list of users is too long to be compared");
            settled.rows_read += MAX_ACCOUNTS;
            return Ok(());
        };
        settled.rows_read += before.accounts.len() + after.accounts.len();
        let mut wanted: Vec<(&Rule, Finding)> = Vec::new();
        for rule in RULES {
            if let Decide::Users(decide) = rule.decide {
                wanted.extend(decide(&before, &after).into_iter().take(MAX_FINDINGS).map(|finding| (rule, finding)));
            }
        }
        let ids: Vec<Uuid> = wanted.iter().map(|(rule, finding)| alerts::id(rule, self.device, finding)).collect();
        self.dismiss_others(at, &ids)?;
        for (rule, finding) in &wanted {
            settled.alerts += self.keep(rule, finding)?;
        }
        Ok(())
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
