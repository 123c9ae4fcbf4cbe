//! User records of systemd: names cannot break out of a row, and no secret gets out.
#![no_main]

use collector_common::parse::userdb::{group, membership, record, secrets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = record(bytes) {
        assert!(!record.name.is_empty() && !record.name.contains([':', '/', '\n']));
    }
    if let Ok(group) = group(bytes) {
        assert!(!group.name.is_empty() && !group.name.contains(':'));
    }
    let _any = secrets(bytes, &|field| field.len().to_string());
    if let Some((user, group)) = std::str::from_utf8(bytes).ok().and_then(membership) {
        assert!(!user.is_empty() && !group.is_empty() && !group.contains([':', '/']));
    }
});
