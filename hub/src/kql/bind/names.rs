//! Names of columns: those Kusto gives to what has none, new ones, near ones, patterns.

use crate::kql::Column;
use crate::kql::aggregates::{self, Aggregate};
use crate::kql::functions::{self, Naming, Want};
use crate::kql::syntax::{Expr, ExprKind};
use crate::kql::value::Value;

/// The first of Column1, Column2, ... that is free.
pub(super) fn unique_from_one(columns: &[Column]) -> String {
    let taken = |name: &str| columns.iter().any(|column| column.name.as_ref() == name);
    (1..).map(|n| format!("Column{n}")).find(|name| !taken(name)).unwrap_or_default()
}

/// The name Kusto gives to a column that was given none; `None` when it is Column1.
pub(super) fn implied_name(expr: &Expr) -> Option<String> {
    match &expr.kind {
        ExprKind::Name(name) => Some(name.clone()),
        ExprKind::Member(base, member) => Some(match implied_name(base) {
            Some(base) => format!("{base}_{member}"),
            None => member.clone(),
        }),
        ExprKind::Index(base, index) => {
            let index = match &index.kind {
                ExprKind::Literal(value @ (Value::Str(_) | Value::Long(_)), _) => value.to_text().to_string(),
                _ => return implied_name(base),
            };
            Some(implied_name(base).map_or(index.clone(), |base| format!("{base}_{index}")))
        }
        ExprKind::Call(name, arguments) => match (functions::find(name), aggregates::find(name)) {
            (Some(function), _) => {
                let first = arguments.first().and_then(implied_name)?;
                match function.naming {
                    Naming::Numbered => None,
                    Naming::First => Some(first),
                    Naming::After(prefix) => Some(format!("{prefix}_{first}")),
                }
            }
            (None, Some(aggregate)) => aggregate_name(aggregate, arguments),
            (None, None) => None,
        },
        _ => None,
    }
}

/// `count_`, `min_X`.
fn aggregate_name(aggregate: &Aggregate, arguments: &[Expr]) -> Option<String> {
    let of = match aggregate.parameters.first() {
        None | Some(Want::Bool) => None,
        Some(_) => arguments.first().and_then(implied_name),
    };
    match (aggregate.prefix, of) {
        ("", of) => of,
        (prefix, of) => Some(format!("{prefix}_{}", of.unwrap_or_default())),
    }
}

/// Whether a name matches a pattern in which `*` stands for anything.
pub(super) fn wildcard(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

/// The name, or the name with the first number that makes it new.
pub(super) fn unique(columns: &[Column], name: &str) -> String {
    let taken = |name: &str| columns.iter().any(|column| column.name.as_ref() == name);
    if !taken(name) {
        return name.to_owned();
    }
    (1..).map(|n| format!("{name}{n}")).find(|name| !taken(name)).unwrap_or_default()
}

/// Names that are near to a wrong one, for messages.
pub(super) fn near<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> String {
    let mut names: Vec<_> = names.collect();
    let lower = wrong.to_lowercase();
    if let Some(same) = names.iter().find(|name| name.to_lowercase() == lower) {
        return format!("; names are case-sensitive: {same}");
    }
    names.truncate(20);
    if names.is_empty() { String::new() } else { format!("; there are {}", names.join(", ")) }
}
