//! Arithmetic of numbers, moments and spans, and rounding to bins.

use super::compare::wider;
use super::{Call, Function, Gives, Want, get};
use crate::kql::time;
use crate::kql::value::{Type, Value};

const TWO: &[Want] = &[Want::Any, Want::Any];

/// The table of this file.
pub const TABLE: &[Function] = &[
    Function::new(
        "+",
        TWO,
        Gives::By(plus_type),
        |a, call| Ok(fit(plus(get(a, 0), get(a, 1)), call)),
        "sum; a moment plus a span; whole numbers wrap around",
    ),
    Function::new(
        "-",
        TWO,
        Gives::By(minus_type),
        |a, call| Ok(fit(minus(get(a, 0), get(a, 1)), call)),
        "difference; of two moments a timespan",
    ),
    Function::new(
        "*",
        TWO,
        Gives::By(times_type),
        |a, call| Ok(fit(times(get(a, 0), get(a, 1)), call)),
        "product; also of a timespan and a number",
    ),
    Function::new(
        "/",
        TWO,
        Gives::By(over_type),
        |a, call| Ok(fit(over(get(a, 0), get(a, 1)), call)),
        "quotient; of whole numbers a whole number, null over 0",
    ),
    Function::new(
        "%",
        TWO,
        Gives::By(modulo_type),
        |a, call| Ok(fit(modulo(get(a, 0), get(a, 1)), call)),
        "remainder, never negative",
    ),
    Function::new(
        "negate",
        &[Want::Any],
        Gives::By(negate_type),
        |a, call| Ok(fit(negate(get(a, 0)), call)),
        "the sign before a value",
    ),
    Function::new(
        "bin",
        TWO,
        Gives::By(bin_type),
        |a, call| Ok(fit(bin(get(a, 0), get(a, 1)), call)),
        "the largest multiple of the second that is not above the first",
    )
    .alias(&["floor"])
    .named_by_first(),
    Function::new(
        "abs",
        &[Want::Any],
        Gives::By(abs_type),
        |a, call| Ok(fit(abs(get(a, 0)), call)),
        "without its sign",
    )
    .named_by_first(),
    Function::new(
        "round",
        &[Want::Number, Want::Integer],
        Gives::First,
        |a, call| Ok(round(a, call)),
        "to so many digits after the point, 0 unless said; halves away from 0",
    )
    .optional(1)
    .named_by_first(),
    Function::new(
        "ceiling",
        &[Want::Number],
        Gives::First,
        |a, _| Ok(ceiling(get(a, 0))),
        "the smallest whole number that is not below",
    )
    .named_by_first(),
];

/// An int stays within 32 bits by wrapping around, a moment that leaves the calendar becomes null.
fn fit(value: Value, call: &Call) -> Value {
    match (value, call.ty) {
        #[expect(clippy::cast_possible_truncation, reason = "an int wraps around, as in Kusto")]
        (Value::Long(long), Type::Int) => Value::Long(i64::from(long as i32)),
        (Value::DateTime(ticks), _) => time::in_range(ticks).map_or(Value::Null, Value::DateTime),
        (value, _) => value,
    }
}

fn plus(a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Long(a), Value::Long(b)) => Value::Long(a.wrapping_add(*b)),
        (Value::DateTime(at), Value::TimeSpan(span)) | (Value::TimeSpan(span), Value::DateTime(at)) => {
            at.checked_add(*span).map_or(Value::Null, Value::DateTime)
        }
        (Value::TimeSpan(a), Value::TimeSpan(b)) => a.checked_add(*b).map_or(Value::Null, Value::TimeSpan),
        (a, b) => real(a, b, |a, b| a + b),
    }
}

fn minus(a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Long(a), Value::Long(b)) => Value::Long(a.wrapping_sub(*b)),
        (Value::DateTime(a), Value::DateTime(b)) => Value::TimeSpan(a.wrapping_sub(*b)),
        (Value::DateTime(at), Value::TimeSpan(span)) => at.checked_sub(*span).map_or(Value::Null, Value::DateTime),
        (Value::TimeSpan(a), Value::TimeSpan(b)) => a.checked_sub(*b).map_or(Value::Null, Value::TimeSpan),
        (a, b) => real(a, b, |a, b| a - b),
    }
}

