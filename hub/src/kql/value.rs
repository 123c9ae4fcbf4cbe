//! Values and types: what a cell may hold, how two cells compare, and how a cell reads as text and as JSON.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::Value as Json;
use uuid::Uuid;

use super::time;

/// The static type of a column or an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `true`, `false` or null.
    Bool,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// A double.
    Real,
    /// Text; never null.
    String,
    /// Ticks of 100 ns since the year 1.
    DateTime,
    /// Ticks of 100 ns.
    TimeSpan,
    /// A JSON value.
    Dynamic,
    /// 128 bits.
    Guid,
}

impl Type {
    /// The type a query names; several have two names.
    pub fn named(name: &str) -> Option<Type> {
        Some(match name {
            "bool" | "boolean" => Type::Bool,
            "int" => Type::Int,
            "long" => Type::Long,
            "real" | "double" => Type::Real,
            "string" => Type::String,
            "datetime" | "date" => Type::DateTime,
            "timespan" | "time" => Type::TimeSpan,
            "dynamic" => Type::Dynamic,
            "guid" | "uniqueid" => Type::Guid,
            _ => return None,
        })
    }

    /// Its name in messages and in the names of columns.
    pub fn name(self) -> &'static str {
        match self {
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Long => "long",
            Type::Real => "real",
            Type::String => "string",
            Type::DateTime => "datetime",
            Type::TimeSpan => "timespan",
            Type::Dynamic => "dynamic",
            Type::Guid => "guid",
        }
    }

    /// Whether it counts.
    pub fn is_number(self) -> bool {
        matches!(self, Type::Int | Type::Long | Type::Real)
    }

    /// Whether it counts in whole numbers.
    pub fn is_integer(self) -> bool {
        matches!(self, Type::Int | Type::Long)
    }

    /// What stands for a missing value of this type: strings are never null.
    pub fn missing(self) -> Value {
        if self == Type::String { Value::text("") } else { Value::Null }
    }
}

/// A cell. `int` and `long` share [`Value::Long`]; the static type tells them apart.
#[derive(Clone, Debug)]
pub enum Value {
    /// No value; of every type but string.
    Null,
    /// A bool.
    Bool(bool),
    /// An int or a long.
    Long(i64),
    /// A real.
    Real(f64),
    /// A string, shared.
    Str(Arc<str>),
    /// Ticks since 0001-01-01T00:00:00Z.
    DateTime(i64),
    /// Ticks.
    TimeSpan(i64),
    /// A guid.
    Guid(Uuid),
    /// A JSON value, shared; never the JSON null, which is [`Value::Null`].
    Dynamic(Arc<Json>),
}

impl Value {
    /// A string.
    pub fn text(text: &str) -> Value {
        Value::Str(Arc::from(text))
    }

