//! Every way in, on machines of each Debian release a board may run: genuine OpenSSH and Dropbear, genuine clients from
//! several addresses, the journal or the log of genuine daemons, the real agent in the machine and the real hub beside
//! it. The rows in the hub's store must be the attempts that were made, each once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "the helpers of tests are tests too")]
#![allow(dead_code, reason = "each test uses its part of what tests share")]

#[path = "../support/agent.rs"]
mod agent;
#[path = "../support/arrivals.rs"]
mod arrivals;
#[path = "../support/device.rs"]
mod device;
#[path = "../support/hub.rs"]
mod hub;
#[path = "../support/wait.rs"]
mod wait;

mod attempts;
mod client;
mod machine;

use crate::device::can_run;
use crate::machine::{Log, Machine};

fn story(release: &'static str, log: Log) {
    if !can_run() {
        return;
    }
    let machine = Machine::start(release, log);
    machine.says_its_source();
    let expected = attempts::make(&machine);
    machine.wait_for_rows(expected);
    if log == Log::Journal {
        machine.tells_what_the_journal_suppressed();
    }
}

macro_rules! stories {
    ($($release:ident: $($name:ident $log:ident),*;)*) => {$(mod $release {
        use super::{Log, story};
        $(#[test]
        fn $name() {
            story(stringify!($release), Log::$log);
        })*
    })*};
}

stories! {
    bullseye: journal Journal, rsyslog Rsyslog, busybox Busybox, ring Ring;
    bookworm: journal Journal, rsyslog Rsyslog, busybox Busybox, ring Ring;
    trixie: journal Journal, rsyslog Rsyslog, busybox Busybox, ring Ring;
}
