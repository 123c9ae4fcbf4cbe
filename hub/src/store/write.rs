//! Entries become rows, and rows alerts, in one transaction.

use collector_common::event::wire;
use rusqlite::{OptionalExtension, Transaction, params};

use super::derive::{Deriver, Subject};
use super::read::Row;
use super::{Entry, Outcome, REFUSED_KEPT, moment};
use crate::schema::Message;

/// What is the same for a whole batch.
pub(super) struct Batch<'a> {
    pub to: &'a Transaction<'a>,
    pub resource_id: &'a str,
    /// As [`moment`] writes it.
    pub now: &'a str,
}

impl Batch<'_> {
    pub fn keep(&self, entry: &Entry) -> rusqlite::Result<Outcome> {
        if let Some(speaker) = &entry.speaker {
            self.see(speaker)?;
        }
        match &entry.verdict {
            Ok((device, message)) => self.keep_message(entry, device, message),
            Err(reason) => {
                self.refuse(entry, reason)?;
                Ok(Outcome { refused: true, ..Outcome::default() })
            }
        }
    }

    fn keep_message(&self, entry: &Entry, device: &str, message: &Message) -> rusqlite::Result<Outcome> {
        let deriver = Deriver { to: self.to, resource_id: self.resource_id, now: self.now, device };
        let mut outcome = Outcome::default();
        let mut first_conflict = None;
        for (n, event) in message.events.iter().enumerate() {
            let (id, at) = (event.id.to_string(), moment(event.at));
            let empty = event.items.is_empty();
            // An empty event is one row.
            let items = event.items.iter().map(String::as_str).chain(empty.then_some("{}"));
            for (index, item) in items.enumerate() {
                let details = wire::details(item, &event.timestamp_local, &event.timestamp_utc, &id);
                let row = NewRow {
                    agent_version: &message.agent_version,
                    resource_id: self.resource_id,
                    subscription: "",
                    device,
                    details: &details,
                    id: &id,
                    is_empty: empty,
                    category: event.category,
                    name: event.name,
                    event_type: event.event_type,
                    at: &at,
                    index: i64::try_from(index).unwrap_or(i64::MAX),
                };
                if self.count(&row, &deriver, &mut outcome)? {
                    first_conflict = first_conflict.or(Some((n, index)));
                }
            }
        }
        if let Some((n, index)) = first_conflict {
            let reason = format!("Events[{n}].Payload[{index}]: other content is stored under this Id already");
            self.refuse(entry, &reason)?;
            outcome.refused = true;
        }
        Ok(outcome)
    }

    /// Keeps a row that is a whole one already.
    pub fn keep_row(&self, row: &Row) -> rusqlite::Result<Outcome> {
        let new = NewRow {
            agent_version: &row.agent_version,
            resource_id: &row.associated_resource_id,
            subscription: &row.azure_subscription_id,
            device: &row.device_id,
            details: &row.event_details,
            id: &row.iot_raw_event_id,
            is_empty: row.is_empty,
            category: &row.raw_event_category,
            name: &row.raw_event_name,
            event_type: &row.raw_event_type,
            at: &row.time_stamp,
            index: row.payload_index,
        };
        let deriver = Deriver { to: self.to, resource_id: new.resource_id, now: self.now, device: new.device };
        let mut outcome = Outcome::default();
        self.count(&new, &deriver, &mut outcome)?;
        Ok(outcome)
    }

    /// Inserts a row and what it leads to: whether it is in conflict with what is there.
    fn count(&self, row: &NewRow, deriver: &Deriver, outcome: &mut Outcome) -> rusqlite::Result<bool> {
        let subject = Subject::of(row.name, row.at, row.details);
        match self.insert(row, &subject)? {
            Inserted::New => {
                outcome.stored += 1;
                outcome.alerts += deriver.row(row.at, subject)?;
                Ok(false)
            }
            Inserted::Known => {
                outcome.known += 1;
                Ok(false)
            }
            Inserted::Conflict => {
                outcome.conflicts += 1;
                Ok(true)
            }
        }
    }

    fn insert(&self, row: &NewRow, subject: &Subject) -> rusqlite::Result<Inserted> {
        let new = self
            .to
            .prepare_cached(
                "INSERT INTO SecurityIoTRawEvent VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'SecurityIoTRawEvent', ?, ?)
                 ON CONFLICT (DeviceId, IoTRawEventId, PayloadIndex) DO NOTHING",
            )?
            .execute(params![
                self.now,
                row.agent_version,
                row.resource_id,
                row.subscription,
                row.device,
                row.details,
                row.id,
                row.is_empty,
                row.category,
                row.name,
                row.event_type,
                row.at,
                row.index,
                subject.login_key(),
            ])?;
        if new == 1 {
            return Ok(Inserted::New);
        }
        let same = self
            .to
            .prepare_cached(
                "SELECT RawEventName = ? AND EventDetails = ? FROM SecurityIoTRawEvent
                 WHERE DeviceId = ? AND IoTRawEventId = ? AND PayloadIndex = ?",
            )?
            .query_row(params![row.name, row.details, row.device, row.id, row.index], |found| found.get::<_, bool>(0))
            .optional()?;
        Ok(if same == Some(true) { Inserted::Known } else { Inserted::Conflict })
    }

    fn refuse(&self, entry: &Entry, reason: &str) -> rusqlite::Result<()> {
        self.to
            .prepare_cached("INSERT INTO Refused (Received, Topic, Reason, Payload) VALUES (?, ?, ?, ?)")?
            .execute(params![self.now, entry.topic, reason, entry.payload])?;
        let newest = self.to.last_insert_rowid();
        self.to
            .prepare_cached("DELETE FROM Refused WHERE rowid <= ?")?
            .execute([newest.saturating_sub(REFUSED_KEPT)])?;
        Ok(())
    }

    /// A device that says anything is not silent.
    fn see(&self, speaker: &str) -> rusqlite::Result<()> {
        self.to
            .prepare_cached(
                "INSERT INTO Device (DeviceId, ResourceId, LastSeen, SilenceTold) VALUES (?, ?, ?, 0)
                 ON CONFLICT (DeviceId) DO UPDATE SET LastSeen = excluded.LastSeen, SilenceTold = 0",
            )?
            .execute(params![speaker, self.resource_id, self.now])?;
        Ok(())
    }
}

/// A row before it is stored.
struct NewRow<'a> {
    agent_version: &'a str,
    resource_id: &'a str,
    subscription: &'a str,
    device: &'a str,
    details: &'a str,
    id: &'a str,
    is_empty: bool,
    category: &'a str,
    name: &'a str,
    event_type: &'a str,
    at: &'a str,
    index: i64,
}

enum Inserted {
    New,
    Known,
    Conflict,
}
