//! The syntax tree: what was written, and where. Names are not looked up yet.

use super::value::{Type, Value};

/// A byte offset in the text.
pub type At = usize;

/// A query: definitions, then what to show.
#[derive(Clone, Debug)]
pub struct Query {
    /// In order; each sees those before it.
    pub lets: Vec<Let>,
    /// The table the query gives.
    pub body: Pipe,
}

/// `let name = ...;`
#[derive(Clone, Debug)]
pub struct Let {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub value: Definition,
}

/// What a `let` may define.
#[derive(Clone, Debug)]
pub enum Definition {
    /// A value; a bare name may also be a table.
    Scalar(Expr),
    /// A table.
    Table(Pipe),
    /// A function.
    Function(Function),
}

/// `(a: string, T: (x: long)) { ... }`
#[derive(Clone, Debug)]
pub struct Function {
    /// Its parameters; `None` as type is a table.
    pub parameters: Vec<(String, Option<Type>)>,
    /// Definitions inside.
    pub lets: Vec<Let>,
    /// What it gives.
    pub body: Box<Definition>,
}

/// A source and what is done to it.
#[derive(Clone, Debug)]
pub struct Pipe {
    /// Where it begins.
    pub at: At,
    /// Where rows come from.
    pub source: Source,
    /// In order.
    pub operators: Vec<Operator>,
}

/// Where rows come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A table, a `let`, or a function of tables with its arguments.
    Name(String, Option<Vec<Argument>>),
    /// `( ... )`
    Nested(Box<Pipe>),
    /// `datatable (columns) [values]`
    Datatable(Vec<(String, Type)>, Vec<Expr>),
    /// `print`
    Print(Vec<Named>),
    /// `range name from a to b step c`
    Range(String, Box<[Expr; 3]>),
    /// `union` at the start of a query.
    Union(Union),
}

/// An argument of a function that was defined with `let`.
#[derive(Clone, Debug)]
pub enum Argument {
    /// A value or a name.
    Scalar(Expr),
    /// A table in place.
    Table(Pipe),
}

/// `| name ...`
#[derive(Clone, Debug)]
pub struct Operator {
    /// Where its name is.
    pub at: At,
    /// What it does.
    pub kind: OperatorKind,
}

/// What an operator does.
#[derive(Clone, Debug)]
pub enum OperatorKind {
    /// `where`
    Where(Expr),
    /// `project`
    Project(Vec<Named>),
    /// `project-away`, with wildcards.
    ProjectAway(Vec<(At, String)>),
    /// `project-keep`, with wildcards.
    ProjectKeep(Vec<(At, String)>),
    /// `project-rename`
    ProjectRename(Vec<Named>),
    /// `extend`
    Extend(Vec<Named>),
    /// `summarize ... by ...`
    Summarize(Vec<Named>, Vec<Named>),
    /// `join`
    Join(Join),
    /// `order by`
    Sort(Vec<SortKey>),
    /// `top n by`
    Top(Expr, Vec<SortKey>),
    /// `take`
    Take(Expr),
    /// `distinct`
    Distinct(Vec<Named>),
    /// `count`
    Count,
    /// `union`
    Union(Union),
    /// `mv-expand`
    MvExpand(MvExpand),
}

/// An expression with the names it was given; an `arg_max` may be given several.
#[derive(Clone, Debug)]
pub struct Named {
    /// None when it was not named.
    pub names: Vec<String>,
    /// What it is.
    pub expr: Expr,
    /// `to typeof(...)` of `mv-expand`.
    pub to: Option<Type>,
}

/// A key of an order.
#[derive(Clone, Debug)]
pub struct SortKey {
    /// By what.
    pub expr: Expr,
    /// Small before large.
    pub ascending: bool,
    /// Null before all.
    pub nulls_first: bool,
}

/// `join kind=... (right) on ...`
#[derive(Clone, Debug)]
pub struct Join {
    /// As written; empty when it was not.
    pub kind: (At, String),
    /// The right side.
    pub right: Box<Pipe>,
    /// Names of both sides, or `$left.a == $right.b`.
    pub on: Vec<Expr>,
}

/// `union kind=... withsource=... legs`
#[derive(Clone, Debug)]
pub struct Union {
    /// Only the columns all legs have.
    pub inner: bool,
    /// The column that names the leg.
    pub with_source: Option<String>,
    /// The legs.
    pub legs: Vec<Pipe>,
}

/// `mv-expand`
#[derive(Clone, Debug)]
pub struct MvExpand {
    /// Bags become pairs instead of bags of one.
    pub pairs: bool,
    /// The column that counts from 0.
    pub index: Option<String>,
    /// What is expanded, side by side.
    pub columns: Vec<Named>,
    /// Rows made of one row, at most.
    pub limit: u64,
}

/// An expression and where it begins.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Where.
    pub at: At,
    /// What.
    pub kind: ExprKind,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// A literal.
    Literal(Value, Type),
    /// `typeof(...)`
    TypeOf(Type),
    /// A column, a `let`.
    Name(String),
    /// `*` as an argument.
    Star,
    /// A function or an operator by its sign.
    Call(String, Vec<Expr>),
    /// `a in (b, c)`; the name is the operator.
    In(String, Box<Expr>, InList),
    /// `a.b`
    Member(Box<Expr>, String),
    /// `a[b]`
    Index(Box<Expr>, Box<Expr>),
    /// `toscalar(table)`
    ToScalar(Box<Pipe>),
}

/// What stands right of `in`.
#[derive(Clone, Debug)]
pub enum InList {
    /// Values.
    Values(Vec<Expr>),
    /// A table, of which the first column counts.
    Table(Box<Pipe>),
}
