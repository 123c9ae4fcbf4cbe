//! Whatever a device publishes is refused with a sentence, or becomes rows that are JSON.
#![no_main]

use edgewarden_hub::ingest::{Topic, judge};
use edgewarden_hub::schema;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const SHOWN: usize = 2000;

fuzz_target!(|bytes: &[u8]| {
    let template = Topic::new("edgewarden/{deviceId}/security").expect("a right template");
    match schema::parse(bytes) {
        Ok(message) => {
            assert!(!message.events.is_empty());
            for event in &message.events {
                let objects = event.items.iter().map(|item| serde_json::from_str::<Value>(item));
                assert!(objects.into_iter().all(|item| item.is_ok_and(|item| item.is_object())));
                let stamps = format!("[\"{}\",\"{}\"]", event.timestamp_local, event.timestamp_utc);
                assert!(serde_json::from_str::<Value>(&stamps).is_ok(), "{stamps}");
            }
            let entry = judge(&template, "edgewarden/press-17/security".to_owned(), bytes.to_vec());
            assert_eq!(entry.verdict, Ok(("press-17".to_owned(), message)));
        }
        Err(reason) => assert!(!reason.is_empty() && reason.len() < SHOWN, "{} bytes of reason", reason.len()),
    }
    let topic = String::from_utf8_lossy(bytes);
    if let Ok(device) = template.device(&topic) {
        assert_eq!(topic, format!("edgewarden/{device}/security"));
    }
});
