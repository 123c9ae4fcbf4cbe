//! JSON that knows where everything stands.
//!
//! A value stays the slice of the file it was written as (`serde_json::value::RawValue`), so its address inside the
//! text is its place, and nothing is read twice as deep as it is asked for.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::nearest::nearest;
use super::origin::{Layer, Origin};
use super::problem::{Position, Problem};

/// Mistakes that come with the key somebody probably meant.
const MAX_HINTS: usize = 64;

/// One member of an object.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// The key with its escapes undone.
    pub key: String,
    /// The key as it stands in the file.
    pub key_text: &'a str,
    /// The value as it stands in the file.
    pub value: &'a str,
}

/// The file while it is read, and what was found wrong with it so far.
pub struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    layer: Layer,
    /// What stops the agent.
    pub refused: Vec<Problem>,
    /// What does not.
    pub warnings: Vec<Problem>,
    /// The published keys that are in force from here, with what would be said if they contradict others.
    pub written: Vec<(&'static str, Problem)>,
}

impl<'a> Reader<'a> {
    /// Nothing read yet.
    pub fn new(file: &'a str, text: &'a str) -> Reader<'a> {
        Reader::of_layer(Layer::File, file, text)
    }

    /// Nothing read yet of a document of this layer.
    pub fn of_layer(layer: Layer, file: &'a str, text: &'a str) -> Reader<'a> {
        Reader { file, text, layer, refused: Vec::new(), warnings: Vec::new(), written: Vec::new() }
    }

    /// Which document this is.
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// Where a value that is written at this part came from.
    pub fn origin(&self, part: &str) -> Origin {
        match self.layer {
            Layer::File => Origin::Line(self.position(part).line),
            Layer::DropIn => Origin::DropIn(self.file.to_owned(), self.position(part).line),
            Layer::Hub => Origin::Hub,
        }
    }

    /// The members of the whole file, or `None` and a refusal when it is not one JSON object.
    pub fn top(&mut self) -> Option<Vec<Entry<'a>>> {
        if let Err(error) = serde_json::from_str::<IgnoredAny>(self.text) {
            // A value that is built tells more exactly what is wrong (a trailing comma) than one that is skipped.
            let exact = serde_json::from_str::<serde_json::Value>(self.text).err();
            self.refused.push(self.unparsable(&exact.unwrap_or(error)));
            return None;
        }
        let whole = self.text.trim();
        let members = members(whole);
        if members.is_none() {
            self.refuse(whole, "", "one JSON object", kind_of(whole));
        }
        members
    }

    /// The members of an object that is ours: anything unknown, written twice or of another type is refused.
    /// `path` is the dotted path of the object, empty for the file itself.
    pub fn closed(&mut self, path: &str, value: &'a str, known: &[&str]) -> Vec<Entry<'a>> {
        let Some(members) = members(value) else {
            self.refuse(value, path, "an object", kind_of(value));
            return Vec::new();
        };
        self.only_known(path, members, known)
    }

    /// Keeps the members that are known and refuses the others.
    pub fn only_known(&mut self, path: &str, members: Vec<Entry<'a>>, known: &[&str]) -> Vec<Entry<'a>> {
        let mut kept: Vec<Entry<'a>> = Vec::new();
        for entry in members {
            let dotted = dotted(path, &entry.key);
            if !known.contains(&entry.key.as_str()) {
                let expected = match self.meant(&entry.key, known.iter().copied()) {
                    Some(meant) => format!("a known key (did you mean \"{meant}\"?)"),
                    None => format!("one of {}", known.join(", ")),
                };
                self.refuse(entry.key_text, &dotted, &expected, "an unknown key");
            } else if let Some(first) = kept.iter().find(|other| other.key == entry.key) {
                let found = format!("it again, after line {}", self.position(first.key_text).line);
                self.refuse(entry.key_text, &dotted, "each key once", found);
            } else {
                kept.push(entry);
            }
        }
        kept
    }

    /// The known key that somebody probably meant. Who has made so many mistakes made none by a slip of the hand, and
    /// comparing them all would take seconds on a board.
    pub fn meant<'k>(&self, written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
        let has_few = self.refused.len() + self.warnings.len() < MAX_HINTS;
        if has_few { nearest(written, known) } else { None }
    }

    /// Notes something that stops the agent.
    pub fn refuse(&mut self, part: &str, key: &str, expected: &str, found: impl Into<String>) {
        let problem = self.problem(part, key, expected, found);
        self.refused.push(problem);
    }

    /// A problem at a part of the text.
    pub fn problem(&self, part: &str, key: &str, expected: &str, found: impl Into<String>) -> Problem {
        Problem {
            position: (self.layer != Layer::Hub).then(|| self.position(part)),
            key: cut(&printable(key), 120),
            ..Problem::of_file(self.file, expected, found)
        }
    }

    /// Where a part of the text stands in it.
    pub fn position(&self, part: &str) -> Position {
        Position::of(self.text, (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize))
    }

    fn unparsable(&self, error: &serde_json::Error) -> Problem {
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or(&text);
        let line_start: usize =
            self.text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let at = Position::of(self.text, line_start + error.column().saturating_sub(1));
        Problem { position: Some(at), ..Problem::of_file(self.file, "JSON", what) }
    }
}

/// The members of an object in the order they are written, repeated ones included; `None` for any other value.
pub fn members(value: &str) -> Option<Vec<Entry<'_>>> {
    serde_json::from_str::<Members>(value).ok().map(|members| members.0)
}

/// The text of a JSON string.
pub fn string(value: &str) -> Option<String> {
    serde_json::from_str(value).ok()
}

/// Whether a value is written as null, which in a twin means that the key is not there.
pub fn is_null(value: &str) -> bool {
    value == "null"
}

/// What sort of value this is, for values that must not be shown.
pub fn kind_of(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        Some(_) => "a number",
        None => "nothing",
    }
}

/// A value as it was written, on one line and not too long.
pub fn shown(value: &str) -> String {
    cut(&printable(&value.split_whitespace().collect::<Vec<_>>().join(" ")), 60)
}

/// The dotted path of a member.
pub fn dotted(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A terminal or a log must not be steered by what somebody wrote into the file.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The beginning of a text, if it is longer than this many characters.
fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

struct Members<'a>(Vec<Entry<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
            // A key with a lone surrogate escape has no text of its own; it stays as written and is then unknown.
            let text = string(key.get()).unwrap_or_else(|| key.get().to_owned());
            entries.push(Entry { key: text, key_text: key.get(), value: value.get() });
        }
        Ok(Members(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_know_their_places() {
        let text = "{\n  \"a\" : [1,\n 2],\n  \"\\u0062\": \"x\"\n}\n";
        let mut reader = Reader::new("f", text);
        let members = reader.top().unwrap();
        assert_eq!(members.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(reader.position(members[0].key_text), Position { line: 2, column: 3 });
        assert_eq!(reader.position(members[0].value), Position { line: 2, column: 9 });
        assert_eq!(reader.position(members[1].value), Position { line: 4, column: 13 });
    }

    #[test]
    fn a_value_is_shown_on_one_short_line() {
        assert_eq!(shown("{ \"a\":\n\t1 }"), "{ \"a\": 1 }");
        assert_eq!(shown("\"\u{9b}31m\""), "\"\u{fffd}31m\"");
        assert_eq!(shown(&format!("\"{}\"", "ä".repeat(100))).chars().count(), 63);
    }
}
