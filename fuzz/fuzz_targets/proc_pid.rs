//! The files of `/proc/PID`. A process names itself as it likes, and its name must not move the fields behind it.
#![no_main]

use collector_common::parse::proc_pid::{Stat, Status, container_id, has_capability, login_uid};
use libfuzzer_sys::fuzz_target;

const BEHIND: &str =
    ") S 71 1 1 0 -1 64 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 100 130";

fuzz_target!(|bytes: &[u8]| {
    if let Some(stat) = Stat::parse(bytes) {
        assert!(stat.name.len() + 2 <= bytes.len() && stat.parent_pid >= 0);
    }
    let named = [b"9 (".as_slice(), bytes, BEHIND.as_bytes()].concat();
    let stat = Stat::parse(&named).expect("the fields behind a name are whole");
    assert_eq!((stat.name.as_slice(), stat.parent_pid, stat.start_ticks), (bytes, 71, 4711));
    assert!(stat.has_not_executed() && !stat.is_kernel_thread());
    assert_ne!(login_uid(bytes), Some(u32::MAX));
    assert!(
        container_id(bytes)
            .is_none_or(|id| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()))
    );
    assert!(Status::parse(bytes).is_none_or(|status| {
        status.parent_pid >= 0 && bytes.windows(4).any(|word| word == b"Uid:")
    }));
    assert!((64..80).all(|number| has_capability(bytes, number).is_none()));
});
