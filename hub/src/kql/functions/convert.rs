//! From type to type. What cannot be converted becomes null.

use std::sync::Arc;

use uuid::Uuid;

use super::{Call, Env, Function, Gives, Prepared, Want, get};
use crate::kql::Stop;
use crate::kql::json::Path;
use crate::kql::time;
use crate::kql::value::{Type, Value};

const ONE: &[Want] = &[Want::Any];

const fn to(name: &'static str, ty: Type, doc: &'static str) -> Function {
    Function::new(name, ONE, Gives::Just(ty), |a, call| Ok(convert(get(a, 0), call.ty, call.env)), doc).named_by_first()
}

/// The table of this file.
pub const TABLE: &[Function] = &[
    to("tostring", Type::String, "as text; of a dynamic string without its quotes, of null \"\"").sees_null(),
    to("toint", Type::Int, "as an int; a real is cut, a string has to be a whole number"),
    to("tolong", Type::Long, "as a long; a real is cut, a string has to be a whole number"),
    to("toreal", Type::Real, "as a real").alias(&["todouble"]),
    to("tobool", Type::Bool, "as a bool; `true`, `false` or a whole number").alias(&["toboolean"]),
    to("todatetime", Type::DateTime, "as a datetime; ISO 8601, without an offset UTC"),
    to("totimespan", Type::TimeSpan, "as a timespan; `1.02:03:04.5`, `90m`, a bare number is days"),
    to("toguid", Type::Guid, "as a guid"),
    Function::new(
        "parse_json",
        ONE,
        Gives::Just(Type::Dynamic),
        |a, call| Ok(convert(get(a, 0), Type::Dynamic, call.env)),
        "as a dynamic; text that is no JSON is a dynamic string",
    )
    .alias(&["todynamic", "toobject", "parsejson"])
    .named_by_first(),
    Function::new(
        "extractjson",
        &[Want::Text, Want::Text, Want::TypeOf],
        Gives::TypeOf(Type::String),
        extract_json,
        "the value at a constant path, `$.a.b[0]['c']`, as string or typeof(); null when there is none",
    )
    .alias(&["extract_json"])
    .optional(1)
    .prepare(path),
];

fn path(constants: &[Option<&Value>]) -> Result<Prepared, String> {
    match constants.first() {
        Some(Some(path)) => Path::parse(&path.to_text()).map(Prepared::Path),
        _ => Err("the path has to be a constant here".to_owned()),
    }
}

fn extract_json(arguments: &[Value], call: &Call) -> Result<Value, Stop> {
    let Prepared::Path(path) = call.prepared else { return Ok(Value::Null) };
    let found = match get(arguments, 1) {
        Value::Str(text) => call.env.json.borrow_mut().extract(text, path),
        other => call.env.json.borrow_mut().extract(&other.to_text(), path),
    };
    Ok(found.map_or(Value::Null, |found| from_text(&found, call.ty, call.env)))
}

/// A value as another type.
pub(in crate::kql) fn convert(value: &Value, to: Type, env: &Env) -> Value {
    let value = if to == Type::Dynamic { value.clone() } else { value.unwrapped() };
    match (&value, to) {
        (Value::Null, _) => to.missing(),
        (_, Type::String) => Value::Str(value.to_text()),
        (Value::Str(text), _) => from_text(text, to, env),
        (Value::Dynamic(_), Type::Dynamic) => value,
        (_, Type::Dynamic) => Value::dynamic(value.to_json()),
        (Value::Long(long), Type::Int) => int(*long),
        (Value::Long(_), Type::Long)
        | (Value::Real(_), Type::Real)
        | (Value::Bool(_), Type::Bool)
        | (Value::DateTime(_), Type::DateTime)
        | (Value::TimeSpan(_), Type::TimeSpan)
        | (Value::Guid(_), Type::Guid) => value,
        (Value::Long(_), Type::Real) => value.as_real().map_or(Value::Null, Value::Real),
        (Value::Real(real), Type::Int | Type::Long) => whole(*real).map_or(Value::Null, |long| narrow(long, to)),
        (Value::Long(long), Type::Bool) => Value::Bool(*long != 0),
        (Value::Real(real), Type::Bool) => Value::Bool(*real != 0.0),
        (Value::Bool(bool), Type::Int | Type::Long) => Value::Long(i64::from(*bool)),
        (Value::Bool(bool), Type::Real) => Value::Real(f64::from(u8::from(*bool))),
        (Value::TimeSpan(ticks) | Value::DateTime(ticks), Type::Long) => Value::Long(*ticks),
        (Value::Long(ticks), Type::TimeSpan) => Value::TimeSpan(*ticks),
        (Value::Long(ticks), Type::DateTime) => time::in_range(*ticks).map_or(Value::Null, Value::DateTime),
        _ => Value::Null,
    }
}

/// A text as a type.
pub(super) fn from_text(text: &Arc<str>, to: Type, env: &Env) -> Value {
    let trimmed = text.trim();
    let read = match to {
        Type::String => Some(Value::Str(text.clone())),
        Type::Int | Type::Long => trimmed.parse().ok().map(|long| narrow(long, to)),
        Type::Real => trimmed.parse().ok().map(Value::Real),
        Type::Bool => boolean(trimmed),
        Type::DateTime => time::parse_datetime(trimmed).map(Value::DateTime),
        Type::TimeSpan => time::parse_timespan(trimmed).map(Value::TimeSpan),
        Type::Guid => trimmed.parse::<Uuid>().ok().map(Value::Guid),
        Type::Dynamic => Some(env.json.borrow_mut().parse(text)),
    };
    read.unwrap_or(Value::Null)
}

fn boolean(text: &str) -> Option<Value> {
    if text.eq_ignore_ascii_case("true") {
        Some(Value::Bool(true))
    } else if text.eq_ignore_ascii_case("false") {
        Some(Value::Bool(false))
    } else {
        text.parse::<i64>().ok().map(|number| Value::Bool(number != 0))
    }
}

fn whole(real: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    (real.abs() < 9.2e18).then(|| real.trunc() as i64)
}

fn narrow(long: i64, to: Type) -> Value {
    if to == Type::Int { int(long) } else { Value::Long(long) }
}

fn int(long: i64) -> Value {
    i32::try_from(long).map_or(Value::Null, |int| Value::Long(i64::from(int)))
}
