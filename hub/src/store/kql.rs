//! The store as a source of rows for queries, under the published names and types.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Row as SqlRow, params_from_iter};

use super::Store;
use crate::kql::time;
use crate::kql::value::{Type, Value};
use crate::kql::{Column, Compare, Filter, Scan, Schema, Source, Stop};

const S: Type = Type::String;
const T: Type = Type::DateTime;

/// The tables of Azure Monitor that a query may name
/// (learn.microsoft.com/azure/azure-monitor/reference/tables/securityiotrawevent and .../securityalert). What the store
/// has not, a query finds empty.
const TABLES: &[(&str, &[(&str, Type)])] = &[
    (
        "SecurityIoTRawEvent",
        &[
            ("TimeGenerated", T),
            ("AgentVersion", S),
            ("AssociatedResourceId", S),
            ("AzureSubscriptionId", S),
            ("DeviceId", S),
            ("EventDetails", S),
            ("IoTRawEventId", S),
            ("IsEmpty", Type::Bool),
            ("RawEventCategory", S),
            ("RawEventName", S),
            ("RawEventType", S),
            ("TimeStamp", T),
            ("Type", S),
        ],
    ),
    (
        "SecurityAlert",
        &[
            ("TimeGenerated", T),
            ("AlertLink", S),
            ("AlertName", S),
            ("AlertSeverity", S),
            ("AlertType", S),
            ("CompromisedEntity", S),
            ("ConfidenceLevel", S),
            ("ConfidenceScore", Type::Real),
            ("Description", S),
            ("DisplayName", S),
            ("EndTime", T),
            ("Entities", S),
            ("ExtendedLinks", S),
            ("ExtendedProperties", S),
            ("IsIncident", Type::Bool),
            ("ProcessingEndTime", T),
            ("ProductComponentName", S),
            ("ProductName", S),
            ("ProviderName", S),
            ("RemediationSteps", S),
            ("ResourceId", S),
            ("SourceComputerId", S),
            ("SourceSystem", S),
            ("StartTime", T),
            ("Status", S),
            ("SubTechniques", S),
            ("SystemAlertId", S),
            ("Tactics", S),
            ("Techniques", S),
            ("Type", S),
            ("VendorName", S),
            ("VendorOriginalId", S),
            ("WorkspaceResourceGroup", S),
            ("WorkspaceSubscriptionId", S),
        ],
    ),
];

/// More filters than this help no more, and SQLite takes no expression that is a thousand levels deep.
const MAX_FILTERS: usize = 20;

impl Schema for Store {
    fn columns(&self, table: &str) -> Option<Vec<Column>> {
        let (_, columns) = TABLES.iter().find(|(name, _)| *name == table)?;
        Some(columns.iter().map(|(name, ty)| Column::new(name, *ty)).collect())
    }

    fn tables(&self) -> Vec<String> {
        TABLES.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}

impl Source for Store {
    fn scan(&self, scan: &Scan, visit: &mut dyn FnMut(&[Value]) -> Result<bool, Stop>) -> Result<(), Stop> {
        let columns = self.columns(scan.table).unwrap_or_default();
        let mut stopped = Ok(());
        let read = self.select(scan, &columns, &mut |row| match visit(row) {
            Ok(more) => more,
            Err(stop) => {
                stopped = Err(stop);
                false
            }
        });
        read.map_err(|error| Stop(self.failed("read", error).to_string()))?;
        stopped
    }
}

impl Store {
    fn select(&self, scan: &Scan, columns: &[Column], visit: &mut dyn FnMut(&[Value]) -> bool) -> rusqlite::Result<()> {
        let stored = self.stored_columns(scan.table)?;
        if stored.is_empty() {
            return Ok(());
        }
        let asked: Vec<usize> = (0..columns.len())
            .filter(|index| scan.needed.get(*index) == Some(&true))
            .filter(|index| columns.get(*index).is_some_and(|column| stored.iter().any(|name| *name == *column.name)))
            .collect();
        let names: Vec<&str> =
            asked.iter().filter_map(|index| columns.get(*index)).map(|column| &*column.name).collect();
        let names = if names.is_empty() { "1".to_owned() } else { names.join(", ") };
        let (wheres, values) = conditions(scan.filters, columns, &stored);
        let sql = format!("SELECT {names} FROM {} WHERE {wheres}", scan.table);
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut cells: Vec<Value> = columns.iter().map(|column| column.ty.missing()).collect();
        while let Some(row) = rows.next()? {
            for (place, index) in asked.iter().enumerate() {
                if let (Some(cell), Some(column)) = (cells.get_mut(*index), columns.get(*index)) {
                    read_cell(row, place, column.ty, cell)?;
                }
            }
            if !visit(&cells) {
                break;
            }
        }
        Ok(())
    }

