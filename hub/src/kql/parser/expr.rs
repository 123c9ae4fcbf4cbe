//! Expressions. From loose to tight: `or`; `and`; comparisons and the word operators; `+ -`; `* / %`; sign; `.` and `[]`.

use serde_json::Value as Json;
use uuid::Uuid;

use super::Parser;
use crate::kql::Fault;
use crate::kql::lexer::Tok;
use crate::kql::syntax::{At, Expr, ExprKind, InList};
use crate::kql::time;
use crate::kql::value::{Type, Value};

/// Operators between two values that are words.
const WORDS: &[&str] = &[
    "has",
    "!has",
    "has_cs",
    "!has_cs",
    "contains",
    "!contains",
    "contains_cs",
    "!contains_cs",
    "startswith",
    "!startswith",
    "startswith_cs",
    "!startswith_cs",
    "endswith",
    "!endswith",
    "endswith_cs",
    "!endswith_cs",
    "hasprefix",
    "!hasprefix",
    "hasprefix_cs",
    "!hasprefix_cs",
    "hassuffix",
    "!hassuffix",
    "hassuffix_cs",
    "!hassuffix_cs",
];

const LISTS: &[&str] = &["in", "!in", "in~", "!in~", "has_any", "has_all"];

const OTHERS: &[&str] = &["between", "!between", "matches"];

