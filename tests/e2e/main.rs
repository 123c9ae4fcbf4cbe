//! Stories told with the real binaries, real brokers and real files: what an operator relies on, from a log line on a
//! board to a row at the hub, while processes are killed and links are cut.
//!
//! `make test` installs what they need (scripts/setup-test.sh). Nothing here measures time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "the helpers of tests are tests too")]
#![allow(dead_code, reason = "each test uses its part of what tests share")]

#[path = "../support/agent.rs"]
mod agent;
#[path = "../support/arrivals.rs"]
mod arrivals;
#[path = "../support/audit.rs"]
mod audit;
#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/fake_broker.rs"]
mod fake_broker;
#[path = "../support/hub.rs"]
mod hub;
#[path = "../support/iothub.rs"]
mod iothub;
#[path = "../support/login_lab.rs"]
mod login_lab;
#[path = "../support/mosquitto.rs"]
mod mosquitto;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/schema.rs"]
mod schema;
#[path = "../support/wait.rs"]
mod wait;
#[path = "../support/wire.rs"]
mod wire;

mod accounts;
#[path = "audit.rs"]
mod audit_stories;
mod configuration;
mod crash;
mod delivery;
mod execs;
mod hub_access;
mod hub_guide;
mod hubs;
mod link;
mod logins;
mod misbehaviour;
mod noise;
mod oneshot;
mod ports;
mod privileges;
mod secrets;
mod silence;
mod twin;
