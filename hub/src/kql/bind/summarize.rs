//! `summarize`: the aggregates are taken out of the expressions around them. Groups give rows of keys and aggregates,
//! and the expressions are put over those rows.

use super::names::{implied_name, unique, unique_from_one};
use super::{Binder, Env, Scope, lookup, plural};
use crate::kql::aggregates::{self, Aggregate, Kind};
use crate::kql::functions;
use crate::kql::plan::{AggregateCall, Rel, RelOp, Summary, Typed};
use crate::kql::syntax::{At, Expr, ExprKind, Named};
use crate::kql::value::{Type, Value};
use crate::kql::{Column, Fault};

/// A `summarize` that is being resolved.
struct Groups<'s> {
    /// The rows that come in.
    scope: &'s Scope,
    /// Keys and aggregates so far, under names no query can write.
    inner: Scope,
    keys: Vec<Typed>,
    aggregates: Vec<AggregateCall>,
}

impl Binder<'_> {
    pub(super) fn summarize(
        &mut self,
        at: At,
        input: Rel,
        list: &[Named],
        by: &[Named],
        env: &Env,
    ) -> Result<Rel, Fault> {
        if list.is_empty() && by.is_empty() {
            return Err(self.fault(at, "summarize names neither an aggregate nor a group"));
        }
        let scope = Scope { columns: input.columns.clone() };
        let (mut columns, keys) = self.exprs(by, &scope, env)?;
        let key_columns = columns.clone();
        let mut shown: Vec<Typed> =
            key_columns.iter().enumerate().map(|(index, column)| Typed::column(index, column.ty)).collect();
        let inner = Scope { columns: key_columns.iter().map(|column| Column::new("", column.ty)).collect() };
        let mut groups = Groups { scope: &scope, inner, keys, aggregates: Vec::new() };
        for named in list {
            if let ExprKind::Call(name, arguments) = &named.expr.kind
                && let Some(aggregate) = aggregates::find(name)
                && let Kind::ArgExtreme(_) = aggregate.kind
            {
                self.arg_extreme(
                    named,
                    aggregate,
                    arguments,
                    &key_columns,
                    &mut groups,
                    (&mut columns, &mut shown),
                    env,
                )?;
                continue;
            }
            let rewritten = self.take_out(&named.expr, &mut groups, env)?;
            let inside = Scope { columns: groups.inner.columns.clone() };
            let typed = self.scalar(&rewritten, &inside, env)?;
            let name = match self.one_name(named)? {
                Some(name) if columns.iter().any(|column| column.name.as_ref() == name) => {
                    return Err(self.fault(named.expr.at, format!("the name {name} is given twice")));
                }
                Some(name) => name,
                None => {
                    implied_name(&named.expr).map_or_else(|| unique_from_one(&columns), |name| unique(&columns, &name))
                }
            };
            columns.push(Column::new(&name, typed.ty));
            shown.push(typed);
        }
        let height = input.height;
        let summary = Summary { keys: groups.keys, aggregates: groups.aggregates };
        let grouped = Rel::over(height, groups.inner.columns, RelOp::Summarize(Box::new(input), summary));
        Ok(Rel::over(grouped.height, columns, RelOp::Project(Box::new(grouped), shown)))
    }

    /// The expression with each aggregate in it replaced by the column of its result.
    fn take_out(&mut self, expr: &Expr, groups: &mut Groups, env: &Env) -> Result<Expr, Fault> {
        let at = expr.at;
        let kind = match &expr.kind {
            ExprKind::Call(name, arguments) => match aggregates::find(name) {
                Some(aggregate) => {
                    let name = self.aggregate(at, aggregate, arguments, groups, env)?;
                    ExprKind::Name(name)
                }
                None if !self.is_callable(name, env) => return Err(self.fault(at, functions::refusal(name))),
                None => {
                    let parts: Result<_, _> = arguments
                        .iter()
                        .map(|part| self.deeper(at, |binder| binder.take_out(part, groups, env)))
                        .collect();
                    ExprKind::Call(name.clone(), parts?)
                }
            },
            ExprKind::Member(base, member) => {
                ExprKind::Member(Box::new(self.deeper(at, |b| b.take_out(base, groups, env))?), member.clone())
            }
            ExprKind::Index(base, index) => {
                let base = self.deeper(at, |binder| binder.take_out(base, groups, env))?;
                ExprKind::Index(Box::new(base), index.clone())
            }
            ExprKind::Name(name) if groups.scope.columns.iter().any(|column| column.name.as_ref() == name) => {
                let message = format!("{name} has many values in a group; put it into an aggregate or behind by");
                return Err(self.fault(at, message));
            }
            other => other.clone(),
        };
        Ok(Expr { at, kind })
    }

    /// Whether anything of that name can be called, so that a missing aggregate is named before its arguments are.
    fn is_callable(&self, name: &str, env: &Env) -> bool {
        let known = functions::find(name).is_some() || matches!(name, "and" | "or") || Type::named(name).is_some();
        known || lookup(env, name).is_some()
    }

    /// Adds an aggregate; gives the name of its column, one that no query can write.
    fn aggregate(
        &mut self,
        at: At,
        aggregate: &'static Aggregate,
        arguments: &[Expr],
        groups: &mut Groups,
        env: &Env,
    ) -> Result<String, Fault> {
        if let Kind::ArgExtreme(_) = aggregate.kind {
            return Err(self.fault(at, format!("{} makes columns and has to stand alone", aggregate.name)));
        }
        let (most, least) = (aggregate.parameters.len(), aggregate.parameters.len() - aggregate.optional);
        if arguments.len() < least || arguments.len() > most {
            let takes = if least == most { plural(most) } else { format!("{least} to {}", plural(most)) };
            return Err(self.fault(at, format!("{}() takes {takes}, not {}", aggregate.name, arguments.len())));
        }
        let mut bound = Vec::new();
        for (argument, want) in arguments.iter().zip(aggregate.parameters) {
            let typed = self.scalar(argument, groups.scope, env)?;
            if !want.takes(typed.ty) {
                let message = format!("{} takes {}, not a {}", aggregate.name, want.name(), typed.ty.name());
                return Err(self.fault(argument.at, message));
            }
            bound.push(typed);
        }
        let max = match (aggregate.kind, bound.get(1)) {
            (Kind::Set(_) | Kind::List(_), Some(max)) => match max.as_constant() {
                Some(Value::Long(max)) if *max > 0 => usize::try_from(*max).ok(),
                _ => {
                    return Err(self.fault(at, format!("the size of {} has to be a positive constant", aggregate.name)));
                }
            },
            _ => None,
        };
        if matches!(aggregate.kind, Kind::Set(_) | Kind::List(_)) {
            bound.truncate(1);
        }
        let types: Vec<Type> = bound.iter().map(|argument| argument.ty).collect();
        let ty = (aggregate.gives)(&types).map_err(|message| self.fault(at, message))?;
        let name = format!("\0{}", groups.inner.columns.len());
        groups.inner.columns.push(Column::new(&name, ty));
        groups.aggregates.push(AggregateCall { kind: aggregate.kind, arguments: bound, types: vec![ty], max });
        Ok(name)
    }

    /// `arg_max(x, a, b)` or `arg_max(x, *)`: a column for each.
    #[expect(clippy::too_many_arguments, reason = "it adds to three lists of summarize")]
    fn arg_extreme(
        &mut self,
        named: &Named,
        aggregate: &'static Aggregate,
        arguments: &[Expr],
        keys: &[Column],
        groups: &mut Groups,
        (columns, shown): (&mut Vec<Column>, &mut Vec<Typed>),
        env: &Env,
    ) -> Result<(), Fault> {
        let at = named.expr.at;
        let Some((first, rest)) = arguments.split_first() else {
            return Err(self.fault(at, format!("{}() takes at least one argument", aggregate.name)));
        };
        let prefix = if aggregate.name == "arg_min" { "min" } else { "max" };
        let mut bound = vec![self.scalar(first, groups.scope, env)?];
        let mut names = vec![implied_name(first).unwrap_or_else(|| format!("{prefix}_"))];
        for expr in rest {
            if matches!(expr.kind, ExprKind::Star) {
                for (index, column) in groups.scope.columns.iter().enumerate() {
                    let is_key = keys.iter().any(|key| key.name == column.name);
                    if !is_key && !names.iter().any(|name| *name == *column.name) {
                        bound.push(Typed::column(index, column.ty));
                        names.push(column.name.to_string());
                    }
                }
            } else {
                bound.push(self.scalar(expr, groups.scope, env)?);
                names.push(implied_name(expr).unwrap_or_else(|| format!("arg_{prefix}_")));
            }
        }
        if named.names.len() > names.len() {
            return Err(self.fault(at, format!("{} names for {} columns", named.names.len(), names.len())));
        }
        for (name, given) in names.iter_mut().zip(&named.names) {
            name.clone_from(given);
        }
        let types: Vec<Type> = bound.iter().map(|part| part.ty).collect();
        for (name, ty) in names.iter().zip(&types) {
            shown.push(Typed::column(groups.inner.columns.len(), *ty));
            let hidden = format!("\0{}", groups.inner.columns.len());
            groups.inner.columns.push(Column::new(&hidden, *ty));
            columns.push(Column::new(&unique(columns, name), *ty));
        }
        groups.aggregates.push(AggregateCall { kind: aggregate.kind, arguments: bound, types, max: None });
        Ok(())
    }
}
