//! Running a plan: each operator asks the one below to push its rows into it, and pushes its own into what is above.
//! A row that is pushed is lent; who wants to keep it copies it and pays for it from the budget.

mod eval;
mod join;
mod summarize;

use std::cell::{Cell, OnceCell};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::functions::{Env, convert_constant};
use super::plan::{Expand, Node, Order, Rel, RelOp, Typed};
use super::value::{Type, Value};
use super::{Limits, Scan, Source, Stop};

/// Takes a row; says whether more are wanted.
pub type Push<'p> = &'p mut dyn FnMut(&[Value]) -> Result<bool, Stop>;

/// The clock is looked at once for so many rows.
const ROWS_BETWEEN_LOOKS: u32 = 512;

/// What the operators of a run share.
pub struct Context<'a> {
    source: &'a dyn Source,
    tables: &'a [Rel],
    /// The values of the tables inside expressions, once they were asked for.
    sets: Vec<OnceCell<HashSet<Value>>>,
    scalars: Vec<OnceCell<Value>>,
    env: Env,
    limits: Limits,
    used: Cell<usize>,
    rows: Cell<u32>,
    deadline: Option<Instant>,
}

impl<'a> Context<'a> {
    /// Nothing is used yet.
    pub fn new(source: &'a dyn Source, tables: &'a [Rel], limits: Limits, now: i64) -> Context<'a> {
        Context {
            source,
            tables,
            sets: tables.iter().map(|_| OnceCell::new()).collect(),
            scalars: tables.iter().map(|_| OnceCell::new()).collect(),
            env: Env::new(now),
            limits,
            used: Cell::new(0),
            rows: Cell::new(0),
            deadline: Instant::now().checked_add(limits.time),
        }
    }

    /// Takes memory from the budget.
    fn charge(&self, bytes: usize) -> Result<(), Stop> {
        let used = self.used.get().saturating_add(bytes);
        self.used.set(used);
        if used > self.limits.memory_bytes {
            let mib = self.limits.memory_bytes >> 20;
            return Err(Stop(format!(
                "the query keeps more rows at a time than fit into its {mib} MiB; look at less with where, or keep fewer \
                 columns with project before sort, summarize or join"
            )));
        }
        Ok(())
    }

    fn release(&self, bytes: usize) {
        self.used.set(self.used.get().saturating_sub(bytes));
    }

    /// Notes a row, and looks at the clock now and then.
    fn tick(&self) -> Result<(), Stop> {
        let rows = self.rows.get().wrapping_add(1);
        self.rows.set(rows);
        if rows.is_multiple_of(ROWS_BETWEEN_LOOKS) && self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            let seconds = self.limits.time.as_secs_f64();
            return Err(Stop(format!("the query took more than its {seconds} s; look at less with where")));
        }
        Ok(())
    }
}

/// A constant expression's value.
pub fn constant(typed: &Typed, env: &Env) -> Result<Value, Stop> {
    eval::eval(typed, &[], &eval::Inside { env, context: None })
}

/// Pushes the rows of a table; says whether more would have been wanted.
pub fn run(rel: &Rel, context: &Context, push: Push) -> Result<bool, Stop> {
    match &rel.op {
        RelOp::Scan { table, needed, filters } => {
            let mut more = true;
            context.source.scan(&Scan { table, needed, filters }, &mut |row| {
                context.tick()?;
                more = push(row)?;
                Ok(more)
            })?;
            Ok(more)
        }
        RelOp::Rows(rows) => each(rows, push),
        RelOp::Range(first, last, step) => range(first, last, step, context, push),
        RelOp::Where(input, predicate) => run(input, context, &mut |row| {
            if matches!(context.eval(predicate, row)?, Value::Bool(true)) { push(row) } else { Ok(true) }
        }),
        RelOp::Project(input, exprs) => {
            let mut out = Vec::with_capacity(exprs.len());
            run(input, context, &mut |row| {
                out.clear();
                for expr in exprs {
                    out.push(context.eval(expr, row)?);
                }
                push(&out)
            })
        }
        RelOp::Extend(input, exprs) => extend(input, exprs, context, push),
        RelOp::Summarize(input, summary) => summarize::run(input, summary, context, push),
        RelOp::Distinct(input) => distinct(input, context, push),
        RelOp::Sort(input, keys) => sort(input, usize::MAX, keys, context, push),
        RelOp::Top(input, count, keys) => sort(input, *count, keys, context, push),
        RelOp::Take(input, count) => take(input, *count, context, push),
        RelOp::Count(input) => {
            let mut rows = 0;
            run(input, context, &mut |_| {
                rows += 1;
                Ok(true)
            })?;
            push(&[Value::Long(rows)])
        }
        RelOp::Join(join) => join::run(join, context, push),
        RelOp::Union(legs) => union(rel, legs, context, push),
        RelOp::MvExpand(input, expand) => mv_expand(rel, input, expand, context, push),
    }
}

