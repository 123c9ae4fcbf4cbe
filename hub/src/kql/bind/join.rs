//! `join`

use super::names::{near, unique};
use super::{Binder, Env};
use crate::kql::plan::{JoinKind, JoinPlan, Rel, RelOp};
use crate::kql::syntax::{At, Expr, ExprKind, Join};
use crate::kql::value::Type;
use crate::kql::{Column, Fault};

/// All names of all kinds.
const KINDS: &[(&str, JoinKind)] = &[
    ("innerunique", JoinKind::InnerUnique),
    ("inner", JoinKind::Inner),
    ("leftouter", JoinKind::LeftOuter),
    ("rightouter", JoinKind::RightOuter),
    ("fullouter", JoinKind::FullOuter),
    ("leftsemi", JoinKind::LeftSemi),
    ("leftanti", JoinKind::LeftAnti),
    ("anti", JoinKind::LeftAnti),
    ("leftantisemi", JoinKind::LeftAnti),
    ("rightsemi", JoinKind::RightSemi),
    ("rightanti", JoinKind::RightAnti),
    ("rightantisemi", JoinKind::RightAnti),
];

impl Binder<'_> {
    pub(super) fn join(&mut self, at: At, left: Rel, join: &Join, env: &Env) -> Result<Rel, Fault> {
        let (kind_at, kind) = &join.kind;
        let kind = match kind.as_str() {
            "" => JoinKind::InnerUnique,
            name => match KINDS.iter().find(|(known, _)| *known == name) {
                Some((_, kind)) => *kind,
                None => {
                    let names: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
                    return Err(
                        self.fault(*kind_at, format!("{name:?} is no kind of join; there are {}", names.join(", ")))
                    );
                }
            },
        };
        let right = self.pipe(&join.right, env)?;
        let mut keys = Vec::new();
        for condition in &join.on {
            self.condition(condition, &left, &right, &mut keys)?;
        }
        let columns = match kind {
            JoinKind::LeftSemi | JoinKind::LeftAnti => left.columns.clone(),
            JoinKind::RightSemi | JoinKind::RightAnti => right.columns.clone(),
            _ => {
                let mut columns = left.columns.clone();
                for column in &right.columns {
                    columns.push(Column::new(&unique(&columns, &column.name), column.ty));
                }
                columns
            }
        };
        let height = left.height.max(right.height);
        self.node(at)?;
        Ok(Rel::over(height, columns, RelOp::Join(Box::new(JoinPlan { left, right, keys, kind }))))
    }

    fn condition(&mut self, expr: &Expr, left: &Rel, right: &Rel, keys: &mut Vec<(usize, usize)>) -> Result<(), Fault> {
        let sides = match &expr.kind {
            ExprKind::Name(name) => Some((name, name)),
            ExprKind::Call(sign, arguments) => match (sign.as_str(), arguments.as_slice()) {
                ("and", [a, b]) => {
                    self.condition(a, left, right, keys)?;
                    return self.condition(b, left, right, keys);
                }
                ("==", [a, b]) => match (side(a), side(b)) {
                    (Some((true, a)), Some((false, b))) | (Some((false, b)), Some((true, a))) => Some((a, b)),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        let Some((of_left, of_right)) = sides else {
            let message = "a join compares columns: a name of both sides, or $left.a == $right.b";
            return Err(self.fault(expr.at, message));
        };
        let (a, a_type) = self.key(expr.at, left, of_left, "left")?;
        let (b, b_type) = self.key(expr.at, right, of_right, "right")?;
        let fits = a_type == b_type || (a_type.is_integer() && b_type.is_integer());
        if !fits || a_type == Type::Dynamic {
            let hint = if a_type == Type::Dynamic { "; tostring() makes a key of a dynamic" } else { "" };
            let message = format!("{} and {} cannot be keys of a join{hint}", a_type.name(), b_type.name());
            return Err(self.fault(expr.at, message));
        }
        keys.push((a, b));
        Ok(())
    }

    fn key(&self, at: At, rel: &Rel, name: &str, side: &str) -> Result<(usize, Type), Fault> {
        let place = rel.columns.iter().position(|column| column.name.as_ref() == name);
        match place.and_then(|place| rel.columns.get(place).map(|column| (place, column.ty))) {
            Some(key) => Ok(key),
            None => {
                let names = rel.columns.iter().map(|column| column.name.as_ref());
                Err(self.fault(at, format!("the {side} side has no column {name:?}{}", near(name, names))))
            }
        }
    }
}

/// `$left.a`: whether it is the left side, and the column.
fn side(expr: &Expr) -> Option<(bool, &String)> {
    let ExprKind::Member(base, column) = &expr.kind else { return None };
    match &base.kind {
        ExprKind::Name(name) if name == "$left" => Some((true, column)),
        ExprKind::Name(name) if name == "$right" => Some((false, column)),
        _ => None,
    }
}
