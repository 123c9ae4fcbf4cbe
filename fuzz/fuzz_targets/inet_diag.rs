//! Datagrams of sock_diag: one socket needs at least 88 bytes, and what is whole before the damage does not change.
#![no_main]

use collector_common::parse::inet_diag::{Malformed, read};
use libfuzzer_sys::fuzz_target;

const SMALLEST_ANSWER: usize = 88;
const SEQUENCE: u32 = 7;

fuzz_target!(|bytes: &[u8]| {
    match read(bytes, SEQUENCE) {
        Ok(answers) => {
            assert!(answers.sockets.len() * SMALLEST_ANSWER <= bytes.len());
            assert!(answers.end.is_none_or(|end| end.is_ok() || end.is_err_and(|errno| errno > 0)));
        }
        Err(Malformed { offset }) => {
            assert!(offset < bytes.len());
            let whole = read(&bytes[..offset], SEQUENCE);
            assert!(whole.is_ok_and(|answers| answers.end.is_none()));
        }
    }
});
