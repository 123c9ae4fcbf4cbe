//! Questions in the Kusto Query Language, answered from the store: what an investigator of one device types, and no more.
//!
//! ```text
//!  text ─▶ lexer ─▶ parser ─▶ bind ──────▶ plan ──────────────▶ run
//!          tokens   syntax    names, types  filters and columns  rows are pushed from the source to the visitor;
//!                             functions     pushed to the source only summarize, sort, distinct and the right
//!                             aggregates                         side of a join are kept, within a budget
//! ```
//!
//! The language is a subset: `operators::KNOWN`, `functions::all` and `aggregates::ALL` are all there is, docs/kql.md
//! lists them, and everything else is refused by name with its place. What is there behaves as Microsoft documents it
//! (learn.microsoft.com/kusto/query); differences are named in docs/kql.md.

pub mod aggregates;
mod bind;
pub mod functions;
mod json;
mod lexer;
pub mod operators;
mod parser;
mod plan;
mod run;
mod syntax;
mod text;
pub mod time;
pub mod value;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use value::{Type, Value};

/// A column of a table or of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Arc<str>,
    /// Its type.
    pub ty: Type,
}

impl Column {
    /// A column.
    pub fn new(name: &str, ty: Type) -> Column {
        Column { name: Arc::from(name), ty }
    }
}

/// Which tables there are.
pub trait Schema {
    /// The columns of a table.
    fn columns(&self, table: &str) -> Option<Vec<Column>>;
    /// The names of all tables, for messages.
    fn tables(&self) -> Vec<String>;
}

/// Where rows come from.
pub trait Source {
    /// Shows the rows of a table to `visit` until it returns `false`. Every row has all columns of the table; one that is
    /// not `needed` may be null. Rows that a filter excludes need not be shown, and may be.
    ///
    /// # Errors
    ///
    /// What `visit` returned, or why the source cannot be read.
    fn scan(&self, scan: &Scan, visit: &mut dyn FnMut(&[Value]) -> Result<bool, Stop>) -> Result<(), Stop>;
}

/// What is asked of a source.
#[derive(Debug)]
pub struct Scan<'a> {
    /// The table.
    pub table: &'a str,
    /// For each column whether the query looks at it.
    pub needed: &'a [bool],
    /// All of them must hold.
    pub filters: &'a [Filter],
}

/// A comparison of a column with a constant that the source may use to find rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Number of the column.
    pub column: usize,
    /// How it compares.
    pub compare: Compare,
    /// Never null.
    pub value: Value,
}

/// How a filter compares a column with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `==`
    Equal,
    /// `>=`
    AtLeast,
    /// `>`
    Above,
    /// `<=`
    AtMost,
    /// `<`
    Below,
    /// `in`; the value is an array of strings.
    OneOf,
}

/// What is wrong with a query, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// A sentence without its place.
    pub message: String,
}

impl Fault {
    fn at(text: &str, at: usize, message: impl Into<String>) -> Fault {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Fault {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).map_or(0, |line| line.chars().count()) + 1,
            message: message.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for Fault {}

/// Why a query that was understood did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop(pub String);

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stop {}

/// What a query may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For rows that have to be kept, as the evaluator counts them.
    pub memory_bytes: usize,
    /// From start to end.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory_bytes: 256 << 20, time: Duration::from_mins(10) }
    }
}

/// A query that was understood.
#[derive(Debug)]
pub struct Plan {
    root: plan::Rel,
    scalars: Vec<plan::Rel>,
    now: i64,
}

/// Understands a query. `now` is what `now()` gives, in ticks (see [`time`]).
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn compile(text: &str, schema: &dyn Schema, now: i64) -> Result<Plan, Fault> {
    let query = parser::parse(text)?;
    let (mut root, mut scalars) = bind::bind(text, &query, schema, now)?;
    for rel in scalars.iter_mut().chain([&mut root]) {
        plan::optimize(rel);
    }
    Ok(Plan { root, scalars, now })
}

impl Plan {
    /// The columns of the answer.
    pub fn columns(&self) -> &[Column] {
        &self.root.columns
    }

    /// Shows the rows of the answer until `visit` returns `false`.
    ///
    /// # Errors
    ///
    /// When a limit is reached, the source cannot be read, or `visit` says so.
    pub fn run(
        &self,
        source: &dyn Source,
        limits: Limits,
        visit: &mut dyn FnMut(&[Value]) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        let context = run::Context::new(source, &self.scalars, limits, self.now);
        run::run(&self.root, &context, visit)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
