//! Names to columns, functions and tables; types to everything. What comes out can run and cannot fail but for limits.
//!
//! A `let` is put in where it is used: a value as its expression, a table as its operators. How large the result may
//! become is bounded, since names that stand for names double quickly.

mod call;
mod join;
mod names;
mod pipe;
mod rows;
mod scalar;
mod summarize;

use std::rc::Rc;

use super::functions::Env as Shared;
use super::plan::{Rel, Typed};
use super::syntax::{Argument, At, Definition, Expr, ExprKind, Function, Let, Pipe, Query};
use super::value::Type;
use super::{Column, Fault, Schema};

/// How many nodes all of the plan may have.
const MAX_NODES: usize = 50_000;
/// How deep it may be.
const MAX_HEIGHT: usize = 250;
/// Through how many operators a row may pass.
const MAX_OPERATORS: usize = 200;

/// Resolves a query.
pub fn bind(text: &str, query: &Query, schema: &dyn Schema, now: i64) -> Result<(Rel, Vec<Rel>), Fault> {
    let shared = Shared::new(now);
    let mut binder = Binder { text, schema, shared, nodes: 0, depth: 0, level: 0, scalars: Vec::new() };
    let env = binder.lets(&query.lets, None)?;
    let root = binder.pipe(&query.body, &env)?;
    Ok((root, binder.scalars))
}

pub(super) struct Binder<'a> {
    text: &'a str,
    schema: &'a dyn Schema,
    shared: Shared,
    nodes: usize,
    depth: usize,
    /// How many tables we are inside of.
    level: usize,
    scalars: Vec<Rel>,
}

/// The definitions in force: a list that grows at its head, so that a function keeps those it was defined under.
type Env = Option<Rc<Defined>>;

#[derive(Debug)]
pub(super) struct Defined {
    name: String,
    binding: Binding,
    next: Env,
}

#[derive(Clone, Debug)]
pub(super) enum Binding {
    /// A value, how many nodes it has, and inside of which table's operators its columns mean something.
    Scalar(Typed, usize, Option<usize>),
    /// A table, and how many nodes it has.
    Rel(Rc<Rel>, usize),
    /// A function, with what it sees.
    Function(Rc<Function>, Env),
}

/// What names mean in an expression besides definitions.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// The columns of the row.
    columns: Vec<Column>,
}

