//! A disk that does not answer.

use std::fs;
use std::process::Command;

use crate::agent::{Agent, cli, connection};

#[test]
fn a_disk_that_does_not_answer_is_named_in_the_status_and_nothing_is_lost() {
    // Nobody listens there.
    let mut agent = Agent::new("press-91", connection(9));
    let (shim, hangs) = (agent.path("hang.so"), agent.path("hangs"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/hang.c");
    let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).status();
    assert!(cc.expect("a C compiler is needed: scripts/setup-test.sh installs it").success());
    agent.start_with(&[("LD_PRELOAD", &shim), ("DISK_HANGS", &hangs)]);
    agent.wait_collecting();
    // The lane has a segment then: beginning one is done under the spool's lock.
    agent.fail_logins(20_000..20_001);
    let before = agent.wait_status("the first line", |status| status["events"]["byKind"]["Login"] == 1);
    assert_eq!(before["spool"]["diskWaitSeconds"], 0);

    fs::write(&hangs, "").unwrap();
    agent.fail_logins(20_001..20_005);
    agent.wait_status("the disk to be named", |status| status["spool"]["diskWaitSeconds"].as_u64() > Some(0));
    let words = cli(&["status", "--config", agent.config().to_str().unwrap()]);
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(words.contains("has not answered for"), "{words}");

    fs::remove_file(&hangs).unwrap();
    agent.wait_status("all lines once the disk answers", |status| {
        status["events"]["byKind"]["Login"] == 5 && status["spool"]["diskWaitSeconds"] == 0
    });
}
