//! Where an effective value came from.

use std::collections::BTreeMap;
use std::fmt;

/// Which document is read; a later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The file.
    File,
    /// A file of the directory beside it.
    DropIn,
    /// What the hub desires.
    Hub,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// `$STATE_DIRECTORY`, which systemd sets for a unit with `StateDirectory=`.
    Environment,
    /// This line of the file.
    Line(usize),
    /// This line of a drop-in.
    DropIn(String, usize),
    /// The desired properties of the hub.
    Hub,
    /// The local value, because `edgewarden.floor` names the key and the hub would have lowered it.
    Floor,
    /// Made larger than it was, because of this other key.
    Raised(&'static str),
    /// Made smaller than it was, because of this other key.
    Lowered(&'static str),
}

/// The origins by key; a key that is not here has its default.
pub type Origins = BTreeMap<String, Origin>;

/// An origin in the words of `check`.
pub struct Words<'a>(pub &'a Origin, pub &'a str);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Words(origin, file) = self;
        match origin {
            Origin::Default => f.write_str("default"),
            Origin::Environment => f.write_str("$STATE_DIRECTORY"),
            Origin::Line(line) => write!(f, "{file}:{line}"),
            Origin::DropIn(file, line) => write!(f, "{file}:{line}"),
            Origin::Hub => f.write_str("desired by the hub"),
            Origin::Floor => f.write_str("kept by edgewarden.floor"),
            Origin::Raised(key) => write!(f, "raised to fit {key}"),
            Origin::Lowered(key) => write!(f, "lowered to fit {key}"),
        }
    }
}
