//! passwd, group and shadow: every line is an entry, a fault or nothing, and no secret gets out.
#![no_main]

use collector_common::parse::passwd;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let plain = |field: &str| field.len().to_string();
    let (users, groups) = (passwd::users(bytes, &plain), passwd::groups(bytes));
    let shadows = passwd::shadows(bytes, &plain);
    for entries in [users.entries.len(), groups.entries.len(), shadows.entries.len()] {
        assert!(entries <= lines);
    }
    assert!(users.entries.iter().all(|user| !user.name.is_empty() && !user.name.contains([':', '\n'])));
    assert!(groups.entries.iter().flat_map(|group| &group.members).all(|name| !name.is_empty() && !name.contains(',')));
    for entry in &shadows.entries {
        assert!(!entry.name.contains(':'), "a field behind the name is the password");
        for day in [i64::MIN, 0, 20_000, i64::MAX] {
            entry.expired(day);
        }
    }
    // A line in front and a line behind are read whatever stands between them.
    let framed = [b"first:x:1:2::/:\n".as_slice(), bytes, b"\nlast:x:3:4::/:\n"].concat();
    let framed = passwd::users(&framed, &plain).entries;
    assert!(framed.len() == users.entries.len() + 2 && framed[0].uid == 1 && framed[framed.len() - 1].gid == 4);
});
