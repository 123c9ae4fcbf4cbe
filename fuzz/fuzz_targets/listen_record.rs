//! Records of the BPF programs about sockets: whatever the bytes are, nothing is read beyond them.
#![no_main]

use collector_common::parse::listen_record::{HOLDER_BYTES, ListenRecord, holders};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(holders(bytes).count(), bytes.len() / HOLDER_BYTES);
    let Some(record) = ListenRecord::parse(bytes) else { return };
    assert!(!record.name.contains('\0'));
    assert_eq!(ListenRecord::parse(&[bytes, b"more"].concat()), Some(record));
});
