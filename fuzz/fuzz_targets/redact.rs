//! A command line keeps everything but its secrets: as many marks as are counted, and as many arguments as
//! before.
#![no_main]

use collector_common::parse::cmdline::ArgumentArea;
use collector_common::redact::{MARK, Redaction};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<u8>, Vec<u8>)| {
    let (is_whole, head, tail) = input;
    let marks_in = |bytes: &[u8]| bytes.windows(MARK.len()).filter(|part| *part == MARK.as_bytes()).count();
    if marks_in(&head) + marks_in(&tail) + marks_in(&[head.as_slice(), &tail].concat()) > 0 {
        return;
    }
    let area = ArgumentArea { head, unread_bytes: u64::from(!is_whole), tail };
    let (redacted, marks) = Redaction::default().apply(&area);
    assert_eq!(marks_in(&redacted.head) + marks_in(&redacted.tail), marks);
    let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == 0).count();
    let before = ends(&area.head) + if is_whole { ends(&area.tail) } else { 0 };
    assert_eq!(ends(&redacted.head), before);
    assert!(redacted.unread_bytes >= area.unread_bytes);
});
