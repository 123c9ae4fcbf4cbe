//! The kinds of event, and what the published schema says about each.

use serde::{Deserialize, Serialize};

/// A kind of event. The discriminant is stored on disk: it never changes and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// A full list of the accounts of the machine.
    LocalUsers = 1,
    /// A full list of the sockets that wait for somebody, and who is connected to them.
    ListeningPorts = 2,
    /// One attempt to get into the machine.
    Login = 3,
    /// One program that was executed.
    ProcessCreate = 4,
    /// Something the agent has to say about itself or its sources.
    Diagnostic = 5,
    /// A setting that could not be applied as it was written.
    ConfigurationError = 6,
    /// How many events a queue took and how many were lost.
    DroppedEventsStatistics = 7,
    /// How many messages were sent.
    MessageStatistics = 8,
}

/// The `EventType` of the published schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// About the device.
    Security,
    /// About the agent's work.
    Operational,
    /// About the agent's troubles.
    Diagnostic,
}

/// The `Category` of the published schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Category {
    /// A snapshot; it may be empty.
    Periodic,
    /// Something that happened; it is never empty.
    Triggered,
}

/// Which queue an event waits in: the twin's `eventPriority*` without `Off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Sent first, synced to disk soon, dropped last.
    High,
    /// Sent when there is room or after a longer time.
    Low,
}

impl Kind {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [Kind; 8] = [
        Kind::LocalUsers,
        Kind::ListeningPorts,
        Kind::Login,
        Kind::ProcessCreate,
        Kind::Diagnostic,
        Kind::ConfigurationError,
        Kind::DroppedEventsStatistics,
        Kind::MessageStatistics,
    ];

    /// The `Name` on the wire; `eventPriority` followed by it is the twin key.
    pub fn name(self) -> &'static str {
        match self {
            Kind::LocalUsers => "LocalUsers",
            Kind::ListeningPorts => "ListeningPorts",
            Kind::Login => "Login",
            Kind::ProcessCreate => "ProcessCreate",
            Kind::Diagnostic => "Diagnostic",
            Kind::ConfigurationError => "ConfigurationError",
            Kind::DroppedEventsStatistics => "DroppedEventsStatistics",
            Kind::MessageStatistics => "MessageStatistics",
        }
    }

    /// The kind with this name on the wire.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind with this discriminant.
    pub fn from_number(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// A dense index for tables of counters, `0..Kind::ALL.len()`.
    pub fn index(self) -> usize {
        self as usize - 1
    }

    /// The `EventType` the published schema fixes for this kind.
    pub fn event_type(self) -> EventType {
        match self {
            Kind::LocalUsers | Kind::ListeningPorts | Kind::Login | Kind::ProcessCreate => EventType::Security,
            Kind::Diagnostic => EventType::Diagnostic,
            Kind::ConfigurationError | Kind::DroppedEventsStatistics | Kind::MessageStatistics => {
                EventType::Operational
            }
        }
    }

    /// The `Category` the published schema fixes for this kind.
    pub fn category(self) -> Category {
        match self {
            Kind::LocalUsers | Kind::ListeningPorts | Kind::DroppedEventsStatistics | Kind::MessageStatistics => {
                Category::Periodic
            }
            Kind::Login | Kind::ProcessCreate | Kind::Diagnostic | Kind::ConfigurationError => Category::Triggered,
        }
    }
}

impl EventType {
    /// The text on the wire.
    pub fn name(self) -> &'static str {
        match self {
            EventType::Security => "Security",
            EventType::Operational => "Operational",
            EventType::Diagnostic => "Diagnostic",
        }
    }
}

impl Category {
    /// The text on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Category::Periodic => "Periodic",
            Category::Triggered => "Triggered",
        }
    }
}

impl Lane {
    /// Both lanes, the more urgent first.
    pub const ALL: [Lane; 2] = [Lane::High, Lane::Low];

    /// The twin's word, which is also the `Queue` of `DroppedEventsStatistics`.
    pub fn name(self) -> &'static str {
        match self {
            Lane::High => "High",
            Lane::Low => "Low",
        }
    }

    /// A dense index for pairs of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The other one.
    pub fn other(self) -> Lane {
        match self {
            Lane::High => Lane::Low,
            Lane::Low => Lane::High,
        }
    }
}
