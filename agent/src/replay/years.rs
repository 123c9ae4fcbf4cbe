//! The year of lines that have none.
//!
//! A log is written forward, so a date that is before the one above it is of the next year: `Dec 31`, `Jan  1`. The
//! last line is no younger than the file, or than the next line that does have a year. Together they date every line.
//!
//! A board without a battery starts each boot with an old date and gets the right one a little later. That looks like a
//! New Year, too, but the date comes back to where it was in one step, and then no year has passed.

use collector_common::parse::syslog::Stamp;
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

/// A date without a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Day {
    /// Counted in a leap year, from 1 to 366.
    of_year: i16,
    month: i8,
    day: i8,
    time: Time,
}

/// What was seen of the dates in a log, and how it is read.
#[derive(Debug, Default)]
pub struct Years {
    last: Option<Day>,
    /// Numbers of the lines with which a year began.
    begun: Vec<u64>,
    /// From which line to before which line the clock was not set.
    unset: Vec<(u64, u64)>,
    /// The date before the last step back, while that may still turn out to be a clock that was not set.
    stepped_from: Option<Day>,
    /// How many years had begun at a 29 February.
    leap: Option<usize>,
    /// The first moment with a year behind the last line without one.
    anchor_us: Option<i64>,
}

/// The dates of a log, line by line.
#[derive(Debug)]
pub struct Dates<'a> {
    years: &'a Years,
    year: i16,
    begun: usize,
    unset: usize,
}

/// Lines may be a little out of order: by a zone, or by a clock that was set back.
const BACK_DAYS: i16 = 1;

/// A clock that comes back from an old date lands within so many days after the date before it.
const OFF_DAYS: i16 = 60;

/// More years or boots than any log has: a log that is made to have them costs no more memory.
const MAX_STEPS: usize = 10_000;

/// How far the last line may be ahead of the file's own time: the other machine may be in another zone.
const AHEAD_US: i64 = 24 * 3600 * 1_000_000;

/// The most years to go back for a 29 February.
const LEAP_YEARS: i16 = 8;

impl Years {
    /// Takes in the date of a line.
    pub fn note(&mut self, number: u64, stamp: &Stamp) {
        let Stamp::Yearless { month, day, time } = *stamp else {
            if let (Stamp::Absolute(wall_us), Some(_), None) = (stamp, self.last, self.anchor_us) {
                self.anchor_us = Some(*wall_us);
            }
            return;
        };
        // 2024 has every day.
        let Ok(date) = Date::new(2024, month, day) else { return };
        let day = Day { of_year: date.day_of_year(), month, day, time };
        self.anchor_us = None;
        if let Some(last) = self.last.replace(day) {
            self.step(number, last, day);
        }
        if (day.month, day.day) == (2, 29) && self.leap.is_none() {
            self.leap = Some(self.begun.len());
        }
    }

    fn step(&mut self, number: u64, last: Day, day: Day) {
        let days = day.of_year - last.of_year;
        if days < -BACK_DAYS && self.begun.len() < MAX_STEPS {
            self.begun.push(number);
            self.stepped_from = Some(last);
        } else if days > BACK_DAYS
            && let Some(from) = self.stepped_from
            && (0..=OFF_DAYS).contains(&(day.of_year - from.of_year))
            && last.of_year < from.of_year
            && days > from.of_year - last.of_year - OFF_DAYS
        {
            self.stepped_from = None;
            if let Some(first) = self.begun.pop() {
                self.unset.push((first, number));
                self.unset.truncate(MAX_STEPS);
            }
        }
    }

    /// Whether any line has no year.
    pub fn are_needed(&self) -> bool {
        self.last.is_some()
    }

    /// How many New Years passed.
    pub fn passed(&self) -> usize {
        self.begun.len()
    }

    /// Dates the lines of a log of which nothing is younger than `modified_us`, the clock of which stood in `zone`.
    pub fn dates(&self, modified_us: i64, zone: &TimeZone) -> Dates<'_> {
        let limit_us = self.anchor_us.unwrap_or(modified_us).saturating_add(AHEAD_US);
        let newest = Timestamp::from_microsecond(limit_us).map_or(1970, |limit| zone.to_datetime(limit).year());
        let passed = i16::try_from(self.begun.len()).unwrap_or(i16::MAX);
        let fits = |back: i16| {
            let year = newest.saturating_sub(back);
            let last = self.last.and_then(|last| wall_us(year, last.month, last.day, last.time, zone))?;
            let first = year.saturating_sub(passed);
            let leap = self.leap.and_then(|begun| i16::try_from(begun).ok()).map(|begun| first.saturating_add(begun));
            let is_leap = leap.is_none_or(|leap| Date::new(leap, 2, 29).is_ok());
            (last <= limit_us && is_leap).then_some(first)
        };
        let year = (0..=LEAP_YEARS).find_map(fits).unwrap_or(newest.saturating_sub(passed));
        Dates { years: self, year, begun: 0, unset: 0 }
    }
}

