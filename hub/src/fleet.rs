//! `devices`: one line per device that has reported, with what is missing of it.
//!
//! Which devices may log in with a password is another matter: `crate::devices`, the command `device`.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use crate::alerts::SILENT_AFTER;
use crate::rows::{PrintError, escaped};
use crate::store::Store;
use crate::store::fleet::Member;

/// A wider id pushes its own line out of the table, and no other.
const MAX_ID_WIDTH: usize = 40;

const HEAD: [&str; 9] =
    ["LAST SEEN", "AGO", "FIRST SEEN", "ROWS", "LOST", "REFUSED", "ALERTS", "BOOTS", "AGENT, REMARKS"];

/// Writes the devices, all or those of a hub, as JSON or as a table for people.
///
/// # Errors
///
/// When the store cannot be read or `out` not be written.
pub fn print(
    store: &Store,
    hub: Option<&str>,
    now: Timestamp,
    json: bool,
    out: &mut impl Write,
) -> Result<(), PrintError> {
    let mut fleet = store.fleet().map_err(PrintError::Store)?;
    fleet.retain(|member| hub.is_none_or(|hub| is_of(&member.associated_resource_id, hub)));
    let written = if json { objects(&fleet, now, out) } else { table(&fleet, now, out) };
    written.map_err(PrintError::Out)
}

/// Whether a resource id names a hub: by one of its levels, in any case.
fn is_of(resource_id: &str, hub: &str) -> bool {
    resource_id.split('/').any(|level| level.to_lowercase() == hub.to_lowercase())
}

/// Seconds since a device was last heard; `None` when it never was, or the moment cannot be read.
fn seconds_since_heard(member: &Member, now: Timestamp) -> Option<i64> {
    let last: Timestamp = member.last_seen.parse().ok().filter(|_| member.is_heard)?;
    Some(now.duration_since(last).as_secs().max(0))
}

fn is_silent(seconds: i64) -> bool {
    seconds >= SILENT_AFTER.as_secs()
}

fn objects(fleet: &[Member], now: Timestamp, out: &mut impl Write) -> io::Result<()> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Line<'a> {
        #[serde(flatten)]
        member: &'a Member,
        seconds_since_heard: Option<i64>,
        is_silent: bool,
    }
    for member in fleet {
        let seconds_since_heard = seconds_since_heard(member, now);
        let line = Line { member, seconds_since_heard, is_silent: seconds_since_heard.is_some_and(is_silent) };
        writeln!(out, "{}", escaped(serde_json::to_string(&line).map_err(io::Error::other)?))?;
    }
    out.flush()
}

fn table(fleet: &[Member], now: Timestamp, out: &mut impl Write) -> io::Result<()> {
    let ids: Vec<String> = fleet.iter().map(|member| escaped(member.device_id.clone())).collect();
    let width = ids.iter().map(|id| id.chars().count()).max().unwrap_or(0).clamp("DEVICE".len(), MAX_ID_WIDTH);
    let mut line = |id: &str, cells: [&str; 9]| {
        let [last, ago, first, rows, lost, refused, alerts, boots, remarks] = cells;
        let line = format!(
            "{id:width$}  {last:20}  {ago:>13}  {first:20}  {rows:>9}  {lost:>7}  {refused:>7}  {alerts:>6}  {boots:>5}  {remarks}"
        );
        writeln!(out, "{}", line.trim_end())
    };
    line("DEVICE", HEAD)?;
    for (member, id) in fleet.iter().zip(&ids) {
        let ago = match seconds_since_heard(member, now) {
            None => "imported".to_owned(),
            Some(seconds) if is_silent(seconds) => format!("silent {}", duration(seconds)),
            Some(seconds) => duration(seconds),
        };
        let rows: u64 = member.rows.values().sum();
        let numbers = [rows, member.lost, member.refused, member.alerts, member.boots].map(|number| number.to_string());
        let [rows, lost, refused, alerts, boots] = &numbers;
        let (last, first) = (second(&member.last_seen), second(&member.first_seen));
        line(id, [&last, &ago, &first, rows, lost, refused, alerts, boots, &remarks(member)])?;
    }
    out.flush()
}

/// The agent's version, and what is out of order.
fn remarks(member: &Member) -> String {
    let mut remarks = vec![escaped(member.agent_version.clone())];
    let mut note = |count: u64, what: &str| {
        if count > 0 {
            remarks.push(format!("{what} {count}"));
        }
    };
    note(member.killed, "killed");
    note(member.power_lost, "power lost");
    note(member.first_starts.saturating_sub(1), "state lost");
    note(member.silences, "silences");
    remarks.retain(|remark| !remark.is_empty());
    remarks.join(", ")
}

/// A moment of the store without the fraction of its second.
fn second(moment: &str) -> String {
    match moment.split_once('.') {
        Some((second, _)) => format!("{second}Z"),
        None => moment.to_owned(),
    }
}

/// The largest unit that there is one of.
fn duration(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
