//! An entry of the journal: no field of the sender's can pass for one that journald sets.
#![no_main]

use collector_common::parse::journal::{boot_of, parse};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|input: (&[u8], &str, &str)| {
    let (line, key, value) = input;
    if let Some(entry) = parse(line) {
        assert!(
            serde_json::from_slice::<Value>(line).is_ok_and(|value| value["__REALTIME_TIMESTAMP"] != Value::Null
                || value["_SOURCE_REALTIME_TIMESTAMP"] != Value::Null)
        );
        assert!(boot_of(&entry.cursor).is_none() || entry.cursor.contains("b="));
    }
    let mut fields = json!({
        "__CURSOR": "s=1;b=0", "__REALTIME_TIMESTAMP": "5", "__MONOTONIC_TIMESTAMP": "6",
        "_PID": "7", "_UID": "8", "_EXE": "/bin/x", "MESSAGE": "m", "SYSLOG_IDENTIFIER": "i",
    });
    if !key.starts_with('_') {
        fields[key] = Value::from(value);
    }
    let entry = parse(fields.to_string().as_bytes()).expect("an entry");
    assert_eq!((entry.cursor.as_str(), entry.wall_us, entry.monotonic_us), ("s=1;b=0", 5, 6));
    assert_eq!((entry.pid, entry.uid, entry.exe.as_deref()), (Some(7), Some(8), Some("/bin/x")));
});
