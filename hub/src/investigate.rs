//! `investigate`: what a security engineer wants to know of a device in the first two minutes.
//!
//! ```text
//!  packaging/hub/queries/*.kql ──▶ questions: the table ──▶ answer: asked of the store, with this device's names
//!                                                             └──▶ words: for people, findings first; or JSON
//! ```
//!
//! The window ends with the device's last event, not with today: months later it still shows what happened. That
//! nothing was found is said only of rows that are there; without any it is "no data". What a query cannot answer within
//! its limits is a sentence in the report, and the others are asked all the same.

pub mod answer;
pub mod questions;
mod words;

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Map, Value as Json, json};

use crate::kql::time;
use crate::kql::value::Value;
use crate::query;
use crate::rows::escaped;
use crate::store::Store;
use answer::{Answer, Inquiry, Kind, Table};
use questions::{FACTS, FINDINGS, Question, Severity};

/// How the report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object.
    Json,
}

/// What is asked about.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The device id.
    pub device: String,
    /// Part of the hub's name; nothing for any hub.
    pub hub: Option<String>,
    /// How long before the last event the window begins, in ticks.
    pub window: i64,
}

/// A question and what came of it.
pub struct Answered {
    /// The question.
    pub question: &'static Question,
    /// How bad it is, if something was found.
    pub severity: Severity,
    /// The answer.
    pub answer: Answer,
}

/// All that was asked.
pub struct Report {
    /// The device.
    pub device: String,
    /// The hubs its rows came to.
    pub hubs: Vec<String>,
    /// The window, in ticks.
    pub since: i64,
    /// See above.
    pub until: i64,
    /// What rows there are.
    pub kinds: Vec<Kind>,
    /// In the order of the table.
    pub findings: Vec<Answered>,
    /// Likewise.
    pub facts: Vec<Answered>,
}

impl Report {
    /// The questions that found something.
    pub fn findings(&self) -> impl Iterator<Item = (&Answered, &Table)> {
        self.findings.iter().filter_map(|answered| match &answered.answer {
            Answer::Found(table) => Some((answered, table)),
            _ => None,
        })
    }
}

/// Reads how long a window is: `30d`, `12h`, `1.06:00`.
///
/// # Errors
///
/// What was expected.
pub fn window(text: &str) -> Result<i64, String> {
    time::parse_timespan(text)
        .filter(|ticks| *ticks > 0 && *ticks < time::END)
        .ok_or_else(|| "expected a time such as 30d, 12h or 90m".to_owned())
}

/// Why there is no report, or not all of it.
#[derive(Debug)]
pub enum InvestigateError {
    /// The store cannot be read, or has never heard of the device.
    Store(String),
    /// The output; a closed pipe is one of these.
    Out(io::Error),
}

/// Asks everything about a device and writes the report.
///
/// # Errors
///
/// When there is nothing to ask, or `out` cannot be written.
pub fn run(store: &Store, settings: &Settings, format: Format, out: &mut dyn Write) -> Result<(), InvestigateError> {
    run_at(store, settings, query::now(), format, out)
}

fn run_at(
    store: &Store,
    settings: &Settings,
    now: i64,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), InvestigateError> {
    let report = ask(store, settings, now).map_err(InvestigateError::Store)?;
    let written = match format {
        Format::Text => words::write(&report, out),
        Format::Json => writeln!(out, "{}", escaped(as_json(&report).to_string())).and_then(|()| out.flush()),
    };
    written.map_err(InvestigateError::Out)
}

fn ask(store: &Store, settings: &Settings, now: i64) -> Result<Report, String> {
    let hub = settings.hub.as_deref().unwrap_or_default();
    let mut inquiry = Inquiry { store, device: &settings.device, hub, since: 0, now, limits: answer::limits() };
    let (ever, _) = inquiry.coverage()?;
    if ever.is_empty() && inquiry.ask(FINDINGS.first().map_or("", |alerts| alerts.query))?.rows.is_empty() {
        return Err(unknown(&inquiry, settings)?);
    }
    // A clock that ran ahead once must not move the window away from what happened: such rows are not asked here.
    let until = ever.iter().map(|kind| kind.last).max().filter(|last| *last > 0).unwrap_or(now);
    inquiry.since = until.saturating_sub(settings.window).max(0);
    let (kinds, hubs) = inquiry.coverage()?;
    let answered = |question: &'static Question| {
        let answer = inquiry.answer(question, &kinds);
        Answered { question, severity: severity(question, &answer), answer }
    };
    Ok(Report {
        device: settings.device.clone(),
        hubs,
        since: inquiry.since,
        until,
        findings: FINDINGS.iter().map(answered).collect(),
        facts: FACTS.iter().map(answered).collect(),
        kinds,
    })
}

