//! The collectors this agent has: one file each, one line in the table.

use collector_common::collector::Collector;

/// Every collector, in the order `status` and `collect` show them.
pub const ALL: &[&dyn Collector] = &[];
