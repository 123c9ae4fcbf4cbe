//! Asking: the queries with the device's own names put in, and what an answer of no rows means.

use std::time::Duration;

use crate::kql::value::{Type, Value};
use crate::kql::{self, Column, Limits, time};
use crate::store::Store;

use super::questions::{Baseline, COVERAGE, Needs, Question};

/// The lines of a query that stand for what is asked about. Whoever copies one puts his own there.
pub const PLACEHOLDERS: &str =
    "let device = \"YOUR_DEVICE_ID\";\nlet hub = \"YOUR_HUB_NAME\";\nlet since = ago(30d);\n";

/// More rows of an answer are counted only.
pub const MAX_ROWS: usize = 1000;

/// What a question may use: nobody waits longer for one of some thirty answers.
pub fn limits() -> Limits {
    Limits { time: Duration::from_mins(1), ..Limits::default() }
}

/// The rows of an answer.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Their columns.
    pub columns: Vec<Column>,
    /// At most [`MAX_ROWS`] of them.
    pub rows: Vec<Vec<Value>>,
    /// How many there are.
    pub count: usize,
}

impl Table {
    /// The cell of a row by its column's name.
    pub fn cell<'t>(&'t self, row: &'t [Value], name: &str) -> Option<&'t Value> {
        let index = self.columns.iter().position(|column| &*column.name == name)?;
        row.get(index)
    }
}

/// What came of a question.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Rows, at least one.
    Found(Table),
    /// The rows it needs are there, and none fits.
    Nothing,
    /// No rows to look at: why.
    NoData(String),
    /// Nothing to compare with: why.
    NoBaseline(String),
    /// The evaluator gave up: why.
    Refused(String),
}

/// Rows of one kind.
#[derive(Clone, Debug)]
pub struct Kind {
    /// `RawEventName`.
    pub name: String,
    /// How many.
    pub rows: i64,
    /// Of those in the window.
    pub in_window: i64,
    /// The first and last moment, in ticks.
    pub first: i64,
    /// See above.
    pub last: i64,
}

/// What is asked about, and when.
pub struct Inquiry<'a> {
    /// Of whom.
    pub store: &'a Store,
    /// Exactly this device.
    pub device: &'a str,
    /// Part of the hub's name; empty for any.
    pub hub: &'a str,
    /// The start of the window, in ticks.
    pub since: i64,
    /// What `now()` gives.
    pub now: i64,
    /// What a question may use.
    pub limits: Limits,
}

