//! Functions of dynamics: parts of JSON values, and JSON values of parts.

use serde_json::Value as Json;

use super::{Call, Function, Gives, Want, get, string};
use crate::kql::Stop;
use crate::kql::json;
use crate::kql::value::{Type, Value};

const DYNAMIC: Gives = Gives::Just(Type::Dynamic);

/// The table of this file.
pub const TABLE: &[Function] = &[
    Function::new(
        "[]",
        &[Want::Dynamic, Want::Any],
        DYNAMIC,
        |a, _| Ok(access(get(a, 0), get(a, 1))),
        "a member or an item: d.a, d[\"a\"], d[0], d[-1]",
    ),
    Function::new(
        "array_length",
        &[Want::Dynamic],
        Gives::Just(Type::Long),
        |a, _| Ok(length(get(a, 0))),
        "how many items; null when it is no array",
    ),
    Function::new("bag_keys", &[Want::Dynamic], DYNAMIC, |a, _| Ok(keys(get(a, 0))), "the keys of a bag as an array"),
    Function::new("pack_array", &[Want::Any], DYNAMIC, |a, _| Ok(array(a)), "an array of the arguments")
        .rest(Want::Any)
        .sees_null(),
    Function::new("bag_pack", &[Want::Text, Want::Any], DYNAMIC, |a, _| bag(a), "a bag of names and values in turn")
        .alias(&["pack"])
        .rest(Want::Any)
        .sees_null(),
    Function::new(
        "set_has_element",
        &[Want::Dynamic, Want::Any],
        Gives::Just(Type::Bool),
        |a, _| Ok(has(a)),
        "whether the array has the value",
    ),
    Function::new(
        "strcat_array",
        &[Want::Dynamic, Want::Text],
        Gives::Just(Type::String),
        |a, _| joined(a),
        "the items' texts with the second between them",
    ),
    Function::new(
        "gettype",
        &[Want::Any],
        Gives::Just(Type::String),
        |a, call| string(type_name(get(a, 0), call)),
        "the type of the value, inside a dynamic that of its content",
    )
    .sees_null()
    .named_after("type"),
];

/// A member by its key, an item by its place.
fn access(base: &Value, index: &Value) -> Value {
    let Value::Dynamic(json) = base else { return Value::Null };
    let found = match index.unwrapped() {
        Value::Long(index) => json::item(json, index),
        Value::Str(key) => json.as_object().and_then(|members| members.get(key.as_ref())),
        _ => None,
    };
    found.map_or(Value::Null, |found| Value::dynamic(found.clone()))
}

fn length(value: &Value) -> Value {
    match value {
        Value::Dynamic(json) => {
            json.as_array().and_then(|items| i64::try_from(items.len()).ok()).map_or(Value::Null, Value::Long)
        }
        _ => Value::Null,
    }
}

fn keys(value: &Value) -> Value {
    let Value::Dynamic(json) = value else { return Value::Null };
    match json.as_object() {
        Some(members) => Value::dynamic(members.keys().map(|key| Json::from(key.as_str())).collect()),
        None => Value::Null,
    }
}

fn array(items: &[Value]) -> Value {
    Value::dynamic(items.iter().map(Value::to_json).collect())
}

fn bag(arguments: &[Value]) -> Result<Value, Stop> {
    if !arguments.len().is_multiple_of(2) {
        return Err(Stop("bag_pack() takes names and values in turn".to_owned()));
    }
    let pairs = arguments.chunks_exact(2);
    let members = pairs.map(|pair| (get(pair, 0).to_text().to_string(), get(pair, 1).to_json())).collect();
    Ok(Value::dynamic(Json::Object(members)))
}

fn has(arguments: &[Value]) -> Value {
    let Value::Dynamic(json) = get(arguments, 0) else { return Value::Null };
    match json.as_array() {
        Some(items) => Value::Bool(items.contains(&get(arguments, 1).to_json())),
        None => Value::Null,
    }
}

fn joined(arguments: &[Value]) -> Result<Value, Stop> {
    let Value::Dynamic(json) = get(arguments, 0) else { return Ok(Value::Null) };
    let items = json.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<_> = items.iter().map(|item| Value::dynamic(item.clone()).to_text()).collect();
    string(texts.join(get(arguments, 1).to_text().as_ref()))
}

fn type_name(value: &Value, _: &Call) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Long(_) => "long",
        Value::Real(_) => "double",
        Value::Str(_) => "string",
        Value::DateTime(_) => "datetime",
        Value::TimeSpan(_) => "timespan",
        Value::Guid(_) => "guid",
        Value::Dynamic(json) => match json.as_ref() {
            Json::Array(_) => "array",
            Json::Object(_) => "dictionary",
            Json::Null => "null",
            _ => type_name_of_scalar(value),
        },
    }
}

fn type_name_of_scalar(value: &Value) -> &'static str {
    match value.unwrapped() {
        Value::Bool(_) => "bool",
        Value::Long(_) => "long",
        Value::Real(_) => "double",
        _ => "string",
    }
}
