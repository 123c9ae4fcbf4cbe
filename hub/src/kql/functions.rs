//! The one table of functions and of operators between values: names, types, what they do, one line each.
//!
//! An entry says how its result's type follows from its arguments, so that a query is checked before it runs. Unless an
//! entry says `sees_null`, a null argument gives null (a string is never null: then "").

mod compare;
mod convert;
mod dynamic;
mod math;
mod strings;
mod times;

use std::cell::RefCell;
use std::sync::Arc;

use regex::Regex;

use super::Stop;
use super::json;
use super::text::Needle;
use super::value::{Type, Value};

/// A function or an operator between values.
#[derive(Debug)]
pub struct Function {
    /// Its name, or its sign.
    pub name: &'static str,
    /// Other spellings.
    pub aliases: &'static [&'static str],
    /// What it takes.
    pub parameters: &'static [Want],
    /// How many of the last parameters may be left out.
    pub optional: usize,
    /// What may follow, any number of times.
    pub rest: Option<Want>,
    /// The type of the result.
    pub gives: Gives,
    /// Whether it is called with nulls.
    pub sees_null: bool,
    /// How a column it makes is named when nobody names it.
    pub naming: Naming,
    /// What can be made of constant arguments beforehand.
    pub prepare: Option<Prepare>,
    /// What it does.
    pub eval: fn(&[Value], &Call) -> Result<Value, Stop>,
    /// One line for the documentation.
    pub doc: &'static str,
}

/// Makes something of the arguments that are constants; the others are none.
pub type Prepare = fn(&[Option<&Value>]) -> Result<Prepared, String>;

/// The name of a column that was given none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Column1, Column2, ...
    Numbered,
    /// That of the first argument.
    First,
    /// The same with something and `_` before it.
    After(&'static str),
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Anything.
    Any,
    /// A string; a dynamic is taken as its text.
    Text,
    /// A bool.
    Bool,
    /// int, long, real.
    Number,
    /// int, long.
    Integer,
    /// A datetime.
    DateTime,
    /// A timespan.
    TimeSpan,
    /// A dynamic.
    Dynamic,
    /// `typeof(...)`
    TypeOf,
}

/// The type of a result.
#[derive(Clone, Copy, Debug)]
pub enum Gives {
    /// Always this one.
    Just(Type),
    /// That of the first argument.
    First,
    /// It depends, and may be none.
    By(fn(&[Type]) -> Result<Type, String>),
    /// That of the last argument when it is a `typeof`, else the type.
    TypeOf(Type),
}

/// What was made of constant arguments.
#[derive(Clone, Debug, Default)]
pub enum Prepared {
    /// Nothing.
    #[default]
    Nothing,
    /// A path of `extractjson`.
    Path(json::Path),
    /// A regular expression.
    Regex(Regex),
    /// A regular expression for the start of a text, and one for the end.
    Ends(Regex, Regex),
    /// Text to search for.
    Needle(Needle),
}

/// What a query shares while it runs.
#[derive(Debug)]
pub struct Env {
    /// `now()`
    pub now: i64,
    /// The JSON that was read last.
    pub json: RefCell<json::Cache>,
}

impl Env {
    /// At a moment.
    pub fn new(now: i64) -> Env {
        Env { now, json: RefCell::default() }
    }
}

/// The circumstances of a call.
#[derive(Debug)]
pub struct Call<'a> {
    /// What the query shares.
    pub env: &'a Env,
    /// The type of the result.
    pub ty: Type,
    /// See [`Prepared`].
    pub prepared: &'a Prepared,
}

/// The largest string or dynamic that a function may make, that of Kusto.
pub const MAX_BYTES: usize = 1 << 20;

/// How large a compiled regular expression may become.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Function> {
    [compare::TABLE, math::TABLE, strings::TABLE, convert::TABLE, times::TABLE, dynamic::TABLE].into_iter().flatten()
}

/// By name.
pub fn find(name: &str) -> Option<&'static Function> {
    all().find(|function| function.name == name || function.aliases.contains(&name))
}

/// What is refused by name, and what comes nearest.
pub const REFUSED: &[(&str, &str)] = &[
    ("row_number", "top and sort are the nearest"),
    ("prev", "arg_max() and arg_min() are the nearest"),
    ("next", "arg_max() and arg_min() are the nearest"),
    ("parse_xml", "extract() is the nearest"),
    ("parse_url", "extract() is the nearest"),
    ("parse_path", "split() is the nearest"),
    ("parse_csv", "split() is the nearest"),
    ("parse_ipv4", "startswith is the nearest"),
    ("ipv4_is_private", "matches regex is the nearest"),
    ("ipv4_is_in_range", "startswith is the nearest"),
    ("todecimal", "toreal() is the nearest"),
    ("replace", "replace_string() is the nearest"),
    ("replace_regex", "replace_string() and extract() are the nearest"),
    ("iso8601", "format_datetime() is the nearest"),
    ("dayofweek", "startofweek() is the nearest"),
    ("hourofday", "datetime_part() is the nearest"),
    ("datetime_local_to_utc", "datetime_add() is the nearest"),
    ("datetime_utc_to_local", "datetime_add() is the nearest"),
    ("percentile", "avg(), min() and max() are the nearest"),
    ("percentiles", "avg(), min() and max() are the nearest"),
    ("stdev", "avg(), min() and max() are the nearest"),
    ("variance", "avg(), min() and max() are the nearest"),
    ("hll", "dcount() is the nearest"),
    ("argmax", "arg_max() is the nearest"),
    ("argmin", "arg_min() is the nearest"),
    ("make_bag", "make_list() is the nearest"),
    ("extract_all", "extract() is the nearest"),
    ("column_ifexists", "the columns of a table are fixed; name one that is there"),
];

