//! What a collector needs, and nothing of the network.
//!
//! In reading order: [`event`] is what is collected and how it is written, [`clock`] is when it happened,
//! [`collector`] is the one trait and the way out of a collector, [`root`] is the machine it looks at,
//! [`parse`] holds the pure readers of bytes somebody else wrote, [`redact`] keeps their secrets, and [`sys`] is the only place with `unsafe`.

#![warn(missing_docs)]

pub mod event;

pub mod clock;

pub mod collector;

pub mod root;

pub mod parse;

pub mod redact;

pub mod sys;
