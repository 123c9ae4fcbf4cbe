//! The daemon `edgewarden`. `docs/architecture.md` draws the way of an event through these modules.
#![forbid(unsafe_code)]

pub mod cli;

pub mod config;

pub mod identity;

pub mod check;

pub mod daemon;

pub mod privileges;

pub mod lifecycle;

pub mod remarks;

pub mod complaints;

pub mod tick;

pub mod supervisor;

pub mod collectors;

pub mod collect;

pub mod replay;

pub mod output;

pub mod fit;

pub mod ids;

pub mod recorder;

pub mod spool;

pub mod render;

pub mod uplink;

pub mod credential;

pub mod profile;

pub mod tls;

pub mod twin;

pub mod mqtt;

pub mod expiry;

pub mod status;
