//! `query`: a question to the store in KQL, and its rows as a table, CSV or JSON.
//!
//! Rows are written as they come. What came from a device is never let speak to a terminal: control characters are
//! written as `\u001b`, in all three forms.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use crate::kql::value::{Type, Value};
use crate::kql::{self, Column, Fault, Limits, Plan, Stop, time};
use crate::rows::escaped;
use crate::store::Store;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns under their names, for people.
    Table,
    /// RFC 4180, a header first.
    Csv,
    /// One array of objects.
    Json,
}

/// Why there is no answer, or not all of it.
#[derive(Debug)]
pub enum QueryError {
    /// The query is not understood.
    Fault(Fault),
    /// It did not come to its end.
    Stop(Stop),
    /// The output; a closed pipe is one of these.
    Out(io::Error),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryError::Fault(fault) => write!(f, "query: {fault}"),
            QueryError::Stop(stop) => write!(f, "query: {stop}"),
            QueryError::Out(error) => write!(f, "stdout: {error}"),
        }
    }
}

/// How many rows decide how wide the columns of a table are.
const MEASURED_ROWS: usize = 500;

/// Wider than this a column of a table does not become for its neighbours' sake.
const MAX_WIDTH: usize = 60;

/// The text of a query: from standard input, from a file, or what was written itself.
///
/// # Errors
///
/// When it cannot be read.
pub fn text(argument: &str) -> Result<String, String> {
    if argument == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(|error| format!("read the query from stdin: {error}"))?;
        return Ok(text);
    }
    let path = Path::new(argument);
    if path.is_file() || path.extension().is_some_and(|extension| extension == "kql") {
        return std::fs::read_to_string(path).map_err(|error| format!("read the query from {argument}: {error}"));
    }
    Ok(argument.to_owned())
}

/// Asks the store and writes the answer.
///
/// # Errors
///
/// When the query is not understood or comes to a limit, or the answer cannot be written.
pub fn print(text: &str, store: &Store, format: Format, out: &mut dyn Write) -> Result<(), QueryError> {
    let plan = kql::compile(text, store, now()).map_err(QueryError::Fault)?;
    let mut writer = Writer { columns: plan.columns(), format, out, written: 0, held: Vec::new(), widths: Vec::new() };
    writer.begin().map_err(QueryError::Out)?;
    write_rows(&plan, store, &mut writer)?;
    writer.end().map_err(QueryError::Out)
}

fn write_rows(plan: &Plan, store: &Store, writer: &mut Writer) -> Result<(), QueryError> {
    let mut failed = None;
    let done = plan.run(store, Limits::default(), &mut |row| {
        failed = writer.row(row).err();
        Ok(failed.is_none())
    });
    match failed {
        Some(error) => Err(QueryError::Out(error)),
        None => done.map_err(QueryError::Stop),
    }
}

/// The present moment in ticks.
fn now() -> i64 {
    let after_1970 = Timestamp::now().as_nanosecond() / 100;
    i64::try_from(after_1970).map_or(time::UNIX_EPOCH, |ticks| ticks.saturating_add(time::UNIX_EPOCH))
}

struct Writer<'a> {
    columns: &'a [Column],
    format: Format,
    out: &'a mut dyn Write,
    written: u64,
    /// Rows of a table whose widths are not known yet.
    held: Vec<Vec<String>>,
    widths: Vec<usize>,
}

impl Writer<'_> {
    fn begin(&mut self) -> io::Result<()> {
        let names: Vec<String> = self.columns.iter().map(|column| escaped(column.name.to_string())).collect();
        match self.format {
            Format::Table => self.held.push(names),
            Format::Csv => self.csv_line(&names)?,
            Format::Json => write!(self.out, "[")?,
        }
        Ok(())
    }

    fn row(&mut self, row: &[Value]) -> io::Result<()> {
        match self.format {
            Format::Table => {
                self.held.push(row.iter().map(|cell| escaped(cell.to_text().to_string())).collect());
                if self.held.len() > MEASURED_ROWS || !self.widths.is_empty() {
                    self.flush_table()?;
                }
            }
            Format::Csv => {
                let cells: Vec<String> = row.iter().map(|cell| escaped(cell.to_text().to_string())).collect();
                self.csv_line(&cells)?;
            }
            Format::Json => {
                let cells = self.columns.iter().zip(row);
                let object: Map<String, Json> =
                    cells.map(|(column, cell)| (column.name.to_string(), cell.to_json())).collect();
                let text = serde_json::to_string(&object).map_err(io::Error::other)?;
                let before = if self.written == 0 { "\n" } else { ",\n" };
                write!(self.out, "{before}{}", escaped(text))?;
            }
        }
        self.written += 1;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        match self.format {
            Format::Table => self.flush_table()?,
            Format::Csv => {}
            Format::Json => writeln!(self.out, "\n]")?,
        }
        self.out.flush()
    }

    fn flush_table(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        if self.widths.is_empty() {
            let width =
                |index: usize| held.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count()).max();
            self.widths = (0..self.columns.len()).map(|index| width(index).unwrap_or(0).min(MAX_WIDTH)).collect();
        }
        for row in held {
            let mut line = String::new();
            for ((cell, width), column) in row.iter().zip(&self.widths).zip(self.columns) {
                let number = matches!(column.ty, Type::Int | Type::Long | Type::Real);
                line += &if number { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            }
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn csv_line(&mut self, cells: &[String]) -> io::Result<()> {
        let quoted: Vec<String> =
            cells
                .iter()
                .map(|cell| {
                    if cell.contains([',', '"']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
                })
                .collect();
        write!(self.out, "{}\r\n", quoted.join(","))
    }
}

#[cfg(test)]
mod tests;
