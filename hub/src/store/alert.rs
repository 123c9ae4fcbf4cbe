//! The table `SecurityAlert`, with the columns of Azure Monitor's table of that name and those its schema reference
//! calls deprecated.

use rusqlite::params_from_iter;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value};

use super::{Store, StoreError};

/// An alert under the published column names.
pub type Alert = Map<String, Value>;

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
                for (n, name) in names.iter().enumerate() {
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

fn json(name: &str, value: ValueRef) -> Value {
    match value {
        ValueRef::Integer(number) if name == "IsIncident" => Value::Bool(number != 0),
        ValueRef::Integer(number) => Value::from(number),
        ValueRef::Real(number) => Value::from(number),
        ValueRef::Text(text) => Value::from(String::from_utf8_lossy(text)),
        ValueRef::Null | ValueRef::Blob(_) => Value::Null,
    }
}
