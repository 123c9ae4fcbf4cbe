//! auth.log, secure, messages: the lines of a syslog daemon.

use std::io::Write;

use collector_common::parse::syslog::{self, Stamp};
use jiff::Timestamp;
use tracing::{info, warn};

use super::input::Input;
use super::years::Years;
use super::{Case, Problem, Replay, Source, at, running, survey};
use crate::collectors::logins::reader::{Entry, Writer};

/// Prints the logins of a log.
pub fn replay<W: Write>(replay: &mut Replay<W>, case: &Case) -> Result<(), Problem> {
    let Case { input, years, .. } = case;
    let zone = replay.zone();
    let limit_us = replay.year.and_then(|year| end_of(year, &zone)).unwrap_or(input.modified_us);
    if years.are_needed() {
        say(years, input);
    }
    let mut dates = years.dates(limit_us, &zone);
    let mut known = 0_u64;
    let mut last_us = limit_us;
    let name = input.name.clone();
    let mut last = 0;
    survey::each_line(input, |number, line| {
        last = number;
        let text = String::from_utf8_lossy(line);
        let parsed = syslog::parse(&text);
        known += u64::from(parsed.is_some());
        let stamp = parsed.as_ref().map(|parsed| parsed.stamp);
        // A line of no known form still ends what "last message repeated" may speak of.
        let (ident, pid, message) = parsed.map_or(("", None, ""), |parsed| (parsed.ident, parsed.pid, parsed.message));
        let entry = Entry { at: at(last_us), ident, pid, message, writer: Writer::Unproven };
        let accounts = &replay.accounts;
        let mut drafts = replay.reader.read(&entry, running(entry.at), &mut |name| accounts.uid(name));
        replay.give_up(None)?;
        let is_set_aside = replay.reader.set_aside().is_some();
        if drafts.is_empty() && !is_set_aside {
            return Ok(());
        }
        // Only now, because most lines are no attempt and need no date.
        let (wall_us, is_unset) = stamp.as_ref().map_or((None, false), |stamp| dates.wall_us(number, stamp, &zone));
        last_us = wall_us.unwrap_or(last_us);
        drafts.iter_mut().for_each(|draft| draft.at = at(last_us));
        let inferred = matches!(stamp, Some(Stamp::Yearless { .. }));
        let marks: &[&'static str] = match (inferred, is_unset) {
            (true, true) => &["YearInferred", "ClockSuspect"],
            (true, false) => &["YearInferred"],
            (false, _) => &[],
        };
        let offset_seconds = syslog::offset_seconds(&text);
        let source = Source { marks, offset_seconds, ..Source::new(&name, number, line) };
        if is_set_aside {
            replay.set_aside(&source, Some(last_us));
        }
        replay.print(drafts, &source)
    })?;
    if known == 0 {
        warn!("{name}: none of its {last} lines has the form of a log");
    }
    replay.finish(&Source::new(&name, last, &[]), last_us)
}

/// Says what was assumed.
fn say(years: &Years, input: &Input) {
    let written = Timestamp::from_microsecond(input.modified_us).unwrap_or(Timestamp::UNIX_EPOCH);
    info!(
        "{}: lines have no year; it is counted back from when the file was written ({written}) over {} New Years; --year names it",
        input.name,
        years.passed()
    );
}

fn end_of(year: i16, zone: &jiff::tz::TimeZone) -> Option<i64> {
    let last = jiff::civil::Date::new(year, 12, 31).ok()?.at(0, 0, 0, 0);
    Some(zone.to_ambiguous_timestamp(last).compatible().ok()?.as_microsecond() - 1)
}
