//! The report for people: findings first, then what was not found and what could not be asked, then facts.

use std::io::{self, Write};

use super::answer::{Answer, Table, is_number, moment, texts};
use super::questions::{Question, Severity};
use super::{Answered, Report};
use crate::kql::value::Value;
use crate::rows::escaped;

/// More rows of an answer are counted only.
const SHOWN: usize = 10;
/// Sentences are broken here.
const WIDTH: usize = 100;
/// A cell has at most so many characters, and one with a line of its own so many.
const CELL: usize = 48;
const LINE: usize = 300;
/// Columns whose texts get a line of their own.
const LONG: [&str; 4] = ["CommandLine", "Description", "Message", "Line"];

/// Writes the report.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    head(report, out)?;
    for severity in [Severity::High, Severity::Medium, Severity::Low] {
        for (answered, table) in report.findings().filter(|(answered, _)| answered.severity == severity) {
            let Question { id, finding, next, .. } = answered.question;
            writeln!(out, "\n{:<8}{finding}: {}", severity.name().to_uppercase(), table.count)?;
            rows(id, table, out)?;
            wrapped(&format!("Next: {next}."), 4, out)?;
        }
    }
    writeln!(out)?;
    rest(report, out)?;
    writeln!(out, "\nFACTS")?;
    for Answered { question, answer, .. } in &report.facts {
        match answer {
            Answer::Found(table) => {
                writeln!(out, "\n{}: {}", question.finding, table.count)?;
                rows(question.id, table, out)?;
            }
            Answer::Nothing => writeln!(out, "\n{}: none", question.finding)?,
            Answer::NoData(why) | Answer::NoBaseline(why) | Answer::Refused(why) => {
                writeln!(out)?;
                wrapped(&format!("{}: {why}", question.finding), 0, out)?;
            }
        }
    }
    out.flush()
}

fn head(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let hubs = if report.hubs.is_empty() { "no hub".to_owned() } else { report.hubs.join(", ") };
    writeln!(out, "{}", escaped(format!("{} at {hubs}", report.device)))?;
    writeln!(out, "{} to {}, times in UTC", moment(report.since), moment(report.until))?;
    let kinds = report.kinds.iter().map(|kind| match kind.rows - kind.in_window {
        0 => format!("{} {}", kind.in_window, kind.name),
        before => format!("{} {} ({before} before)", kind.in_window, kind.name),
    });
    let kinds: Vec<String> = kinds.collect();
    let kinds = if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") };
    wrapped(&format!("Rows: {kinds}"), 0, out)?;
    let count = |severity| report.findings().filter(|(answered, _)| answered.severity == severity).count();
    let [high, medium, low] = [Severity::High, Severity::Medium, Severity::Low].map(count);
    // Whoever reads no further than this line must not take silence for a good sign.
    let open =
        report.findings.iter().filter(|one| matches!(one.answer, Answer::NoData(_) | Answer::Refused(_))).count();
    let open = if open == 0 { String::new() } else { format!("; {open} questions without an answer") };
    writeln!(out, "\nFINDINGS: {high} high, {medium} medium, {low} low{open}")
}

/// What was not found, and what could not be asked; questions of one reason together.
fn rest(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for Answered { question, answer, .. } in &report.findings {
        let why = match answer {
            Answer::Found(_) => continue,
            Answer::Nothing => "NOTHING FOUND".to_owned(),
            Answer::NoData(why) => format!("NO DATA, {why}"),
            Answer::NoBaseline(why) => format!("NO BASELINE, {why}"),
            Answer::Refused(why) => format!("NOT ANSWERED, {why}"),
        };
        let name = question.id.replace('_', " ");
        match groups.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) => names.push(name),
            None => groups.push((why, vec![name])),
        }
    }
    for (why, names) in groups {
        wrapped(&format!("{why}: {}", names.join(", ")), 0, out)?;
    }
    Ok(())
}

fn rows(id: &str, table: &Table, out: &mut dyn Write) -> io::Result<()> {
    let is_long = |index: usize| table.columns.get(index).is_some_and(|column| LONG.contains(&&*column.name));
    let short: Vec<usize> = (0..table.columns.len()).filter(|index| !is_long(*index)).collect();
    let mut lines = vec![table.columns.iter().map(|column| column.name.to_string()).collect::<Vec<_>>()];
    lines.extend(table.rows.iter().take(SHOWN).map(|row| row.iter().map(cell).collect()));
    let text = |line: &[String], index: usize| cut(line.get(index).map(String::as_str).unwrap_or_default(), CELL);
    for (number, line) in lines.iter().enumerate() {
        let mut words = String::from("   ");
        for index in &short {
            let width = lines.iter().map(|line| text(line, *index).chars().count()).max().unwrap_or_default();
            let text = text(line, *index);
            let right = table.columns.get(*index).is_some_and(is_number);
            words += &if right { format!(" {text:>width$} ") } else { format!(" {text:<width$} ") };
        }
        writeln!(out, "{}", words.trim_end())?;
        for index in (0..table.columns.len()).filter(|index| number > 0 && is_long(*index)) {
            writeln!(out, "      {}", cut(line.get(index).map(String::as_str).unwrap_or_default(), LINE))?;
        }
    }
    match table.count.saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "    and {more} more: --format json, or the query {id}.kql"),
    }
}

/// A cell for people, with nothing in it that speaks to a terminal.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::DateTime(ticks) => moment(*ticks),
        value => texts(value).join(", "),
    };
    if text.is_empty() { "-".to_owned() } else { escaped(text) }
}

/// The beginning and the end of a text that is too long.
fn cut(text: &str, max: usize) -> String {
    let count = text.chars().count();
    if count <= max {
        return text.to_owned();
    }
    let kept = max.saturating_sub(3);
    let head: String = text.chars().take(kept.div_ceil(2)).collect();
    let tail: String = text.chars().skip(count - kept / 2).collect();
    format!("{head}...{tail}")
}

/// A sentence over several lines, the later ones further in.
fn wrapped(text: &str, indent: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut line = " ".repeat(indent);
    for word in escaped(text.to_owned()).split(' ') {
        if !line.trim().is_empty() && line.chars().count() + word.chars().count() >= WIDTH {
            writeln!(out, "{}", line.trim_end())?;
            line = " ".repeat(indent + 2);
        }
        line += word;
        line.push(' ');
    }
    writeln!(out, "{}", line.trim_end())
}