/// The sentence for a function that is not there.
pub fn refusal(name: &str) -> String {
    match REFUSED.iter().find(|(refused, _)| *refused == name) {
        Some((_, nearest)) => format!("{name}() is not supported here; {nearest}"),
        None => format!("{name}() is no function here; docs/kql.md lists all there are"),
    }
}

impl Function {
    const fn new(
        name: &'static str,
        parameters: &'static [Want],
        gives: Gives,
        eval: fn(&[Value], &Call) -> Result<Value, Stop>,
        doc: &'static str,
    ) -> Function {
        Function {
            name,
            aliases: &[],
            parameters,
            optional: 0,
            rest: None,
            gives,
            sees_null: false,
            naming: Naming::Numbered,
            prepare: None,
            eval,
            doc,
        }
    }

    const fn alias(mut self, aliases: &'static [&'static str]) -> Function {
        self.aliases = aliases;
        self
    }

    const fn optional(mut self, optional: usize) -> Function {
        self.optional = optional;
        self
    }

    const fn rest(mut self, rest: Want) -> Function {
        self.rest = Some(rest);
        self
    }

    const fn sees_null(mut self) -> Function {
        self.sees_null = true;
        self
    }

    const fn named_by_first(mut self) -> Function {
        self.naming = Naming::First;
        self
    }

    const fn named_after(mut self, prefix: &'static str) -> Function {
        self.naming = Naming::After(prefix);
        self
    }

    const fn prepare(mut self, prepare: Prepare) -> Function {
        self.prepare = Some(prepare);
        self
    }

    /// What the argument at this place has to be; `None` when there is none.
    pub fn want(&self, index: usize) -> Option<Want> {
        self.parameters.get(index).copied().or(self.rest)
    }
}

impl Want {
    /// Whether an argument of the type will do.
    pub fn takes(self, ty: Type) -> bool {
        match self {
            Want::Any => true,
            Want::Text => matches!(ty, Type::String | Type::Dynamic),
            Want::Bool => ty == Type::Bool,
            Want::Number => ty.is_number(),
            Want::Integer => ty.is_integer(),
            Want::DateTime => ty == Type::DateTime,
            Want::TimeSpan => ty == Type::TimeSpan,
            Want::Dynamic => ty == Type::Dynamic,
            Want::TypeOf => false,
        }
    }

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Want::Any => "a value",
            Want::Text => "a string",
            Want::Bool => "a bool",
            Want::Number => "a number",
            Want::Integer => "an int or a long",
            Want::DateTime => "a datetime",
            Want::TimeSpan => "a timespan",
            Want::Dynamic => "a dynamic",
            Want::TypeOf => "typeof(...)",
        }
    }
}

/// An argument's text; a dynamic is taken as its text.
fn text(arguments: &[Value], index: usize) -> Arc<str> {
    match arguments.get(index) {
        Some(Value::Str(text)) => text.clone(),
        Some(value) => value.to_text(),
        None => Arc::from(""),
    }
}

/// An argument that is a whole number.
fn long(arguments: &[Value], index: usize) -> Option<i64> {
    match arguments.get(index) {
        Some(Value::Long(long)) => Some(*long),
        _ => None,
    }
}

fn get(arguments: &[Value], index: usize) -> &Value {
    arguments.get(index).unwrap_or(&Value::Null)
}

fn string(text: impl Into<Arc<str>>) -> Result<Value, Stop> {
    Ok(Value::Str(text.into()))
}

/// Compiles a constant pattern.
fn regex_of(pattern: Option<&Value>) -> Result<Prepared, String> {
    let Some(pattern) = pattern else {
        return Err("the regular expression has to be a constant here".to_owned());
    };
    let compiled = regex::RegexBuilder::new(&pattern.to_text()).size_limit(MAX_REGEX_BYTES).build();
    compiled.map(Prepared::Regex).map_err(|error| {
        let last = error.to_string();
        format!("the regular expression is not understood: {}", last.lines().last().unwrap_or("").trim())
    })
}

/// A constant as a type, for parameters.
pub fn convert_constant(value: &Value, to: Type, env: &Env) -> Value {
    convert::convert(value, to, env)
}

/// Whether two types may be compared, for what is no function.
pub fn comparable(types: &[Type]) -> Result<Type, String> {
    compare::comparable(types)
}

/// `==`, for what is no function.
pub fn equal(a: &Value, b: &Value) -> Value {
    compare::equal(a, b)
}
