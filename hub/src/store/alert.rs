//! The table `SecurityAlert`, with the columns of Azure Monitor's table of that name and those its schema reference
//! calls deprecated. Beside them stands `Stored`, when this hub got the alert; only retention asks for it.

use jiff::Timestamp;
use rusqlite::params_from_iter;
use rusqlite::types::Value as SqlValue;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value};

use super::{Store, StoreError, moment};
use crate::alerts;

/// An alert under the published column names.
pub type Alert = Map<String, Value>;

/// The column that is not published.
const STORED: &str = "Stored";

impl Store {
    /// Shows every alert, of one device or of all, oldest first, until `visit` returns `false`.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn for_each_alert(&self, device: Option<&str>, mut visit: impl FnMut(Alert) -> bool) -> Result<(), StoreError> {
        let mut run = || {
            let wheres = if device.is_some() { "CompromisedEntity = ?" } else { "TRUE" };
            let sql = format!("SELECT * FROM SecurityAlert WHERE {wheres} ORDER BY TimeGenerated, rowid");
            let mut statement = self.db.prepare_cached(&sql)?;
            let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let mut rows = statement.query(params_from_iter(device))?;
            while let Some(row) = rows.next()? {
                let mut alert = Alert::new();
                for (n, name) in names.iter().enumerate().filter(|(_, name)| *name != STORED) {
                    alert.insert(name.clone(), json(name, row.get_ref(n)?));
                }
                if !visit(alert) {
                    break;
                }
            }
            Ok(())
        };
        run().map_err(|error: rusqlite::Error| self.failed("read", error))
    }

    /// The alerts, of one device or of all, oldest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn alerts(&self, device: Option<&str>) -> Result<Vec<Alert>, StoreError> {
        let mut found = Vec::new();
        self.for_each_alert(device, |alert| {
            found.push(alert);
            true
        })?;
        Ok(found)
    }
}

impl Store {
    /// Keeps alerts from elsewhere, by their `SystemAlertId`: which were new. One that is there stays as it is.
    ///
    /// # Errors
    ///
    /// When SQLite cannot write; then none is kept.
    pub fn write_alerts(&mut self, now: Timestamp, alerts: &[Alert]) -> Result<Vec<bool>, StoreError> {
        self.change("write to", |to| {
            let write = |alert: &Alert| {
                let columns: Vec<&str> = alert.keys().map(String::as_str).chain([STORED]).collect();
                let values = alert.values().map(sql_value).chain([SqlValue::Text(moment(now))]);
                let places = vec!["?"; columns.len()].join(", ");
                let sql = format!("INSERT OR IGNORE INTO SecurityAlert ({}) VALUES ({places})", columns.join(", "));
                let new = to.prepare_cached(&sql)?.execute(params_from_iter(values))?;
                Ok(new == 1)
            };
            alerts.iter().map(write).collect()
        })
    }

    /// The alert in an object of a file, checked for what [`Store::write_alerts`] relies on: columns that exist, each
    /// with a value of its type, and dates as the store writes them. Without an id it gets one made of its content.
    ///
    /// # Errors
    ///
    /// A sentence that starts with the column.
    pub fn check_alert(&self, object: Alert) -> Result<Alert, String> {
        let statement = self.db.prepare_cached("SELECT * FROM SecurityAlert");
        let statement = statement.map_err(|error| error.to_string())?;
        let known: Vec<&str> = statement.column_names().filter(|name| *name != STORED).collect();
        let mut alert = Alert::new();
        for (name, value) in object {
            // Columns a log workspace adds for its bill.
            if name.starts_with('_') {
                continue;
            }
            if !known.contains(&name.as_str()) {
                return Err(format!("{name:?}: SecurityAlert has no such column"));
            }
            if value.is_null() {
                continue;
            }
            let value = checked(&name, value).map_err(|expected| format!("{name}: expected {expected}"))?;
            alert.insert(name, value);
        }
        if !alert.contains_key("SystemAlertId") {
            let id = alerts::content_id(&[&Value::Object(alert.clone()).to_string()]);
            alert.insert("SystemAlertId".to_owned(), Value::String(id.to_string()));
        }
        for name in ["SystemAlertId", "AlertName", "TimeGenerated"] {
            if alert.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                return Err(format!("{name}: missing"));
            }
        }
        Ok(alert)
    }
}

fn checked(name: &str, value: Value) -> Result<Value, &'static str> {
    match (name, value) {
        ("IsIncident", value @ Value::Bool(_)) => Ok(value),
        ("IsIncident", _) => Err("true or false"),
        ("ConfidenceScore", value @ Value::Number(_)) => Ok(value),
        ("ConfidenceScore", _) => Err("a number"),
        ("Type", value) if value != "SecurityAlert" => Err("SecurityAlert"),
        ("TimeGenerated" | "StartTime" | "EndTime" | "ProcessingEndTime", Value::String(text)) if !text.is_empty() => {
            let at: Timestamp = text.parse().map_err(|_| "a date and time with an offset (RFC 3339)")?;
            Ok(Value::String(moment(at)))
        }
        (_, value @ Value::String(_)) => Ok(value),
        ("ExtendedProperties" | "Entities" | "ExtendedLinks", value @ (Value::Object(_) | Value::Array(_))) => {
            Ok(Value::String(value.to_string()))
        }
        _ => Err("a string"),
    }
}

fn sql_value(value: &Value) -> SqlValue {
    match value {
        Value::Bool(yes) => SqlValue::Integer(i64::from(*yes)),
        Value::Number(number) => number.as_f64().map_or(SqlValue::Null, SqlValue::Real),
        Value::String(text) => SqlValue::Text(text.clone()),
        _ => SqlValue::Null,
    }
}

fn json(name: &str, value: ValueRef) -> Value {
    match value {
        ValueRef::Integer(number) if name == "IsIncident" => Value::Bool(number != 0),
        ValueRef::Integer(number) => Value::from(number),
        ValueRef::Real(number) => Value::from(number),
        ValueRef::Text(text) => Value::from(String::from_utf8_lossy(text)),
        ValueRef::Null | ValueRef::Blob(_) => Value::Null,
    }
}