fn times(a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Long(a), Value::Long(b)) => Value::Long(a.wrapping_mul(*b)),
        (Value::TimeSpan(span), Value::Long(n)) | (Value::Long(n), Value::TimeSpan(span)) => {
            span.checked_mul(*n).map_or(Value::Null, Value::TimeSpan)
        }
        (Value::TimeSpan(span), Value::Real(n)) | (Value::Real(n), Value::TimeSpan(span)) => ticks(as_real(*span) * n),
        (a, b) => real(a, b, |a, b| a * b),
    }
}

fn over(a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Long(a), Value::Long(b)) => a.checked_div(*b).map_or(Value::Null, Value::Long),
        (Value::TimeSpan(a), Value::TimeSpan(b)) => Value::Real(as_real(*a) / as_real(*b)),
        (Value::TimeSpan(span), Value::Long(n)) => span.checked_div(*n).map_or(Value::Null, Value::TimeSpan),
        (Value::TimeSpan(span), Value::Real(n)) => ticks(as_real(*span) / n),
        (a, b) => real(a, b, |a, b| a / b),
    }
}

fn modulo(a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Long(a), Value::Long(b)) => a.checked_rem_euclid(*b).map_or(Value::Null, Value::Long),
        (Value::TimeSpan(a), Value::TimeSpan(b)) => a.checked_rem_euclid(*b).map_or(Value::Null, Value::TimeSpan),
        (a, b) => real(a, b, f64::rem_euclid),
    }
}

fn negate(value: &Value) -> Value {
    match value {
        Value::Long(long) => Value::Long(long.wrapping_neg()),
        Value::Real(real) => Value::Real(-real),
        Value::TimeSpan(ticks) => ticks.checked_neg().map_or(Value::Null, Value::TimeSpan),
        _ => Value::Null,
    }
}

fn abs(value: &Value) -> Value {
    match value {
        Value::Long(long) => Value::Long(long.wrapping_abs()),
        Value::Real(real) => Value::Real(real.abs()),
        Value::TimeSpan(ticks) => ticks.checked_abs().map_or(Value::Null, Value::TimeSpan),
        _ => Value::Null,
    }
}

/// Rounds down to a multiple of the size.
pub(super) fn bin(value: &Value, size: &Value) -> Value {
    let down = |value: i64, size: i64| {
        let rest = value.checked_rem_euclid(size).filter(|_| size > 0)?;
        value.checked_sub(rest)
    };
    match (value, size) {
        (Value::Long(value), Value::Long(size)) => down(*value, *size).map_or(Value::Null, Value::Long),
        (Value::DateTime(at), Value::TimeSpan(size)) => down(*at, *size).map_or(Value::Null, Value::DateTime),
        (Value::TimeSpan(span), Value::TimeSpan(size)) => down(*span, *size).map_or(Value::Null, Value::TimeSpan),
        (value, size) => match (value.as_real(), size.as_real()) {
            (Some(value), Some(size)) if size > 0.0 => Value::Real((value / size).floor() * size),
            _ => Value::Null,
        },
    }
}

fn round(arguments: &[Value], call: &Call) -> Value {
    let digits = super::long(arguments, 1).unwrap_or(0).clamp(-300, 300);
    if let Value::Long(_) = get(arguments, 0)
        && digits >= 0
    {
        return get(arguments, 0).clone();
    }
    let factor = 10_f64.powi(i32::try_from(digits).unwrap_or(0));
    let rounded = get(arguments, 0).as_real().map(|real| (real * factor).round() / factor);
    #[expect(clippy::cast_possible_truncation, reason = "a rounded whole number is a whole number")]
    match rounded {
        Some(real) if call.ty.is_integer() => Value::Long(real as i64),
        Some(real) => Value::Real(real),
        None => Value::Null,
    }
}

fn ceiling(value: &Value) -> Value {
    match value {
        Value::Real(real) => Value::Real(real.ceil()),
        other => other.clone(),
    }
}

