//! `summarize`: one state per aggregate and group, groups found by hash and shown in the order they came.

use std::collections::HashMap;

use super::{Context, Push, run as run_rel, weight};
use crate::kql::Stop;
use crate::kql::aggregates::State;
use crate::kql::plan::{Rel, Summary};
use crate::kql::value::Value;

/// What a group takes beside its key and its values.
const GROUP_BYTES: usize = 160;

pub(super) fn run(input: &Rel, summary: &Summary, context: &Context, push: Push) -> Result<bool, Stop> {
    let mut numbers: HashMap<Box<[Value]>, usize> = HashMap::new();
    let mut groups: Vec<Vec<State>> = Vec::new();
    let states = || summary.aggregates.iter().map(|call| State::new(call.kind, first(&call.types), call.max)).collect();
    let mut key = Vec::with_capacity(summary.keys.len());
    let mut arguments = Vec::new();
    if summary.keys.is_empty() {
        // Without groups there is one, even of no rows.
        numbers.insert(Box::default(), 0);
        groups.push(states());
    }
    run_rel(input, context, &mut |row| {
        key.clear();
        for expr in &summary.keys {
            key.push(context.eval(expr, row)?);
        }
        let number = match numbers.get(key.as_slice()) {
            Some(number) => *number,
            None => {
                context.charge(weight(&key) + GROUP_BYTES * (1 + summary.aggregates.len()))?;
                numbers.insert(key.as_slice().into(), groups.len());
                groups.push(states());
                groups.len() - 1
            }
        };
        let Some(group) = groups.get_mut(number) else { return Ok(true) };
        for (state, call) in group.iter_mut().zip(&summary.aggregates) {
            arguments.clear();
            for expr in &call.arguments {
                arguments.push(context.eval(expr, row)?);
            }
            let bytes = state.add(call.kind, &arguments);
            if bytes > 0 {
                context.charge(bytes)?;
            }
        }
        Ok(true)
    })?;
    let mut keys: Vec<_> = numbers.into_iter().collect();
    keys.sort_unstable_by_key(|(_, number)| *number);
    for ((key, _), group) in keys.into_iter().zip(groups) {
        let mut out = key.into_vec();
        for (state, call) in group.into_iter().zip(&summary.aggregates) {
            let from = out.len();
            state.finish(&mut out, call.types.len())?;
            for (cell, ty) in out.iter_mut().skip(from).zip(&call.types).filter(|(cell, _)| cell.is_null()) {
                *cell = ty.missing();
            }
        }
        if !push(&out)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn first(types: &[crate::kql::value::Type]) -> crate::kql::value::Type {
    types.first().copied().unwrap_or(crate::kql::value::Type::Dynamic)
}
