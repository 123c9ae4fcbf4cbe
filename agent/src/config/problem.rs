//! What is wrong with the file, in words that name the place.

use std::fmt;

use collector_common::event::payload::{ConfigurationError, ConfigurationFault};

use super::lowering;
use super::settings::Settings;

/// A place in a text, both counted from 1; the column counts characters, as editors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// Where in it; `None` when the whole file is meant.
    pub position: Option<Position>,
    /// The dotted path of the key, or the twin's own key name; empty when no key is meant.
    pub key: String,
    /// What would have been right.
    pub expected: String,
    /// What is there. Values of `connection` never stand here: somebody may have written a password.
    pub found: String,
    /// What the agent does about it, for problems that do not stop it.
    pub consequence: Option<String>,
    /// For the published keys: what the hub is told.
    pub report: Option<Report>,
}

/// What the hub is told about a published key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was wrong, in the schema's words.
    pub fault: ConfigurationFault,
    /// The value in force, as JSON text.
    pub in_force: String,
}

impl Position {
    /// The place of a byte offset. An offset behind the end means the end.
    pub fn of(text: &str, offset: usize) -> Position {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl Report {
    /// Whether the key could not be used at all.
    pub fn is_mismatch(&self) -> bool {
        self.fault == ConfigurationFault::TypeMismatch
    }
}

impl Problem {
    /// Says what is in force instead of a key that could not be used, once that is known.
    pub fn fill(&mut self, settings: &Settings) {
        let Some(report) = self.report.as_mut().filter(|report| report.in_force.is_empty()) else { return };
        let key = self.key.strip_prefix("properties.desired.").unwrap_or(&self.key);
        report.in_force = lowering::value(settings, key);
        self.consequence = Some(match report.in_force.as_str() {
            "null" if self.key != "hubResourceId" => "what was in force stays".to_owned(),
            in_force => format!("{in_force} is in force"),
        });
    }

    /// Whether an operator who has read the one knows the other: only the version of the document may differ.
    pub fn says_the_same(&self, other: &Problem) -> bool {
        let words = |problem: &Problem| {
            let Problem { key, expected, found, consequence, .. } = problem.clone();
            (key, expected, found, consequence)
        };
        words(self) == words(other)
    }

    /// A problem with the file as a whole.
    pub fn of_file(file: &str, expected: &str, found: impl Into<String>) -> Problem {
        Problem {
            file: file.to_owned(),
            position: None,
            key: String::new(),
            expected: expected.to_owned(),
            found: found.into(),
            consequence: None,
            report: None,
        }
    }

    /// The payload that tells the hub, for problems of published keys.
    pub fn configuration_error(&self) -> Option<ConfigurationError> {
        let report = self.report.as_ref()?;
        Some(ConfigurationError {
            configuration_name: self.key.clone(),
            error_type: report.fault,
            used_configuration: report.in_force.clone(),
            message: self.to_string(),
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        match &self.consequence {
            Some(consequence) => write!(f, "; {consequence}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_never_panic() {
        let text = "{\n \"ä\": 1\n}";
        assert_eq!(Position::of(text, 0), Position { line: 1, column: 1 });
        assert_eq!(Position::of(text, text.find('1').unwrap()), Position { line: 2, column: 7 });
        for offset in 0..text.len() + 3 {
            assert!(Position::of(text, offset).line <= 3);
        }
    }
}
