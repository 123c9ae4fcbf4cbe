//! Expressions over a row.

use super::Context;
use crate::kql::Stop;
use crate::kql::functions::{Call, Env, Function, MAX_BYTES, Prepared, equal};
use crate::kql::plan::{Membership, Node, Terms, Typed, member};
use crate::kql::text::{Needle, Place, same_folded};
use crate::kql::value::{Type, Value};

/// Where an expression is evaluated: in a run, or while the query is resolved.
pub(super) struct Inside<'a, 'c> {
    pub(super) env: &'a Env,
    pub(super) context: Option<&'a Context<'c>>,
}

impl Context<'_> {
    pub(super) fn eval(&self, typed: &Typed, row: &[Value]) -> Result<Value, Stop> {
        eval(typed, row, &Inside { env: &self.env, context: Some(self) })
    }
}

/// The value of an expression.
pub(super) fn eval(typed: &Typed, row: &[Value], inside: &Inside) -> Result<Value, Stop> {
    match &typed.node {
        Node::Const(value) => Ok(value.clone()),
        Node::Column(index) => Ok(row.get(*index).cloned().unwrap_or(Value::Null)),
        Node::TypeOf(_) => Ok(Value::Null),
        Node::And(both) => {
            let [a, b] = both.as_ref();
            Ok(Value::Bool(is_true(&eval(a, row, inside)?) && is_true(&eval(b, row, inside)?)))
        }
        Node::Or(both) => {
            let [a, b] = both.as_ref();
            Ok(Value::Bool(is_true(&eval(a, row, inside)?) || is_true(&eval(b, row, inside)?)))
        }
        Node::Call(function, arguments, prepared) => {
            // Most calls have few arguments; those need no allocation.
            let of =
                |index: usize| arguments.get(index).map_or(Ok(Value::Null), |argument| eval(argument, row, inside));
            match arguments.len() {
                1 => call(function, &[of(0)?], typed.ty, prepared, inside.env),
                2 => call(function, &[of(0)?, of(1)?], typed.ty, prepared, inside.env),
                3 if !matches!(arguments.last(), Some(Typed { node: Node::TypeOf(_), .. })) => {
                    call(function, &[of(0)?, of(1)?, of(2)?], typed.ty, prepared, inside.env)
                }
                3 => call(function, &[of(0)?, of(1)?], typed.ty, prepared, inside.env),
                _ => {
                    let values = arguments.iter().filter(|argument| !matches!(argument.node, Node::TypeOf(_)));
                    let values = values.map(|argument| eval(argument, row, inside)).collect::<Result<Vec<_>, _>>()?;
                    call(function, &values, typed.ty, prepared, inside.env)
                }
            }
        }
        Node::InSet(value, set, how) => {
            let value = eval(value, row, inside)?;
            Ok(among(&value, *how, set.contains(&member(&value, *how))))
        }
        Node::InList(value, items, how) => {
            let value = eval(value, row, inside)?;
            let mut items = items.iter().map(|item| eval(item, row, inside));
            in_list(&value, &mut items, *how)
        }
        Node::InTable(value, table, how) => {
            let value = eval(value, row, inside)?;
            let found = match inside.context {
                Some(context) => context.has_member(*table, &value, *how)?,
                None => false,
            };
            Ok(among(&value, *how, found))
        }
        Node::Scalar(table) => match inside.context {
            Some(context) => context.first_cell(*table, typed.ty),
            None => Ok(Value::Null),
        },
    }
}

fn is_true(value: &Value) -> bool {
    matches!(value, Value::Bool(true))
}

fn call(function: &Function, arguments: &[Value], ty: Type, prepared: &Prepared, env: &Env) -> Result<Value, Stop> {
    if !function.sees_null && arguments.iter().any(Value::is_null) {
        return Ok(ty.missing());
    }
    let value = (function.eval)(arguments, &Call { env, ty, prepared })?;
    match value {
        Value::Null => Ok(ty.missing()),
        #[expect(clippy::cast_precision_loss, reason = "a long becomes the nearest real")]
        Value::Long(long) if ty == Type::Real => Ok(Value::Real(long as f64)),
        Value::Str(text) if text.len() > MAX_BYTES => Err(too_large(function)),
        Value::Dynamic(json) if function.rest.is_some() && Value::Dynamic(json.clone()).weight() > 4 * MAX_BYTES => {
            Err(too_large(function))
        }
        value => Ok(value),
    }
}

fn too_large(function: &Function) -> Stop {
    Stop(format!("{} would make a value of more than {MAX_BYTES} bytes", function.name))
}

fn among(value: &Value, how: Membership, found: bool) -> Value {
    // null is in no list, and it is not in none either, as with == and !=.
    if value.is_null() { Value::Bool(how.negated) } else { Value::Bool(found != how.negated) }
}

fn in_list(
    value: &Value,
    items: &mut dyn Iterator<Item = Result<Value, Stop>>,
    how: Membership,
) -> Result<Value, Stop> {
    let text = value.to_text();
    let mut holds = how.terms == Some(Terms::All);
    for item in items {
        let item = item?;
        let inner = match &item {
            Value::Dynamic(json) if json.is_array() => {
                let inner = json.as_array().map(Vec::as_slice).unwrap_or_default();
                inner.iter().map(|one| Value::dynamic(one.clone())).collect()
            }
            _ => vec![item],
        };
        for item in inner {
            match how.terms {
                Some(Terms::Any) => holds |= Needle::new(&item.to_text(), true).is_in(&text, Place::Term),
                Some(Terms::All) => holds &= Needle::new(&item.to_text(), true).is_in(&text, Place::Term),
                None if how.fold => holds |= same_folded(&text, &item.to_text()),
                None => holds |= is_true(&equal(value, &item)),
            }
        }
    }
    Ok(among(value, how, holds))
}

impl Context<'_> {
    fn has_member(&self, table: usize, value: &Value, how: Membership) -> Result<bool, Stop> {
        let (Some(rel), Some(cell)) = (self.tables.get(table), self.sets.get(table)) else { return Ok(false) };
        if cell.get().is_none() {
            let mut set = std::collections::HashSet::new();
            super::run(rel, self, &mut |row| {
                let value = member(row.first().unwrap_or(&Value::Null), how);
                if !set.contains(&value) {
                    self.charge(value.weight() + 16)?;
                    set.insert(value);
                }
                Ok(true)
            })?;
            // Set once: a table cannot contain itself.
            drop(cell.set(set));
        }
        Ok(cell.get().is_some_and(|set| set.contains(&member(value, how))))
    }

    fn first_cell(&self, table: usize, ty: Type) -> Result<Value, Stop> {
        let (Some(rel), Some(cell)) = (self.tables.get(table), self.scalars.get(table)) else {
            return Ok(ty.missing());
        };
        if cell.get().is_none() {
            let mut first = ty.missing();
            super::run(rel, self, &mut |row| {
                first = row.first().cloned().unwrap_or(Value::Null);
                Ok(false)
            })?;
            drop(cell.set(first));
        }
        Ok(cell.get().cloned().unwrap_or(Value::Null))
    }
}
