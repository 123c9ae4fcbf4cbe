//! Durations as the twin writes them: ISO 8601, by the pattern of the published schema
//! (`azureiotsecurity_schema_definitions.json`, `TimeConfiguration`).
//!
//! ```text
//! P [nY] [nM] [nW] [nD] [T [nH] [nM] [nS]]     each at most once, in this order, at least one
//! ```
//!
//! Only the last component may have a fraction. A year is 365 days and a month is 30 days: an interval between
//! messages has no calendar to lean on.

use std::time::Duration;

const SECOND_NS: u128 = 1_000_000_000;
const DAY_NS: u128 = 86_400 * SECOND_NS;

/// The designators before and after the `T`, in the order they must come, with their worth.
const DATE: [(char, u128); 4] = [('Y', 365 * DAY_NS), ('M', 30 * DAY_NS), ('W', 7 * DAY_NS), ('D', DAY_NS)];
const TIME: [(char, u128); 3] = [('H', 3600 * SECOND_NS), ('M', 60 * SECOND_NS), ('S', SECOND_NS)];

/// Reads a duration. `None` when it does not follow the pattern or does not fit; zero is a duration here.
pub fn parse(text: &str) -> Option<Duration> {
    let rest = text.strip_prefix('P')?;
    let (date, time) = match rest.split_once('T') {
        Some((date, time)) if !time.is_empty() => (date, time),
        Some(_) => return None,
        None => (rest, ""),
    };
    if date.is_empty() && time.is_empty() {
        return None;
    }
    let total_ns = sum(date, &DATE, time.is_empty())?.checked_add(sum(time, &TIME, true)?)?;
    let seconds = u64::try_from(total_ns / SECOND_NS).ok()?;
    let rest_ns = u32::try_from(total_ns % SECOND_NS).ok()?;
    Some(Duration::new(seconds, rest_ns))
}

/// Writes a duration, largest units first, such as `P1DT2H`, `PT7M` or `PT0.5S`.
pub fn format(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    let parts = [(seconds / 86_400, 'D'), (seconds / 3600 % 24, 'H'), (seconds / 60 % 60, 'M')];
    let [days, clock @ ..] = parts;
    let mut text = String::from("P");
    if days.0 > 0 {
        text += &format!("{}D", days.0);
    }
    let mut time: String =
        clock.into_iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    let seconds = seconds % 60;
    if nanos > 0 {
        let fraction = format!("{nanos:09}");
        time += &format!("{seconds}.{}S", fraction.trim_end_matches('0'));
    } else if seconds > 0 || duration.is_zero() {
        time += &format!("{seconds}S");
    }
    if !time.is_empty() {
        text.push('T');
        text += &time;
    }
    text
}

/// The nanoseconds of the components of one half. `fraction_last`: this half holds the last component of all.
fn sum(mut text: &str, units: &[(char, u128)], fraction_last: bool) -> Option<u128> {
    let mut units = units.iter();
    let mut total_ns: u128 = 0;
    while !text.is_empty() {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, rest) = text.split_at(end);
        let designator = rest.chars().next()?;
        let (_, worth_ns) = units.by_ref().find(|(unit, _)| *unit == designator)?;
        text = &rest[designator.len_utf8()..];
        let is_last = fraction_last && text.is_empty();
        total_ns = total_ns.checked_add(component(number, *worth_ns, is_last)?)?;
    }
    Some(total_ns)
}

/// One number times its unit. Digits behind the ninth of a fraction are below any clock and are cut.
fn component(number: &str, worth_ns: u128, may_have_fraction: bool) -> Option<u128> {
    let (whole, fraction) = match number.split_once('.') {
        None => (number, "0"),
        Some((whole, fraction)) if may_have_fraction => (whole, fraction),
        Some(_) => return None,
    };
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let kept = &fraction[..fraction.len().min(9)];
    let scale = 10_u128.checked_pow(u32::try_from(kept.len()).ok()?)?;
    let fraction_ns = kept.parse::<u128>().ok()?.checked_mul(worth_ns)? / scale;
    u128::from(whole.parse::<u64>().ok()?).checked_mul(worth_ns)?.checked_add(fraction_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_schema_allows() {
        for (text, seconds) in [
            ("PT7M", 420.0),
            ("PT5H", 18_000.0),
            ("PT13H", 46_800.0),
            ("P1D", 86_400.0),
            ("P2W", 1_209_600.0),
            ("P1Y", 31_536_000.0),
            ("P1M", 2_592_000.0),
            ("P1Y2M3W4DT5H6M7S", 31_536_000.0 + 5_184_000.0 + 1_814_400.0 + 345_600.0 + 18_367.0),
            ("PT0.5S", 0.5),
            ("PT1.5H", 5400.0),
            ("P0.5D", 43_200.0),
            ("P1DT0.25M", 86_415.0),
            ("PT0S", 0.0),
            ("PT000007M", 420.0),
            ("PT0.00000000099S", 0.0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_does_not() {
        for text in [
            "",
            "P",
            "PT",
            "7M",
            "P7",
            "PT7",
            "PTM",
            "pt7m",
            "PT7m",
            "PT7M ",
            " PT7M",
            "-PT7M",
            "PT-7M",
            "PT+7M",
            "P1DT",
            "PT1M1H",
            "PT1H1H",
            "P1D1W",
            "P1S",
            "PT1D",
            "PT1.5H1M",
            "P1.5DT1H",
            "PT.5S",
            "PT1.S",
            "PT1..5S",
            "PT1.5.5S",
            "PT1,5S",
            "P1T1H1T",
            "PT٣M",
            "PT99999999999999999999S",
            "P18446744073709551615Y",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn writing_and_reading_agree() {
        for text in ["PT7M", "PT5H", "PT13H", "P1D", "P1DT1S", "PT0.5S", "PT0S", "P365D", "PT1H1M1.000000001S"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn mangled_durations_never_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        let alphabet: Vec<char> = "PTYMWDHS0123456789.9ä".chars().collect();
        for _ in 0..20_000 {
            let text: String = (0..random.usize(..24)).map(|_| alphabet[random.usize(..alphabet.len())]).collect();
            if let Some(duration) = parse(&format!("P{text}")) {
                assert_eq!(parse(&format(duration)), Some(duration), "{text}");
            }
        }
    }
}