impl Dates<'_> {
    /// The moment of a line, and whether its clock was not set; lines come in order.
    pub fn wall_us(&mut self, number: u64, stamp: &Stamp, zone: &TimeZone) -> (Option<i64>, bool) {
        while self.years.begun.get(self.begun).is_some_and(|first| *first <= number) {
            self.begun += 1;
            self.year = self.year.saturating_add(1);
        }
        while self.years.unset.get(self.unset).is_some_and(|(_, end)| *end <= number) {
            self.unset += 1;
        }
        let is_unset = self.years.unset.get(self.unset).is_some_and(|(first, _)| *first <= number);
        match *stamp {
            Stamp::Yearless { month, day, time } => (wall_us(self.year, month, day, time, zone), is_unset),
            // A year that is written down needs no clock to compare with.
            _ => (stamp.wall_us(i64::MAX, zone), false),
        }
    }
}

fn wall_us(year: i16, month: i8, day: i8, time: Time, zone: &TimeZone) -> Option<i64> {
    let date = Date::new(year, month, day).ok()?;
    Some(zone.to_ambiguous_timestamp(date.to_datetime(time)).compatible().ok()?.as_microsecond())
}

#[cfg(test)]
mod tests {
    use collector_common::parse::syslog;

    use super::*;

    fn us(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    /// The dates of lines, with `?` where the clock was not set.
    fn dated(stamps: &[&str], modified: &str) -> Vec<String> {
        let lines: Vec<String> = stamps.iter().map(|stamp| format!("{stamp} h a: b")).collect();
        let stamps: Vec<Stamp> = lines.iter().map(|line| syslog::parse(line).unwrap().stamp).collect();
        let mut years = Years::default();
        for (number, stamp) in stamps.iter().enumerate() {
            years.note(number as u64 + 1, stamp);
        }
        let mut dates = years.dates(us(modified), &TimeZone::UTC);
        let date = |(number, stamp)| {
            let (wall_us, is_unset) = dates.wall_us(number as u64 + 1, stamp, &TimeZone::UTC);
            let moment = Timestamp::from_microsecond(wall_us.unwrap()).unwrap();
            format!("{}{}", &moment.to_string()[..10], if is_unset { "?" } else { "" })
        };
        stamps.iter().enumerate().map(date).collect()
    }

    #[test]
    fn a_year_begins_where_the_date_goes_back() {
        let cases: [(&[&str], &str, &[&str]); 7] = [
            (&["Nov 24 10:00:00", "Nov 24 11:00:00"], "2026-11-24T11:00:00Z", &["2026-11-24", "2026-11-24"]),
            // The file is older than its last line by a zone.
            (&["Jan  1 01:00:00"], "2025-12-31T23:30:00Z", &["2026-01-01"]),
            (&["Nov 24 10:00:00"], "2026-03-01T00:00:00Z", &["2025-11-24"]),
            (
                &["Jun 14 15:16:01", "Dec 31 23:59:59", "Jan  1 00:00:01", "Jul 27 00:00:00", "Feb  1 00:00:00"],
                "2007-02-03T00:00:00Z",
                &["2005-06-14", "2005-12-31", "2006-01-01", "2006-07-27", "2007-02-01"],
            ),
            // A line of yesterday is no New Year.
            (&["Nov 24 10:00:00", "Nov 23 10:00:00"], "2026-12-24T11:00:00Z", &["2026-11-24", "2026-11-23"]),
            (&["Feb 29 10:00:00", "Mar  1 10:00:00"], "2027-01-01T00:00:00Z", &["2024-02-29", "2024-03-01"]),
            // What has a year dates what stands before it.
            (
                &["Dec 30 10:00:00", "Jan  2 10:00:00", "2019-03-01T00:00:00Z"],
                "2026-11-24T00:00:00Z",
                &["2018-12-30", "2019-01-02", "2019-03-01"],
            ),
        ];
        for (stamps, modified, expected) in cases {
            assert_eq!(dated(stamps, modified), expected, "{stamps:?}");
        }
    }

    #[test]
    fn a_clock_that_was_not_set_is_no_new_year() {
        let boots = [
            "Nov 24 10:00:00",
            "Jan  1 00:00:07",
            "Jan  1 00:00:09",
            "Nov 24 10:05:00",
            "May  5 03:00:00",
            "Nov 30 10:00:00",
            "Jan  2 10:00:00",
        ];
        let expected =
            ["2025-11-24", "2025-01-01?", "2025-01-01?", "2025-11-24", "2025-05-05?", "2025-11-30", "2026-01-02"];
        assert_eq!(dated(&boots, "2026-01-03T00:00:00Z"), expected);
    }
}
