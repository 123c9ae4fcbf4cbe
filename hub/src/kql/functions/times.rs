//! Functions of moments and spans. Everything is UTC.

use super::{Call, Function, Gives, Prepared, Want, get, long, string, text};
use crate::kql::Stop;
use crate::kql::time::{self, DAY, HOUR, MINUTE, SECOND};
use crate::kql::value::{Type, Value};

const MOMENT: Gives = Gives::Just(Type::DateTime);
const WITH_OFFSET: &[Want] = &[Want::DateTime, Want::Integer];
const LONG: Gives = Gives::Just(Type::Long);

const fn start(name: &'static str, eval: fn(&[Value], &Call) -> Result<Value, Stop>, doc: &'static str) -> Function {
    Function::new(name, WITH_OFFSET, MOMENT, eval, doc).optional(1)
}

/// The table of this file.
pub const TABLE: &[Function] = &[
    Function::new("now", &[Want::TimeSpan], MOMENT, |a, call| Ok(from_now(a, call, 1)), "the moment the query began, and so far after it").optional(1),
    Function::new("ago", &[Want::TimeSpan], MOMENT, |a, call| Ok(from_now(a, call, -1)), "so far before now()"),
    start("startofday", |a, _| Ok(start_of(a, Unit::Day, 0)), "midnight; the second argument adds days")
    .named_by_first(),
    start("startofweek", |a, _| Ok(start_of(a, Unit::Week, 0)), "midnight of Sunday; the second argument adds weeks"),
    start("startofmonth", |a, _| Ok(start_of(a, Unit::Month, 0)), "midnight of the first; the second argument adds months"),
    start("startofyear", |a, _| Ok(start_of(a, Unit::Year, 0)), "midnight of January 1; the second argument adds years"),
    start("endofday", |a, _| Ok(before(start_of(a, Unit::Day, 1))), "the last tick of the day; the second argument adds days"),
    Function::new("datetime_diff", &[Want::Text, Want::DateTime, Want::DateTime], LONG, |a, _| Ok(difference(a)), "how many borders of year, quarter, month, week, day, hour, minute, second, millisecond, microsecond lie between; nanosecond by hundreds")
        .prepare(known_unit),
    Function::new("datetime_add", &[Want::Text, Want::Integer, Want::DateTime], MOMENT, |a, _| Ok(add(a)), "so many years, ..., microseconds later").prepare(known_unit),
    Function::new("datetime_part", &[Want::Text, Want::DateTime], Gives::Just(Type::Int), |a, _| Ok(part(a)), "year, quarter, month, day, hour, minute, second, millisecond or microsecond").prepare(known_unit),
    Function::new("format_datetime", &[Want::DateTime, Want::Text], Gives::Just(Type::String), |a, _| string(format(a)), "by a pattern of d f F h H m M s y tt and separators")
    .named_by_first(),
    Function::new("make_datetime", &[Want::Integer, Want::Integer, Want::Integer, Want::Integer, Want::Integer, Want::Number], MOMENT, |a, _| Ok(make(a)), "of year, month, day, and hour, minute, second")
        .optional(3),
    Function::new("unixtime_seconds_todatetime", &[Want::Number], MOMENT, |a, _| Ok(from_unix(get(a, 0))), "so many seconds after 1970"),
];

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    /// Of so many ticks.
    Ticks(i64),
    Nanosecond,
}

fn unit(name: &str) -> Option<Unit> {
    Some(match name.to_ascii_lowercase().as_str() {
        "year" => Unit::Year,
        "quarter" => Unit::Quarter,
        "month" => Unit::Month,
        "week" => Unit::Week,
        "day" => Unit::Day,
        "hour" => Unit::Ticks(HOUR),
        "minute" => Unit::Ticks(MINUTE),
        "second" => Unit::Ticks(SECOND),
        "millisecond" => Unit::Ticks(SECOND / 1000),
        "microsecond" => Unit::Ticks(10),
        "nanosecond" => Unit::Nanosecond,
        _ => return None,
    })
}

