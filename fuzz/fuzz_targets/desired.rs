//! Whatever documents the hub sends, one after the other: the floor holds, what is reported is JSON, and secrets stay
//! taken out.
#![no_main]

use collector_common::event::kind::Kind;
use edgewarden::config::layers::Layers;
use edgewarden::config::load;
use edgewarden::config::settings::Priority;
use edgewarden::twin::Desired;
use libfuzzer_sys::fuzz_target;

const FILE: &str =
    r#"{"properties": {"desired": {"edgewarden": {"floor": ["eventPriorityLogin", "edgewarden.spoolSyncHigh"]}}}}"#;

fuzz_target!(|data: &[u8]| {
    let mut layers = Layers::new(load("twin.json", FILE, None).unwrap());
    let sync_at_the_latest = layers.settings().spool_sync_high;
    for (n, bytes) in data.split(|byte| *byte == 0).enumerate() {
        let (bytes, version) = (bytes.to_vec(), n as u64);
        let told = if n % 2 == 0 { Desired::Whole { bytes, version } } else { Desired::Change { bytes, version } };
        let applied = layers.desired(&[told]);
        assert_eq!(applied.settings.priority(Kind::Login), Priority::High);
        assert!(applied.settings.spool_sync_high <= sync_at_the_latest);
        assert!(applied.settings.collectors.redaction.is_on);
        assert!(layers.good_desired().is_object() && layers.reported_settings().is_object());
        for effective in layers.effective() {
            assert!(serde_json::from_str::<serde_json::Value>(&effective.value).is_ok(), "{}", effective.key);
        }
    }
});
