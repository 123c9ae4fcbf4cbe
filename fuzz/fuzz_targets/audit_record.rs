//! Records and rules of audit: what is kept of an exec is bounded, and comes from the records of that exec.
#![no_main]

use collector_common::parse::audit_control::{Coverage, Rule, Status, abis, coverage};
use collector_common::parse::audit_record::{Assembler, CWD, END, EXECVE, SYSCALL};
use collector_common::parse::cmdline::{HEAD_BYTES, TAIL_BYTES};
use libfuzzer_sys::fuzz_target;

/// A line a record: its first byte says which kind, the rest is its text.
fuzz_target!(|bytes: &[u8]| {
    let mut assembler = Assembler::new(abis("x86_64"));
    let mut execs = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some((first, text)) = line.split_first() else { continue };
        let kind = [SYSCALL, EXECVE, CWD, END][usize::from(*first) % 4];
        execs.extend(assembler.take(kind, text));
    }
    execs.extend(assembler.give_up(i64::MAX));
    for exec in execs {
        assert!(!exec.executable.is_some_and(|path| path.len() > bytes.len()) && exec.name.len() <= bytes.len());
        if let Some(area) = exec.arguments {
            assert!(area.head.len() <= HEAD_BYTES && area.tail.len() <= TAIL_BYTES);
            assert!(area.unread_bytes == 0 || area.tail.len() == TAIL_BYTES);
            assert!(area.total_bytes() <= 2 * bytes.len() as u64);
        }
    }
    if let Some(rule) = Rule::parse(bytes) {
        assert_eq!(rule.raw(), bytes);
        assert_eq!(coverage(&[rule], &[]), Coverage::None);
    }
    assert_eq!(Status::parse(bytes).is_some(), bytes.len() >= 40);
});
