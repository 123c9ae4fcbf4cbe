//! The one table of aggregates. Nulls are ignored, but by `count()` and, when there is nothing else, `arg_max`.

use std::collections::HashSet;

use serde_json::Value as Json;

use super::Stop;
use super::functions::Want;
use super::value::{Type, Value};

/// An aggregate.
#[derive(Debug)]
pub struct Aggregate {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub parameters: &'static [Want],
    /// How many of the last parameters may be left out.
    pub optional: usize,
    /// The type of the result.
    pub gives: fn(&[Type]) -> Result<Type, String>,
    /// The start of the name of a column it makes; with `_` and the name of its argument.
    pub prefix: &'static str,
    /// What it does.
    pub kind: Kind,
    /// One line for the documentation.
    pub doc: &'static str,
}

/// What an aggregate does with the values of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counts rows.
    Count,
    /// Counts rows for which the argument is true.
    CountIf,
    /// Counts different values; with a second argument only rows where it is true.
    Distinct,
    /// The sum.
    Sum,
    /// The mean.
    Average,
    /// The smallest or largest.
    Extreme(std::cmp::Ordering),
    /// The values as an array, so many at most.
    List(usize),
    /// The different values as an array, so many at most.
    Set(usize),
    /// The first value.
    First,
    /// Of the row with the smallest or largest first argument.
    ArgExtreme(std::cmp::Ordering),
}

/// `make_set` and `make_list` keep so many values.
const NEW_MAX: usize = 1_048_576;
/// `makeset` and `makelist`, the old spellings, keep so many.
const OLD_MAX: usize = 128;

const fn aggregate(
    name: &'static str,
    parameters: &'static [Want],
    gives: fn(&[Type]) -> Result<Type, String>,
    prefix: &'static str,
    kind: Kind,
    doc: &'static str,
) -> Aggregate {
    Aggregate { name, parameters, optional: 0, gives, prefix, kind, doc }
}

impl Aggregate {
    const fn optional(mut self, optional: usize) -> Aggregate {
        self.optional = optional;
        self
    }
}

use std::cmp::Ordering::{Greater, Less};

/// The table.
pub const ALL: &[Aggregate] = &[
    aggregate("count", &[Want::Any], |_| Ok(Type::Long), "count", Kind::Count, "how many rows, whatever its argument")
        .optional(1),
    aggregate(
        "countif",
        &[Want::Bool],
        |_| Ok(Type::Long),
        "countif",
        Kind::CountIf,
        "for how many rows the predicate is true",
    ),
    aggregate(
        "dcount",
        &[Want::Any, Want::Integer],
        |_| Ok(Type::Long),
        "dcount",
        Kind::Distinct,
        "how many different values; exact, whatever the accuracy asked for",
    )
    .optional(1),
    aggregate("count_distinct", &[Want::Any], |_| Ok(Type::Long), "count_distinct", Kind::Distinct, "dcount"),
    aggregate(
        "dcountif",
        &[Want::Any, Want::Bool, Want::Integer],
        |_| Ok(Type::Long),
        "dcountif",
        Kind::Distinct,
        "how many different values in rows for which the predicate is true",
    )
    .optional(1),
    aggregate("sum", &[Want::Any], sum_type, "sum", Kind::Sum, "the sum of numbers or timespans, 0 of none"),
    aggregate(
        "sumif",
        &[Want::Any, Want::Bool],
        sum_type,
        "sumif",
        Kind::Sum,
        "the sum in rows for which the predicate is true",
    ),
    aggregate(
        "avg",
        &[Want::Any],
        average_type,
        "avg",
        Kind::Average,
        "the mean of numbers or timespans; of none NaN, or null for timespans",
    ),
    aggregate("min", &[Want::Any], first_type, "min", Kind::Extreme(Less), "the smallest value, null of none"),
    aggregate("max", &[Want::Any], first_type, "max", Kind::Extreme(Greater), "the largest value, null of none"),
    aggregate(
        "arg_min",
        &[Want::Any],
        first_type,
        "",
        Kind::ArgExtreme(Less),
        "the smallest value and columns of its row; `*` for all",
    ),
    aggregate(
        "arg_max",
        &[Want::Any],
        first_type,
        "",
        Kind::ArgExtreme(Greater),
        "the largest value and columns of its row; `*` for all",
    ),
    aggregate(
        "make_set",
        &[Want::Any, Want::Integer],
        |_| Ok(Type::Dynamic),
        "set",
        Kind::Set(NEW_MAX),
        "the different values as an array, at most 1,048,576; of arrays their items",
    )
    .optional(1),
    aggregate(
        "makeset",
        &[Want::Any, Want::Integer],
        |_| Ok(Type::Dynamic),
        "set",
        Kind::Set(OLD_MAX),
        "make_set with at most 128 values unless said",
    )
    .optional(1),
    aggregate(
        "make_list",
        &[Want::Any, Want::Integer],
        |_| Ok(Type::Dynamic),
        "list",
        Kind::List(NEW_MAX),
        "the values as an array, at most 1,048,576",
    )
    .optional(1),
    aggregate(
        "makelist",
        &[Want::Any, Want::Integer],
        |_| Ok(Type::Dynamic),
        "list",
        Kind::List(OLD_MAX),
        "make_list with at most 128 values unless said",
    )
    .optional(1),
    aggregate("take_any", &[Want::Any], first_type, "", Kind::First, "some value; here the first that is not null"),
    aggregate("any", &[Want::Any], first_type, "any", Kind::First, "take_any"),
];