/// A constant that is no unit is found before anything runs.
fn known_unit(constants: &[Option<&Value>]) -> Result<Prepared, String> {
    match constants.first() {
        Some(Some(name)) if unit(&name.to_text()).is_none() => Err(format!(
            "{:?} is no unit; there are year, quarter, month, week, day, hour, minute, second, millisecond, microsecond, nanosecond",
            name.to_text()
        )),
        _ => Ok(Prepared::Nothing),
    }
}

fn moment(ticks: Option<i64>) -> Value {
    ticks.and_then(time::in_range).map_or(Value::Null, Value::DateTime)
}

fn from_now(arguments: &[Value], call: &Call, sign: i64) -> Value {
    let offset = match arguments.first() {
        Some(Value::TimeSpan(ticks)) => *ticks,
        _ => 0,
    };
    moment(offset.checked_mul(sign).and_then(|offset| call.env.now.checked_add(offset)))
}

fn ticks(value: &Value) -> Option<i64> {
    match value {
        Value::DateTime(ticks) => Some(*ticks),
        _ => None,
    }
}

/// Months since the year 0, for units that have no fixed length.
fn months(at: i64) -> i64 {
    let parts = time::parts(at);
    parts.year * 12 + parts.month - 1
}

fn month_start(months: i64) -> Option<i64> {
    time::midnight(months.div_euclid(12), months.rem_euclid(12) + 1, 1)
}

/// Day 0 of the calendar was a Monday; weeks begin on Sunday.
fn week(at: i64) -> i64 {
    (at.div_euclid(DAY) + 1).div_euclid(7)
}

fn start_of(arguments: &[Value], unit: Unit, more: i64) -> Value {
    let Some(at) = ticks(get(arguments, 0)) else { return Value::Null };
    let Some(offset) = long(arguments, 1).unwrap_or(0).checked_add(more).filter(|n| n.abs() < 4_000_000) else {
        return Value::Null;
    };
    moment(match unit {
        Unit::Year => month_start((time::parts(at).year + offset) * 12),
        Unit::Month => month_start(months(at) + offset),
        Unit::Week => Some(((week(at) + offset) * 7 - 1) * DAY),
        _ => Some((at.div_euclid(DAY) + offset) * DAY),
    })
}

fn before(value: Value) -> Value {
    moment(ticks(&value).map(|ticks| ticks - 1))
}

fn difference(arguments: &[Value]) -> Value {
    let (Some(unit), Some(a), Some(b)) =
        (unit(&text(arguments, 0)), ticks(get(arguments, 1)), ticks(get(arguments, 2)))
    else {
        return Value::Null;
    };
    let borders = |at: i64| match unit {
        Unit::Year => time::parts(at).year,
        Unit::Quarter => months(at).div_euclid(3),
        Unit::Month => months(at),
        Unit::Week => week(at),
        Unit::Day => at.div_euclid(DAY),
        Unit::Ticks(ticks) => at.div_euclid(ticks),
        Unit::Nanosecond => at,
    };
    let difference = borders(a).saturating_sub(borders(b));
    Value::Long(if unit == Unit::Nanosecond { difference.saturating_mul(100) } else { difference })
}

fn add(arguments: &[Value]) -> Value {
    let (Some(unit), Some(count), Some(at)) = (unit(&text(arguments, 0)), long(arguments, 1), ticks(get(arguments, 2)))
    else {
        return Value::Null;
    };
    let of_ticks = |unit: i64| count.checked_mul(unit).and_then(|more| at.checked_add(more));
    moment(match unit {
        Unit::Year => add_months(at, count.checked_mul(12)),
        Unit::Quarter => add_months(at, count.checked_mul(3)),
        Unit::Month => add_months(at, Some(count)),
        Unit::Week => of_ticks(7 * DAY),
        Unit::Day => of_ticks(DAY),
        Unit::Ticks(ticks) => of_ticks(ticks),
        Unit::Nanosecond => at.checked_add(count / 100),
    })
}

