//! Datagrams of the process connector: nothing behind the claimed length counts, and nothing short of it is a message.
#![no_main]

use collector_common::parse::cn_proc::{CN_PROC, Message, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = decode(bytes) else { return };
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let claimed = word(0) as usize;
    assert!(claimed <= bytes.len() && (word(16), word(20)) == (CN_PROC, CN_PROC));
    assert_eq!(decode(&bytes[..claimed]), Ok(message));
    assert!(claimed == 0 || decode(&bytes[..claimed - 1]).is_err());
    if let Message::Exec { pid, .. } = message {
        assert_eq!(word(56) as i32, pid);
    }
});
