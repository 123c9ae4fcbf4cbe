//! The typed tree: expressions and operators with every name, type and function resolved.

mod push;

use std::collections::HashSet;
use std::sync::Arc;

pub use push::optimize;

use super::functions::{Function, Prepared};
use super::value::{Type, Value};
use super::{Column, Filter, aggregates};

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
