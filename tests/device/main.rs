//! The packages on booted machines: installed by apt, run by systemd, restarted, upgraded and purged, while real logins,
//! accounts, listeners and programs become events at a broker outside.
//!
//! `make test-device` builds the packages first and says where they are; which machines are booted is in
//! `DEVICE_MACHINES`. Each ends with a row for docs/field-matrix.md.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "the helpers of tests are tests too")]
#![allow(dead_code, reason = "each test uses its part of what tests share")]

#[path = "../support/agent.rs"]
mod agent;
#[path = "../support/arrivals.rs"]
mod arrivals;
#[path = "../support/device.rs"]
mod device;
#[path = "../support/mosquitto.rs"]
mod mosquitto;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/wait.rs"]
mod wait;

mod machine;
mod package;
mod story;

use machine::Machine;

/// One after the other: two emulated boards at a time take longer than one behind the other.
#[test]
fn every_machine_goes_through_the_life_of_a_package() {
    let machines = std::env::var("DEVICE_MACHINES").unwrap_or_default();
    assert!(!machines.trim().is_empty(), "DEVICE_MACHINES names none; see `make help`");
    let rows: Vec<String> =
        machines.split_whitespace().map(|name| story::life_of_a_package(&Machine::start(name))).collect();
    println!(
        "| machine | system | kernel | exec capture | Login | LocalUsers | ListeningPorts | ProcessCreate | reboot | upgrade | purge | PSS |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    rows.iter().for_each(|row| println!("{row}"));
}
