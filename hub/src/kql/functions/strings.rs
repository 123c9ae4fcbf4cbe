//! Functions of strings. Places count characters from 0.

use super::{Call, Function, Gives, Prepared, Want, get, long, regex_of, string, text};
use crate::kql::Stop;
use crate::kql::value::{Type, Value};

const ONE: &[Want] = &[Want::Text];
const ANY: &[Want] = &[Want::Any];
const STRING: Gives = Gives::Just(Type::String);

/// The table of this file.
pub const TABLE: &[Function] = &[
    Function::new("strcat", &[Want::Any], STRING, |a, _| strcat(a), "the texts of all arguments; null adds nothing")
        .rest(Want::Any)
        .sees_null(),
    Function::new(
        "strcat_delim",
        &[Want::Text, Want::Any],
        STRING,
        |a, _| strcat_delim(a),
        "the texts of the others with the first between them",
    )
    .rest(Want::Any)
    .sees_null(),
    Function::new("tolower", ANY, STRING, |a, _| string(text(a, 0).to_lowercase()), "in lower case"),
    Function::new("toupper", ANY, STRING, |a, _| string(text(a, 0).to_uppercase()), "in upper case"),
    Function::new(
        "strlen",
        ONE,
        Gives::Just(Type::Long),
        |a, _| Ok(count(text(a, 0).chars().count())),
        "number of characters",
    )
    .named_after("strlen"),
    Function::new(
        "strcmp",
        &[Want::Text, Want::Text],
        Gives::Just(Type::Long),
        |a, _| Ok(Value::Long(text(a, 0).cmp(&text(a, 1)) as i64)),
        "-1, 0 or 1: how two strings compare, character by character",
    ),
    Function::new(
        "substring",
        &[Want::Text, Want::Integer, Want::Integer],
        STRING,
        |a, _| string(substring(a)),
        "from a place, negative from the end, so many characters or all",
    )
    .optional(1),
    Function::new(
        "split",
        &[Want::Text, Want::Text, Want::Integer],
        Gives::Just(Type::Dynamic),
        |a, _| Ok(split(a)),
        "the parts as an array; with a number an array of that part only",
    )
    .optional(1)
    .named_by_first(),
    Function::new(
        "trim",
        &[Want::Text, Want::Text],
        STRING,
        |a, call| string(trim(a, call, true, true)),
        "without what the constant regular expression matches at both ends",
    )
    .prepare(trim_regex),
    Function::new(
        "trim_start",
        &[Want::Text, Want::Text],
        STRING,
        |a, call| string(trim(a, call, true, false)),
        "trim() at the start",
    )
    .prepare(trim_regex),
    Function::new(
        "trim_end",
        &[Want::Text, Want::Text],
        STRING,
        |a, call| string(trim(a, call, false, true)),
        "trim() at the end",
    )
    .prepare(trim_regex),
    Function::new(
        "replace_string",
        &[Want::Text, Want::Text, Want::Text],
        STRING,
        |a, _| replace(a),
        "every occurrence of the second by the third",
    ),
    Function::new(
        "indexof",
        &[Want::Text, Want::Text, Want::Integer],
        Gives::Just(Type::Long),
        |a, _| Ok(indexof(a)),
        "where the second begins in the first, from a place on; -1 when nowhere",
    )
    .optional(1),
    Function::new(
        "countof",
        &[Want::Text, Want::Text],
        Gives::Just(Type::Long),
        |a, _| Ok(countof(a)),
        "how often the second is in the first, overlaps counted",
    ),
    Function::new(
        "extract",
        &[Want::Text, Want::Integer, Want::Text, Want::TypeOf],
        Gives::TypeOf(Type::String),
        extract,
        "the group of the constant regular expression's first match; \"\" or null when there is none",
    )
    .optional(1)
    .prepare(|constants| regex_of(constants.first().copied().flatten())),
];

fn strcat(arguments: &[Value]) -> Result<Value, Stop> {
    string(arguments.iter().map(Value::to_text).fold(String::new(), |all, part| all + &part))
}

fn strcat_delim(arguments: &[Value]) -> Result<Value, Stop> {
    let parts: Vec<_> = arguments.iter().skip(1).map(Value::to_text).collect();
    string(parts.join(text(arguments, 0).as_ref()))
}

fn count(number: usize) -> Value {
    Value::Long(i64::try_from(number).unwrap_or(i64::MAX))
}

