//! What is read as a duration is written as one that reads the same.
#![no_main]

use edgewarden::config::duration::{format, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(duration) = parse(text) {
        let written = format(duration);
        assert_eq!(parse(&written), Some(duration), "{text} became {written}");
        assert_eq!(parse(&format!("{text} ")), None);
    }
});
