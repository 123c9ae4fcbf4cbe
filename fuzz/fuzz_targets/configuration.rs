//! Any text is a configuration whose values can be shown, or problems that each say where.
#![no_main]

use edgewarden::config::load;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match load("twin.json", text, None) {
        Ok(config) => {
            for effective in config.effective() {
                let value = serde_json::from_str::<serde_json::Value>(&effective.value);
                assert!(value.is_ok(), "{} is shown as {}", effective.key, effective.value);
            }
            let errors = config.configuration_errors();
            assert!(errors.len() <= config.warnings.len());
            assert!(config.settings.max_message_bytes > 0 && config.settings.max_cache_bytes > 0);
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|problem| problem.to_string().starts_with("twin.json")));
        }
    }
});
