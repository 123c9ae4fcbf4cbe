//! Which execs a rule of `processInclude` and `processExclude` is about.

use std::fmt;

use collector_common::event::payload::ProcessCreate;

/// `executable=PATH`, `user=UID` or `container=ID`; a `*` at the end stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRule {
    field: Field,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Executable,
    User,
    Container,
}

impl Field {
    const ALL: [Field; 3] = [Field::Executable, Field::User, Field::Container];

    fn name(self) -> &'static str {
        match self {
            Field::Executable => "executable",
            Field::User => "user",
            Field::Container => "container",
        }
    }
}

impl ProcessRule {
    /// Reads one as it is written in the configuration.
    pub fn parse(text: &str) -> Option<ProcessRule> {
        let (name, value) = text.split_once('=')?;
        let field = Field::ALL.into_iter().find(|field| field.name() == name)?;
        let plain = value.strip_suffix('*').unwrap_or(value);
        let is_fit = match field {
            Field::Executable => plain.starts_with('/'),
            Field::User => value.parse::<u32>().is_ok(),
            Field::Container => !value.is_empty(),
        };
        (is_fit && !plain.contains('*')).then(|| ProcessRule { field, value: value.to_owned() })
    }

    /// Whether an exec is what the rule is about.
    pub fn is_met(&self, event: &ProcessCreate) -> bool {
        let found = match self.field {
            Field::Executable => Some(&event.executable),
            Field::User => Some(&event.user_id),
            Field::Container => event.extra_details.get("ContainerId"),
        };
        found.is_some_and(|found| match self.value.strip_suffix('*') {
            Some(beginning) => found.starts_with(beginning),
            None => *found == self.value,
        })
    }
}

impl fmt::Display for ProcessRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.field.name(), self.value)
    }
}
