//! The fleet as the store knows it: per device what came, when, and what is known to be missing.
//!
//! Nothing is kept for this but what `Device` holds: rows are counted in an index that has device, kind and time,
//! without a look at them, and starts of the agent are found by an index of only those. So the answer is right after any
//! import and after old rows have left.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row as SqlRow};
use serde::{Deserialize, Serialize};

use super::derive::read;
use super::{Store, StoreError};
use crate::alerts::SILENCE_TYPE;

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Member {
    /// Its id.
    pub device_id: String,
    /// The hub it last spoke to; the one its newest row names when it never did.
    pub associated_resource_id: String,
    /// Of its newest row.
    pub agent_version: String,
    /// By the hub's clock: when its first message came or, when none ever did, its oldest row was imported.
    pub first_seen: String,
    /// By the hub's clock, likewise.
    pub last_seen: String,
    /// Whether it ever sent a message itself, good or refused.
    pub is_heard: bool,
    /// The oldest moment in its rows, by its own clock; empty without rows.
    pub first_event: String,
    /// The newest one.
    pub last_event: String,
    /// Rows that are in the store, by kind.
    pub rows: BTreeMap<String, u64>,
    /// Events that the agent says are lost.
    pub lost: u64,
    /// Messages that were refused.
    pub refused: u64,
    /// Boots in which the agent started.
    pub boots: u64,
    /// Starts of the agent after it was killed.
    pub killed: u64,
    /// Starts after the power was cut.
    pub power_lost: u64,
    /// Starts with an empty state directory; only the first is in order.
    pub first_starts: u64,
    /// Alerts that stand.
    pub alerts: u64,
    /// Of those, the silences of 72 hours and more.
    pub silences: u64,
}

type Members = BTreeMap<String, Member>;

impl Store {
    /// Every device that sent a message or has rows, by its id.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn fleet(&self) -> Result<Vec<Member>, StoreError> {
        let run = || {
            // One state of the store, while a hub writes to it.
            let at_once = self.db.unchecked_transaction()?;
            let mut members = Members::new();
            count_rows(&at_once, &mut members)?;
            heard(&at_once, &mut members)?;
            starts(&at_once, &mut members)?;
            alerts(&at_once, &mut members)?;
            for member in members.values_mut() {
                member.lost = lost(&at_once, &member.device_id)?;
            }
            Ok(members.into_values().collect())
        };
        run().map_err(|error: rusqlite::Error| self.failed("read", error))
    }
}

fn member(members: &mut Members, device: String) -> &mut Member {
    members.entry(device.clone()).or_insert_with(|| Member { device_id: device, ..Member::default() })
}

const COUNT_ROWS: &str =
    "SELECT DeviceId, RawEventName, COUNT(*), MIN(TimeStamp), MAX(TimeStamp), MIN(rowid), MAX(rowid)
    FROM SecurityIoTRawEvent INDEXED BY DeviceNameTime GROUP BY DeviceId, RawEventName";

