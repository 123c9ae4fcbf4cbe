//! The daemon `edgewarden`. `docs/architecture.md` draws the way of an event through these modules.
#![forbid(unsafe_code)]

pub mod check;

pub mod collectors;

pub mod config;

pub mod identity;
