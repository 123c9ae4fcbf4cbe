//! What is pushed to the sources: which rows and which columns they have to show.

use std::collections::HashSet;

use super::{JoinKind, JoinPlan, Node, Rel, RelOp, Typed};
use crate::kql::value::{Type, Value};
use crate::kql::{Compare, Filter};

/// So many texts of an `in` a source is asked for at most.
const MAX_TEXTS: usize = 1000;

/// Tells the sources below which rows and columns matter.
pub fn optimize(rel: &mut Rel) {
    let all = vec![true; rel.columns.len()];
    need(rel, &all);
}

/// `wanted`: which columns of the table are looked at above.
fn need(rel: &mut Rel, wanted: &[bool]) {
    let width = rel.columns.len();
    match &mut rel.op {
        RelOp::Scan { needed, .. } => *needed = wanted.to_vec(),
        RelOp::Rows(_) | RelOp::Range(..) => {}
        RelOp::Where(input, predicate) => {
            let mut below = wanted.to_vec();
            predicate.mark(&mut below);
            need(input, &below);
            let mut filters = Vec::new();
            conjuncts(predicate, &mut filters);
            push_filters(input, filters);
        }
        RelOp::Project(input, exprs) => {
            need_of(input, exprs.iter().zip(wanted).filter(|(_, w)| **w).map(|(expr, _)| expr))
        }
        RelOp::Extend(input, exprs) => {
            let mut below: Vec<bool> = wanted.iter().copied().take(input.columns.len()).collect();
            for (column, _) in exprs.iter() {
                if let Some(replaced) = below.get_mut(*column) {
                    *replaced = false;
                }
            }
            exprs.iter().for_each(|(_, expr)| expr.mark(&mut below));
            need(input, &below);
        }
        RelOp::Summarize(input, summary) => {
            let arguments = summary.aggregates.iter().flat_map(|call| &call.arguments);
            need_of(input, summary.keys.iter().chain(arguments));
        }
        RelOp::Distinct(input) => need(input, &vec![true; width]),
        RelOp::Sort(input, keys) | RelOp::Top(input, _, keys) => {
            let mut below = wanted.to_vec();
            keys.iter().for_each(|key| key.expr.mark(&mut below));
            need(input, &below);
        }
        RelOp::Take(input, _) => need(input, wanted),
        RelOp::Count(input) => need_of(input, []),
        RelOp::Join(join) => need_join(join, wanted),
        RelOp::Union(legs) => {
            for (leg, columns) in legs {
                let mut below = vec![false; leg.columns.len()];
                for (theirs, _) in columns.iter().zip(wanted).filter(|(_, wanted)| **wanted) {
                    if let Some(below) = theirs.and_then(|theirs| below.get_mut(theirs)) {
                        *below = true;
                    }
                }
                need(leg, &below);
            }
        }
        RelOp::MvExpand(input, expand) => {
            let mut below: Vec<bool> = wanted.iter().copied().take(input.columns.len()).collect();
            expand.columns.iter().for_each(|(expr, ..)| expr.mark(&mut below));
            need(input, &below);
        }
    }
}

fn need_of<'a>(input: &mut Rel, exprs: impl IntoIterator<Item = &'a Typed>) {
    let mut below = vec![false; input.columns.len()];
    exprs.into_iter().for_each(|expr| expr.mark(&mut below));
    need(input, &below);
}

fn need_join(join: &mut JoinPlan, wanted: &[bool]) {
    let (left, right) = (join.left.columns.len(), join.right.columns.len());
    let (mut of_left, mut of_right) = match join.kind {
        JoinKind::LeftSemi | JoinKind::LeftAnti => (wanted.to_vec(), vec![false; right]),
        JoinKind::RightSemi | JoinKind::RightAnti => (vec![false; left], wanted.to_vec()),
        _ => {
            let (of_left, of_right) = wanted.split_at_checked(left).unwrap_or((wanted, &[]));
            (of_left.to_vec(), of_right.to_vec())
        }
    };
    for (a, b) in &join.keys {
        for (needed, column) in [(&mut of_left, a), (&mut of_right, b)] {
            if let Some(needed) = needed.get_mut(*column) {
                *needed = true;
            }
        }
    }
    need(&mut join.left, &of_left);
    need(&mut join.right, &of_right);
}

