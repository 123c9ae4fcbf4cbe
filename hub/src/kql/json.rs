//! JSON text: `extractjson` without building a tree.
//!
//! The members of the row's JSON object are found in one pass, which also checks that all of it is JSON, and the place of
//! each is kept until other text comes: several `extractjson` of one row read the text once.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::value::Value;

/// `$.a.b[0]['c d']`
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Item(i64),
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    ///
    /// A sentence about what is no part of it.
    pub fn parse(text: &str) -> Result<Path, String> {
        let wrong =
            || format!("{text:?} is no path such as $.a.b[0]['c']; wildcards and filters are not supported here");
        let mut rest = text.trim().strip_prefix('$').ok_or_else(wrong)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(name) = rest.strip_prefix('.') {
                let end = name.find(['.', '[']).unwrap_or(name.len());
                let (key, after) = name.split_at(end);
                if key.is_empty() || key == "*" {
                    return Err(wrong());
                }
                steps.push(Step::Key(key.to_owned()));
                rest = after;
            } else {
                let inside = rest.strip_prefix('[').ok_or_else(wrong)?;
                let quote = inside.chars().next().filter(|char| matches!(char, '\'' | '"'));
                let (step, after) = match quote {
                    Some(quote) => {
                        let key = inside.get(1..).and_then(|inside| inside.split_once(quote)).ok_or_else(wrong)?;
                        (Step::Key(key.0.to_owned()), key.1.strip_prefix(']').ok_or_else(wrong)?)
                    }
                    None => {
                        let (index, after) = inside.split_once(']').ok_or_else(wrong)?;
                        (Step::Item(index.trim().parse().map_err(|_| wrong())?), after)
                    }
                };
                steps.push(step);
                rest = after;
            }
        }
        Ok(Path(steps))
    }
}

/// What was last read, by the identity of its text.
#[derive(Debug, Default)]
pub struct Cache {
    text: Option<Arc<str>>,
    /// None when the text is no JSON object.
    members: Option<Vec<(String, Range<usize>)>>,
    parsed: Option<(Arc<str>, Value)>,
    /// Vectors and strings to be used again.
    spare: Vec<String>,
}

impl Cache {
    /// The text of the value at the path: a string without its quotes, all else as JSON. None when there is none, it is
    /// null, or the text is no JSON.
    pub fn extract(&mut self, text: &Arc<str>, path: &Path) -> Option<Arc<str>> {
        let (first, rest) = path.0.split_first()?;
        let Step::Key(key) = first else {
            return whole(text, &path.0);
        };
        self.index(text);
        let members = self.members.as_ref()?;
        let (_, range) = members.iter().rev().find(|(name, _)| name == key)?;
        let raw = text.get(range.clone())?;
        if rest.is_empty() { raw_text(raw) } else { whole(raw, rest) }
    }

    /// The text as a dynamic; text that is no JSON is a dynamic string.
    pub fn parse(&mut self, text: &Arc<str>) -> Value {
        if let Some((known, value)) = &self.parsed
            && Arc::ptr_eq(known, text)
        {
            return value.clone();
        }
        let json = serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_string()));
        let value = Value::dynamic(json);
        self.parsed = Some((text.clone(), value.clone()));
        value
    }

    fn index(&mut self, text: &Arc<str>) {
        if self.text.as_ref().is_some_and(|known| Arc::ptr_eq(known, text)) {
            return;
        }
        let mut members = self.members.take().unwrap_or_default();
        self.spare.extend(members.drain(..).map(|(name, _)| name));
        let collect = Collect { text, members: &mut members, spare: &mut self.spare };
        let mut json = serde_json::Deserializer::from_str(text);
        let read = (&mut json).deserialize_map(collect).and_then(|()| json.end());
        self.members = read.is_ok().then_some(members);
        self.text = Some(text.clone());
    }
}

struct Collect<'a> {
    text: &'a str,
    members: &'a mut Vec<(String, Range<usize>)>,
    spare: &'a mut Vec<String>,
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key(self.spare.pop().unwrap_or_default()))? {
            let raw: &RawValue = map.next_value()?;
            let start = (raw.get().as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
            self.members.push((key, start..start.saturating_add(raw.get().len())));
        }
        Ok(())
    }
}

/// A key, in a string that was used before.
struct Key(String);

impl<'de> serde::de::DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(mut self, key: &str) -> Result<String, E> {
        self.0.clear();
        self.0.push_str(key);
        Ok(self.0)
    }
}

/// The slow way, for paths of several steps and for arrays.
fn whole(text: &str, steps: &[Step]) -> Option<Arc<str>> {
    let json: Json = serde_json::from_str(text).ok()?;
    let mut at = &json;
    for step in steps {
        at = match step {
            Step::Key(key) => at.get(key)?,
            Step::Item(index) => item(at, *index)?,
        };
    }
    if at.is_null() { None } else { Some(Value::Dynamic(Arc::new(at.clone())).to_text()) }
}

/// An item of an array; negative counts from the end.
pub fn item(json: &Json, index: i64) -> Option<&Json> {
    let items = json.as_array()?;
    let index = if index < 0 { i64::try_from(items.len()).ok()?.checked_add(index)? } else { index };
    items.get(usize::try_from(index).ok()?)
}

fn raw_text(raw: &str) -> Option<Arc<str>> {
    if raw == "null" {
        return None;
    }
    match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
        Some(inside) if !inside.contains('\\') => Some(Arc::from(inside)),
        Some(_) => serde_json::from_str::<String>(raw).ok().map(Arc::from),
        None => Some(Arc::from(raw)),
    }
}