/// What the rows say themselves counts more than the table.
fn severity(question: &Question, answer: &Answer) -> Severity {
    let Answer::Found(table) = answer else { return question.severity };
    let said = table.rows.iter().filter_map(|row| table.cell(row, "Severity"));
    said.map(|cell| Severity::named(&cell.to_text())).max().unwrap_or(question.severity)
}

/// Why there is nothing about the device, and which one may have been meant.
fn unknown(inquiry: &Inquiry, settings: &Settings) -> Result<String, String> {
    let known = inquiry.ask("SecurityIoTRawEvent | summarize Hubs = make_set(AssociatedResourceId, 10) by DeviceId")?;
    let ids: Vec<_> = known.rows.iter().filter_map(|row| known.cell(row, "DeviceId")).map(Value::to_text).collect();
    let mut why = format!("the store has nothing from the device {}", settings.device);
    if let Some(row) = known.rows.iter().find(|row| row.first().is_some_and(|id| *id.to_text() == *settings.device)) {
        let hubs = known.cell(row, "Hubs").map(answer::texts).unwrap_or_default();
        let hub = settings.hub.as_deref().unwrap_or_default();
        let _always_ok = write!(why, " at a hub {hub}; it has rows from {}", hubs.join(", "));
        return Ok(escaped(why));
    }
    let likeness = |id: &str| strsim::jaro_winkler(&id.to_lowercase(), &settings.device.to_lowercase());
    let mut near: Vec<_> = ids.iter().map(|id| (likeness(id), id)).filter(|(likeness, _)| *likeness > 0.7).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let near: Vec<&str> = near.iter().take(5).map(|(_, id)| &***id).collect();
    if !near.is_empty() {
        let _always_ok = write!(why, "; there is {}", near.join(", "));
    }
    let _always_ok = write!(why, "; `edgewarden-hub devices` lists all {}", known.count);
    Ok(escaped(why))
}

fn as_json(report: &Report) -> Json {
    let at = |ticks| Json::from(time::format_datetime(ticks));
    let kinds = report.kinds.iter().map(|kind| {
        json!({"kind": kind.name, "rows": kind.rows, "inWindow": kind.in_window,
               "firstSeen": at(kind.first), "lastSeen": at(kind.last)})
    });
    let found = report.findings().map(|(answered, table)| {
        let Question { id, finding, next, .. } = answered.question;
        json!({"id": id, "severity": answered.severity.name(), "finding": finding, "next": next,
               "count": table.count, "rows": objects(table)})
    });
    let nothing = report.findings.iter().filter(|answered| matches!(answered.answer, Answer::Nothing));
    let unanswered = report.findings.iter().chain(&report.facts).filter_map(|answered| {
        let (what, why) = match &answered.answer {
            Answer::NoData(why) => ("noData", why),
            Answer::NoBaseline(why) => ("noBaseline", why),
            Answer::Refused(why) => ("refused", why),
            Answer::Found(_) | Answer::Nothing => return None,
        };
        Some(json!({"id": answered.question.id, "because": what, "why": why}))
    });
    let facts = report.facts.iter().filter_map(|answered| match &answered.answer {
        Answer::Found(table) => Some(json!({"id": answered.question.id, "count": table.count, "rows": objects(table)})),
        _ => None,
    });
    json!({
        "device": report.device, "hubs": report.hubs, "since": at(report.since), "until": at(report.until),
        "kinds": kinds.collect::<Vec<_>>(), "findings": found.collect::<Vec<_>>(),
        "nothingFound": nothing.map(|answered| answered.question.id).collect::<Vec<_>>(),
        "notAnswered": unanswered.collect::<Vec<_>>(), "facts": facts.collect::<Vec<_>>(),
    })
}

fn objects(table: &Table) -> Vec<Map<String, Json>> {
    let object = |row: &Vec<Value>| {
        table.columns.iter().zip(row).map(|(column, cell)| (column.name.to_string(), cell.to_json())).collect()
    };
    table.rows.iter().map(object).collect()
}

#[cfg(test)]
mod tests;
