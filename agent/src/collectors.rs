//! The collectors this agent has: one file each, one line in the table.

pub mod logins;
