//! One line of a log that a syslog daemon wrote.
//!
//! ```text
//! RFC 3164, rsyslog traditional   Nov 24 02:53:51 board sshd[77]: Failed password ...     no year, no zone
//! rsyslog default, RFC 3339 stamp 2026-11-24T02:53:54.169365+00:00 board sshd[77]: ...
//! busybox syslogd                 Nov 24 02:53:59 board auth.info sshd[77]: ...            -S: no host, no facility
//! OpenWrt logread                 Thu Nov 24 02:53:32 2026 authpriv.warn dropbear[9]: ...
//! RFC 5424                        <38>1 2019-07-08T17:40:16.954-04:00 board sshd 57915 - - ...
//! journalctl -o short-full        Tue 2026-11-24 02:53:51 UTC board sshd[77]: ...
//! sysklogd                        Nov 24 02:53:51 board last message repeated 3 times
//! FreeBSD syslogd -v              Nov 24 02:53:51 <auth.info> board sshd[77]: ...
//! some relays                     Nov 24 2026 02:53:51 board sshd[77]: ...
//! dropbear -E, redirected         [77] Nov 24 02:53:51 Bad password attempt ...
//! ```

use jiff::civil::{Date, DateTime};
use jiff::fmt::temporal::Pieces;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// A line taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written, as far as it says.
    pub stamp: Stamp,
    /// The machine, if the format names it.
    pub host: Option<&'a str>,
    /// The program; empty when the line has none.
    pub ident: &'a str,
    /// Its process.
    pub pid: Option<u32>,
    /// What it said.
    pub message: &'a str,
}

/// When a line says it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// With its zone: microseconds since the Unix epoch.
    Absolute(i64),
    /// A local clock face with its year.
    Civil(DateTime),
    /// A local clock face without a year.
    Yearless {
        /// 1 to 12.
        month: i8,
        /// 1 to 31.
        day: i8,
        /// The rest of the clock face.
        time: jiff::civil::Time,
    },
}

/// How far ahead of the clock a line may be and still be of this year: two machines may disagree by a zone.
const AHEAD_US: i64 = 24 * 3600 * 1_000_000;

/// The most years a line without a year is dated back, for 29 February around a century without one.
const YEARS_BACK: i16 = 8;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const PRIORITIES: [&str; 12] =
    ["emerg", "panic", "alert", "crit", "err", "error", "warning", "warn", "notice", "info", "debug", "none"];

/// Takes a line apart; nothing when it does not begin with a time of one of the known forms.
pub fn parse(line: &str) -> Option<Line<'_>> {
    let line = line.trim_end_matches(['\r', '\n']);
    let unframed = without_priority(line);
    // Some collectors cut the priority off; no other form begins like this.
    if let Some(versioned) = unframed.strip_prefix("1 ") {
        return rfc5424(versioned);
    }
    if let Some((pid, stamped)) = own_stamp_of_dropbear(unframed) {
        let (stamp, message) = stamp(stamped)?;
        return Some(Line { stamp, host: None, ident: "dropbear", pid: Some(pid), message });
    }
    let (stamp, rest) = stamp(unframed)?;
    let (host, rest) = host(without_bracketed_priority(rest));
    let (ident, pid, message) = tag(rest);
    Some(Line { stamp, host, ident, pid, message: without_message_id(message) })
}

/// The offset from UTC, seconds, that a line says its clock had: `2026-11-24T02:53:54+01:00`.
pub fn offset_seconds(line: &str) -> Option<i32> {
    let unframed = without_priority(line);
    let stamp = word(unframed.strip_prefix("1 ").unwrap_or(unframed)).0;
    Some(Pieces::parse(stamp).ok()?.to_numeric_offset()?.seconds())
}

