//! The published event types as a table: which keys an item may have, of what type, and which it must have.
//!
//! Source: Azure-IoT-Security `security_message/schemas`, version 1.0, one file per event type. No item may have a key
//! that is not listed (`additionalProperties: false`); every item may have `ExtraDetails`.

/// What a value has to be.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Any string. Ports and user ids are strings in this schema.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// An IPv4 or IPv6 address as a string, without a zone.
    Address,
    /// A GUID of 36 characters.
    Guid,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// An object whose values are all strings.
    TextMap,
}

/// One key of an item.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// What its value has to be.
    pub shape: Shape,
    /// Whether an item without it is refused.
    pub required: bool,
}

/// One event type.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// `Name` of the event.
    pub name: &'static str,
    /// The only `Category` it comes with.
    pub category: &'static str,
    /// The only `EventType` it comes with.
    pub event_type: &'static str,
    /// The keys of an item besides `ExtraDetails`.
    pub fields: &'static [Field],
    /// When not empty, an item needs at least one of these.
    pub any_of: &'static [&'static str],
}

/// The key every item may have.
pub const EXTRA_DETAILS: Field = may("ExtraDetails", Shape::TextMap);

/// The rule for events of this name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

const fn must(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: true }
}

const fn may(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: false }
}

const fn periodic(name: &'static str, event_type: &'static str, fields: &'static [Field]) -> Rule {
    Rule { name, category: "Periodic", event_type, fields, any_of: &[] }
}

const fn triggered(name: &'static str, event_type: &'static str, fields: &'static [Field]) -> Rule {
    Rule { name, category: "Triggered", event_type, fields, any_of: &[] }
}

use Shape::{Address, Boolean, Guid, Integer, OneOf, Text};

const DIRECTION: Shape = OneOf(&["In", "Out"]);

const RULES: &[Rule] = &[
    periodic(
        "ListeningPorts",
        "Security",
        &[
            must("LocalPort", Text),
            must("Protocol", Text),
            may("LocalAddress", Address),
            may("RemoteAddress", Address),
            may("RemotePort", Text),
        ],
    ),
    periodic(
        "LocalUsers",
        "Security",
        &[must("UserId", Text), must("UserName", Text), must("GroupIds", Text), must("GroupNames", Text)],
    ),
    Rule {
        name: "Login",
        category: "Triggered",
        event_type: "Security",
        fields: &[
            must("ProcessId", Integer),
            must("Operation", Text),
            must("Executable", Text),
            must("Result", OneOf(&["Fail", "Success"])),
            may("UserId", Text),
            may("UserName", Text),
            may("RemoteAddress", Address),
            may("RemotePort", Text),
            may("LocalPort", Text),
        ],
        any_of: &["UserId", "UserName"],
    },
    triggered(
        "ProcessCreate",
        "Security",
        &[
            must("Executable", Text),
            must("ProcessId", Integer),
            must("ParentProcessId", Integer),
            must("UserId", Text),
            must("CommandLine", Text),
            may("UserName", Text),
        ],
    ),
    triggered(
        "ConnectionCreate",
        "Security",
        &[
            must("RemoteAddress", Address),
            must("RemotePort", Text),
            must("Direction", DIRECTION),
            must("Protocol", Text),
            must("ProcessId", Integer),
            must("Executable", Text),
            may("LocalAddress", Address),
            may("LocalPort", Text),
            may("UserId", Text),
            may("CommandLine", Text),
        ],
    ),
    triggered(
        "ProcessTerminate",
        "Security",
        &[must("Executable", Text), must("ProcessId", Integer), must("ExitStatus", Integer)],
    ),
    periodic(
        "FirewallConfiguration",
        "Security",
        &[
            must("Enabled", Boolean),
            must("Action", OneOf(&["Allow", "Deny", "Other"])),
            may("Priority", Integer),
            may("Direction", DIRECTION),
            may("ChainName", Text),
            may("Application", Text),
            may("SourceAddress", Text),
            may("SourcePort", Text),
            may("DestinationAddress", Text),
            may("DestinationPort", Text),
            may("Protocol", Text),
        ],
    ),
    periodic(
        "SystemInformation",
        "Security",
        &[
            may("OSName", Text),
            may("OSVersion", Text),
            may("OSVendor", Text),
            may("OsArchitecture", Text),
            may("HostName", Text),
            may("BIOSVersion", Text),
            may("BootDevice", Text),
            may("TotalPhysicalMemoryInKB", Integer),
            may("FreePhysicalMemoryInKB", Integer),
            may("TotalVirtualMemoryInKB", Integer),
            may("FreeVirtualMemoryInKB", Integer),
        ],
    ),
    periodic(
        "OSBaseline",
        "Security",
        &[
            must("Description", Text),
            must("CceId", Text),
            must("Result", OneOf(&["Pass", "Fail", "Err"])),
            must("Error", Text),
            must("Severity", OneOf(&["Critical", "Important", "Warning", "Informational"])),
        ],
    ),
    periodic(
        "ConnectedHardware",
        "Security",
        &[must("HardwareCategory", Text), must("HardwareSubCategory", Text), must("HardwareName", Text)],
    ),
    triggered(
        "Diagnostic",
        "Diagnostic",
        &[
            must("Severity", OneOf(&["Fatal", "Error", "Warning", "Information", "Debug"])),
            must("Message", Text),
            must("ProcessId", Integer),
            must("ThreadId", Integer),
            may("CorrelationId", Guid),
        ],
    ),
    triggered(
        "ConfigurationError",
        "Operational",
        &[
            must("ConfigurationName", Text),
            must("ErrorType", OneOf(&["TypeMismatch", "NotOptimal", "Conflict"])),
            must("UsedConfiguration", Text),
            must("Message", Text),
        ],
    ),
    periodic(
        "DroppedEventsStatistics",
        "Operational",
        &[must("Queue", OneOf(&["High", "Low"])), must("CollectedEvents", Integer), must("DroppedEvents", Integer)],
    ),
    periodic(
        "MessageStatistics",
        "Operational",
        &[must("MessagesSent", Integer), must("MessagesUnder4KB", Integer), must("TotalFailed", Integer)],
    ),
];

#[cfg(test)]
mod tests {
    use collector_common::event::kind::Kind;

    use super::*;

    #[test]
    fn the_agent_and_the_hub_mean_the_same_kinds() {
        for kind in Kind::ALL {
            let rule = rule(kind.name()).unwrap_or_else(|| panic!("no rule for {}", kind.name()));
            assert_eq!(rule.category, kind.category().name(), "{}", kind.name());
            assert_eq!(rule.event_type, kind.event_type().name(), "{}", kind.name());
        }
    }

    #[test]
    fn no_item_may_hold_what_the_row_adds() {
        for rule in RULES {
            for field in rule.fields {
                assert!(!["TimestampLocal", "TimestampUTC", "EventId"].contains(&field.name), "{}", rule.name);
            }
        }
    }
}
