//! Sources and operators, but for `summarize` and `join`.

use std::sync::Arc;

use super::names::{implied_name, near, unique, unique_from_one, wildcard};
use super::{Binder, Binding, Env, MAX_OPERATORS, Scope, lookup};
use crate::kql::functions;
use crate::kql::plan::{Node, Order, Rel, RelOp, Typed};
use crate::kql::syntax::{
    Argument, At, Definition, Expr, ExprKind, Named, Operator, OperatorKind, Pipe, SortKey, Source,
};
use crate::kql::value::{Type, Value};
use crate::kql::{Column, Fault};

impl Binder<'_> {
    /// Resolves a table.
    pub(super) fn pipe(&mut self, pipe: &Pipe, env: &Env) -> Result<Rel, Fault> {
        self.level += 1;
        let rel = self.deeper(pipe.at, |binder| {
            let mut rel = binder.source(pipe.at, &pipe.source, env)?;
            for operator in &pipe.operators {
                binder.node(operator.at)?;
                rel = binder.operator(rel, operator, env)?;
                if rel.height > MAX_OPERATORS {
                    return Err(binder
                        .fault(operator.at, format!("rows would pass through more than {MAX_OPERATORS} operators")));
                }
            }
            Ok(rel)
        });
        self.level -= 1;
        rel
    }

    fn source(&mut self, at: At, source: &Source, env: &Env) -> Result<Rel, Fault> {
        match source {
            Source::Name(name, None) => self.table(at, name, env),
            Source::Name(name, Some(arguments)) => self.table_call(at, name, arguments, env),
            Source::Nested(pipe) => self.pipe(pipe, env),
            Source::Datatable(columns, values) => self.datatable(at, columns, values, env),
            Source::Print(exprs) => self.print(exprs, env),
            Source::Range(name, bounds) => self.range(name, bounds, env),
            Source::Union(union) => self.union(None, union, env),
        }
    }

    fn table(&mut self, at: At, name: &str, env: &Env) -> Result<Rel, Fault> {
        match lookup(env, name).cloned() {
            Some(Binding::Rel(rel, size)) => {
                self.nodes += size;
                self.node(at)?;
                return Ok(rel.as_ref().clone());
            }
            Some(Binding::Function(..)) => return Err(self.fault(at, format!("{name} is a function; call it with ()"))),
            Some(Binding::Scalar(..)) => return Err(self.fault(at, format!("{name} is a value, not a table"))),
            None => {}
        }
        let Some(columns) = self.schema.columns(name) else {
            let tables = self.schema.tables();
            let message = format!("there is no table {name:?}{}", near(name, tables.iter().map(String::as_str)));
            return Err(self.fault(at, message));
        };
        let op = RelOp::Scan { table: name.to_owned(), needed: vec![true; columns.len()], filters: Vec::new() };
        Ok(Rel::over(0, columns, op))
    }

    fn table_call(&mut self, at: At, name: &str, arguments: &[Argument], env: &Env) -> Result<Rel, Fault> {
        let Some(Binding::Function(function, seen)) = lookup(env, name).cloned() else {
            return Err(self.fault(at, format!("there is no function {name:?} that gives a table; let defines one")));
        };
        let mut bindings = Vec::new();
        for argument in arguments {
            bindings.push(match argument {
                Argument::Table(pipe) => self.table_binding(pipe, env)?,
                Argument::Scalar(expr) => match self.as_table(expr, env) {
                    Some(pipe) => self.table_binding(&pipe, env)?,
                    None => self.scalar_binding(expr, &Scope::default(), env)?,
                },
            });
        }
        let inside = self.enter(at, name, (&function, &seen), bindings)?;
        match function.body.as_ref() {
            Definition::Table(pipe) => self.pipe(pipe, &inside),
            Definition::Scalar(expr) => match self.as_table(expr, &inside) {
                Some(pipe) => self.pipe(&pipe, &inside),
                None => Err(self.fault(at, format!("{name}() gives a value, not a table; print shows it"))),
            },
            Definition::Function(_) => Err(self.fault(at, format!("{name}() gives no table"))),
        }
    }

    /// A constant; `toscalar` is none.
    pub(super) fn constant(&mut self, expr: &Expr, env: &Env) -> Result<(Value, Type), Fault> {
        let typed = self.scalar(expr, &Scope::default(), env)?;
        match typed.as_constant() {
            Some(value) => Ok((value.clone(), typed.ty)),
            None => Err(self.fault(expr.at, "a constant is expected here")),
        }
    }

    fn datatable(&mut self, at: At, columns: &[(String, Type)], values: &[Expr], env: &Env) -> Result<Rel, Fault> {
        if columns.is_empty() || !values.len().is_multiple_of(columns.len()) {
            let message = format!("{} values do not fill rows of {} columns", values.len(), columns.len());
            return Err(self.fault(at, message));
        }
        let mut rows = Vec::new();
        for row in values.chunks(columns.len()) {
            let mut cells = Vec::with_capacity(columns.len());
            for (expr, (_, ty)) in row.iter().zip(columns) {
                let (value, _) = self.constant(expr, env)?;
                cells.push(functions::convert_constant(&value, *ty, &self.shared));
            }
            rows.push(cells);
        }
        let columns = columns.iter().map(|(name, ty)| Column::new(name, *ty)).collect();
        Ok(Rel::over(0, columns, RelOp::Rows(Arc::new(rows))))
    }

    fn print(&mut self, exprs: &[Named], env: &Env) -> Result<Rel, Fault> {
        let one = Rel::over(0, Vec::new(), RelOp::Rows(Arc::new(vec![Vec::new()])));
        let mut columns = Vec::new();
        let mut bound = Vec::new();
        for (index, named) in exprs.iter().enumerate() {
            let typed = self.scalar(&named.expr, &Scope::default(), env)?;
            self.is_value(named.expr.at, &typed)?;
            let name = self.one_name(named)?.unwrap_or_else(|| format!("print_{index}"));
            if columns.iter().any(|column: &Column| *column.name == *name) {
                return Err(self.fault(named.expr.at, format!("the name {name} is given twice")));
            }
            columns.push(Column::new(&name, typed.ty));
            bound.push(typed);
        }
        Ok(Rel::over(one.height, columns, RelOp::Project(Box::new(one), bound)))
    }

    fn range(&mut self, name: &str, [from, to, step]: &[Expr; 3], env: &Env) -> Result<Rel, Fault> {
        let ((first, ty), (last, last_ty), (by, by_ty)) =
            (self.constant(from, env)?, self.constant(to, env)?, self.constant(step, env)?);
        let fits = match ty {
            Type::DateTime => last_ty == Type::DateTime && by_ty == Type::TimeSpan,
            Type::TimeSpan => last_ty == Type::TimeSpan && by_ty == Type::TimeSpan,
            _ => ty.is_integer() && last_ty.is_integer() && by_ty.is_integer(),
        };
        if !fits {
            return Err(
                self.fault(from.at, "range goes over whole numbers, datetimes or timespans, with a step that fits")
            );
        }
        let zero =
            matches!(by, Value::Long(0) | Value::TimeSpan(0)) || by.is_null() || first.is_null() || last.is_null();
        if zero {
            return Err(self.fault(step.at, "a range with this step never ends"));
        }
        let ty = if ty == Type::Int { Type::Long } else { ty };
        Ok(Rel::over(0, vec![Column::new(name, ty)], RelOp::Range(first, last, by)))
    }

    fn operator(&mut self, input: Rel, operator: &Operator, env: &Env) -> Result<Rel, Fault> {
        let at = operator.at;
        let scope = Scope { columns: input.columns.clone() };
        let (height, columns) = (input.height, input.columns.clone());
        let same = |op| Rel::over(height, columns, op);
        Ok(match &operator.kind {
            OperatorKind::Where(predicate) => {
                let typed = self.scalar(predicate, &scope, env)?;
                if typed.ty != Type::Bool {
                    return Err(self.fault(predicate.at, format!("where takes a bool, not a {}", typed.ty.name())));
                }
                same(RelOp::Where(Box::new(input), typed))
            }
            OperatorKind::Project(list) => self.project(at, input, list, &scope, env)?,
            OperatorKind::ProjectAway(patterns) => self.pick(input, patterns, false)?,
            OperatorKind::ProjectKeep(patterns) => self.pick(input, patterns, true)?,
            OperatorKind::ProjectRename(list) => self.rename(input, list)?,
            OperatorKind::Extend(list) => self.extend(input, list, &scope, env)?,
            OperatorKind::Summarize(aggregates, by) => self.summarize(at, input, aggregates, by, env)?,
            OperatorKind::Join(join) => self.join(at, input, join, env)?,
            OperatorKind::Sort(keys) => {
                let keys = self.order(keys, &scope, env)?;
                same(RelOp::Sort(Box::new(input), keys))
            }
            OperatorKind::Top(count, keys) => {
                let rows = self.rows(count, env)?;
                let keys = self.order(keys, &scope, env)?;
                same(RelOp::Top(Box::new(input), usize::try_from(rows).unwrap_or(usize::MAX), keys))
            }
            OperatorKind::Take(count) => {
                let rows = self.rows(count, env)?;
                same(RelOp::Take(Box::new(input), rows))
            }
            OperatorKind::Distinct(list) => self.distinct(at, input, list, &scope, env)?,
            OperatorKind::Count => {
                Rel::over(height, vec![Column::new("Count", Type::Long)], RelOp::Count(Box::new(input)))
            }
            OperatorKind::Union(union) => self.union(Some(input), union, env)?,
            OperatorKind::MvExpand(expand) => self.mv_expand(input, expand, &scope, env)?,
        })
    }

    fn rows(&mut self, count: &Expr, env: &Env) -> Result<u64, Fault> {
        match self.constant(count, env)?.0 {
            Value::Long(rows) if rows >= 0 => Ok(rows.unsigned_abs()),
            _ => Err(self.fault(count.at, "a number of rows is expected")),
        }
    }

    fn is_value(&self, at: At, typed: &Typed) -> Result<(), Fault> {
        match typed.node {
            Node::TypeOf(_) => Err(self.fault(at, "typeof(...) is no value")),
            _ => Ok(()),
        }
    }

    /// The only name an expression was given.
    pub(super) fn one_name(&self, named: &Named) -> Result<Option<String>, Fault> {
        match named.names.as_slice() {
            [] => Ok(None),
            [name] => Ok(Some(name.clone())),
            _ => Err(self.fault(named.expr.at, "only arg_max and arg_min in summarize take several names")),
        }
    }

    /// Names and types of a list of expressions, with Kusto's names for those without.
    pub(super) fn exprs(
        &mut self,
        list: &[Named],
        scope: &Scope,
        env: &Env,
    ) -> Result<(Vec<Column>, Vec<Typed>), Fault> {
        let mut columns = Vec::new();
        let mut bound = Vec::new();
        for named in list {
            let typed = self.scalar(&named.expr, scope, env)?;
            self.is_value(named.expr.at, &typed)?;
            let name = match self.one_name(named)? {
                Some(name) => name,
                None => {
                    implied_name(&named.expr).map_or_else(|| unique_from_one(&columns), |name| unique(&columns, &name))
                }
            };
            if columns.iter().any(|column: &Column| column.name.as_ref() == name) {
                return Err(self.fault(named.expr.at, format!("the name {name} is given twice")));
            }
            columns.push(Column::new(&name, typed.ty));
            bound.push(typed);
        }
        Ok((columns, bound))
    }

    fn project(&mut self, at: At, input: Rel, list: &[Named], scope: &Scope, env: &Env) -> Result<Rel, Fault> {
        if list.is_empty() {
            return Err(self.fault(at, "project names no column"));
        }
        let (columns, bound) = self.exprs(list, scope, env)?;
        Ok(Rel::over(input.height, columns, RelOp::Project(Box::new(input), bound)))
    }

    fn distinct(&mut self, at: At, input: Rel, list: &[Named], scope: &Scope, env: &Env) -> Result<Rel, Fault> {
        let all = matches!(list, [Named { expr: Expr { kind: ExprKind::Star, .. }, .. }]);
        let picked = if all { input } else { self.project(at, input, list, scope, env)? };
        Ok(Rel::over(picked.height, picked.columns.clone(), RelOp::Distinct(Box::new(picked))))
    }

    fn extend(&mut self, input: Rel, list: &[Named], scope: &Scope, env: &Env) -> Result<Rel, Fault> {
        let mut columns = input.columns.clone();
        let mut bound = Vec::new();
        for named in list {
            let typed = self.scalar(&named.expr, scope, env)?;
            self.is_value(named.expr.at, &typed)?;
            let name = match self.one_name(named)? {
                Some(name) => name,
                None => implied_name(&named.expr).unwrap_or_else(|| unique_from_one(&columns)),
            };
            let place = columns.iter().position(|column| column.name.as_ref() == name);
            let column = Column::new(&name, typed.ty);
            let index = match place {
                Some(index) => {
                    columns.splice(index..=index, [column]);
                    index
                }
                None => {
                    columns.push(column);
                    columns.len() - 1
                }
            };
            bound.push((index, typed));
        }
        Ok(Rel::over(input.height, columns, RelOp::Extend(Box::new(input), bound)))
    }

    fn pick(&mut self, input: Rel, patterns: &[(At, String)], keep: bool) -> Result<Rel, Fault> {
        for (at, pattern) in patterns {
            let known = input.columns.iter().any(|column| column.name.as_ref() == pattern);
            if !pattern.contains('*') && !known {
                let names = input.columns.iter().map(|column| column.name.as_ref());
                return Err(self.fault(*at, format!("there is no column {pattern:?}{}", near(pattern, names))));
            }
        }
        let chosen: Vec<usize> = (0..input.columns.len())
            .filter(|index| {
                let name = input.columns.get(*index).map_or("", |column| &column.name);
                patterns.iter().any(|(_, pattern)| wildcard(pattern, name)) == keep
            })
            .collect();
        let columns: Vec<_> = chosen.iter().filter_map(|index| input.columns.get(*index).cloned()).collect();
        let bound = chosen.iter().zip(&columns).map(|(index, column)| Typed::column(*index, column.ty)).collect();
        Ok(Rel::over(input.height, columns, RelOp::Project(Box::new(input), bound)))
    }

    fn rename(&mut self, input: Rel, list: &[Named]) -> Result<Rel, Fault> {
        let mut columns = input.columns.clone();
        for named in list {
            let (Some(new), ExprKind::Name(old)) = (self.one_name(named)?, &named.expr.kind) else {
                return Err(self.fault(named.expr.at, "project-rename takes New = Old"));
            };
            let place = input.columns.iter().position(|column| column.name.as_ref() == old);
            let Some(column) = place.and_then(|place| columns.get_mut(place)) else {
                let names = input.columns.iter().map(|column| column.name.as_ref());
                return Err(self.fault(named.expr.at, format!("there is no column {old:?}{}", near(old, names))));
            };
            column.name = Arc::from(new.as_str());
            if columns.iter().filter(|column| column.name.as_ref() == new).count() > 1 {
                return Err(self.fault(named.expr.at, format!("there is a column {new} already")));
            }
        }
        let bound = columns.iter().enumerate().map(|(index, column)| Typed::column(index, column.ty)).collect();
        Ok(Rel::over(input.height, columns, RelOp::Project(Box::new(input), bound)))
    }

    fn order(&mut self, keys: &[SortKey], scope: &Scope, env: &Env) -> Result<Vec<Order>, Fault> {
        let mut order = Vec::new();
        for key in keys {
            let expr = self.scalar(&key.expr, scope, env)?;
            order.push(Order { expr, ascending: key.ascending, nulls_first: key.nulls_first });
        }
        Ok(order)
    }
}