/// By name.
pub fn find(name: &str) -> Option<&'static Aggregate> {
    ALL.iter().find(|aggregate| aggregate.name == name)
}

fn first_type(types: &[Type]) -> Result<Type, String> {
    Ok(types.first().copied().unwrap_or(Type::Dynamic))
}

fn sum_type(types: &[Type]) -> Result<Type, String> {
    match types.first() {
        Some(Type::Int | Type::Long) => Ok(Type::Long),
        Some(ty @ (Type::Real | Type::TimeSpan)) => Ok(*ty),
        ty => Err(format!("a {} has no sum", ty.map_or("value", |ty| ty.name()))),
    }
}

fn average_type(types: &[Type]) -> Result<Type, String> {
    match types.first() {
        Some(ty) if ty.is_number() => Ok(Type::Real),
        Some(Type::TimeSpan) => Ok(Type::TimeSpan),
        ty => Err(format!("a {} has no mean", ty.map_or("value", |ty| ty.name()))),
    }
}

/// What an aggregate knows of the rows of a group so far.
#[derive(Debug)]
pub enum State {
    /// A number of rows.
    Count(i64),
    /// Different values.
    Distinct(HashSet<Value>),
    /// Values in order, and those that are there already when they have to differ.
    Array { seen: Option<HashSet<Value>>, items: Vec<Json>, max: usize },
    /// A sum and how many.
    Sum { long: i64, real: f64, rows: i64, ty: Type, mean: bool },
    /// A row; the first value decides.
    Row { best: Option<Vec<Value>>, wanted: Option<std::cmp::Ordering> },
}

impl State {
    /// Nothing yet. `ty` is the type of the result, `max` a limit that was given.
    pub fn new(kind: Kind, ty: Type, max: Option<usize>) -> State {
        match kind {
            Kind::Count | Kind::CountIf => State::Count(0),
            Kind::Distinct => State::Distinct(HashSet::new()),
            Kind::Sum | Kind::Average => State::Sum { long: 0, real: 0.0, rows: 0, ty, mean: kind == Kind::Average },
            Kind::Extreme(wanted) | Kind::ArgExtreme(wanted) => State::Row { best: None, wanted: Some(wanted) },
            Kind::First => State::Row { best: None, wanted: None },
            Kind::List(default) => State::Array { seen: None, items: Vec::new(), max: max.unwrap_or(default) },
            Kind::Set(default) => {
                State::Array { seen: Some(HashSet::new()), items: Vec::new(), max: max.unwrap_or(default) }
            }
        }
    }

