//! One entry of the systemd journal, as `journalctl --output=json` writes it: an object on one line. The form of
//! `--output=export` is in [`export`].
//!
//! A field is a string; an array of bytes when it holds control characters or is no UTF-8; null when it is too long and
//! `--all` was not given; or an array of such values when a client sent it more than once (systemd,
//! `docs/JOURNAL_EXPORT_FORMATS.md`, "Journal JSON Format"). Fields that begin with an underscore were set by journald
//! from the kernel's credentials of the sender, all others are what the sender claims (`systemd.journal-fields(7)`).

use serde_json::{Map, Value};
use uuid::Uuid;

pub mod export;

/// The fields of an entry that a login reader needs, for `--output-fields=`. The cursor, the boot and the times are
/// written in any case.
pub const FIELDS: &str =
    "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_UID,_EXE,_TRANSPORT,_BOOT_ID,_SOURCE_REALTIME_TIMESTAMP";

/// An entry taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the journal; empty when whoever wrote the entry out left that away.
    pub cursor: String,
    /// The boot it belongs to.
    pub boot: Option<Uuid>,
    /// Microseconds since that boot at which journald received it, `CLOCK_MONOTONIC`.
    pub monotonic_us: u64,
    /// Microseconds since the Unix epoch: when it was sent if the kernel told, else when it was received.
    pub wall_us: i64,
    /// What the sender calls itself.
    pub ident: String,
    /// The sender's process by the kernel's word, else by its own.
    pub pid: Option<u32>,
    /// The sender's user by the kernel's word.
    pub uid: Option<u32>,
    /// The sender's program by the kernel's word; absent when the sender was gone before journald looked.
    pub exe: Option<String>,
    /// What it said. Bytes that are no UTF-8 are replaced.
    pub message: String,
    /// The entry has what the kernel says of the sender, so a field that is missing was missing in the journal.
    pub is_vouched_for: bool,
}

/// Takes an entry apart; nothing when the line is no entry.
pub fn parse(line: &[u8]) -> Option<Entry> {
    let fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
    entry(|name| fields.get(name).and_then(text))
}

fn entry(field: impl Fn(&str) -> Option<String>) -> Option<Entry> {
    let received_us = field("__REALTIME_TIMESTAMP").and_then(|value| value.parse().ok());
    let sent_us = field("_SOURCE_REALTIME_TIMESTAMP").and_then(|value| value.parse().ok());
    Some(Entry {
        cursor: field("__CURSOR").unwrap_or_default(),
        boot: field("_BOOT_ID").and_then(|value| Uuid::parse_str(&value).ok()),
        monotonic_us: field("__MONOTONIC_TIMESTAMP").and_then(|value| value.parse().ok()).unwrap_or(0),
        wall_us: sent_us.or(received_us)?,
        ident: field("SYSLOG_IDENTIFIER").unwrap_or_default(),
        pid: field("_PID").or_else(|| field("SYSLOG_PID")).and_then(|value| value.parse().ok()),
        uid: field("_UID").and_then(|value| value.parse().ok()),
        exe: field("_EXE"),
        message: field("MESSAGE").unwrap_or_default(),
        // journald gives every entry the first of them.
        is_vouched_for: ["_TRANSPORT", "_UID", "_PID"].iter().any(|name| field(name).is_some()),
    })
}

/// The boot a cursor belongs to: its part `b=`.
pub fn boot_of(cursor: &str) -> Option<Uuid> {
    cursor.split(';').find_map(|part| Uuid::parse_str(part.strip_prefix("b=")?).ok())
}

/// The first value of a field.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(values) if values.first().is_some_and(Value::is_number) => {
            let bytes: Option<Vec<u8>> =
                values.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        Value::Array(values) => values.first().and_then(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_bytes_nulls_and_repeated_fields_are_read() {
        let line = br#"{"__CURSOR":"s=1;b=5da348a74ea74437871161f7e63a1762;t=2","__REALTIME_TIMESTAMP":"20",
            "_SOURCE_REALTIME_TIMESTAMP":"10","__MONOTONIC_TIMESTAMP":"7","_BOOT_ID":"5da348a74ea74437871161f7e63a1762",
            "_UID":"0","SYSLOG_PID":"9","_EXE":null,"SYSLOG_IDENTIFIER":["sshd","su"],"MESSAGE":[65,27,255]}"#;
        let entry = parse(line).unwrap();
        assert_eq!((entry.wall_us, entry.monotonic_us, entry.uid, entry.pid), (10, 7, Some(0), Some(9)));
        assert_eq!((entry.ident.as_str(), entry.message.as_str()), ("sshd", "A\u{1b}\u{fffd}"));
        assert_eq!(entry.exe, None);
        assert_eq!(boot_of(&entry.cursor), entry.boot);
        assert_eq!(boot_of("x"), None);
    }

    #[test]
    fn mangled_entries_do_not_panic() {
        let seed = br#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"20","_UID":"0","MESSAGE":[65,[1],"a"]}"#;
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes = seed.to_vec();
            let at = random.usize(0..bytes.len());
            bytes[at] = random.u8(..);
            bytes.truncate(random.usize(0..=bytes.len()));
            parse(&bytes);
        }
    }
}