fn substring(arguments: &[Value]) -> String {
    let source = text(arguments, 0);
    let start = long(arguments, 1).unwrap_or(0);
    let start = if start < 0 {
        let chars = i64::try_from(source.chars().count()).unwrap_or(i64::MAX);
        (chars + start).max(0)
    } else {
        start
    };
    let skip = usize::try_from(start).unwrap_or(usize::MAX);
    let length = match arguments.get(2) {
        Some(Value::Long(length)) => usize::try_from(*length).unwrap_or(0),
        _ => usize::MAX,
    };
    source.chars().skip(skip).take(length).collect()
}

fn split(arguments: &[Value]) -> Value {
    let (source, delimiter) = (text(arguments, 0), text(arguments, 1));
    let parts: Vec<_> = if delimiter.is_empty() {
        source.chars().map(|char| char.to_string().into()).collect()
    } else {
        source.split(delimiter.as_ref()).map(serde_json::Value::from).collect()
    };
    let chosen = match long(arguments, 2) {
        None => parts,
        Some(index) => usize::try_from(index).ok().and_then(|index| parts.get(index).cloned()).into_iter().collect(),
    };
    Value::dynamic(serde_json::Value::Array(chosen))
}

/// The pattern at the start, and at the end: there the first match is the longest that reaches it.
fn trim_regex(constants: &[Option<&Value>]) -> Result<Prepared, String> {
    let pattern = match constants.first() {
        Some(Some(pattern)) => pattern.to_text(),
        _ => return regex_of(None),
    };
    match (
        regex_of(Some(&Value::text(&format!("^(?:{pattern})"))))?,
        regex_of(Some(&Value::text(&format!("(?:{pattern})$"))))?,
    ) {
        (Prepared::Regex(start), Prepared::Regex(end)) => Ok(Prepared::Ends(start, end)),
        _ => Ok(Prepared::Nothing),
    }
}

fn trim(arguments: &[Value], call: &Call, at_start: bool, at_end: bool) -> String {
    let source = text(arguments, 1);
    let Prepared::Ends(start, end) = call.prepared else { return source.to_string() };
    let mut rest = source.as_ref();
    if at_start && let Some(found) = start.find(rest) {
        rest = rest.get(found.end()..).unwrap_or("");
    }
    if at_end && let Some(found) = end.find(rest) {
        rest = rest.get(..found.start()).unwrap_or("");
    }
    rest.to_owned()
}

fn replace(arguments: &[Value]) -> Result<Value, Stop> {
    let (source, from, to) = (text(arguments, 0), text(arguments, 1), text(arguments, 2));
    if from.is_empty() {
        return Ok(Value::Str(source));
    }
    let grown = source.matches(from.as_ref()).count().saturating_mul(to.len());
    if grown > super::MAX_BYTES {
        return Err(Stop(format!("replace_string() would make a string of more than {} bytes", super::MAX_BYTES)));
    }
    string(source.replace(from.as_ref(), &to))
}

fn indexof(arguments: &[Value]) -> Value {
    let (source, wanted) = (text(arguments, 0), text(arguments, 1));
    let skip = usize::try_from(long(arguments, 2).unwrap_or(0)).unwrap_or(usize::MAX);
    let from = source.char_indices().nth(skip).map_or(source.len(), |(from, _)| from);
    let found = source.get(from..).and_then(|rest| rest.find(wanted.as_ref()));
    match found.and_then(|at| source.get(..from + at)) {
        Some(before) => count(before.chars().count()),
        None => Value::Long(-1),
    }
}

fn countof(arguments: &[Value]) -> Value {
    let (source, wanted) = (text(arguments, 0), text(arguments, 1));
    if wanted.is_empty() {
        return Value::Long(0);
    }
    count(
        source
            .char_indices()
            .filter(|(at, _)| source.get(*at..).is_some_and(|rest| rest.starts_with(wanted.as_ref())))
            .count(),
    )
}

fn extract(arguments: &[Value], call: &Call) -> Result<Value, Stop> {
    let Prepared::Regex(regex) = call.prepared else { return Ok(Value::Null) };
    let source = text(arguments, 2);
    let group = long(arguments, 1).and_then(|group| usize::try_from(group).ok());
    let found = regex.captures(&source).zip(group).and_then(|(captures, group)| captures.get(group));
    match found {
        Some(found) => Ok(super::convert::from_text(&std::sync::Arc::from(found.as_str()), call.ty, call.env)),
        None => Ok(get(&[], 0).clone()),
    }
}