impl Inquiry<'_> {
    /// Runs a query with the names and times of this inquiry.
    ///
    /// # Errors
    ///
    /// A sentence, when it is not understood or comes to a limit.
    pub fn ask(&self, query: &str) -> Result<Table, String> {
        let own = format!(
            "let device = {};\nlet hub = {};\nlet since = datetime({});\n",
            literal(self.device),
            literal(self.hub),
            time::format_datetime(self.since.clamp(0, time::END - 1))
        );
        let text = query.replacen(PLACEHOLDERS, &own, 1);
        let plan = kql::compile(&text, self.store, self.now).map_err(|fault| fault.to_string())?;
        let mut table = Table { columns: plan.columns().to_vec(), ..Table::default() };
        let done = plan.run(self.store, self.limits, &mut |row| {
            table.count += 1;
            if table.rows.len() < MAX_ROWS {
                table.rows.push(row.to_vec());
            }
            Ok(true)
        });
        done.map_err(|stop| stop.to_string())?;
        Ok(table)
    }

    /// The kinds of rows there are, and the hubs they came to.
    ///
    /// # Errors
    ///
    /// As [`Inquiry::ask`].
    pub fn coverage(&self) -> Result<(Vec<Kind>, Vec<String>), String> {
        let table = self.ask(COVERAGE)?;
        let mut hubs = Vec::new();
        let kinds = table.rows.iter().map(|row| {
            let number = |name| match table.cell(row, name) {
                Some(Value::Long(number) | Value::DateTime(number)) => *number,
                _ => 0,
            };
            for hub in table.cell(row, "Hubs").map(texts).unwrap_or_default() {
                if !hubs.contains(&hub) {
                    hubs.push(hub);
                }
            }
            Kind {
                name: table.cell(row, "Kind").map(|cell| cell.to_text().to_string()).unwrap_or_default(),
                rows: number("Rows"),
                in_window: number("InWindow"),
                first: number("FirstSeen"),
                last: number("LastSeen"),
            }
        });
        let kinds = kinds.collect();
        Ok((kinds, hubs))
    }

    /// Asks a question, if its answer would mean something.
    pub fn answer(&self, question: &Question, kinds: &[Kind]) -> Answer {
        if let Some(why) = self.lacks(question, kinds) {
            return why;
        }
        match self.ask(question.query) {
            Ok(table) if table.rows.is_empty() => Answer::Nothing,
            Ok(table) => Answer::Found(table),
            Err(why) => Answer::Refused(why),
        }
    }

    /// Why an answer would mean nothing.
    fn lacks(&self, question: &Question, kinds: &[Kind]) -> Option<Answer> {
        let names = match &question.needs {
            Needs::Alerts => return None,
            Needs::AnyEvent => &[],
            Needs::Kinds(names) => *names,
            Needs::Key(name, _) => std::slice::from_ref(name),
        };
        let there: Vec<&Kind> =
            kinds.iter().filter(|kind| names.is_empty() || names.contains(&kind.name.as_str())).collect();
        let what = if names.is_empty() { "event".to_owned() } else { names.join(" or ") };
        let Some(last) = there.iter().map(|kind| kind.last).max() else {
            return Some(Answer::NoData(format!("no {what} row ever came")));
        };
        if there.iter().all(|kind| kind.in_window == 0) {
            return Some(Answer::NoData(format!("no {what} row in this time; the last is of {}", moment(last))));
        }
        let first = there.iter().map(|kind| kind.first).min().unwrap_or_default();
        match question.baseline {
            Baseline::EarlierList if first == last => {
                Some(Answer::NoBaseline(format!("there is one {what} list only, of {}", moment(first))))
            }
            Baseline::BeforeWindow if first >= self.since => Some(Answer::NoBaseline(format!(
                "no {what} row is from before this time, the first is of {}; a shorter --since has something to \
                 compare with",
                moment(first)
            ))),
            _ => self.lacks_key(question),
        }
    }

    fn lacks_key(&self, question: &Question) -> Option<Answer> {
        let Needs::Key(name, key) = question.needs else { return None };
        let query = format!(
            "{PLACEHOLDERS}SecurityIoTRawEvent | where DeviceId == device and AssociatedResourceId contains tolower(hub)
            and RawEventName == {} and TimeStamp >= since and EventDetails has {} | take 1",
            literal(name),
            literal(key)
        );
        match self.ask(&query) {
            Ok(table) if table.rows.is_empty() => {
                Some(Answer::NoData(format!("no {name} row in this time says its {key}")))
            }
            Ok(_) => None,
            Err(why) => Some(Answer::Refused(why)),
        }
    }
}

/// The texts of an array, or the text of anything else; empty ones left out.
pub fn texts(cell: &Value) -> Vec<String> {
    let all = match cell {
        Value::Dynamic(json) => match json.as_array() {
            Some(items) => items.iter().map(|item| item.as_str().map_or(item.to_string(), str::to_owned)).collect(),
            None => vec![cell.to_text().to_string()],
        },
        _ => vec![cell.to_text().to_string()],
    };
    all.into_iter().filter(|text| !text.is_empty()).collect()
}

/// `2026-11-24 08:00:00`, in UTC.
pub fn moment(ticks: i64) -> String {
    let text = time::format_datetime(ticks.clamp(0, time::END - 1));
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// A text as KQL writes it.
fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            char if char.is_control() => out += &format!("\\u{:04x}", u32::from(char)),
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

/// Whether cells of the column stand right.
pub fn is_number(column: &Column) -> bool {
    matches!(column.ty, Type::Int | Type::Long | Type::Real)
}
