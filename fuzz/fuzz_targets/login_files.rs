//! Files of another machine: records of utmp in every layout, and an exported journal. A name of an attacker cannot move
//! a field of the record.
#![no_main]

use collector_common::parse::journal::export::{Next, next};
use collector_common::parse::utmp::{Layout, Type, is_lastlog};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (file, name) = input;
    is_lastlog(file);
    if let Some(layout) = Layout::detect(file) {
        for record in file.chunks(layout.record_bytes) {
            if let Some(read) = layout.read(record) {
                let texts = [&read.line, &read.user, &read.host];
                assert!(texts.iter().all(|text| text.bytes().all(|byte| (0x20..0x7f).contains(&byte))), "{read:?}");
            }
        }
    }
    let mut rest = file;
    while let Ok(Next::Entry(_) | Next::Broken) = next(&mut rest) {}

    let mut record = vec![0; 384];
    record[0] = 6;
    record[4] = 9;
    record[8..18].copy_from_slice(b"ssh:notty\0");
    let cut = &name[..name.len().min(32)];
    record[44..44 + cut.len()].copy_from_slice(cut);
    record[76..85].copy_from_slice(b"192.0.2.7");
    record[340..344].copy_from_slice(&1_795_488_000_u32.to_le_bytes());
    let layout = Layout::detect(&record).expect("a record");
    let read = layout.read(&record).expect("the record");
    assert_eq!((read.kind, read.pid, read.host.as_str()), (Type::Waiting, 9, "192.0.2.7"));
});
