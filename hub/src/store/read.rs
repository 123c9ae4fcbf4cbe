//! Questions to the store.

use rusqlite::{Row as SqlRow, params_from_iter};
use serde::Serialize;

use super::{Store, StoreError};

/// One row of `SecurityIoTRawEvent`, under the published names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Row {
    /// When the hub stored it, UTC.
    pub time_generated: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Names the hub.
    pub associated_resource_id: String,
    /// Always empty here.
    pub azure_subscription_id: String,
    /// From the topic.
    pub device_id: String,
    /// Compact JSON.
    pub event_details: String,
    /// The event's id.
    #[serde(rename = "IoTRawEventId")]
    pub iot_raw_event_id: String,
    /// Whether the event had no items.
    pub is_empty: bool,
    /// `Periodic` or `Triggered`.
    pub raw_event_category: String,
    /// For example `Login`.
    pub raw_event_name: String,
    /// `Security`, `Operational` or `Diagnostic`.
    pub raw_event_type: String,
    /// When it happened, UTC.
    pub time_stamp: String,
    /// The name of the table.
    #[serde(rename = "Type")]
    pub table: String,
    /// Which item of the event this row is.
    pub payload_index: i64,
}

/// Which rows; `None` means any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Exactly this device.
    pub device: Option<&'a str>,
    /// Exactly this kind.
    pub name: Option<&'a str>,
}

/// How much there is of one kind from one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The device.
    pub device: String,
    /// The kind.
    pub name: String,
    /// Rows, one per item.
    pub rows: u64,
    /// Events, each with one or more rows.
    pub events: u64,
}

/// A message that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When, UTC.
    pub received: String,
    /// The topic it came on.
    pub topic: String,
    /// What is wrong with it, beginning with the place.
    pub reason: String,
    /// The message as it came.
    pub payload: Vec<u8>,
}

impl Store {
    /// Shows every row of the filter, oldest first, until `visit` returns `false`.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn for_each_row(&self, filter: Filter, mut visit: impl FnMut(Row) -> bool) -> Result<(), StoreError> {
        let mut run = || {
            let mut wheres = Vec::new();
            wheres.extend(filter.device.map(|_| "DeviceId = ?"));
            wheres.extend(filter.name.map(|_| "RawEventName = ?"));
            let wheres = if wheres.is_empty() { "TRUE".to_owned() } else { wheres.join(" AND ") };
            let sql = format!("SELECT * FROM SecurityIoTRawEvent WHERE {wheres} ORDER BY TimeStamp, rowid");
            let mut statement = self.db.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(filter.device.iter().chain(filter.name.iter())))?;
            while let Some(row) = rows.next()? {
                if !visit(read_row(row)?) {
                    break;
                }
            }
            Ok(())
        };
        run().map_err(|error: rusqlite::Error| self.failed("read", error))
    }

    /// The rows of the filter, oldest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn rows(&self, filter: Filter) -> Result<Vec<Row>, StoreError> {
        let mut found = Vec::new();
        self.for_each_row(filter, |row| {
            found.push(row);
            true
        })?;
        Ok(found)
    }

    /// How much there is, per device and kind.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn counts(&self) -> Result<Vec<Count>, StoreError> {
        let run = || {
            let mut statement = self.db.prepare_cached(
                "SELECT DeviceId, RawEventName, COUNT(*), COUNT(DISTINCT IoTRawEventId) FROM SecurityIoTRawEvent
                 GROUP BY DeviceId, RawEventName ORDER BY DeviceId, RawEventName",
            )?;
            let counts = statement.query_map([], |row| {
                let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
                Ok(Count { device: row.get(0)?, name: row.get(1)?, rows: number(2)?, events: number(3)? })
            })?;
            counts.collect::<rusqlite::Result<_>>()
        };
        run().map_err(|error: rusqlite::Error| self.failed("read", error))
    }

    /// The refused messages that are still kept, oldest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn refused(&self) -> Result<Vec<Refused>, StoreError> {
        let run = || {
            let sql = "SELECT Received, Topic, Reason, Payload FROM Refused ORDER BY rowid";
            let mut statement = self.db.prepare_cached(sql)?;
            let refused = statement.query_map([], |row| {
                Ok(Refused { received: row.get(0)?, topic: row.get(1)?, reason: row.get(2)?, payload: row.get(3)? })
            })?;
            refused.collect::<rusqlite::Result<_>>()
        };
        run().map_err(|error: rusqlite::Error| self.failed("read", error))
    }
}

fn read_row(row: &SqlRow) -> rusqlite::Result<Row> {
    Ok(Row {
        time_generated: row.get("TimeGenerated")?,
        agent_version: row.get("AgentVersion")?,
        associated_resource_id: row.get("AssociatedResourceId")?,
        azure_subscription_id: row.get("AzureSubscriptionId")?,
        device_id: row.get("DeviceId")?,
        event_details: row.get("EventDetails")?,
        iot_raw_event_id: row.get("IoTRawEventId")?,
        is_empty: row.get("IsEmpty")?,
        raw_event_category: row.get("RawEventCategory")?,
        raw_event_name: row.get("RawEventName")?,
        raw_event_type: row.get("RawEventType")?,
        time_stamp: row.get("TimeStamp")?,
        table: row.get("Type")?,
        payload_index: row.get("PayloadIndex")?,
    })
}