    /// The columns the file has for a table; none when it has not the table.
    fn stored_columns(&self, table: &str) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.db.prepare_cached("SELECT name FROM pragma_table_info(?)")?;
        let names = statement.query_map([table], |row| row.get(0))?;
        names.collect()
    }
}

/// The filters that an index or a comparison of texts can answer.
fn conditions(filters: &[Filter], columns: &[Column], stored: &[String]) -> (String, Vec<String>) {
    let mut wheres = vec!["TRUE".to_owned()];
    let mut values = Vec::new();
    for filter in filters.iter().take(MAX_FILTERS) {
        let Some(name) = columns.get(filter.column).map(|column| column.name.to_string()) else { continue };
        if !stored.contains(&name) {
            continue;
        }
        match (&filter.value, filter.compare) {
            (Value::Str(text), Compare::Equal) => {
                wheres.push(format!("{name} = ?"));
                values.push(text.to_string());
            }
            (Value::Dynamic(texts), Compare::OneOf) => {
                let texts = texts.as_array().map(Vec::as_slice).unwrap_or_default();
                let marks = vec!["?"; texts.len()].join(", ");
                wheres.push(format!("{name} IN ({marks})"));
                values.extend(texts.iter().filter_map(|text| text.as_str().map(str::to_owned)));
            }
            // The store keeps whole microseconds, as text in the order of time. The query looks again at the border.
            (Value::DateTime(at), compare) => {
                let signs: &[&str] = match compare {
                    Compare::Equal => &[">=", "<="],
                    Compare::AtLeast | Compare::Above => &[">="],
                    Compare::AtMost | Compare::Below => &["<="],
                    Compare::OneOf => &[],
                };
                for sign in signs {
                    wheres.push(format!("{name} {sign} ?"));
                    values.push(stored_moment(*at));
                }
            }
            _ => {}
        }
    }
    (wheres.join(" AND "), values)
}

/// As [`super::moment`] writes it, cut to microseconds.
fn stored_moment(ticks: i64) -> String {
    let text = time::format_datetime(ticks);
    format!("{}Z", text.get(..text.len().saturating_sub(2)).unwrap_or(&text))
}

/// Reads a cell into the one of the row before: what did not change is shared.
fn read_cell(row: &SqlRow, place: usize, ty: Type, cell: &mut Value) -> rusqlite::Result<()> {
    match (row.get_ref(place)?, ty) {
        (ValueRef::Text(bytes), Type::String) => {
            if !matches!(cell, Value::Str(known) if known.as_bytes() == bytes) {
                *cell = Value::Str(Arc::from(String::from_utf8_lossy(bytes)));
            }
        }
        (ValueRef::Text(bytes), Type::DateTime) => {
            let at = time::parse_datetime(&String::from_utf8_lossy(bytes));
            *cell = at.map_or(Value::Null, Value::DateTime);
        }
        (ValueRef::Integer(number), Type::Bool) => *cell = Value::Bool(number != 0),
        (ValueRef::Integer(number), Type::Long | Type::Int) => *cell = Value::Long(number),
        (ValueRef::Real(number), Type::Real) => *cell = Value::Real(number),
        _ => *cell = ty.missing(),
    }
    Ok(())
}
