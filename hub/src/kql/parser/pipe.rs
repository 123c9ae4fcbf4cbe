//! Sources and operators.

use super::Parser;
use crate::kql::Fault;
use crate::kql::lexer::Tok;
use crate::kql::operators;
use crate::kql::syntax::{
    At, Expr, ExprKind, Join, MvExpand, Named, Operator, OperatorKind, Pipe, SortKey, Source, Union,
};
use crate::kql::value::{Type, Value};

/// How many operators one pipe may have; rows pass through them as nested calls.
const MAX_OPERATORS: usize = 100;

/// How many rows the old spelling `mvexpand` makes of one.
const OLD_EXPAND_LIMIT: u64 = 128;

impl Parser<'_> {
    pub(super) fn pipe(&mut self) -> Result<Pipe, Fault> {
        self.deeper(|parser| {
            let at = parser.at();
            let source = parser.source()?;
            let mut operators = Vec::new();
            while parser.eat("|") {
                let at = parser.at();
                let Tok::Name(name) = parser.advance() else {
                    parser.next -= 1;
                    return Err(parser.unexpected("an operator"));
                };
                let Some(known) = operators::find(&name) else {
                    return Err(parser.fault_before(operators::refusal(&name)));
                };
                let kind = parser.operator(known.name, &name)?;
                operators.push(Operator { at, kind });
                if operators.len() > MAX_OPERATORS {
                    return Err(parser.fault(format!("a pipe of more than {MAX_OPERATORS} operators")));
                }
            }
            Ok(Pipe { at, source, operators })
        })
    }

    fn source(&mut self) -> Result<Source, Fault> {
        if self.eat("(") {
            let inner = self.pipe()?;
            self.expect(")")?;
            return Ok(Source::Nested(Box::new(inner)));
        }
        let at = self.at();
        let name = self.name("a table")?;
        match name.as_str() {
            "print" => Ok(Source::Print(self.named_list()?)),
            "datatable" => self.datatable(),
            "union" => Ok(Source::Union(self.union()?)),
            "range" if matches!(self.peek(), Tok::Name(_)) => self.range(),
            "materialize" if self.eat("(") => {
                let inner = self.pipe()?;
                self.expect(")")?;
                Ok(Source::Nested(Box::new(inner)))
            }
            _ if self.is("(") => Ok(Source::Name(name, Some(self.arguments()?))),
            "search" | "find" | "externaldata" | "evaluate" => Err(Fault::at(self.text, at, operators::refusal(&name))),
            _ if self.is("*") => Err(self.fault("wildcards for tables are not supported here; name the tables")),
            _ => Ok(Source::Name(name, None)),
        }
    }

    fn datatable(&mut self) -> Result<Source, Fault> {
        self.expect("(")?;
        let mut columns = Vec::new();
        while !self.eat(")") {
            let name = self.name("a column")?;
            self.expect(":")?;
            columns.push((name, self.type_name()?));
            if !self.is(")") {
                self.expect(",")?;
            }
        }
        self.expect("[")?;
        Ok(Source::Datatable(columns, self.list("]")?))
    }

    fn range(&mut self) -> Result<Source, Fault> {
        let name = self.name("a column")?;
        self.expect_word("from")?;
        let from = self.expr()?;
        self.expect_word("to")?;
        let to = self.expr()?;
        self.expect_word("step")?;
        let step = self.expr()?;
        Ok(Source::Range(name, Box::new([from, to, step])))
    }

    fn operator(&mut self, name: &str, written: &str) -> Result<OperatorKind, Fault> {
        Ok(match name {
            "where" => OperatorKind::Where(self.expr()?),
            "project" => OperatorKind::Project(self.named_list()?),
            "project-away" => OperatorKind::ProjectAway(self.patterns()?),
            "project-keep" => OperatorKind::ProjectKeep(self.patterns()?),
            "project-rename" => OperatorKind::ProjectRename(self.named_list()?),
            "extend" => OperatorKind::Extend(self.named_list()?),
            "summarize" => self.summarize()?,
            "join" => OperatorKind::Join(self.join()?),
            "sort" => {
                self.expect_word("by")?;
                OperatorKind::Sort(self.sort_keys()?)
            }
            "top" => {
                let count = self.expr()?;
                self.expect_word("by")?;
                OperatorKind::Top(count, self.sort_keys()?)
            }
            "take" => OperatorKind::Take(self.expr()?),
            "distinct" => OperatorKind::Distinct(self.named_list()?),
            "count" => OperatorKind::Count,
            "union" => OperatorKind::Union(self.union()?),
            "mv-expand" => OperatorKind::MvExpand(self.mv_expand(written == "mvexpand")?),
            other => return Err(self.fault_before(format!("{other} begins a query and does not follow a pipe"))),
        })
    }

    /// `a, b = c, (d, e) = f`; may be empty.
    fn named_list(&mut self) -> Result<Vec<Named>, Fault> {
        let mut list = Vec::new();
        if self.at_end_of_operator() {
            return Ok(list);
        }
        loop {
            list.push(self.named_expr()?);
            if !self.eat(",") {
                return Ok(list);
            }
        }
    }

    fn at_end_of_operator(&self) -> bool {
        matches!(self.peek(), Tok::Sign("|" | ")" | ";" | "}") | Tok::End) || self.is_word("by")
    }

    fn named_expr(&mut self) -> Result<Named, Fault> {
        let from = self.next;
        let mut names = Vec::new();
        if self.is("(") {
            names = self.name_tuple().unwrap_or_default();
        } else if let Ok(name) = self.name("") {
            names.push(name);
        }
        if names.is_empty() || !self.eat("=") {
            names.clear();
            self.next = from;
        }
        Ok(Named { names, expr: self.expr()?, to: None })
    }

    fn name_tuple(&mut self) -> Result<Vec<String>, Fault> {
        let mut names = Vec::new();
        self.expect("(")?;
        loop {
            names.push(self.name("a name")?);
            if self.eat(")") {
                return Ok(names);
            }
            self.expect(",")?;
        }
    }

    /// Column names with `*` in them, put together from tokens.
    fn patterns(&mut self) -> Result<Vec<(At, String)>, Fault> {
        let mut patterns = Vec::new();
        loop {
            let at = self.at();
            let mut pattern = String::new();
            loop {
                if self.eat("*") {
                    pattern.push('*');
                } else if pattern.is_empty() || (pattern.ends_with('*') && matches!(self.peek(), Tok::Name(_))) {
                    pattern += &self.name("a column")?;
                } else {
                    break;
                }
            }
            patterns.push((at, pattern));
            if !self.eat(",") {
                return Ok(patterns);
            }
        }
    }

    fn summarize(&mut self) -> Result<OperatorKind, Fault> {
        self.skip_hints()?;
        let aggregates = self.named_list()?;
        let by = if self.eat_word("by") { self.named_list()? } else { Vec::new() };
        Ok(OperatorKind::Summarize(aggregates, by))
    }

    /// `hint.name=value` says how a cluster should work, which is no matter here.
    fn skip_hints(&mut self) -> Result<(), Fault> {
        while self.is_word("hint") && matches!(self.peek_at(1), Tok::Sign(".")) {
            self.next += 2;
            self.name("a hint")?;
            self.expect("=")?;
            self.next += 1;
        }
        Ok(())
    }

    fn join(&mut self) -> Result<Join, Fault> {
        let mut kind = (self.at(), String::new());
        loop {
            self.skip_hints()?;
            if self.is_word("kind") && matches!(self.peek_at(1), Tok::Sign("=")) {
                self.next += 2;
                kind = (self.at(), self.name("a kind of join")?);
            } else {
                break;
            }
        }
        let right = if self.eat("(") {
            let right = self.pipe()?;
            self.expect(")")?;
            right
        } else {
            let at = self.at();
            let name = self.name("a table")?;
            super::bare_table(at, &name)
        };
        self.expect_word("on")?;
        let mut on = vec![self.expr()?];
        while self.eat(",") {
            on.push(self.expr()?);
        }
        Ok(Join { kind, right: Box::new(right), on })
    }

    fn sort_keys(&mut self) -> Result<Vec<SortKey>, Fault> {
        let mut keys = Vec::new();
        loop {
            let expr = self.expr()?;
            let ascending = self.eat_word("asc");
            if !ascending {
                self.eat_word("desc");
            }
            let mut nulls_first = ascending;
            if self.eat_word("nulls") {
                nulls_first = self.eat_word("first");
                if !nulls_first {
                    self.expect_word("last")?;
                }
            }
            keys.push(SortKey { expr, ascending, nulls_first });
            if !self.eat(",") {
                return Ok(keys);
            }
        }
    }

    fn union(&mut self) -> Result<Union, Fault> {
        let mut union = Union { inner: false, with_source: None, legs: Vec::new() };
        loop {
            self.skip_hints()?;
            if !matches!(self.peek_at(1), Tok::Sign("=")) {
                break;
            }
            let parameter = self.name("a table")?;
            self.next += 1;
            match parameter.as_str() {
                "kind" => {
                    union.inner = match self.name("inner or outer")?.as_str() {
                        "inner" => true,
                        "outer" => false,
                        _ => return Err(self.fault_before("the kinds of union are inner and outer")),
                    };
                }
                "withsource" => union.with_source = Some(self.name("a column")?),
                other => return Err(self.fault_before(format!("{other} is not supported here for union"))),
            }
        }
        loop {
            let at = self.at();
            union.legs.push(if self.eat("(") {
                let leg = self.pipe()?;
                self.expect(")")?;
                leg
            } else {
                Pipe { at, source: self.source()?, operators: Vec::new() }
            });
            if !self.eat(",") {
                return Ok(union);
            }
        }
    }

    fn mv_expand(&mut self, old: bool) -> Result<MvExpand, Fault> {
        let limit = if old { OLD_EXPAND_LIMIT } else { u64::MAX };
        let mut expand = MvExpand { pairs: false, index: None, columns: Vec::new(), limit };
        loop {
            let assigned = matches!(self.peek_at(1), Tok::Sign("="));
            if assigned && (self.is_word("kind") || self.is_word("bagexpansion")) {
                self.next += 2;
                expand.pairs = match self.name("bag or array")?.as_str() {
                    "bag" => false,
                    "array" => true,
                    _ => return Err(self.fault_before("the kinds of mv-expand are bag and array")),
                };
            } else if assigned && self.eat_word("with_itemindex") {
                self.next += 1;
                expand.index = Some(self.name("a column")?);
            } else {
                break;
            }
        }
        loop {
            let mut named = self.named_expr()?;
            if self.eat_word("to") {
                named.to = Some(self.typeof_type()?);
            }
            expand.columns.push(named);
            if !self.eat(",") {
                break;
            }
        }
        if self.eat_word("limit") {
            let at = self.at();
            let rows = self.expr()?;
            expand.limit = whole(&rows).ok_or_else(|| Fault::at(self.text, at, "a number of rows is expected"))?;
        }
        Ok(expand)
    }

    fn typeof_type(&mut self) -> Result<Type, Fault> {
        self.expect_word("typeof")?;
        self.expect("(")?;
        let ty = self.type_name()?;
        self.expect(")")?;
        Ok(ty)
    }
}

fn whole(expr: &Expr) -> Option<u64> {
    match &expr.kind {
        ExprKind::Literal(Value::Long(rows), Type::Long) => u64::try_from(*rows).ok(),
        _ => None,
    }
}