/// Hands comparisons with constants down to the sources, under the names the columns have there. The predicate stays, so
/// that a source may be inexact.
fn push_filters(input: &mut Rel, mut filters: Vec<Filter>) {
    let renamed = |filters: &[Filter], name: &dyn Fn(usize) -> Option<usize>| -> Vec<Filter> {
        let below = |filter: &Filter| Some(Filter { column: name(filter.column)?, ..filter.clone() });
        filters.iter().filter_map(below).collect()
    };
    match &mut input.op {
        RelOp::Scan { filters: known, .. } => known.append(&mut filters),
        RelOp::Where(inner, _) | RelOp::Sort(inner, _) => push_filters(inner, filters),
        RelOp::Extend(inner, exprs) => {
            let width = inner.columns.len();
            let kept = |column| (column < width && exprs.iter().all(|(made, _)| *made != column)).then_some(column);
            push_filters(inner, renamed(&filters, &kept));
        }
        RelOp::Project(inner, exprs) => {
            let source = |column: usize| match exprs.get(column)?.node {
                Node::Column(below) => Some(below),
                _ => None,
            };
            push_filters(inner, renamed(&filters, &source));
        }
        RelOp::Union(legs) => {
            for (leg, map) in legs {
                push_filters(leg, renamed(&filters, &|column| map.get(column).copied().flatten()));
            }
        }
        _ => {}
    }
}

fn conjuncts(predicate: &Typed, filters: &mut Vec<Filter>) {
    match &predicate.node {
        Node::And(both) => both.iter().for_each(|part| conjuncts(part, filters)),
        Node::Call(function, arguments, _) => match (function.name, arguments.as_slice()) {
            (sign, [a, b]) => {
                let pair = |column: &Typed, value: &Typed, compare| filter(column, value, compare);
                let found = match sign {
                    "==" => pair(a, b, Compare::Equal).or_else(|| pair(b, a, Compare::Equal)),
                    ">=" => pair(a, b, Compare::AtLeast).or_else(|| pair(b, a, Compare::AtMost)),
                    ">" => pair(a, b, Compare::Above).or_else(|| pair(b, a, Compare::Below)),
                    "<=" => pair(a, b, Compare::AtMost).or_else(|| pair(b, a, Compare::AtLeast)),
                    "<" => pair(a, b, Compare::Below).or_else(|| pair(b, a, Compare::Above)),
                    _ => None,
                };
                filters.extend(found);
            }
            ("between", [value, low, high]) => {
                filters.extend(filter(value, low, Compare::AtLeast));
                filters.extend(filter(value, high, Compare::AtMost));
            }
            _ => {}
        },
        Node::InSet(value, set, how) if !how.negated && !how.fold => filters.extend(one_of(value, set)),
        _ => {}
    }
}

/// A column of text that has to be one of some texts.
fn one_of(column: &Typed, set: &HashSet<Value>) -> Option<Filter> {
    let (Node::Column(index), Type::String) = (&column.node, column.ty) else { return None };
    let texts = set.iter().map(|value| match value {
        Value::Str(text) => Some(text.to_string()),
        _ => None,
    });
    let mut texts = texts.collect::<Option<Vec<_>>>().filter(|texts| texts.len() <= MAX_TEXTS)?;
    texts.sort();
    Some(Filter { column: *index, compare: Compare::OneOf, value: Value::dynamic(texts.into()) })
}

fn filter(column: &Typed, value: &Typed, compare: Compare) -> Option<Filter> {
    let (Node::Column(index), Node::Const(constant)) = (&column.node, &value.node) else { return None };
    let usable = column.ty == value.ty && !constant.is_null();
    usable.then(|| Filter { column: *index, compare, value: constant.clone() })
}