    /// Takes the arguments of a row; gives how many bytes more are kept.
    pub fn add(&mut self, kind: Kind, arguments: &[Value]) -> usize {
        let first = arguments.first().unwrap_or(&Value::Null);
        // A second argument that is a bool is the predicate of an aggregate with "if" in its name.
        let left_out = match kind {
            Kind::Distinct | Kind::Sum => matches!(arguments.get(1), Some(Value::Bool(false) | Value::Null)),
            Kind::CountIf => !matches!(first, Value::Bool(true)),
            _ => false,
        };
        let sees_null = matches!(kind, Kind::Count | Kind::ArgExtreme(_));
        if left_out || (first.is_null() && !sees_null) {
            return 0;
        }
        match self {
            State::Count(rows) => {
                *rows += 1;
                0
            }
            State::Distinct(seen) => {
                if seen.contains(first) {
                    return 0;
                }
                seen.insert(first.clone());
                first.weight() + 16
            }
            State::Array { seen, items, max } => push(seen, items, *max, first),
            State::Sum { long, real, rows, .. } => {
                *rows += 1;
                match first {
                    Value::Long(n) | Value::TimeSpan(n) => *long = long.wrapping_add(*n),
                    other => *real += other.as_real().unwrap_or(0.0),
                }
                0
            }
            State::Row { best, wanted } => keep(best, *wanted, arguments),
        }
    }

    /// The values of the result, one for each column it makes.
    pub fn finish(self, out: &mut Vec<Value>, columns: usize) -> Result<(), Stop> {
        match self {
            State::Count(rows) => out.push(Value::Long(rows)),
            State::Distinct(seen) => out.push(Value::Long(i64::try_from(seen.len()).unwrap_or(i64::MAX))),
            State::Array { items, .. } => out.push(Value::dynamic(Json::Array(items))),
            State::Sum { long, real, rows, ty, mean } => out.push(total(long, real, rows, ty, mean)),
            State::Row { best, .. } => {
                let mut row = best.unwrap_or_default();
                row.resize(columns, Value::Null);
                out.append(&mut row);
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a mean is a real")]
fn total(long: i64, real: f64, rows: i64, ty: Type, mean: bool) -> Value {
    match ty {
        Type::TimeSpan if mean => long.checked_div(rows).map_or(Value::Null, Value::TimeSpan),
        Type::TimeSpan => Value::TimeSpan(long),
        _ if mean => Value::Real((long as f64 + real) / rows as f64),
        Type::Real => Value::Real(real),
        _ => Value::Long(long),
    }
}

/// Of an array a set takes the items, as Kusto does.
fn push(seen: &mut Option<HashSet<Value>>, items: &mut Vec<Json>, max: usize, value: &Value) -> usize {
    if let (Some(_), Value::Dynamic(json)) = (&seen, value)
        && let Some(inner) = json.as_array()
    {
        let inner = inner.iter().filter(|item| !item.is_null());
        return inner.map(|item| push_one(seen, items, max, &Value::dynamic(item.clone()))).sum();
    }
    push_one(seen, items, max, value)
}

fn push_one(seen: &mut Option<HashSet<Value>>, items: &mut Vec<Json>, max: usize, value: &Value) -> usize {
    if items.len() >= max {
        return 0;
    }
    if seen.as_mut().is_some_and(|seen| !seen.insert(value.clone())) {
        return 0;
    }
    items.push(value.to_json());
    value.weight() * 2 + 32
}

fn keep(best: &mut Option<Vec<Value>>, wanted: Option<std::cmp::Ordering>, arguments: &[Value]) -> usize {
    let first = arguments.first().unwrap_or(&Value::Null);
    let Some(row) = best else {
        *best = Some(arguments.to_vec());
        return arguments.iter().map(Value::weight).sum();
    };
    // A null is better than nothing, and nothing else.
    let beats = |best: &Value, wanted| !first.is_null() && (best.is_null() || first.order(best) == wanted);
    let better = wanted.is_some_and(|wanted| row.first().is_some_and(|best| beats(best, wanted)));
    if !better {
        return 0;
    }
    let weight = |row: &[Value]| row.iter().map(Value::weight).sum::<usize>();
    let before = weight(row);
    row.clear();
    row.extend_from_slice(arguments);
    weight(row).saturating_sub(before)
}
