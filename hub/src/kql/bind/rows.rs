//! `mv-expand` and `union`, which change how many rows there are and what columns.

use super::names::{implied_name, unique, unique_from_one};
use super::{Binder, Env, Scope};
use crate::kql::plan::{Expand, Rel, RelOp, Typed};
use crate::kql::syntax::{MvExpand, Source, Union};
use crate::kql::value::{Type, Value};
use crate::kql::{Column, Fault};

impl Binder<'_> {
    pub(super) fn mv_expand(&mut self, input: Rel, expand: &MvExpand, scope: &Scope, env: &Env) -> Result<Rel, Fault> {
        let mut columns = input.columns.clone();
        let mut bound = Vec::new();
        for named in &expand.columns {
            let typed = self.scalar(&named.expr, scope, env)?;
            if typed.ty != Type::Dynamic {
                let message =
                    format!("mv-expand takes a dynamic, not a {}; parse_json() makes one of text", typed.ty.name());
                return Err(self.fault(named.expr.at, message));
            }
            let ty = named.to.unwrap_or(Type::Dynamic);
            let name = match self.one_name(named)? {
                Some(name) => name,
                None => implied_name(&named.expr).unwrap_or_else(|| unique_from_one(&columns)),
            };
            let column = Column::new(&name, ty);
            let index = columns.iter().position(|column| column.name.as_ref() == name);
            let index = index.unwrap_or(columns.len());
            columns.splice(index..(index + 1).min(columns.len()), [column]);
            bound.push((typed, index, ty));
        }
        let index = expand.index.as_ref().map(|name| {
            let name = unique(&columns, name);
            columns.push(Column::new(&name, Type::Long));
            columns.len() - 1
        });
        let expand = Expand { columns: bound, index, pairs: expand.pairs, limit: expand.limit };
        Ok(Rel::over(input.height, columns, RelOp::MvExpand(Box::new(input), expand)))
    }

    pub(super) fn union(&mut self, input: Option<Rel>, union: &Union, env: &Env) -> Result<Rel, Fault> {
        let mut legs: Vec<(String, Rel)> = input.map(|rel| ("union_arg0".to_owned(), rel)).into_iter().collect();
        for pipe in &union.legs {
            let name = match &pipe.source {
                Source::Name(name, None) if pipe.operators.is_empty() => name.clone(),
                _ => format!("union_arg{}", legs.len()),
            };
            legs.push((name, self.pipe(pipe, env)?));
        }
        let height = legs.iter().map(|(_, leg)| leg.height).max().unwrap_or(0);
        let mut columns: Vec<Column> = Vec::new();
        columns.extend(union.with_source.as_ref().map(|name| Column::new(name, Type::String)));
        let first = columns.len();
        let all: Vec<&Column> = distinct_columns(&legs);
        for column in &all {
            let everywhere = legs.iter().all(|(_, leg)| leg.columns.contains(column));
            if union.inner && !everywhere {
                continue;
            }
            let twice = all.iter().filter(|other| other.name == column.name).count() > 1;
            let name = if twice { format!("{}_{}", column.name, column.ty.name()) } else { column.name.to_string() };
            columns.push(Column::new(&unique(&columns, &name), column.ty));
        }
        let shown: Vec<Column> = all
            .iter()
            .filter(|column| !union.inner || legs.iter().all(|(_, leg)| leg.columns.contains(column)))
            .map(|column| (*column).clone())
            .collect();
        let with_source = union.with_source.is_some();
        let legs = legs
            .into_iter()
            .map(|(name, leg)| {
                let mut map: Vec<Option<usize>> = Vec::new();
                let leg = if with_source { self.with_source(leg, &name) } else { leg };
                map.extend((first == 1).then(|| Some(leg.columns.len() - 1)));
                map.extend(shown.iter().map(|column| {
                    let own = leg.columns.len() - usize::from(with_source);
                    leg.columns.iter().take(own).position(|own| own == column)
                }));
                (leg, map)
            })
            .collect();
        Ok(Rel::over(height + 1, columns, RelOp::Union(legs)))
    }

    /// The table with its name as a last column.
    fn with_source(&mut self, leg: Rel, name: &str) -> Rel {
        let mut columns = leg.columns.clone();
        columns.push(Column::new("", Type::String));
        let name = Typed::constant(Value::text(name), Type::String);
        let index = columns.len() - 1;
        Rel::over(leg.height, columns, RelOp::Extend(Box::new(leg), vec![(index, name)]))
    }
}

fn distinct_columns(legs: &[(String, Rel)]) -> Vec<&Column> {
    let mut all: Vec<&Column> = Vec::new();
    for column in legs.iter().flat_map(|(_, leg)| &leg.columns) {
        if !all.contains(&column) {
            all.push(column);
        }
    }
    all
}
