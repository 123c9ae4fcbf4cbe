//! `rows`: what is in the store, one row a line.

use std::io::{self, Write};

use crate::store::alert::Alert;
use crate::store::read::{Filter, Row};
use crate::store::{Store, StoreError};

/// Writes the rows of the filter, oldest first: as JSON with the published column names, or as text for people.
///
/// # Errors
///
/// When the store cannot be read or `out` not be written.
pub fn print(store: &Store, filter: Filter, json: bool, out: &mut impl Write) -> Result<(), PrintError> {
    let mut written = Ok(());
    let line = |row: &Row| if json { json_line(row) } else { Ok(text_line(row)) };
    store
        .for_each_row(filter, |row| {
            written = line(&row).and_then(|line| writeln!(out, "{line}"));
            written.is_ok()
        })
        .map_err(PrintError::Store)?;
    written.and_then(|()| out.flush()).map_err(PrintError::Out)
}

/// Writes the alerts of a device or of all, oldest first, likewise.
///
/// # Errors
///
/// When the store cannot be read or `out` not be written.
pub fn print_alerts(store: &Store, device: Option<&str>, json: bool, out: &mut impl Write) -> Result<(), PrintError> {
    let mut written = Ok(());
    let line = |alert: &Alert| {
        if json { serde_json::to_string(alert).map(escaped).map_err(io::Error::other) } else { Ok(alert_line(alert)) }
    };
    store
        .for_each_alert(device, |alert| {
            written = line(&alert).and_then(|line| writeln!(out, "{line}"));
            written.is_ok()
        })
        .map_err(PrintError::Store)?;
    written.and_then(|()| out.flush()).map_err(PrintError::Out)
}

fn alert_line(alert: &Alert) -> String {
    let columns = ["TimeGenerated", "AlertSeverity", "CompromisedEntity", "AlertName", "Status", "Description"];
    let words = columns.map(|column| alert.get(column).and_then(serde_json::Value::as_str).unwrap_or_default());
    let [at, severity, device, name, status, description] = words;
    let status = if status == "New" { String::new() } else { format!(" [{status}]") };
    escaped(format!("{at} {severity} {device} {name}{status}: {description}"))
}

/// Why `rows` ended early.
#[derive(Debug)]
pub enum PrintError {
    /// The store.
    Store(StoreError),
    /// The output; a closed pipe is one of these.
    Out(io::Error),
}

fn json_line(row: &Row) -> io::Result<String> {
    serde_json::to_string(row).map(escaped).map_err(io::Error::other)
}

/// JSON text has no line ends inside, so a line is one line.
fn text_line(row: &Row) -> String {
    escaped(format!("{} {} {} {}", row.time_stamp, row.device_id, row.raw_event_name, row.event_details))
}

/// JSON leaves DEL and the control characters U+0080 to U+009F as they are, and a terminal obeys them: a device must
/// not speak to the terminal of who looks at its events. Escaped they are the same JSON.
pub(crate) fn escaped(line: String) -> String {
    if !line.contains(char::is_control) {
        return line;
    }
    let mut out = String::with_capacity(line.len() + 16);
    for char in line.chars() {
        if char.is_control() {
            out += &format!("\\u{:04x}", u32::from(char));
        } else {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_cannot_speak_to_a_terminal_and_json_stays_the_same() {
        let line = serde_json::to_string("a\u{1b}[2J\u{9b}2J\u{7f}é\u{2028}").unwrap();
        let safe = escaped(line.clone());
        assert_eq!(safe, "\"a\\u001b[2J\\u009b2J\\u007fé\u{2028}\"");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), serde_json::from_str::<String>(&line).unwrap());
        assert_eq!(escaped("plain".to_owned()), "plain");
    }
}
