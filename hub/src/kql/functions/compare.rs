//! Comparisons, the word operators on strings, logic and choice.

use std::cmp::Ordering;

use super::{Call, Function, Gives, Prepared, Want, get, regex_of, text};
use crate::kql::Stop;
use crate::kql::text::{Needle, Place, same_folded};
use crate::kql::value::{Type, Value};

const BOOL: Gives = Gives::Just(Type::Bool);
const TWO: &[Want] = &[Want::Any, Want::Any];
const TEXTS: &[Want] = &[Want::Text, Want::Text];

const fn comparison(
    name: &'static str,
    eval: fn(&[Value], &Call) -> Result<Value, Stop>,
    doc: &'static str,
) -> Function {
    Function::new(name, TWO, Gives::By(comparable), eval, doc)
}

const fn ordering(name: &'static str, eval: fn(&[Value], &Call) -> Result<Value, Stop>, doc: &'static str) -> Function {
    Function::new(name, TWO, Gives::By(orderable), eval, doc)
}

macro_rules! place {
    ($name:literal, $place:ident, $fold:literal, $keep:literal, $doc:literal) => {
        Function::new(
            $name,
            TEXTS,
            BOOL,
            |arguments, call| Ok(Value::Bool(search(arguments, call, Place::$place, $fold) == $keep)),
            $doc,
        )
        .prepare(|constants| Ok(needle(constants, $fold)))
    };
}

/// The table of this file.
pub const TABLE: &[Function] = &[
    comparison("==", |a, _| Ok(equal(get(a, 0), get(a, 1))), "equal; null == null is null, null == value is false")
        .sees_null(),
    comparison("!=", |a, _| Ok(negated(&equal(get(a, 0), get(a, 1)))), "the opposite of ==; also written <>")
        .sees_null(),
    ordering("<", |a, _| Ok(ordered(a, Ordering::is_lt)), "less; of numbers, datetimes, timespans and bools"),
    ordering("<=", |a, _| Ok(ordered(a, Ordering::is_le)), "less or equal"),
    ordering(">", |a, _| Ok(ordered(a, Ordering::is_gt)), "greater"),
    ordering(">=", |a, _| Ok(ordered(a, Ordering::is_ge)), "greater or equal"),
    Function::new(
        "=~",
        TEXTS,
        BOOL,
        |a, _| Ok(Value::Bool(same_folded(&text(a, 0), &text(a, 1)))),
        "equal strings, case aside",
    ),
    Function::new(
        "!~",
        TEXTS,
        BOOL,
        |a, _| Ok(Value::Bool(!same_folded(&text(a, 0), &text(a, 1)))),
        "the opposite of =~",
    ),
    Function::new(
        "between",
        &[Want::Any, Want::Any, Want::Any],
        Gives::By(range),
        |a, _| Ok(between(a)),
        "(low .. high), both included; high may be a timespan after low",
    ),
    Function::new(
        "!between",
        &[Want::Any, Want::Any, Want::Any],
        Gives::By(range),
        |a, _| Ok(negated(&between(a))),
        "the opposite of between",
    ),
    place!("contains", Inside, true, true, "has the other string inside, case aside"),
    place!("!contains", Inside, true, false, "the opposite of contains"),
    place!("contains_cs", Inside, false, true, "has the other string inside"),
    place!("!contains_cs", Inside, false, false, "the opposite of contains_cs"),
    place!("startswith", Start, true, true, "starts with the other string, case aside"),
    place!("!startswith", Start, true, false, "the opposite of startswith"),
    place!("startswith_cs", Start, false, true, "starts with the other string"),
    place!("!startswith_cs", Start, false, false, "the opposite of startswith_cs"),
    place!("endswith", End, true, true, "ends with the other string, case aside"),
    place!("!endswith", End, true, false, "the opposite of endswith"),
    place!("endswith_cs", End, false, true, "ends with the other string"),
    place!("!endswith_cs", End, false, false, "the opposite of endswith_cs"),
    place!(
        "has",
        Term,
        true,
        true,
        "has the other string as whole terms, case aside; a term is a longest run of letters and digits"
    ),
    place!("!has", Term, true, false, "the opposite of has"),
    place!("has_cs", Term, false, true, "has the other string as whole terms"),
    place!("!has_cs", Term, false, false, "the opposite of has_cs"),
    place!("hasprefix", TermStart, true, true, "a term starts with the other string, case aside"),
    place!("!hasprefix", TermStart, true, false, "the opposite of hasprefix"),
    place!("hasprefix_cs", TermStart, false, true, "a term starts with the other string"),
    place!("!hasprefix_cs", TermStart, false, false, "the opposite of hasprefix_cs"),
    place!("hassuffix", TermEnd, true, true, "a term ends with the other string, case aside"),
    place!("!hassuffix", TermEnd, true, false, "the opposite of hassuffix"),
    place!("hassuffix_cs", TermEnd, false, true, "a term ends with the other string"),
    place!("!hassuffix_cs", TermEnd, false, false, "the opposite of hassuffix_cs"),
    Function::new(
        "matches regex",
        TEXTS,
        BOOL,
        |a, call| Ok(Value::Bool(is_match(a, call))),
        "has a match of the constant regular expression",
    )
    .prepare(|constants| regex_of(constants.get(1).copied().flatten())),
    Function::new("not", &[Want::Bool], BOOL, |a, _| Ok(negated(get(a, 0))), "the opposite"),
    Function::new(
        "iff",
        &[Want::Bool, Want::Any, Want::Any],
        Gives::By(choice),
        |a, _| Ok(iff(a)),
        "the second when the first is true, else the third",
    )
    .alias(&["iif"])
    .sees_null(),
    Function::new(
        "case",
        &[Want::Bool, Want::Any, Want::Any],
        Gives::By(case_type),
        |a, _| Ok(case(a)),
        "the value after the first true predicate, else the last",
    )
    .rest(Want::Any)
    .sees_null(),
    Function::new(
        "coalesce",
        TWO,
        Gives::By(same_types),
        |a, _| Ok(coalesce(a)),
        "the first that is not null; of strings the first that is not empty",
    )
    .rest(Want::Any)
    .sees_null(),
    Function::new(
        "isnull",
        &[Want::Any],
        BOOL,
        |a, _| Ok(Value::Bool(get(a, 0).is_null())),
        "whether it is null; a string never is",
    )
    .sees_null(),
    Function::new(
        "isnotnull",
        &[Want::Any],
        BOOL,
        |a, _| Ok(Value::Bool(!get(a, 0).is_null())),
        "the opposite of isnull",
    )
    .alias(&["notnull"])
    .sees_null(),
    Function::new(
        "isempty",
        &[Want::Any],
        BOOL,
        |a, _| Ok(Value::Bool(get(a, 0).to_text().is_empty())),
        "whether it is \"\" or null",
    )
    .sees_null(),
    Function::new(
        "isnotempty",
        &[Want::Any],
        BOOL,
        |a, _| Ok(Value::Bool(!get(a, 0).to_text().is_empty())),
        "the opposite of isempty",
    )
    .alias(&["notempty"])
    .sees_null(),
    Function::new(
        "max_of",
        &[Want::Any],
        Gives::By(same_types),
        |a, _| Ok(extreme(a, Ordering::Greater)),
        "the largest argument that is not null",
    )
    .rest(Want::Any)
    .sees_null(),
    Function::new(
        "min_of",
        &[Want::Any],
        Gives::By(same_types),
        |a, _| Ok(extreme(a, Ordering::Less)),
        "the smallest argument that is not null",
    )
    .rest(Want::Any)
    .sees_null(),
];

