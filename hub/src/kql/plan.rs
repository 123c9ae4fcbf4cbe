//! The typed tree: expressions and operators with every name, type and function resolved; and what is pushed to the
//! source: which rows and which columns it has to show.

use std::collections::HashSet;
use std::sync::Arc;

use super::functions::{Function, Prepared};
use super::value::{Type, Value};
use super::{Column, Compare, Filter, aggregates};

/// An expression of known type.
#[derive(Clone, Debug)]
pub struct Typed {
    /// Its type.
    pub ty: Type,
    /// What it is.
    pub node: Node,
    /// How deep the tree below is.
    pub height: usize,
}

/// An expression.
#[derive(Clone, Debug)]
pub enum Node {
    /// A constant.
    Const(Value),
    /// A column of the row.
    Column(usize),
    /// `typeof(...)`, which only a function can take.
    TypeOf(Type),
    /// Both; the second is not looked at when the first is not true.
    And(Box<[Typed; 2]>),
    /// Either.
    Or(Box<[Typed; 2]>),
    /// A function.
    Call(&'static Function, Vec<Typed>, Prepared),
    /// One of constants.
    InSet(Box<Typed>, Arc<HashSet<Value>>, Membership),
    /// One of values; with terms also whether the string has them.
    InList(Box<Typed>, Vec<Typed>, Membership),
    /// One of the first column of a table, by the number of the table.
    InTable(Box<Typed>, usize, Membership),
    /// The first cell of a table, by the number of the table.
    Scalar(usize),
}

/// How `in` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// `!in`
    pub negated: bool,
    /// Case aside.
    pub fold: bool,
    /// `has_any` and `has_all`.
    pub terms: Option<Terms>,
}

/// How many of the terms have to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// One.
    Any,
    /// Each.
    All,
}

/// A table: rows of these columns.
#[derive(Clone, Debug)]
pub struct Rel {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Where its rows come from.
    pub op: RelOp,
    /// How many operators rows pass through.
    pub height: usize,
}

/// Where rows come from.
#[derive(Clone, Debug)]
pub enum RelOp {
    /// A table of the source.
    Scan { table: String, needed: Vec<bool>, filters: Vec<Filter> },
    /// Rows of the query.
    Rows(Arc<Vec<Vec<Value>>>),
    /// `range`: from, to, step.
    Range(Value, Value, Value),
    /// Rows for which it is true.
    Where(Box<Rel>, Typed),
    /// Other columns.
    Project(Box<Rel>, Vec<Typed>),
    /// Columns replaced, and columns more.
    Extend(Box<Rel>, Vec<(usize, Typed)>),
    /// Groups.
    Summarize(Box<Rel>, Summary),
    /// Each row once.
    Distinct(Box<Rel>),
    /// In order.
    Sort(Box<Rel>, Vec<Order>),
    /// The first of an order.
    Top(Box<Rel>, usize, Vec<Order>),
    /// The first rows.
    Take(Box<Rel>, u64),
    /// How many.
    Count(Box<Rel>),
    /// Two tables.
    Join(Box<JoinPlan>),
    /// Tables one after the other; which of their columns each of ours is.
    Union(Vec<(Rel, Vec<Option<usize>>)>),
    /// Rows of arrays.
    MvExpand(Box<Rel>, Expand),
}

/// `summarize`: a row is the keys, then the columns of the aggregates.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The groups.
    pub keys: Vec<Typed>,
    /// The aggregates.
    pub aggregates: Vec<AggregateCall>,
}

/// An aggregate of a group.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// Which.
    pub kind: aggregates::Kind,
    /// Of what.
    pub arguments: Vec<Typed>,
    /// The types of the columns it makes.
    pub types: Vec<Type>,
    /// A limit that was given.
    pub max: Option<usize>,
}

/// A key of an order.
#[derive(Clone, Debug)]
pub struct Order {
    /// By what.
    pub expr: Typed,
    /// Small first.
    pub ascending: bool,
    /// Null first.
    pub nulls_first: bool,
}

/// `join`
#[derive(Clone, Debug)]
pub struct JoinPlan {
    /// Streams.
    pub left: Rel,
    /// Is kept.
    pub right: Rel,
    /// Columns of the left that have to equal those of the right.
    pub keys: Vec<(usize, usize)>,
    /// Which rows are shown.
    pub kind: JoinKind,
}

/// The kinds of `join`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Of left rows with the same key one, with each match.
    InnerUnique,
    /// Each match.
    Inner,
    /// And left rows without.
    LeftOuter,
    /// And right rows without.
    RightOuter,
    /// And both.
    FullOuter,
    /// Left rows with a match.
    LeftSemi,
    /// Left rows without.
    LeftAnti,
    /// Right rows with a match.
    RightSemi,
    /// Right rows without.
    RightAnti,
}

/// `mv-expand`
#[derive(Clone, Debug)]
pub struct Expand {
    /// What, into which column, as what.
    pub columns: Vec<(Typed, usize, Type)>,
    /// The column that counts.
    pub index: Option<usize>,
    /// Bags become pairs.
    pub pairs: bool,
    /// Rows of a row, at most.
    pub limit: u64,
}

impl Typed {
    /// A constant.
    pub fn constant(value: Value, ty: Type) -> Typed {
        Typed { ty, node: Node::Const(value), height: 1 }
    }

    /// A column.
    pub fn column(index: usize, ty: Type) -> Typed {
        Typed { ty, node: Node::Column(index), height: 1 }
    }

    /// Its value, when it is a constant.
    pub fn as_constant(&self) -> Option<&Value> {
        match &self.node {
            Node::Const(value) => Some(value),
            _ => None,
        }
    }

    /// Calls `visit` with every column it looks at.
    pub fn for_each_column(&self, visit: &mut dyn FnMut(usize)) {
        match &self.node {
            Node::Const(_) | Node::TypeOf(_) | Node::Scalar(_) => {}
            Node::Column(column) => visit(*column),
            Node::And(both) | Node::Or(both) => both.iter().for_each(|part| part.for_each_column(visit)),
            Node::Call(_, arguments, _) => arguments.iter().for_each(|part| part.for_each_column(visit)),
            Node::InSet(value, ..) | Node::InTable(value, ..) => value.for_each_column(visit),
            Node::InList(value, items, _) => {
                value.for_each_column(visit);
                items.iter().for_each(|part| part.for_each_column(visit));
            }
        }
    }

    fn mark(&self, needed: &mut [bool]) {
        self.for_each_column(&mut |column| {
            if let Some(needed) = needed.get_mut(column) {
                *needed = true;
            }
        });
    }
}

impl Rel {
    /// A table made by an operator over others of this height.
    pub fn over(height: usize, columns: Vec<Column>, op: RelOp) -> Rel {
        Rel { columns, op, height: height + 1 }
    }
}

/// A value as it is kept in a set: numbers as one type, and without case when that does not matter.
pub fn member(value: &Value, how: Membership) -> Value {
    match value.unwrapped() {
        Value::Str(text) if how.fold => Value::text(&super::text::folded(&text)),
        #[expect(clippy::cast_possible_truncation, reason = "only whole reals of a safe size")]
        Value::Real(real) if real.fract() == 0.0 && real.abs() < 9e15 => Value::Long(real as i64),
        value => value,
    }
}

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
        _ => {}
    }
}

fn filter(column: &Typed, value: &Typed, compare: Compare) -> Option<Filter> {
    let (Node::Column(index), Node::Const(constant)) = (&column.node, &value.node) else { return None };
    let usable = column.ty == value.ty && !constant.is_null();
    usable.then(|| Filter { column: *index, compare, value: constant.clone() })
}
