//! Entries become rows, and rows alerts, in one transaction.

use collector_common::event::wire;
use rusqlite::{OptionalExtension, Transaction, params};

use super::derive::Deriver;
use super::{Entry, Outcome, REFUSED_KEPT, moment};
use crate::schema::{Event, Message};

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
            let row = NewRow::new(&message.agent_version, device, event);
            let stored_before = outcome.stored;
            for (index, item) in row.items().enumerate() {
                match self.insert(&row, event.first_index + index, item)? {
                    Inserted::New => {
                        outcome.stored += 1;
                        outcome.alerts += deriver.row(event, item)?;
                    }
                    Inserted::Known => outcome.known += 1,
                    Inserted::Conflict => {
                        outcome.conflicts += 1;
                        first_conflict = first_conflict.or(Some((n, index)));
                    }
                }
            }
            if outcome.stored > stored_before {
                deriver.event(event)?;
            }
        }
        if let Some((n, index)) = first_conflict {
            let reason = format!("Events[{n}].Payload[{index}]: other content is stored under this Id already");
            self.refuse(entry, &reason)?;
            outcome.refused = true;
        }
        Ok(outcome)
    }

    fn insert(&self, row: &NewRow, index: usize, item: &str) -> rusqlite::Result<Inserted> {
        let event = row.event;
        let details = wire::details(item, &event.timestamp_local, &event.timestamp_utc, &row.id);
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        let new = self
            .to
            .prepare_cached(
                "INSERT INTO SecurityIoTRawEvent VALUES (?, ?, ?, '', ?, ?, ?, ?, ?, ?, ?, ?, 'SecurityIoTRawEvent', ?)
                 ON CONFLICT (DeviceId, IoTRawEventId, PayloadIndex) DO NOTHING",
            )?
            .execute(params![
                self.now,
                row.agent_version,
                self.resource_id,
                row.device,
                details,
                row.id,
                event.items.is_empty(),
                event.category,
                event.name,
                event.event_type,
                row.at,
                index,
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
            .query_row(params![event.name, details, row.device, row.id, index], |found| found.get::<_, bool>(0))
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

/// What is the same for all rows of an event.
struct NewRow<'a> {
    agent_version: &'a str,
    device: &'a str,
    event: &'a Event,
    id: String,
    at: String,
}

impl<'a> NewRow<'a> {
    fn new(agent_version: &'a str, device: &'a str, event: &'a Event) -> NewRow<'a> {
        NewRow { agent_version, device, event, id: event.id.to_string(), at: moment(event.at) }
    }

    /// An empty event is one row.
    fn items(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let empty = self.event.items.is_empty().then_some("{}");
        self.event.items.iter().map(String::as_str).chain(empty)
    }
}

enum Inserted {
    New,
    Known,
    Conflict,
}