fn count_rows(from: &Connection, members: &mut Members) -> rusqlite::Result<()> {
    let mut statement = from.prepare_cached(COUNT_ROWS)?;
    let mut groups = statement.query([])?;
    let mut places: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    while let Some(group) = groups.next()? {
        let member = member(members, group.get(0)?);
        member.rows.insert(group.get(1)?, count(group, 2)?);
        let (first, last): (String, String) = (group.get(3)?, group.get(4)?);
        if member.first_event.is_empty() || first < member.first_event {
            member.first_event = first;
        }
        member.last_event = last.max(std::mem::take(&mut member.last_event));
        let (oldest, newest) = places.entry(member.device_id.clone()).or_insert((i64::MAX, i64::MIN));
        *oldest = group.get::<_, i64>(5)?.min(*oldest);
        *newest = group.get::<_, i64>(6)?.max(*newest);
    }
    let sql = "SELECT TimeGenerated, AssociatedResourceId, AgentVersion FROM SecurityIoTRawEvent WHERE rowid = ?";
    let mut row = from.prepare_cached(sql)?;
    for (device, (oldest, newest)) in places {
        let member = member(members, device);
        member.first_seen = row.query_row([oldest], |row| row.get(0))?;
        (member.last_seen, member.associated_resource_id, member.agent_version) =
            row.query_row([newest], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    }
    Ok(())
}

/// Who sent messages itself. What came in a file says nothing of when a device was heard.
fn heard(from: &Connection, members: &mut Members) -> rusqlite::Result<()> {
    let mut statement = from.prepare_cached("SELECT DeviceId, ResourceId, FirstSeen, LastSeen, Refused FROM Device")?;
    let mut devices = statement.query([])?;
    while let Some(device) = devices.next()? {
        let member = member(members, device.get(0)?);
        member.is_heard = true;
        member.associated_resource_id = device.get(1)?;
        member.first_seen = device.get(2)?;
        member.last_seen = device.get(3)?;
        member.refused = count(device, 4)?;
    }
    Ok(())
}

const STARTS: &str = "SELECT DeviceId, COUNT(DISTINCT json_extract(EventDetails, '$.ExtraDetails.BootId')),
        COUNT(*) FILTER (WHERE json_extract(EventDetails, '$.ExtraDetails.Before') = 'killed'),
        COUNT(*) FILTER (WHERE json_extract(EventDetails, '$.ExtraDetails.Before') = 'powerLost'),
        COUNT(*) FILTER (WHERE json_extract(EventDetails, '$.ExtraDetails.Before') = 'first')
    FROM SecurityIoTRawEvent INDEXED BY StartsOfDevice
    WHERE RawEventName = 'Diagnostic' AND json_extract(EventDetails, '$.ExtraDetails.Lifecycle') = 'started'
    GROUP BY DeviceId";

fn starts(from: &Connection, members: &mut Members) -> rusqlite::Result<()> {
    let mut statement = from.prepare_cached(STARTS)?;
    let mut groups = statement.query([])?;
    while let Some(group) = groups.next()? {
        let member = member(members, group.get(0)?);
        member.boots = count(group, 1)?;
        member.killed = count(group, 2)?;
        member.power_lost = count(group, 3)?;
        member.first_starts = count(group, 4)?;
    }
    Ok(())
}

fn alerts(from: &Connection, members: &mut Members) -> rusqlite::Result<()> {
    let sql = "SELECT CompromisedEntity, COUNT(*), COUNT(*) FILTER (WHERE AlertType = ?) FROM SecurityAlert
        WHERE Status <> 'Dismissed' GROUP BY CompromisedEntity";
    let mut statement = from.prepare_cached(sql)?;
    let mut groups = statement.query([SILENCE_TYPE])?;
    while let Some(group) = groups.next()? {
        // An imported alert may be of a device that never was here.
        if let Some(member) = members.get_mut(&group.get::<_, String>(0)?) {
            member.alerts = count(group, 1)?;
            member.silences = count(group, 2)?;
        }
    }
    Ok(())
}

fn count(row: &SqlRow, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::unsigned_abs)
}

/// What the agent reports as lost. A report that had to be said again counts twice.
fn lost(from: &Connection, device: &str) -> rusqlite::Result<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Report {
        dropped_events: u64,
    }
    let sql = "SELECT EventDetails FROM SecurityIoTRawEvent
        WHERE DeviceId = ? AND RawEventName = 'DroppedEventsStatistics'";
    let mut statement = from.prepare_cached(sql)?;
    let mut reports = statement.query([device])?;
    let mut lost: u64 = 0;
    while let Some(report) = reports.next()? {
        let details: String = report.get(0)?;
        lost = lost.saturating_add(read::<Report>(&details).map_or(0, |report| report.dropped_events));
    }
    Ok(lost)
}

#[cfg(test)]
mod tests;