/// Whether two values are equal in the sense of `==`.
pub(in crate::kql) fn equal(a: &Value, b: &Value) -> Value {
    match (a.is_null(), b.is_null()) {
        (true, true) => Value::Null,
        (false, false) => Value::Bool(a.compare(b) == Some(Ordering::Equal)),
        _ => Value::Bool(false),
    }
}

fn negated(value: &Value) -> Value {
    match value {
        Value::Bool(bool) => Value::Bool(!bool),
        _ => Value::Null,
    }
}

fn ordered(arguments: &[Value], holds: fn(Ordering) -> bool) -> Value {
    Value::Bool(get(arguments, 0).compare(get(arguments, 1)).is_some_and(holds))
}

fn between(arguments: &[Value]) -> Value {
    let (value, low, high) = (get(arguments, 0), get(arguments, 1), get(arguments, 2));
    let high = match (low, high) {
        (Value::DateTime(low), Value::TimeSpan(span)) => Value::DateTime(low.saturating_add(*span)),
        _ => high.clone(),
    };
    let above = value.compare(low).is_some_and(Ordering::is_ge);
    Value::Bool(above && value.compare(&high).is_some_and(Ordering::is_le))
}

fn needle(constants: &[Option<&Value>], fold: bool) -> Prepared {
    match constants.get(1) {
        Some(Some(value)) => Prepared::Needle(Needle::new(&value.to_text(), fold)),
        _ => Prepared::Nothing,
    }
}

