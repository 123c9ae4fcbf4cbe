//! The other end for those who have none: an MQTT broker and an event store in one process.
//!
//! ```text
//! device ──PUBLISH──▶ broker ──▶ ingest: topic → device, payload → schema ──▶ store (SQLite) ──commit──▶ PUBACK
//!                                                     └── refused, with a reason ──▶ store
//! ```
//!
//! A device's message is acknowledged when its rows are on disk, and not before.

pub mod alerts;
pub mod broker;
pub mod demo;
pub mod devices;
pub mod import;
pub mod ingest;
pub mod kql;
pub mod query;
pub mod rows;
pub mod schema;
mod secret;
pub mod serve;
pub mod store;
mod upkeep;
