//! The collectors this agent has: one file each, one line in the table.

pub mod exec;
pub mod logins;
pub mod ports;
pub mod users;

use collector_common::collector::Collector;

/// Every collector, in the order `status` and `collect` show them.
pub const ALL: &[&dyn Collector] = &[&users::LocalUsers, &ports::ListeningPorts, &logins::Login, &exec::ProcessCreate];