fn real(a: &Value, b: &Value, operation: fn(f64, f64) -> f64) -> Value {
    match (a.as_real(), b.as_real()) {
        (Some(a), Some(b)) => Value::Real(operation(a, b)),
        _ => Value::Null,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a span becomes the nearest real")]
fn as_real(ticks: i64) -> f64 {
    ticks as f64
}

fn ticks(real: f64) -> Value {
    time::real_ticks(real).map_or(Value::Null, Value::TimeSpan)
}

fn operands(types: &[Type]) -> (Type, Type) {
    (types.first().copied().unwrap_or(Type::Dynamic), types.get(1).copied().unwrap_or(Type::Dynamic))
}

fn none(types: &[Type], verb: &str) -> Result<Type, String> {
    let (a, b) = operands(types);
    let hint = match a == Type::Dynamic || b == Type::Dynamic {
        true => "; convert the dynamic with tolong(), toreal(), todatetime() or totimespan()",
        false if a == Type::String || b == Type::String => {
            "; strcat() joins strings, tolong() and toreal() convert them"
        }
        false => "",
    };
    Err(format!("{} and {} cannot be {verb}{hint}", a.name(), b.name()))
}

/// Whole numbers give longs, also two ints.
fn sum_type(a: Type, b: Type) -> Type {
    wider(wider(a, b), Type::Long)
}

fn plus_type(types: &[Type]) -> Result<Type, String> {
    match operands(types) {
        (a, b) if a.is_number() && b.is_number() => Ok(sum_type(a, b)),
        (Type::DateTime, Type::TimeSpan) | (Type::TimeSpan, Type::DateTime) => Ok(Type::DateTime),
        (Type::TimeSpan, Type::TimeSpan) => Ok(Type::TimeSpan),
        _ => none(types, "added"),
    }
}

fn minus_type(types: &[Type]) -> Result<Type, String> {
    match operands(types) {
        (a, b) if a.is_number() && b.is_number() => Ok(sum_type(a, b)),
        (Type::DateTime, Type::TimeSpan) => Ok(Type::DateTime),
        (Type::DateTime, Type::DateTime) | (Type::TimeSpan, Type::TimeSpan) => Ok(Type::TimeSpan),
        _ => none(types, "subtracted"),
    }
}

fn times_type(types: &[Type]) -> Result<Type, String> {
    match operands(types) {
        (a, b) if a.is_number() && b.is_number() => Ok(sum_type(a, b)),
        (Type::TimeSpan, n) | (n, Type::TimeSpan) if n.is_number() => Ok(Type::TimeSpan),
        _ => none(types, "multiplied"),
    }
}

fn over_type(types: &[Type]) -> Result<Type, String> {
    match operands(types) {
        (a, b) if a.is_number() && b.is_number() => Ok(sum_type(a, b)),
        (Type::TimeSpan, Type::TimeSpan) => Ok(Type::Real),
        (Type::TimeSpan, n) if n.is_number() => Ok(Type::TimeSpan),
        _ => none(types, "divided"),
    }
}

fn modulo_type(types: &[Type]) -> Result<Type, String> {
    match operands(types) {
        (a, b) if a.is_number() && b.is_number() => Ok(sum_type(a, b)),
        (Type::TimeSpan, Type::TimeSpan) => Ok(Type::TimeSpan),
        _ => none(types, "divided"),
    }
}

fn abs_type(types: &[Type]) -> Result<Type, String> {
    match negate_type(types)? {
        Type::Int => Ok(Type::Long),
        ty => Ok(ty),
    }
}

fn negate_type(types: &[Type]) -> Result<Type, String> {
    match types.first() {
        Some(ty) if ty.is_number() || *ty == Type::TimeSpan => Ok(*ty),
        ty => Err(format!("a {} has no sign", ty.map_or("value", |ty| ty.name()))),
    }
}

fn bin_type(types: &[Type]) -> Result<Type, String> {
    match operands(types) {
        (a, b) if a.is_number() && b.is_number() => Ok(sum_type(a, b)),
        (at @ (Type::DateTime | Type::TimeSpan), Type::TimeSpan) => Ok(at),
        _ => none(types, "put into bins"),
    }
}