fn search(arguments: &[Value], call: &Call, place: Place, fold: bool) -> bool {
    let hay = text(arguments, 0);
    match call.prepared {
        Prepared::Needle(needle) => needle.is_in(&hay, place),
        _ => Needle::new(&text(arguments, 1), fold).is_in(&hay, place),
    }
}

fn is_match(arguments: &[Value], call: &Call) -> bool {
    match call.prepared {
        Prepared::Regex(regex) => regex.is_match(&text(arguments, 0)),
        _ => false,
    }
}

fn iff(arguments: &[Value]) -> Value {
    let chosen = if matches!(get(arguments, 0), Value::Bool(true)) { 1 } else { 2 };
    get(arguments, chosen).clone()
}

fn case(arguments: &[Value]) -> Value {
    let pairs = arguments.chunks_exact(2).find(|pair| matches!(pair, [Value::Bool(true), _]));
    pairs.and_then(|pair| pair.last()).or_else(|| arguments.last()).cloned().unwrap_or(Value::Null)
}

fn coalesce(arguments: &[Value]) -> Value {
    let first =
        arguments.iter().find(|value| !matches!(value, Value::Null) && !matches!(value, Value::Str(s) if s.is_empty()));
    first.or_else(|| arguments.last()).cloned().unwrap_or(Value::Null)
}

fn extreme(arguments: &[Value], wanted: Ordering) -> Value {
    let mut best = Value::Null;
    for value in arguments.iter().filter(|value| !value.is_null()) {
        if best.is_null() || value.compare(&best) == Some(wanted) {
            best = value.clone();
        }
    }
    best
}

/// Two types that may be compared.
pub(in crate::kql) fn comparable(types: &[Type]) -> Result<Type, String> {
    let (Some(a), Some(b)) = (types.first(), types.get(1)) else { return Ok(Type::Bool) };
    let same = a == b || (a.is_number() && b.is_number()) || *a == Type::Dynamic || *b == Type::Dynamic;
    if same {
        return Ok(Type::Bool);
    }
    Err(format!(
        "{} and {} cannot be compared; convert one with to{}() or to{}()",
        a.name(),
        b.name(),
        a.name(),
        b.name()
    ))
}

/// Two types of which one value may be less than the other.
fn orderable(types: &[Type]) -> Result<Type, String> {
    match types.iter().find(|ty| matches!(ty, Type::String | Type::Guid)) {
        Some(ty) if types.iter().all(|other| other == ty || *other == Type::Dynamic) => {
            Err(format!("a {} is neither less nor greater; strcmp() compares strings", ty.name()))
        }
        _ => comparable(types),
    }
}

fn range(types: &[Type]) -> Result<Type, String> {
    let (Some(value), Some(low), Some(high)) = (types.first(), types.get(1), types.get(2)) else {
        return Ok(Type::Bool);
    };
    orderable(&[*value, *low])?;
    if *low == Type::DateTime && *high == Type::TimeSpan { Ok(Type::Bool) } else { orderable(&[*value, *high]) }
}

/// The type all arguments have in common.
pub(in crate::kql) fn same_types(types: &[Type]) -> Result<Type, String> {
    let mut common = types.first().copied().unwrap_or(Type::Dynamic);
    for ty in types.iter().skip(1) {
        common = match (common, *ty) {
            (a, b) if a == b => a,
            (a, b) if a.is_number() && b.is_number() => wider(a, b),
            (a, b) => return Err(format!("{} and {} have no type in common; convert one of them", a.name(), b.name())),
        };
    }
    Ok(common)
}

/// The wider of two types of numbers.
pub(super) fn wider(a: Type, b: Type) -> Type {
    match (a, b) {
        (Type::Real, _) | (_, Type::Real) => Type::Real,
        (Type::Long, _) | (_, Type::Long) => Type::Long,
        _ => Type::Int,
    }
}

fn choice(types: &[Type]) -> Result<Type, String> {
    same_types(types.get(1..).unwrap_or(&[]))
}

fn case_type(types: &[Type]) -> Result<Type, String> {
    if types.len().is_multiple_of(2) {
        return Err("case() takes predicates and values in turn, and one last value".to_owned());
    }
    let pairs = types.len() - 1;
    let predicates = types.iter().take(pairs).step_by(2);
    if predicates.clone().any(|ty| *ty != Type::Bool) {
        return Err("the predicates of case() have to be bools".to_owned());
    }
    let mut values: Vec<_> = types.iter().take(pairs).skip(1).step_by(2).copied().collect();
    values.extend(types.last());
    same_types(&values)
}