const COMPARISONS: &[&str] = &["==", "!=", "<>", "<", "<=", ">", ">=", "=~", "!~"];

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Result<Expr, Fault> {
        self.deeper(|parser| {
            let mut parts = vec![parser.conjunction()?];
            while parser.eat_word("or") {
                parser.link()?;
                parts.push(parser.conjunction()?);
            }
            Ok(balanced("or", parts))
        })
    }

    fn conjunction(&mut self) -> Result<Expr, Fault> {
        let mut parts = vec![self.comparison()?];
        while self.eat_word("and") {
            self.link()?;
            parts.push(self.comparison()?);
        }
        Ok(balanced("and", parts))
    }

    fn comparison(&mut self) -> Result<Expr, Fault> {
        let depth = self.depth;
        let compared = self.comparisons();
        self.depth = depth;
        compared
    }

    fn comparisons(&mut self) -> Result<Expr, Fault> {
        let mut left = self.sum()?;
        loop {
            let at = self.at();
            let operator = match self.peek() {
                Tok::Sign(sign) if COMPARISONS.contains(sign) => if *sign == "<>" { "!=" } else { *sign }.to_owned(),
                Tok::Name(word) => word.clone(),
                _ => return Ok(left),
            };
            let word = operator.as_str();
            let known = [COMPARISONS, WORDS, LISTS, OTHERS].iter().any(|list| list.contains(&word));
            match known {
                false if word.starts_with('!') => return Err(self.fault(format!("{word:?} is no operator here"))),
                false => return Ok(left),
                true => self.chained()?,
            }
            self.next += 1;
            if LISTS.contains(&word) {
                let list = self.in_list()?;
                left = Expr { at, kind: ExprKind::In(operator, Box::new(left), list) };
            } else if matches!(word, "between" | "!between") {
                self.expect("(")?;
                let low = self.sum()?;
                self.expect("..")?;
                let high = self.sum()?;
                self.expect(")")?;
                left = call(at, word, vec![left, low, high]);
            } else if word == "matches" {
                self.expect_word("regex")?;
                let right = self.sum()?;
                left = call(at, "matches regex", vec![left, right]);
            } else {
                let right = self.sum()?;
                left = call(at, word, vec![left, right]);
            }
        }
    }

    fn in_list(&mut self) -> Result<InList, Fault> {
        self.expect("(")?;
        let from = self.next;
        let depth = self.depth;
        let values = self.list(")");
        if let Ok(values) = values {
            return Ok(InList::Values(values));
        }
        let reached = self.next;
        self.next = from;
        self.depth = depth;
        let table = self.pipe().and_then(|pipe| self.expect(")").map(|()| pipe));
        match (table, values) {
            (Ok(pipe), _) => Ok(InList::Table(Box::new(pipe))),
            (Err(_), Err(fault)) if reached >= self.next => Err(fault),
            (Err(fault), _) => Err(fault),
        }
    }

    /// Expressions with commas, up to the closing sign.
    pub(super) fn list(&mut self, close: &str) -> Result<Vec<Expr>, Fault> {
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(self.expr()?);
            if !self.is(close) && !self.eat(",") {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
        Ok(items)
    }

    fn sum(&mut self) -> Result<Expr, Fault> {
        let depth = self.depth;
        let mut left = self.product()?;
        while let Tok::Sign(sign @ ("+" | "-")) = self.peek() {
            let (sign, at) = (*sign, self.at());
            self.next += 1;
            self.chained()?;
            let right = self.product()?;
            left = call(at, sign, vec![left, right]);
        }
        self.depth = depth;
        Ok(left)
    }

    fn product(&mut self) -> Result<Expr, Fault> {
        let depth = self.depth;
        let mut left = self.signed()?;
        while let Tok::Sign(sign @ ("*" | "/" | "%")) = self.peek() {
            let (sign, at) = (*sign, self.at());
            self.next += 1;
            self.chained()?;
            let right = self.signed()?;
            left = call(at, sign, vec![left, right]);
        }
        self.depth = depth;
        Ok(left)
    }

    fn signed(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        if self.eat("-") {
            let inner = self.deeper(Self::signed)?;
            return Ok(call(at, "negate", vec![inner]));
        }
        if self.eat("+") {
            return self.deeper(Self::signed);
        }
        self.postfix()
    }

    fn postfix(&mut self) -> Result<Expr, Fault> {
        let mut base = self.primary()?;
        let depth = self.depth;
        loop {
            let at = base.at;
            if self.eat(".") {
                let member = self.name("a member")?;
                base = Expr { at, kind: ExprKind::Member(Box::new(base), member) };
            } else if self.eat("[") {
                let index = self.expr()?;
                self.expect("]")?;
                base = Expr { at, kind: ExprKind::Index(Box::new(base), Box::new(index)) };
            } else {
                self.depth = depth;
                return Ok(base);
            }
            self.chained()?;
        }
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        let literal = |value, ty| Ok(Expr { at, kind: ExprKind::Literal(value, ty) });
        if self.is("[") {
            let name = self.name("a value")?;
            return Ok(Expr { at, kind: ExprKind::Name(name) });
        }
        match self.advance() {
            Tok::Long(long) => literal(Value::Long(long), Type::Long),
            Tok::Real(real) => literal(Value::Real(real), Type::Real),
            Tok::Span(ticks) => literal(Value::TimeSpan(ticks), Type::TimeSpan),
            Tok::Str(mut text) => {
                // Strings side by side are one string.
                while let Tok::Str(more) = self.peek() {
                    text += more;
                    self.next += 1;
                }
                literal(Value::text(&text), Type::String)
            }
            Tok::Typed(word, inside) => self.typed(at, word, &inside),
            Tok::Sign("*") => Ok(Expr { at, kind: ExprKind::Star }),
            Tok::Sign("(") => {
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Tok::Name(name) => self.named(at, name),
            _ => {
                self.next -= 1;
                Err(self.unexpected("a value"))
            }
        }
    }

    fn named(&mut self, at: At, name: String) -> Result<Expr, Fault> {
        let kind = match name.as_str() {
            "true" => ExprKind::Literal(Value::Bool(true), Type::Bool),
            "false" => ExprKind::Literal(Value::Bool(false), Type::Bool),
            _ if !self.is("(") => ExprKind::Name(name),
            "typeof" => {
                self.next += 1;
                let ty = self.type_name()?;
                self.expect(")")?;
                ExprKind::TypeOf(ty)
            }
            "dynamic" => {
                self.next += 1;
                let json = self.json()?;
                self.expect(")")?;
                ExprKind::Literal(Value::dynamic(json), Type::Dynamic)
            }
            "toscalar" => {
                self.next += 1;
                let table = self.pipe()?;
                self.expect(")")?;
                ExprKind::ToScalar(Box::new(table))
            }
            _ => {
                self.next += 1;
                if let (Some(ty), true) = (Type::named(&name), self.is_word("null")) {
                    self.next += 1;
                    self.expect(")")?;
                    if ty == Type::String {
                        return Err(self.fault_before("a string is never null; use \"\""));
                    }
                    ExprKind::Literal(Value::Null, ty)
                } else {
                    ExprKind::Call(name, self.list(")")?)
                }
            }
        };
        Ok(Expr { at, kind })
    }

    fn typed(&self, at: At, word: &str, inside: &str) -> Result<Expr, Fault> {
        let wrong = |what: &str| Fault::at(self.text, at, format!("{inside:?} is no {what}"));
        let ty = match word {
            "datetime" | "date" => Type::DateTime,
            "guid" => Type::Guid,
            "decimal" => {
                return Err(Fault::at(self.text, at, "decimal is not supported here; real is the nearest"));
            }
            _ => Type::TimeSpan,
        };
        let value = match ty {
            _ if inside == "null" => Value::Null,
            Type::DateTime => Value::DateTime(time::parse_datetime(inside).ok_or_else(|| wrong("datetime"))?),
            Type::Guid => Value::Guid(inside.parse::<Uuid>().map_err(|_| wrong("guid"))?),
            _ => Value::TimeSpan(time::parse_timespan(inside).ok_or_else(|| wrong("timespan"))?),
        };
        Ok(Expr { at, kind: ExprKind::Literal(value, ty) })
    }

    /// The inside of `dynamic(...)`: JSON, strings also in single quotes, and literals of Kusto.
    fn json(&mut self) -> Result<Json, Fault> {
        self.deeper(|parser| match parser.advance() {
            Tok::Sign("[") => {
                let mut items = Vec::new();
                while !parser.eat("]") {
                    items.push(parser.json()?);
                    if !parser.is("]") {
                        parser.expect(",")?;
                    }
                }
                Ok(Json::Array(items))
            }
            Tok::Sign("{") => parser.json_object(),
            Tok::Sign("-") => match parser.advance() {
                Tok::Long(long) => Ok(Json::from(long.wrapping_neg())),
                Tok::Real(real) => Ok(Json::from(-real)),
                _ => Err(parser.fault_before("a number is expected after `-`")),
            },
            Tok::Str(text) => Ok(Json::String(text)),
            Tok::Long(long) => Ok(Json::from(long)),
            Tok::Real(real) => Ok(Json::from(real)),
            Tok::Span(ticks) => Ok(Value::TimeSpan(ticks).to_json()),
            Tok::Typed(word, inside) => match parser.typed(parser.at(), word, &inside)?.kind {
                ExprKind::Literal(value, _) => Ok(value.to_json()),
                _ => Ok(Json::Null),
            },
            Tok::Name(name) if name == "true" => Ok(Json::Bool(true)),
            Tok::Name(name) if name == "false" => Ok(Json::Bool(false)),
            Tok::Name(name) if name == "null" => Ok(Json::Null),
            _ => {
                parser.next -= 1;
                Err(parser.unexpected("JSON"))
            }
        })
    }

    fn json_object(&mut self) -> Result<Json, Fault> {
        let mut members = serde_json::Map::new();
        while !self.eat("}") {
            let Tok::Str(key) = self.advance() else {
                return Err(self.fault_before("a key in quotes is expected"));
            };
            self.expect(":")?;
            members.insert(key, self.json()?);
            if !self.is("}") {
                self.expect(",")?;
            }
        }
        Ok(Json::Object(members))
    }
}

/// A tree of `and` or `or` that is as flat as can be; the order of its leaves is kept.
fn balanced(name: &str, mut parts: Vec<Expr>) -> Expr {
    while parts.len() > 1 {
        let mut pairs = Vec::with_capacity(parts.len().div_ceil(2));
        let mut rest = parts.into_iter();
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => call(left.at, name, vec![left, right]),
                None => left,
            });
        }
        parts = pairs;
    }
    parts.pop().unwrap_or(Expr { at: 0, kind: ExprKind::Star })
}

fn call(at: At, name: &str, arguments: Vec<Expr>) -> Expr {
    Expr { at, kind: ExprKind::Call(name.to_owned(), arguments) }
}
