//! `join`: the right side is kept by its keys, the left side streams past it. A null key matches nothing.

use std::collections::{HashMap, HashSet};

use super::{Context, Push, run as run_rel, weight, weight_after};
use crate::kql::plan::{JoinKind, JoinPlan};
use crate::kql::value::Value;
use crate::kql::{Column, Stop};

struct Right {
    rows: Vec<Box<[Value]>>,
    /// Rows of a key.
    by_key: HashMap<Box<[Value]>, Vec<u32>>,
    /// Which rows had a match; empty when nobody will ask.
    matched: Vec<bool>,
}

pub(super) fn run(join: &JoinPlan, context: &Context, push: Push) -> Result<bool, Stop> {
    let mut right = keep_right(join, context)?;
    let mut seen: HashSet<Box<[Value]>> = HashSet::new();
    let mut key = Vec::with_capacity(join.keys.len());
    let mut out: Vec<Value> = Vec::new();
    let more = run_rel(&join.left, context, &mut |row| {
        key.clear();
        key.extend(join.keys.iter().map(|(left, _)| row.get(*left).cloned().unwrap_or(Value::Null)));
        let matches = match right.by_key.get(key.as_slice()) {
            Some(matches) if !key.iter().any(Value::is_null) => matches.as_slice(),
            _ => &[],
        };
        match join.kind {
            JoinKind::LeftSemi => return if matches.is_empty() { Ok(true) } else { push(row) },
            JoinKind::LeftAnti => return if matches.is_empty() { push(row) } else { Ok(true) },
            JoinKind::InnerUnique if !matches.is_empty() => {
                if seen.contains(key.as_slice()) {
                    return Ok(true);
                }
                context.charge(weight(&key))?;
                seen.insert(key.as_slice().into());
            }
            _ => {}
        }
        for index in matches {
            if let Some(matched) = right.matched.get_mut(*index as usize) {
                *matched = true;
            }
        }
        if matches!(join.kind, JoinKind::RightSemi | JoinKind::RightAnti) {
            return Ok(true);
        }
        for index in matches {
            context.tick()?;
            out.clear();
            out.extend_from_slice(row);
            out.extend_from_slice(right.rows.get(*index as usize).map_or(&[], |row| row));
            if !push(&out)? {
                return Ok(false);
            }
        }
        if matches.is_empty() && matches!(join.kind, JoinKind::LeftOuter | JoinKind::FullOuter) {
            out.clear();
            out.extend_from_slice(row);
            out.extend(missing(&join.right.columns));
            return push(&out);
        }
        Ok(true)
    })?;
    if more { rest_of_right(join, &right, push) } else { Ok(false) }
}

fn keep_right(join: &JoinPlan, context: &Context) -> Result<Right, Stop> {
    let mut right = Right { rows: Vec::new(), by_key: HashMap::new(), matched: Vec::new() };
    let mut key = Vec::with_capacity(join.keys.len());
    run_rel(&join.right, context, &mut |row| {
        key.clear();
        key.extend(join.keys.iter().map(|(_, right)| row.get(*right).cloned().unwrap_or(Value::Null)));
        let index =
            u32::try_from(right.rows.len()).map_err(|_| Stop("the right side of a join is too long".to_owned()))?;
        context.charge(weight_after(row, right.rows.last().map_or(&[], |last| last)) + 8)?;
        right.rows.push(row.into());
        right.matched.push(false);
        match right.by_key.get_mut(key.as_slice()) {
            Some(rows) => rows.push(index),
            None => {
                context.charge(weight(&key))?;
                right.by_key.insert(key.as_slice().into(), vec![index]);
            }
        }
        Ok(true)
    })?;
    Ok(right)
}

/// The right rows that some kinds show after all left ones.
fn rest_of_right(join: &JoinPlan, right: &Right, push: Push) -> Result<bool, Stop> {
    let wanted = match join.kind {
        JoinKind::RightSemi => true,
        JoinKind::RightAnti | JoinKind::RightOuter | JoinKind::FullOuter => false,
        _ => return Ok(true),
    };
    let mut out = Vec::new();
    for (row, _) in right.rows.iter().zip(&right.matched).filter(|(_, matched)| **matched == wanted) {
        out.clear();
        if matches!(join.kind, JoinKind::RightOuter | JoinKind::FullOuter) {
            out.extend(missing(&join.left.columns));
        }
        out.extend_from_slice(row);
        if !push(&out)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn missing(columns: &[Column]) -> impl Iterator<Item = Value> {
    columns.iter().map(|column| column.ty.missing())
}