/// The same day so many months later, or the month's last one.
fn add_months(at: i64, count: Option<i64>) -> Option<i64> {
    let start = month_start(months(at).checked_add(count?)?)?;
    let target = time::parts(start);
    let day = time::parts(at).day.min(time::days_in_month(target.year, target.month));
    Some(start + (day - 1) * DAY + at.rem_euclid(DAY))
}

fn part(arguments: &[Value]) -> Value {
    let (Some(unit), Some(at)) = (unit(&text(arguments, 0)), ticks(get(arguments, 1))) else { return Value::Null };
    let parts = time::parts(at);
    match unit {
        Unit::Year => Value::Long(parts.year),
        Unit::Quarter => Value::Long((parts.month + 2) / 3),
        Unit::Month => Value::Long(parts.month),
        Unit::Day => Value::Long(parts.day),
        Unit::Ticks(HOUR) => Value::Long(parts.hour),
        Unit::Ticks(MINUTE) => Value::Long(parts.minute),
        Unit::Ticks(SECOND) => Value::Long(parts.second),
        Unit::Ticks(unit) => Value::Long(parts.ticks / unit),
        Unit::Week | Unit::Nanosecond => Value::Null,
    }
}

fn make(arguments: &[Value]) -> Value {
    let whole = |index| long(arguments, index);
    let (Some(year), Some(month), Some(day)) = (whole(0), whole(1), whole(2)) else { return Value::Null };
    let (hour, minute) = (whole(3).unwrap_or(0), whole(4).unwrap_or(0));
    let second = arguments.get(5).and_then(Value::as_real).unwrap_or(0.0);
    if !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0.0..60.0).contains(&second) {
        return Value::Null;
    }
    let of_day = time::real_ticks(second * 1e7).map(|ticks| hour * HOUR + minute * MINUTE + ticks);
    moment(time::midnight(year, month, day).zip(of_day).map(|(day, of_day)| day + of_day))
}

fn from_unix(seconds: &Value) -> Value {
    let after = match seconds {
        Value::Long(seconds) => seconds.checked_mul(SECOND),
        other => other.as_real().and_then(|seconds| time::real_ticks(seconds * 1e7)),
    };
    moment(after.and_then(|after| after.checked_add(time::UNIX_EPOCH)))
}

/// Each run of one letter is a specifier, everything else stands for itself.
fn format(arguments: &[Value]) -> String {
    let Some(at) = ticks(get(arguments, 0)) else { return String::new() };
    let pattern = text(arguments, 1);
    let mut out = String::new();
    let mut rest = pattern.as_ref();
    while let Some(letter) = rest.chars().next() {
        let end = rest.find(|char| char != letter).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        out += &specifier(at, letter, run);
        rest = after;
    }
    out
}

fn specifier(at: i64, letter: char, run: &str) -> String {
    let parts = time::parts(at);
    let width = run.chars().count();
    let padded = |number: i64| format!("{number:0width$}", width = width.min(2));
    let fraction = |digits: usize| format!("{:07}", parts.ticks).chars().take(digits).collect::<String>();
    match letter {
        'd' => padded(parts.day),
        'M' => padded(parts.month),
        'H' => padded(parts.hour),
        'h' => padded((parts.hour + 11) % 12 + 1),
        'm' => padded(parts.minute),
        's' => padded(parts.second),
        'y' if width <= 2 => padded(parts.year % 100),
        'y' => format!("{:04}", parts.year),
        'f' => fraction(width),
        'F' => fraction(width).trim_end_matches('0').to_owned(),
        't' => if parts.hour < 12 { "AM" } else { "PM" }.chars().take(width).collect(),
        _ => run.to_owned(),
    }
}
