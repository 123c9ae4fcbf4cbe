//! `rows`: what is in the store, one row a line.

use std::io::{self, Write};

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

/// Why `rows` ended early.
#[derive(Debug)]
pub enum PrintError {
    /// The store.
    Store(StoreError),
    /// The output; a closed pipe is one of these.
    Out(io::Error),
}

fn json_line(row: &Row) -> io::Result<String> {
    serde_json::to_string(row).map_err(io::Error::other)
}

/// JSON text has no raw control characters, and a device id is refused with one, so a line is one line.
fn text_line(row: &Row) -> String {
    format!("{} {} {} {}", row.time_stamp, row.device_id, row.raw_event_name, row.event_details)
}
