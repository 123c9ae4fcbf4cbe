//! authorized_keys and sshd_config: every line is a key, nonsense or nothing, and keys are bounded.
#![no_main]

use collector_common::parse::authorized_keys::keys;
use collector_common::parse::sshd_config::{Line, key_file, lines};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let found = keys(bytes, 3);
    assert!(found.keys.len() == found.count.min(3));
    assert!(found.count + found.nonsense <= bytes.split(|byte| *byte == b'\n').count());
    for key in &found.keys {
        assert!(key.blob.len() > 4 + key.kind.len() && !key.kind.contains(char::is_whitespace));
    }
    for line in lines(bytes) {
        if let Line::KeyFiles(patterns) = line {
            for path in patterns.iter().filter_map(|pattern| key_file(pattern, "pi", "1000", "/home/pi")) {
                assert!(path.starts_with('/'));
            }
        }
    }
});