impl Stamp {
    /// The wall time in microseconds since the Unix epoch, for a machine in `zone` whose clock says `now_us`.
    ///
    /// A line without a year is of the last year that does not put it more than a day ahead of the clock. In the hour
    /// that a change of summer time repeats, the later of the two moments is taken unless it has not come yet: a line
    /// is read as soon as it is written, so both passes of a live log come out right, and only a log read afterwards is
    /// an hour late in the first pass.
    pub fn wall_us(&self, now_us: i64, zone: &TimeZone) -> Option<i64> {
        match *self {
            Stamp::Absolute(wall_us) => Some(wall_us),
            Stamp::Civil(at) => place(at, now_us, zone),
            Stamp::Yearless { month, day, time } => {
                let now = Timestamp::from_microsecond(now_us).ok()?;
                let newest = zone.to_datetime(now.checked_add(24.hours()).ok()?).year();
                (0..=YEARS_BACK)
                    .filter_map(|back| Date::new(newest.checked_sub(back)?, month, day).ok())
                    .filter_map(|date| place(date.to_datetime(time), now_us, zone))
                    .find(|wall_us| *wall_us <= now_us.saturating_add(AHEAD_US))
            }
        }
    }
}

fn place(at: DateTime, now_us: i64, zone: &TimeZone) -> Option<i64> {
    let moment = zone.to_ambiguous_timestamp(at);
    let repeated = matches!(moment.offset(), AmbiguousOffset::Fold { .. });
    let later = moment.later().ok()?.as_microsecond();
    if repeated && later <= now_us {
        return Some(later);
    }
    Some(moment.compatible().ok()?.as_microsecond())
}

/// Cuts `<38>` off.
fn without_priority(line: &str) -> &str {
    let Some((number, rest)) = line.strip_prefix('<').and_then(|rest| rest.split_once('>')) else {
        return line;
    };
    if (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit()) { rest } else { line }
}

/// `[PID] ` before a date: no other daemon begins its lines on standard error so.
fn own_stamp_of_dropbear(line: &str) -> Option<(u32, &str)> {
    let (pid, rest) = line.strip_prefix('[')?.split_once("] ")?;
    Some((pid.parse().ok()?, rest))
}

/// Cuts the `<auth.info> ` or `<4.6> ` off that FreeBSD's syslogd writes behind the time when it is told to.
fn without_bracketed_priority(rest: &str) -> &str {
    let (first, after) = word(rest);
    let is_priority = first.strip_prefix('<').and_then(|first| first.strip_suffix('>')).is_some_and(|inner| {
        inner.split_once('.').is_some_and(|(facility, priority)| !facility.is_empty() && !priority.is_empty())
    });
    if is_priority { after } else { rest }
}

/// Cuts the `[ID 800047 auth.info] ` off that Solaris-like daemons write.
fn without_message_id(message: &str) -> &str {
    message.strip_prefix("[ID ").and_then(|rest| rest.split_once("] ")).map_or(message, |(_, rest)| rest)
}

/// `TIMESTAMP HOST APP PID MSGID SD MESSAGE`, after the version.
fn rfc5424(rest: &str) -> Option<Line<'_>> {
    let (at, rest) = word(rest);
    let stamp = Stamp::Absolute(at.parse::<Timestamp>().ok()?.as_microsecond());
    let (host, rest) = word(rest);
    let (ident, rest) = word(rest);
    let (pid, rest) = word(rest);
    let (_, rest) = word(rest);
    let message = match rest.strip_prefix('[') {
        Some(_) => structured_data_end(rest).map_or("", |end| &rest[end..]),
        None => word(rest).1,
    };
    let message = message.trim_start_matches(' ').trim_start_matches('\u{feff}');
    Some(Line { stamp, host: Some(host).filter(|host| *host != "-"), ident, pid: pid.parse().ok(), message })
}

/// Where `[id name="value"][id ...]` ends: quotes may hold `\"` and `]`.
fn structured_data_end(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b']' if !quoted && text.as_bytes().get(at + 1) != Some(&b'[') => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The next word and what follows it, blanks between them cut.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches(' ');
    text.split_once(' ').map_or((text, ""), |(word, rest)| (word, rest.trim_start_matches(' ')))
}

