//! sudoers: no rule makes it panic, go on for ever, or give a grant to whom no line can name.
#![no_main]

use collector_common::parse::sudoers::{Sudoers, Who};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut sudoers = Sudoers::default();
    let read = sudoers.read(bytes);
    assert!(read.includes.iter().all(|include| !include.path.is_empty()));
    let who = Who { name: "pi", uid: 1000, groups: &["pi", "sudo"], gids: &[1000, 27] };
    let grants = sudoers.grants(who);
    assert!(grants.len() <= 4);
    // A comment behind it changes nothing, unless the last line goes on.
    if !bytes.ends_with(b"\\") && !bytes.ends_with(b"\\\r") {
        let mut longer = Sudoers::default();
        longer.read(&[bytes, b"\n# comment\n"].concat());
        assert_eq!(longer.grants(who), grants);
    }
});
