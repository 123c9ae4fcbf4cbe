//! Records of the BPF program: what is read lies in the record, and a path begins at the root.
#![no_main]

use collector_common::parse::exec_record::ExecRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(record) = ExecRecord::parse(bytes) else { return };
    let paths = [&record.path, &record.parent_path, &record.directory, &record.cgroup];
    assert!(paths.into_iter().flatten().all(|path| path.starts_with(b"/")));
    assert!(!record.name.contains(&0) && !record.script.unwrap_or_default().contains(&0));
    if let Some(area) = record.arguments {
        assert!(area.head.len() + area.tail.len() <= bytes.len());
        assert!(area.total_bytes() >= area.unread_bytes);
    }
});