fn stamp(line: &str) -> Option<(Stamp, &str)> {
    let (first, mut rest) = word(line);
    if first.len() > 10 && first.as_bytes()[4] == b'-' {
        let absolute = first.parse::<Timestamp>().map(|at| Stamp::Absolute(at.as_microsecond()));
        let stamp = absolute.or_else(|_| first.parse::<DateTime>().map(Stamp::Civil)).ok()?;
        return Some((stamp, rest));
    }
    if let Some(stamp) = dashed(first, rest) {
        return Some(stamp);
    }
    let mut month = first;
    let mut year = None;
    let year_last = WEEKDAYS.contains(&first);
    if year_last {
        (month, rest) = word(rest);
    } else if first.len() == 4
        && let Ok(number) = first.parse::<i16>()
    {
        year = Some(number);
        (month, rest) = word(rest);
    }
    let month = i8::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let (day, after_day) = word(rest);
    let day = day.parse::<i8>().ok().filter(|day| (1..=31).contains(day))?;
    let (time, after_time) = match word(after_day) {
        (number, after_year) if year.is_none() && !year_last && number.len() == 4 => {
            year = Some(number.parse::<i16>().ok()?);
            word(after_year)
        }
        found => found,
    };
    let time = time.trim_end_matches(':').parse::<jiff::civil::Time>().ok().filter(|_| time.len() >= 8)?;
    rest = after_time;
    if year_last {
        let (number, after_year) = word(rest);
        year = Some(number.parse::<i16>().ok()?);
        // `logread -t` puts `[seconds.milliseconds]` here.
        rest = match word(after_year) {
            (mark, after_mark) if mark.starts_with('[') && mark.ends_with(']') => after_mark,
            _ => after_year,
        };
    }
    let stamp = match year {
        Some(year) => Stamp::Civil(Date::new(year, month, day).ok()?.to_datetime(time)),
        None => Stamp::Yearless { month, day, time },
    };
    Some((stamp, rest))
}

/// `2026-11-24 02:53:32 ` and, with `journalctl -o short-full`, `Tue 2026-11-24 02:53:32 UTC `. Only UTC is a zone that a
/// name tells.
fn dashed<'a>(first: &'a str, rest: &'a str) -> Option<(Stamp, &'a str)> {
    let (date, rest, has_zone) = match WEEKDAYS.contains(&first) {
        true => (word(rest).0, word(rest).1, true),
        false => (first, rest, false),
    };
    let date = Some(date).filter(|date| date.len() == 10)?.parse::<Date>().ok()?;
    let (time, rest) = word(rest);
    let time = time.replace(',', ".").parse::<jiff::civil::Time>().ok()?;
    let at = date.to_datetime(time);
    if !has_zone {
        return Some((Stamp::Civil(at), rest));
    }
    let (zone, rest) = word(rest);
    match zone {
        "UTC" => Some((Stamp::Absolute(TimeZone::UTC.to_timestamp(at).ok()?.as_microsecond()), rest)),
        _ => Some((Stamp::Civil(at), rest)),
    }
}

fn is_facility(text: &str) -> bool {
    text.split_once('.').is_some_and(|(facility, priority)| {
        !facility.is_empty()
            && facility.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            && PRIORITIES.contains(&priority)
    })
}

fn host(rest: &str) -> (Option<&str>, &str) {
    let (first, after) = word(rest);
    if is_facility(first) {
        return (None, after);
    }
    if first.ends_with(':') || (first.starts_with('[') && first.ends_with(']')) {
        return (None, rest);
    }
    match word(after) {
        (second, after_second) if is_facility(second) => (Some(first), after_second),
        _ => (Some(first), after),
    }
}

/// `sshd: USER [priv][PID]: message`: the log of macOS has a process's title, which sshd sets, for its name. A single word
/// stands there, so no text that a client chooses can pass for one.
fn titled_sshd<'a>(tag: &str, rest: &'a str) -> Option<(u32, &'a str)> {
    if !matches!(tag, "sshd" | "sshd-session") {
        return None;
    }
    let (_, rest) = rest.split_once(' ').filter(|(user, _)| !user.is_empty())?;
    let (pid, message) = rest.strip_prefix("[priv][")?.split_once("]: ")?;
    Some((pid.parse().ok()?, message))
}