fn distinct(input: &Rel, context: &Context, push: Push) -> Result<bool, Stop> {
    let mut seen: HashSet<Box<[Value]>> = HashSet::new();
    run(input, context, &mut |row| {
        if seen.contains(row) {
            return Ok(true);
        }
        context.charge(weight(row))?;
        seen.insert(row.into());
        push(row)
    })
}

fn union(rel: &Rel, legs: &[(Rel, Vec<Option<usize>>)], context: &Context, push: Push) -> Result<bool, Stop> {
    let mut out = Vec::new();
    for (leg, map) in legs {
        let more = run(leg, context, &mut |row| {
            out.clear();
            out.extend(map.iter().zip(&rel.columns).map(|(theirs, column)| {
                let cell = theirs.and_then(|theirs| row.get(theirs));
                cell.cloned().unwrap_or_else(|| column.ty.missing())
            }));
            push(&out)
        })?;
        if !more {
            return Ok(false);
        }
    }
    Ok(true)
}

fn each(rows: &[Vec<Value>], push: Push) -> Result<bool, Stop> {
    for row in rows {
        if !push(row)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The bytes a kept row takes.
fn weight(row: &[Value]) -> usize {
    weight_after(row, &[])
}

/// The bytes a kept row takes after another one that is kept: a text they share costs nothing more.
fn weight_after(row: &[Value], before: &[Value]) -> usize {
    let cells = row.iter().enumerate().map(|(index, cell)| match (cell, before.get(index)) {
        (Value::Str(text), Some(Value::Str(known))) if Arc::ptr_eq(text, known) => size_of::<Value>(),
        _ => cell.weight(),
    });
    cells.sum::<usize>() + 48
}

fn range(first: &Value, last: &Value, step: &Value, context: &Context, push: Push) -> Result<bool, Stop> {
    let ticks = |value: &Value| match value {
        Value::Long(n) | Value::DateTime(n) | Value::TimeSpan(n) => *n,
        _ => 0,
    };
    let (mut at, last, step) = (ticks(first), ticks(last), ticks(step));
    while (step > 0 && at <= last) || (step < 0 && at >= last) {
        context.tick()?;
        let cell = match first {
            Value::DateTime(_) => Value::DateTime(at),
            Value::TimeSpan(_) => Value::TimeSpan(at),
            _ => Value::Long(at),
        };
        if !push(&[cell])? {
            return Ok(false);
        }
        match at.checked_add(step) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(true)
}

fn extend(input: &Rel, exprs: &[(usize, Typed)], context: &Context, push: Push) -> Result<bool, Stop> {
    let mut out: Vec<Value> = Vec::new();
    let mut new = Vec::with_capacity(exprs.len());
    run(input, context, &mut |row| {
        // All expressions see the row as it came.
        new.clear();
        for (_, expr) in exprs {
            new.push(context.eval(expr, row)?);
        }
        out.clear();
        out.extend_from_slice(row);
        for ((index, _), value) in exprs.iter().zip(new.drain(..)) {
            match out.get_mut(*index) {
                Some(cell) => *cell = value,
                None => out.push(value),
            }
        }
        push(&out)
    })
}

fn take(input: &Rel, count: u64, context: &Context, push: Push) -> Result<bool, Stop> {
    let mut left = count;
    let mut more = true;
    if left == 0 {
        return Ok(true);
    }
    run(input, context, &mut |row| {
        left -= 1;
        more = push(row)?;
        Ok(more && left > 0)
    })?;
    Ok(more)
}

struct Sorted {
    keys: Vec<Value>,
    row: Vec<Value>,
    weight: usize,
}

/// Rows in order, `count` at most; what cannot be among them is let go on the way.
fn sort(input: &Rel, count: usize, keys: &[Order], context: &Context, push: Push) -> Result<bool, Stop> {
    let mut rows: Vec<Sorted> = Vec::new();
    let order = |a: &Sorted, b: &Sorted| {
        let mut pairs = a.keys.iter().zip(&b.keys).zip(keys);
        pairs
            .find_map(|((a, b), key)| Some(order_of(a, b, key)).filter(|found| found.is_ne()))
            .unwrap_or(Ordering::Equal)
    };
    let most = count.saturating_mul(2).max(1024);
    let shrink = |rows: &mut Vec<Sorted>| {
        rows.sort_by(order);
        context.release(rows.drain(count.min(rows.len())..).map(|row| row.weight).sum());
    };
    run(input, context, &mut |row| {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            values.push(context.eval(&key.expr, row)?);
        }
        // A key that is a column shares its text with the row.
        let made = values.iter().zip(keys).filter(|(_, key)| !matches!(key.expr.node, Node::Column(_)));
        let weight = weight_after(row, rows.last().map_or(&[], |last| &last.row))
            + values.len() * size_of::<Value>()
            + made.map(|(value, _)| value.weight()).sum::<usize>();
        context.charge(weight)?;
        rows.push(Sorted { keys: values, row: row.to_vec(), weight });
        if rows.len() >= most {
            shrink(&mut rows);
        }
        Ok(true)
    })?;
    shrink(&mut rows);
    for sorted in rows {
        context.release(sorted.weight);
        if !push(&sorted.row)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Null and then NaN stand at the end where nulls go, whichever way the rest is ordered.
fn order_of(a: &Value, b: &Value, key: &Order) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Real(real) if real.is_nan() => 1,
        _ => 2,
    };
    let by_rank = rank(a).cmp(&rank(b));
    let by_rank = if key.nulls_first { by_rank } else { by_rank.reverse() };
    by_rank.then_with(|| if key.ascending { a.order(b) } else { b.order(a) })
}

fn mv_expand(rel: &Rel, input: &Rel, expand: &Expand, context: &Context, push: Push) -> Result<bool, Stop> {
    let width = rel.columns.len();
    let mut out: Vec<Value> = Vec::with_capacity(width);
    run(input, context, &mut |row| {
        let mut lists = Vec::with_capacity(expand.columns.len());
        for (expr, _, _) in &expand.columns {
            lists.push(elements(&context.eval(expr, row)?, expand.pairs));
        }
        let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
        let rows = usize::try_from(expand.limit).unwrap_or(usize::MAX).min(longest);
        for index in 0..rows {
            context.tick()?;
            out.clear();
            out.extend_from_slice(row);
            out.resize(width, Value::Null);
            for (list, (_, column, ty)) in lists.iter().zip(&expand.columns) {
                let element = list.get(index).cloned().unwrap_or(Value::Null);
                if let Some(cell) = out.get_mut(*column) {
                    *cell = if *ty == Type::Dynamic { element } else { cast(&element, *ty, &context.env) };
                }
            }
            if let Some(cell) = expand.index.and_then(|column| out.get_mut(column)) {
                *cell = Value::Long(i64::try_from(index).unwrap_or(i64::MAX));
            }
            if !push(&out)? {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// What a value expands to: null and scalars to themselves.
fn elements(value: &Value, pairs: bool) -> Vec<Value> {
    use serde_json::Value as Json;
    let Value::Dynamic(json) = value else { return vec![value.clone()] };
    match json.as_ref() {
        Json::Array(items) => items.iter().cloned().map(Value::dynamic).collect(),
        Json::Object(members) => members
            .iter()
            .map(|(key, value)| {
                Value::dynamic(if pairs {
                    Json::Array(vec![Json::from(key.as_str()), value.clone()])
                } else {
                    Json::Object([(key.clone(), value.clone())].into_iter().collect())
                })
            })
            .collect(),
        _ => vec![value.clone()],
    }
}

/// An element as the type that was asked for. Nothing is parsed, but for what JSON can only write as a string.
fn cast(element: &Value, ty: Type, env: &Env) -> Value {
    let fits = match element.unwrapped() {
        Value::Long(_) => ty.is_number() || ty == Type::String,
        Value::Real(_) => matches!(ty, Type::Real | Type::String),
        Value::Bool(_) => matches!(ty, Type::Bool | Type::String),
        Value::Str(_) => matches!(ty, Type::String | Type::DateTime | Type::TimeSpan | Type::Guid),
        _ => ty == Type::String,
    };
    if fits { convert_constant(element, ty, env) } else { ty.missing() }
}
