//! Moments and spans in ticks of 100 ns, the unit of Kusto. A moment counts from 0001-01-01T00:00:00Z and ends with the
//! year 9999, as everywhere in .NET.

/// Ticks in a second.
pub const SECOND: i64 = 10_000_000;
/// Ticks in a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Ticks in an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Ticks in a day.
pub const DAY: i64 = 24 * HOUR;
/// 1970-01-01.
pub const UNIX_EPOCH: i64 = 719_162 * DAY;
/// The first moment after the year 9999.
pub const END: i64 = 3_652_059 * DAY;

/// A moment taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// 1 to 9999.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// 0 to 23.
    pub hour: i64,
    /// 0 to 59.
    pub minute: i64,
    /// 0 to 59.
    pub second: i64,
    /// Ticks within the second.
    pub ticks: i64,
}

/// The moment, unless it is before the year 1 or after 9999.
pub fn in_range(ticks: i64) -> Option<i64> {
    (0..END).contains(&ticks).then_some(ticks)
}

/// Midnight of a date (`days_from_civil` of Howard Hinnant, moved to the year 1).
pub fn midnight(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 306;
    Some(days * DAY)
}

/// How long a month is.
pub fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Takes a moment apart.
pub fn parts(ticks: i64) -> Parts {
    let days = ticks.div_euclid(DAY) + 306;
    let rest = ticks.rem_euclid(DAY);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Parts {
        year,
        month,
        day,
        hour: rest / HOUR,
        minute: rest / MINUTE % 60,
        second: rest / SECOND % 60,
        ticks: rest % SECOND,
    }
}

/// `2026-11-24T08:00:00.0000000Z`.
pub fn format_datetime(ticks: i64) -> String {
    let at = parts(ticks);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:07}Z",
        at.year, at.month, at.day, at.hour, at.minute, at.second, at.ticks
    )
}

/// `1.02:03:04.5000000`; days and fraction only when there are any.
pub fn format_timespan(ticks: i64) -> String {
    let sign = if ticks < 0 { "-" } else { "" };
    let ticks = ticks.unsigned_abs();
    let (day, hour, minute, second) =
        (DAY.unsigned_abs(), HOUR.unsigned_abs(), MINUTE.unsigned_abs(), SECOND.unsigned_abs());
    let days = if ticks >= day { format!("{}.", ticks / day) } else { String::new() };
    let fraction = if ticks.is_multiple_of(second) { String::new() } else { format!(".{:07}", ticks % second) };
    format!("{sign}{days}{:02}:{:02}:{:02}{fraction}", ticks / hour % 24, ticks / minute % 60, ticks / second % 60)
}

/// Reads ISO 8601: a date, `T` or a space and a time of day if there is one, a fraction of any length of which seven
/// digits count, `Z` or an offset; without one it is UTC.
pub fn parse_datetime(text: &str) -> Option<i64> {
    let mut read = Reader { bytes: text.trim().as_bytes(), at: 0 };
    let year = read.digits(4, 4)?;
    let (mut month, mut day) = (1, 1);
    if read.eat(b'-') {
        month = read.digits(1, 2)?;
        if read.eat(b'-') {
            day = read.digits(1, 2)?;
        }
    }
    let mut ticks = midnight(year, month, day)?;
    if read.at == read.bytes.len() {
        return Some(ticks);
    }
    if read.eat(b'T') || read.eat(b't') || read.spaces() {
        ticks += read.time_of_day()?;
    }
    read.spaces();
    if !(read.eat(b'Z') || read.eat(b'z')) {
        let sign = if read.eat(b'+') {
            -1
        } else if read.eat(b'-') {
            1
        } else {
            0
        };
        if sign != 0 {
            let hours = read.digits(2, 2)?;
            read.eat(b':');
            let minutes = read.digits(2, 2)?;
            if hours > 14 || minutes > 59 {
                return None;
            }
            ticks += sign * (hours * HOUR + minutes * MINUTE);
        }
    }
    if read.at == read.bytes.len() { in_range(ticks) } else { None }
}

/// Reads `1.02:03:04.5`, `02:03`, `1.5h`, and a bare number as days.
pub fn parse_timespan(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let ticks = if text.contains(':') { clock(text)? } else { with_unit(text)? };
    Some(if negative { -ticks } else { ticks })
}

fn clock(text: &str) -> Option<i64> {
    let colon = text.find(':')?;
    let (days, rest) = match text.find('.') {
        Some(dot) if dot < colon => (text.get(..dot)?.parse::<u32>().ok()?, text.get(dot + 1..)?),
        _ => (0, text),
    };
    let mut read = Reader { bytes: rest.as_bytes(), at: 0 };
    let of_day = read.time_of_day()?;
    if read.at == read.bytes.len() { i64::from(days).checked_mul(DAY)?.checked_add(of_day) } else { None }
}

fn with_unit(text: &str) -> Option<i64> {
    let end = text.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    scale(number.trim(), if unit.is_empty() { "d" } else { unit })
}

/// A number of a unit in ticks: `scale("1.5", "h")`.
pub fn scale(number: &str, unit: &str) -> Option<i64> {
    let unit = match unit {
        "d" | "day" | "days" => DAY,
        "h" | "hr" | "hrs" | "hour" | "hours" => HOUR,
        "m" | "min" | "minute" | "minutes" => MINUTE,
        "s" | "sec" | "second" | "seconds" => SECOND,
        "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => SECOND / 1000,
        "micro" | "micros" | "microsecond" | "microseconds" => 10,
        "tick" | "ticks" => 1,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(unit);
    }
    #[expect(clippy::cast_precision_loss, reason = "the units are far below 2^53")]
    real_ticks(number.parse::<f64>().ok()? * unit as f64)
}

/// The nearest tick, if there is one.
pub fn real_ticks(ticks: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    (ticks.abs() < 9.2e18).then(|| ticks.round() as i64)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn spaces(&mut self) -> bool {
        let from = self.at;
        while self.eat(b' ') {}
        self.at > from
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<i64> {
        let from = self.at;
        let mut number = 0;
        while let Some(digit) = self.bytes.get(self.at).filter(|byte| byte.is_ascii_digit() && self.at - from < most) {
            number = number * 10 + i64::from(digit - b'0');
            self.at += 1;
        }
        (self.at - from >= least).then_some(number)
    }

    fn time_of_day(&mut self) -> Option<i64> {
        let hours = self.digits(1, 2)?;
        if !self.eat(b':') {
            return None;
        }
        let minutes = self.digits(1, 2)?;
        let (mut seconds, mut ticks) = (0, 0);
        if self.eat(b':') {
            seconds = self.digits(1, 2)?;
            if self.eat(b'.') {
                ticks = self.fraction()?;
            }
        }
        (hours < 24 && minutes < 60 && seconds < 60)
            .then_some(hours * HOUR + minutes * MINUTE + seconds * SECOND + ticks)
    }

    fn fraction(&mut self) -> Option<i64> {
        let (mut ticks, mut unit, from) = (0, SECOND / 10, self.at);
        while let Some(digit) = self.bytes.get(self.at).filter(|byte| byte.is_ascii_digit()) {
            ticks += i64::from(digit - b'0') * unit;
            unit /= 10;
            self.at += 1;
        }
        (self.at > from).then_some(ticks)
    }
}
