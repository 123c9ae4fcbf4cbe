//! passwd, group and shadow: every line is an entry, a fault or nothing, and no secret gets out.
#![no_main]

use collector_common::parse::passwd;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let (users, groups, shadows) = (passwd::users(bytes), passwd::groups(bytes), passwd::shadows(bytes));
    for entries in [users.entries.len(), groups.entries.len(), shadows.entries.len()] {
        assert!(entries <= lines);
    }
    assert!(users.entries.iter().all(|user| !user.name.is_empty() && !user.name.contains([':', '\n'])));
    assert!(groups.entries.iter().flat_map(|group| &group.members).all(|name| !name.is_empty() && !name.contains(',')));
    for entry in &shadows.entries {
        assert!(!entry.name.contains(':'), "a field behind the name is the password");
    }
    // A line in front and a line behind are read whatever stands between them.
    let framed = [b"first:x:1:2::/:\n".as_slice(), bytes, b"\nlast:x:3:4::/:\n"].concat();
    let framed = passwd::users(&framed).entries;
    assert!(framed.len() == users.entries.len() + 2 && framed[0].uid == 1 && framed[framed.len() - 1].gid == 4);
});