/// `ident[pid]: message`, `ident: message`, or a message alone.
fn tag(rest: &str) -> (&str, Option<u32>, &str) {
    // Metalog puts the whole name into brackets, with a colon or without.
    if let Some((ident, message)) = rest.strip_prefix('[').and_then(|rest| rest.split_once("] "))
        && !ident.contains([' ', '['])
    {
        return (ident, None, message);
    }
    let Some((tag, message)) = rest.split_once(": ").or_else(|| rest.strip_suffix(':').map(|tag| (tag, ""))) else {
        return ("", None, rest);
    };
    if let Some((pid, message)) = titled_sshd(tag, message) {
        return (tag, Some(pid), message);
    }
    // The login of util-linux before 2.21 names its process by whom it serves, and the C library takes what is behind
    // the first word of `login -- USER` for the program.
    let (is_login, tag) = tag.strip_prefix("-- ").map_or((false, tag), |user| (true, user));
    if tag.contains(' ') {
        return ("", None, rest);
    }
    if is_login {
        let pid = tag.strip_suffix(']').and_then(|tag| tag.rsplit_once('[')).and_then(|(_, pid)| pid.parse().ok());
        return ("login", pid, message);
    }
    // Some daemons name themselves by their path.
    let tag = if tag.starts_with('/') { tag.rsplit('/').next().unwrap_or(tag) } else { tag };
    match tag.strip_suffix(']').and_then(|tag| tag.split_once('[')) {
        Some(("", ident)) => (ident, None, message),
        Some((ident, pid)) => (ident, pid.parse().ok(), message),
        None => (tag, None, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    #[test]
    fn every_known_header_is_taken_apart() {
        let cases = [
            ("Nov 24 02:53:51 vm sshd[77]: Failed x", Some("vm"), "sshd", Some(77), "Failed x"),
            ("Aug  9 02:53:51 vm login: FAILED LOGIN 1 FROM a", Some("vm"), "login", None, "FAILED LOGIN 1 FROM a"),
            ("Aug 9 02:53:51.123 vm sshd[77]: a: b", Some("vm"), "sshd", Some(77), "a: b"),
            ("<38>Aug 9 02:53:51 vm sshd[77]: a", Some("vm"), "sshd", Some(77), "a"),
            ("2026-11-24T02:53:54.169365+00:00 vm sshd[77]: a", Some("vm"), "sshd", Some(77), "a"),
            ("Nov 24 02:53:59 vm auth.info sshd[77]: a", Some("vm"), "sshd", Some(77), "a"),
            ("Nov 24 02:53:59 auth.info sshd[77]: a", None, "sshd", Some(77), "a"),
            ("Nov 24 02:54:01 sshd[77]: a", None, "sshd", Some(77), "a"),
            ("Thu Nov 24 02:53:32 2026 authpriv.warn dropbear[123]: a", None, "dropbear", Some(123), "a"),
            ("Thu Nov 24 02:53:32 2026 [17.250] authpriv.warn dropbear[123]: a", None, "dropbear", Some(123), "a"),
            ("<38>1 2019-07-08T17:40:16.954167-04:00 h sshd 57915 - - a b", Some("h"), "sshd", Some(57915), "a b"),
            (r#"<38>1 2019-07-08T17:40:16Z - sshd 5 - [m a="]\""][n] a b"#, None, "sshd", Some(5), "a b"),
            (
                "Jul 27 14:42:00 combo  -- root[2421]: ROOT LOGIN ON tty2",
                Some("combo"),
                "login",
                Some(2421),
                "ROOT LOGIN ON tty2",
            ),
            (
                "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: check pass",
                Some("combo"),
                "sshd(pam_unix)",
                Some(19939),
                "check pass",
            ),
            ("Mar  3 00:17:22 [sshd] Invalid user x", None, "sshd", None, "Invalid user x"),
            ("Mar  3 00:17:22 [sshd]: Invalid user x", None, "sshd", None, "Invalid user x"),
            ("2026-11-24 02:53:32,123 vm sshd[77]: a", Some("vm"), "sshd", Some(77), "a"),
            ("Tue 2026-11-24 02:53:32 UTC vm sshd[77]: a", Some("vm"), "sshd", Some(77), "a"),
            ("2015 Nov 13 02:53:59 h sshd[5]: [ID 800047 auth.info] a", Some("h"), "sshd", Some(5), "a"),
            ("Nov 24 02:53:51 vm /usr/sbin/sshd[77]: a", Some("vm"), "sshd", Some(77), "a"),
            ("Nov 24 02:53:51 vm sshd: bob [priv][77]: error: PAM: x", Some("vm"), "sshd", Some(77), "error: PAM: x"),
            (
                "Nov 24 02:53:51 vm sshd: Received disconnect from a [priv][7]: x",
                Some("vm"),
                "sshd",
                None,
                "Received disconnect from a [priv][7]: x",
            ),
            ("Nov 24 02:53:51 <auth.info> vm sshd[77]: a", Some("vm"), "sshd", Some(77), "a"),
            ("Nov 24 02:53:51 <4.6> vm sshd[77]: a", Some("vm"), "sshd", Some(77), "a"),
            ("Nov 24 2026 02:53:51 vm sshd[77]: a", Some("vm"), "sshd", Some(77), "a"),
            ("1 2019-07-08T17:40:16.954167-04:00 h sshd 57915 - - a b", Some("h"), "sshd", Some(57915), "a b"),
            ("[77] Nov 24 02:53:51 Bad a: b", None, "dropbear", Some(77), "Bad a: b"),
            ("Nov 24 02:53:51 vm last message repeated 3 times", Some("vm"), "", None, "last message repeated 3 times"),
        ];
        for (line, host, ident, pid, message) in cases {
            let parsed = parse(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((parsed.host, parsed.ident, parsed.pid, parsed.message), (host, ident, pid, message), "{line}");
        }
        for line in
            ["", "no time", "Nov", "Nov 99 02:53:51 vm a: b", "Nov 24 2:3 vm a: b", "<38>1 x", "2026-13-99T", "[7] x"]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn an_offset_is_known_where_a_line_has_one() {
        let cases = [
            ("2026-11-24T02:53:54.169365+01:00 vm sshd[77]: a", Some(3600)),
            ("<38>1 2019-07-08T17:40:16.954167-04:00 h sshd 57915 - - a b", Some(-14_400)),
            ("2026-11-24T02:53:54Z vm sshd[77]: a", Some(0)),
            ("Nov 24 02:53:51 vm sshd[77]: a", None),
            ("", None),
        ];
        for (line, offset) in cases {
            assert_eq!(offset_seconds(line), offset, "{line}");
        }
    }

    #[test]
    fn a_line_without_a_year_is_of_the_last_year_that_fits() {
        let utc = TimeZone::UTC;
        let cases = [
            ("Nov 24 02:53:51 h a: b", "2026-11-24T05:00:00Z", "2026-11-24T02:53:51Z"),
            ("Dec 31 23:59:59 h a: b", "2027-01-01T00:00:10Z", "2026-12-31T23:59:59Z"),
            ("Jan  1 00:00:01 h a: b", "2026-12-31T23:59:50Z", "2027-01-01T00:00:01Z"),
            ("Nov 26 00:00:00 h a: b", "2026-11-24T05:00:00Z", "2025-11-26T00:00:00Z"),
            ("Feb 29 12:00:00 h a: b", "2027-03-01T00:00:00Z", "2024-02-29T12:00:00Z"),
        ];
        for (line, now, expected) in cases {
            let wall_us = parse(line).unwrap().stamp.wall_us(us(now), &utc);
            assert_eq!(wall_us, Some(us(expected)), "{line}");
        }
    }

    #[test]
    fn the_repeated_hour_is_right_in_both_passes_of_a_live_log() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let stamp = parse("Oct 25 02:30:00 h a: b").unwrap().stamp;
        assert_eq!(stamp.wall_us(us("2026-10-25T00:30:01Z"), &zone), Some(us("2026-10-25T00:30:00Z")));
        assert_eq!(stamp.wall_us(us("2026-10-25T01:30:01Z"), &zone), Some(us("2026-10-25T01:30:00Z")));
        let skipped = parse("Mar 29 02:30:00 h a: b").unwrap().stamp;
        assert_eq!(skipped.wall_us(us("2026-03-29T01:30:01Z"), &zone), Some(us("2026-03-29T01:30:00Z")));
    }

    #[test]
    fn mangled_lines_do_not_panic() {
        let seeds = [
            "Nov 24 02:53:51 vm sshd[77]: Failed x",
            r#"<38>1 2019-07-08T17:40:16Z - sshd 5 - [m a="]\""][n] é b"#,
            "Thu Nov 24 02:53:32 2026 [17.250] authpriv.warn dropbear[123]: ü",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes = random.choice(seeds).unwrap().as_bytes().to_vec();
            for _ in 0..random.usize(0..4) {
                let at = random.usize(0..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(0..=bytes.len()));
            let text = String::from_utf8_lossy(&bytes);
            if let Some(line) = parse(&text) {
                line.stamp.wall_us(random.i64(..), &TimeZone::UTC);
            }
        }
    }
}