impl Binder<'_> {
    fn fault(&self, at: At, message: impl Into<String>) -> Fault {
        Fault::at(self.text, at, message)
    }

    /// Counts a node of the plan.
    fn node(&mut self, at: At) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(
                self.fault(at, format!("with its definitions put in the query has more than {MAX_NODES} parts"))
            );
        }
        Ok(())
    }

    fn deeper<T>(&mut self, at: At, inner: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth >= MAX_HEIGHT {
            return Err(
                self.fault(at, format!("with its definitions put in the query nests deeper than {MAX_HEIGHT} levels"))
            );
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn check_height(&self, at: At, height: usize) -> Result<(), Fault> {
        if height > MAX_HEIGHT {
            return Err(
                self.fault(at, format!("with its definitions put in the query nests deeper than {MAX_HEIGHT} levels"))
            );
        }
        Ok(())
    }

    /// Adds definitions.
    fn lets(&mut self, lets: &[Let], mut env: Env) -> Result<Env, Fault> {
        for one in lets {
            let binding = match &one.value {
                Definition::Function(function) => Binding::Function(Rc::new(function.clone()), env.clone()),
                Definition::Table(pipe) => self.table_binding(pipe, &env)?,
                Definition::Scalar(expr) => match self.as_table(expr, &env) {
                    Some(pipe) => self.table_binding(&pipe, &env)?,
                    None => self.scalar_binding(expr, &Scope::default(), &env)?,
                },
            };
            env = define(env, &one.name, binding);
        }
        Ok(env)
    }

    fn table_binding(&mut self, pipe: &Pipe, env: &Env) -> Result<Binding, Fault> {
        let before = self.nodes;
        let rel = self.pipe(pipe, env)?;
        Ok(Binding::Rel(Rc::new(rel), self.nodes - before))
    }

    fn scalar_binding(&mut self, expr: &Expr, scope: &Scope, env: &Env) -> Result<Binding, Fault> {
        let before = self.nodes;
        let value = self.scalar(expr, scope, env)?;
        let mut columns = false;
        value.for_each_column(&mut |_| columns = true);
        Ok(Binding::Scalar(value, self.nodes - before, columns.then_some(self.level)))
    }

    /// A bare name, or a call of a function of tables, that stands for a table.
    fn as_table(&self, expr: &Expr, env: &Env) -> Option<Pipe> {
        let (name, arguments) = match &expr.kind {
            ExprKind::Name(name) => (name, None),
            ExprKind::Call(name, arguments) => (name, Some(arguments)),
            _ => return None,
        };
        let is_table = match (lookup(env, name), arguments) {
            (Some(Binding::Rel(..)), None) => true,
            (Some(Binding::Function(function, seen)), Some(_)) => match function.body.as_ref() {
                Definition::Table(_) => true,
                Definition::Scalar(body) => self.as_table(body, seen).is_some(),
                Definition::Function(_) => false,
            },
            (None, None) => self.schema.columns(name).is_some(),
            _ => false,
        };
        let arguments = arguments.map(|list| list.iter().cloned().map(Argument::Scalar).collect());
        let source = super::syntax::Source::Name(name.clone(), arguments);
        is_table.then(|| Pipe { at: expr.at, source, operators: Vec::new() })
    }

    /// The definitions inside a function: what it saw, its parameters, its own.
    fn enter(
        &mut self,
        at: At,
        name: &str,
        (function, seen): (&Function, &Env),
        arguments: Vec<Binding>,
    ) -> Result<Env, Fault> {
        if arguments.len() != function.parameters.len() {
            return Err(self
                .fault(at, format!("{name}() takes {}, not {}", plural(function.parameters.len()), arguments.len())));
        }
        let mut env = seen.clone();
        for ((parameter, ty), binding) in function.parameters.iter().zip(arguments) {
            let binding = match (ty, binding) {
                (Some(ty), Binding::Scalar(value, size, level)) => {
                    Binding::Scalar(self.as_parameter(at, parameter, *ty, value)?, size, level)
                }
                (None, table @ Binding::Rel(..)) => table,
                (Some(_), _) => return Err(self.fault(at, format!("{parameter} of {name}() is a value, not a table"))),
                (None, _) => return Err(self.fault(at, format!("{parameter} of {name}() is a table, not a value"))),
            };
            env = define(env, parameter, binding);
        }
        self.lets(&function.lets, env)
    }

    fn as_parameter(&self, at: At, parameter: &str, ty: Type, value: Typed) -> Result<Typed, Fault> {
        if value.ty == ty || (value.ty.is_number() && ty.is_number()) {
            let node = match value.node {
                super::plan::Node::Const(constant) => {
                    super::plan::Node::Const(super::functions::convert_constant(&constant, ty, &self.shared))
                }
                node => node,
            };
            return Ok(Typed { ty, node, ..value });
        }
        Err(self.fault(
            at,
            format!("{parameter} is a {}, not a {}; convert it with to{}()", ty.name(), value.ty.name(), ty.name()),
        ))
    }
}

fn define(env: Env, name: &str, binding: Binding) -> Env {
    Some(Rc::new(Defined { name: name.to_owned(), binding, next: env }))
}

fn lookup<'e>(env: &'e Env, name: &str) -> Option<&'e Binding> {
    let mut at = env.as_deref();
    while let Some(defined) = at {
        if defined.name == name {
            return Some(&defined.binding);
        }
        at = defined.next.as_deref();
    }
    None
}

fn plural(count: usize) -> String {
    match count {
        0 => "no argument".to_owned(),
        1 => "one argument".to_owned(),
        n => format!("{n} arguments"),
    }
}