    /// A JSON value, or null.
    pub fn dynamic(json: Json) -> Value {
        if json.is_null() { Value::Null } else { Value::Dynamic(Arc::new(json)) }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The bytes it takes, roughly and rather too many: shared text counts each time.
    pub fn weight(&self) -> usize {
        let own = size_of::<Value>();
        match self {
            Value::Str(text) => own + text.len() + 16,
            Value::Dynamic(json) => own + json_weight(json),
            _ => own,
        }
    }

    /// A dynamic that holds a scalar as that scalar; everything else as it is.
    pub fn unwrapped(&self) -> Value {
        let Value::Dynamic(json) = self else { return self.clone() };
        match json.as_ref() {
            Json::String(text) => Value::text(text),
            Json::Bool(bool) => Value::Bool(*bool),
            Json::Number(number) => match number.as_i64() {
                Some(long) => Value::Long(long),
                None => Value::Real(number.as_f64().unwrap_or(f64::NAN)),
            },
            _ => self.clone(),
        }
    }

    /// As a real, when it is a number.
    pub fn as_real(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "a long becomes the nearest real, as in Kusto")]
            Value::Long(long) => Some(*long as f64),
            Value::Real(real) => Some(*real),
            _ => None,
        }
    }

    /// How `tostring` shows it; null is empty.
    pub fn to_text(&self) -> Arc<str> {
        match self {
            Value::Null => Arc::from(""),
            Value::Bool(bool) => Arc::from(if *bool { "true" } else { "false" }),
            Value::Long(long) => Arc::from(long.to_string()),
            Value::Real(real) => Arc::from(real_text(*real)),
            Value::Str(text) => text.clone(),
            Value::DateTime(ticks) => Arc::from(time::format_datetime(*ticks)),
            Value::TimeSpan(ticks) => Arc::from(time::format_timespan(*ticks)),
            Value::Guid(guid) => Arc::from(guid.to_string()),
            Value::Dynamic(json) => match json.as_ref() {
                Json::String(text) => Arc::from(text.as_str()),
                json => Arc::from(json.to_string()),
            },
        }
    }

    /// As JSON: what JSON does not know becomes a string.
    pub fn to_json(&self) -> Json {
        match self {
            Value::Null => Json::Null,
            Value::Bool(bool) => Json::Bool(*bool),
            Value::Long(long) => Json::from(*long),
            Value::Real(real) if real.is_finite() => Json::from(*real),
            Value::Dynamic(json) => json.as_ref().clone(),
            other => Json::String(other.to_text().to_string()),
        }
    }

    /// The order of two values of one type, numbers across types; `None` when there is none.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Long(a), Value::Long(b))
            | (Value::DateTime(a), Value::DateTime(b))
            | (Value::TimeSpan(a), Value::TimeSpan(b)) => Some(a.cmp(b)),
            (Value::Str(a), Value::Str(b)) => Some(a.cmp(b)),
            (Value::Guid(a), Value::Guid(b)) => Some(a.cmp(b)),
            (Value::Dynamic(a), Value::Dynamic(b)) if !is_scalar(a) && !is_scalar(b) => {
                if a == b {
                    Some(Ordering::Equal)
                } else {
                    Some(a.to_string().cmp(&b.to_string()))
                }
            }
            (Value::Dynamic(json), _) | (_, Value::Dynamic(json)) if is_scalar(json) => {
                self.unwrapped().compare(&other.unwrapped())
            }
            (a, b) => a.as_real()?.partial_cmp(&b.as_real()?),
        }
    }

    /// A total order for sorting: nulls first, then by type and value.
    pub fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Less,
            (_, Value::Null) => Ordering::Greater,
            (Value::Real(a), Value::Real(b)) => a.total_cmp(b),
            (a, b) => a.compare(b).unwrap_or_else(|| a.rank().cmp(&b.rank())),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Long(_) | Value::Real(_) => 2,
            Value::TimeSpan(_) => 3,
            Value::DateTime(_) => 4,
            Value::Guid(_) => 5,
            Value::Str(_) => 6,
            Value::Dynamic(_) => 7,
        }
    }
}

fn is_scalar(json: &Json) -> bool {
    !json.is_array() && !json.is_object()
}

fn real_text(real: f64) -> String {
    if real.is_finite() { format!("{real:?}") } else { format!("{real}") }
}

fn json_weight(json: &Json) -> usize {
    let own = size_of::<Json>();
    match json {
        Json::String(text) => own + text.len(),
        Json::Array(items) => own + items.iter().map(json_weight).sum::<usize>(),
        Json::Object(members) => own + members.iter().map(|(k, v)| k.len() + 64 + json_weight(v)).sum::<usize>(),
        _ => own,
    }
}

/// Equality of group keys and join keys, where null equals null; not that of `==`.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Str(a), Value::Str(b)) => Arc::ptr_eq(a, b) || a == b,
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Long(a), Value::Long(b))
            | (Value::DateTime(a), Value::DateTime(b))
            | (Value::TimeSpan(a), Value::TimeSpan(b)) => a == b,
            (Value::Real(a), Value::Real(b)) => real_bits(*a) == real_bits(*b),
            (Value::Guid(a), Value::Guid(b)) => a == b,
            (Value::Dynamic(a), Value::Dynamic(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Value::Null => 0_u8.hash(state),
            Value::Bool(bool) => bool.hash(state),
            Value::Long(ticks) | Value::DateTime(ticks) | Value::TimeSpan(ticks) => ticks.hash(state),
            Value::Real(real) => real_bits(*real).hash(state),
            Value::Str(text) => text.hash(state),
            Value::Guid(guid) => guid.hash(state),
            Value::Dynamic(json) => json.to_string().hash(state),
        }
    }
}

/// One pattern for all zeros and one for all NaNs.
fn real_bits(real: f64) -> u64 {
    if real == 0.0 {
        0
    } else if real.is_nan() {
        f64::NAN.to_bits()
    } else {
        real.to_bits()
    }
}
