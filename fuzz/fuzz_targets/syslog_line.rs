//! A line of a log: its parts are parts of it in their order, and a line without a year is not from the future.
#![no_main]

use collector_common::parse::syslog::{Stamp, parse};
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;

const DAY_US: i64 = 24 * 3600 * 1_000_000;

fuzz_target!(|input: (i64, &str)| {
    let (now_us, text) = input;
    let Some(line) = text.lines().next().and_then(parse) else { return };
    // Two programs are known by the form of their lines.
    assert!(text.contains(line.message) && (text.contains(line.ident) || ["login", "dropbear"].contains(&line.ident)));
    assert!(line.ident.len() + line.message.len() + line.host.map_or(0, str::len) < text.len());
    let wall_us = line.stamp.wall_us(now_us, &TimeZone::UTC);
    match line.stamp {
        Stamp::Absolute(told) => assert_eq!(wall_us, Some(told)),
        Stamp::Yearless { .. } => assert!(wall_us.is_none_or(|wall_us| wall_us <= now_us.saturating_add(DAY_US))),
        Stamp::Civil(_) => {}
    }
});
