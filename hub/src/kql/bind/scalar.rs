//! Expressions, but for calls of functions.

use std::collections::HashSet;
use std::sync::Arc;

use super::names::near;
use super::{Binder, Binding, Env, Scope, lookup};
use crate::kql::Fault;
use crate::kql::functions;
use crate::kql::plan::{Membership, Node, Rel, RelOp, Terms, Typed, member};
use crate::kql::syntax::{At, Expr, ExprKind, InList, Pipe};
use crate::kql::value::{Type, Value};

impl Binder<'_> {
    /// Resolves an expression.
    pub(super) fn scalar(&mut self, expr: &Expr, scope: &Scope, env: &Env) -> Result<Typed, Fault> {
        self.deeper(expr.at, |binder| {
            binder.node(expr.at)?;
            binder.scalar_inner(expr, scope, env)
        })
    }

    fn scalar_inner(&mut self, expr: &Expr, scope: &Scope, env: &Env) -> Result<Typed, Fault> {
        let at = expr.at;
        match &expr.kind {
            ExprKind::Literal(value, ty) => Ok(Typed::constant(value.clone(), *ty)),
            ExprKind::TypeOf(ty) => Ok(Typed { ty: *ty, node: Node::TypeOf(*ty), height: 1 }),
            ExprKind::Name(name) => self.named(at, name, scope, env),
            ExprKind::Star => {
                Err(self.fault(at, "`*` is no value; it stands for all columns in distinct, arg_max and arg_min"))
            }
            ExprKind::Call(name, arguments) => self.call(at, name, arguments, scope, env),
            ExprKind::Member(base, member) => {
                if matches!(&base.kind, ExprKind::Name(side) if side == "$left" || side == "$right") {
                    return Err(self.fault(at, "$left and $right are there only in the conditions of a join"));
                }
                let base = self.scalar(base, scope, env)?;
                let member = Typed::constant(Value::text(member), Type::String);
                self.access(at, base, member)
            }
            ExprKind::Index(base, index) => {
                let base = self.scalar(base, scope, env)?;
                let index = self.scalar(index, scope, env)?;
                self.access(at, base, index)
            }
            ExprKind::In(operator, value, list) => self.membership(at, operator, value, list, scope, env),
            ExprKind::ToScalar(pipe) => {
                let (table, ty) = self.subtable(pipe, env)?;
                Ok(Typed { ty, node: Node::Scalar(table), height: 1 })
            }
        }
    }

    fn named(&mut self, at: At, name: &str, scope: &Scope, env: &Env) -> Result<Typed, Fault> {
        if let Some(index) = scope.columns.iter().position(|column| column.name.as_ref() == name) {
            let ty = scope.columns.get(index).map_or(Type::Dynamic, |column| column.ty);
            return Ok(Typed::column(index, ty));
        }
        match lookup(env, name).cloned() {
            Some(Binding::Scalar(value, size, level)) => {
                self.nodes += size;
                self.node(at)?;
                if level.is_some_and(|level| level != self.level) {
                    return Err(self.fault(
                        at,
                        format!("{name} depends on a row, and a table inside an expression cannot look at it"),
                    ));
                }
                Ok(value)
            }
            Some(Binding::Rel(..)) => {
                Err(self.fault(at, format!("{name} is a table, not a value; toscalar() makes one of it")))
            }
            Some(Binding::Function(..)) => Err(self.fault(at, format!("{name} is a function; call it with ()"))),
            None if self.schema.columns(name).is_some() => {
                Err(self.fault(at, format!("{name} is a table, not a value; toscalar() makes one of it")))
            }
            None => {
                let names = scope.columns.iter().map(|column| column.name.as_ref());
                Err(self.fault(at, format!("there is no column {name:?}{}", near(name, names))))
            }
        }
    }

    fn access(&mut self, at: At, base: Typed, index: Typed) -> Result<Typed, Fault> {
        if base.ty != Type::Dynamic {
            let message = format!("a {} has no members; parse_json() makes a dynamic of text", base.ty.name());
            return Err(self.fault(at, message));
        }
        self.call_builtin(at, "[]", vec![base, index])
    }

    /// A table inside an expression; its number, and the type of its first column.
    fn subtable(&mut self, pipe: &Pipe, env: &Env) -> Result<(usize, Type), Fault> {
        let rel = self.pipe(pipe, env)?;
        let first = rel.columns.first().cloned();
        let Some(first) = first else { return Err(self.fault(pipe.at, "the table has no column")) };
        let value = vec![Typed::column(0, first.ty)];
        let height = rel.height;
        self.scalars.push(Rel::over(height, vec![first.clone()], RelOp::Project(Box::new(rel), value)));
        Ok((self.scalars.len() - 1, first.ty))
    }

    fn membership(
        &mut self,
        at: At,
        operator: &str,
        value: &Expr,
        list: &InList,
        scope: &Scope,
        env: &Env,
    ) -> Result<Typed, Fault> {
        let terms = match operator {
            "has_any" => Some(Terms::Any),
            "has_all" => Some(Terms::All),
            _ => None,
        };
        let how =
            Membership { negated: operator.starts_with('!'), fold: operator.ends_with('~') || terms.is_some(), terms };
        let value = self.scalar(value, scope, env)?;
        if how.fold && !matches!(value.ty, Type::String | Type::Dynamic) {
            return Err(self.fault(at, format!("{operator} takes a string, not a {}", value.ty.name())));
        }
        let height = value.height + 1;
        let items = match list {
            InList::Table(pipe) => return self.in_table(at, value, pipe, how, env),
            InList::Values(items) => {
                if let [only] = items.as_slice()
                    && let Some(pipe) = self.as_table(only, env)
                    && !matches!(&only.kind, ExprKind::Name(name) if scope.columns.iter().any(|column| column.name.as_ref() == name))
                {
                    return self.in_table(at, value, &pipe, how, env);
                }
                items
            }
        };
        let mut bound = Vec::with_capacity(items.len());
        for item in items {
            let item_at = item.at;
            let item = self.scalar(item, scope, env)?;
            self.check_item(item_at, operator, &value, item.ty, how)?;
            bound.push(item);
        }
        let height = bound.iter().map(|item| item.height + 1).fold(height, usize::max);
        self.check_height(at, height)?;
        let node = match constants(&bound, how) {
            Some(set) if terms.is_none() => Node::InSet(Box::new(value), Arc::new(set), how),
            _ => Node::InList(Box::new(value), bound, how),
        };
        Ok(Typed { ty: Type::Bool, node, height })
    }

    fn check_item(&self, at: At, operator: &str, value: &Typed, item: Type, how: Membership) -> Result<(), Fault> {
        if how.fold && !matches!(item, Type::String | Type::Dynamic) {
            return Err(self.fault(at, format!("{operator} takes strings, not a {}", item.name())));
        }
        functions::comparable(&[value.ty, item]).map(|_| ()).map_err(|message| self.fault(at, message))
    }

    fn in_table(&mut self, at: At, value: Typed, pipe: &Pipe, how: Membership, env: &Env) -> Result<Typed, Fault> {
        if how.terms.is_some() {
            return Err(self.fault(pipe.at, "has_any and has_all take values, not a table"));
        }
        let (table, ty) = self.subtable(pipe, env)?;
        self.check_item(at, "in", &value, ty, how)?;
        let height = value.height + 1;
        Ok(Typed { ty: Type::Bool, node: Node::InTable(Box::new(value), table, how), height })
    }
}

/// A set of the items, when all are constants; an array stands for its items.
fn constants(items: &[Typed], how: Membership) -> Option<HashSet<Value>> {
    let mut set = HashSet::new();
    for item in items {
        let value = item.as_constant()?;
        match value {
            Value::Dynamic(json) if json.is_array() => {
                let inner = json.as_array().map(Vec::as_slice).unwrap_or_default();
                set.extend(inner.iter().map(|one| member(&Value::dynamic(one.clone()), how)));
            }
            value => {
                set.insert(member(value, how));
            }
        }
    }
    Some(set)
}
