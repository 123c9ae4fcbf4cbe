//! Tokens to a syntax tree, by recursive descent. How deep a query may nest is bounded, so that no text can exhaust the
//! stack.

mod expr;
mod pipe;

use super::Fault;
use super::lexer::{self, Tok, Token};
use super::syntax::{Argument, At, Definition, Function, Let, Pipe, Query, Source};
use super::value::Type;

/// How deep expressions and tables may nest, together. Chains of operators nest as well, but for `and` and `or`.
const MAX_DEPTH: usize = 64;

/// How many operators between values and `let` a query may have.
const MAX_LINKS: usize = 5000;

/// Reads a query.
///
/// # Errors
///
/// At the first place that is no part of the supported language.
pub fn parse(text: &str) -> Result<Query, Fault> {
    let mut parser = Parser { text, tokens: lexer::tokens(text)?, next: 0, depth: 0, links: 0 };
    let mut lets = Vec::new();
    loop {
        while parser.eat(";") {}
        if parser.is_word("let") {
            lets.push(parser.let_statement()?);
        } else if parser.is_word("set") || parser.is_word("declare") || parser.is_word("alias") {
            let word = parser.name("a statement")?;
            return Err(parser.fault_before(format!("{word} is not supported here; let is the nearest")));
        } else if parser.peek() == &Tok::End {
            return Err(parser.fault("the query shows nothing: after the let statements a table is expected"));
        } else {
            break;
        }
    }
    let body = parser.pipe()?;
    while parser.eat(";") {}
    if parser.peek() == &Tok::End {
        Ok(Query { lets, body })
    } else {
        Err(parser.unexpected("`|` or the end of the query"))
    }
}

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    links: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Tok {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> &Tok {
        self.tokens.get(self.next + ahead).map_or(&Tok::End, |token| &token.tok)
    }

    fn at(&self) -> At {
        self.tokens.get(self.next).map_or(self.text.len(), |token| token.at)
    }

    fn advance(&mut self) -> Tok {
        let tok = self.peek().clone();
        self.next += 1;
        tok
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Tok::Sign(found) if *found == sign)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Tok::Name(name) if name == word)
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.next += usize::from(found);
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.eat(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    fn expect_word(&mut self, word: &str) -> Result<(), Fault> {
        if self.eat_word(word) { Ok(()) } else { Err(self.unexpected(&format!("`{word}`"))) }
    }

    /// A name, plain or as `['name']`.
    fn name(&mut self, what: &str) -> Result<String, Fault> {
        if let (Tok::Sign("["), Tok::Str(name), Tok::Sign("]")) = (self.peek(), self.peek_at(1), self.peek_at(2)) {
            let name = name.clone();
            self.next += 3;
            return Ok(name);
        }
        match self.peek() {
            Tok::Name(name) if !name.starts_with(['!', '$']) => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.unexpected(what)),
        }
    }

    fn type_name(&mut self) -> Result<Type, Fault> {
        let name = self.name("a type")?;
        Type::named(&name).ok_or_else(|| match name.as_str() {
            "decimal" => self.fault_before("decimal is not supported here; real is the nearest"),
            _ => self.fault_before(format!("{name:?} is no type")),
        })
    }

    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::at(self.text, self.at(), message)
    }

    fn fault_before(&self, message: impl Into<String>) -> Fault {
        let at = self.next.checked_sub(1).and_then(|last| self.tokens.get(last)).map_or(0, |token| token.at);
        Fault::at(self.text, at, message)
    }

    fn unexpected(&self, expected: &str) -> Fault {
        self.fault(format!("{} where {expected} is expected", describe(self.peek())))
    }

    /// Runs `inner` one level deeper.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth >= MAX_DEPTH {
            return Err(self.fault(format!("the query nests deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Notes one more operator of a chain whose tree is as deep as the chain is long. Who ends the chain sets the depth
    /// back.
    fn chained(&mut self) -> Result<(), Fault> {
        if self.depth >= MAX_DEPTH {
            return Err(self.fault(format!("the query nests deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        self.link()
    }

    /// Notes one more operator.
    fn link(&mut self) -> Result<(), Fault> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(self.fault(format!("the query has more than {MAX_LINKS} operators; `in` takes long lists")));
        }
        Ok(())
    }

    fn let_statement(&mut self) -> Result<Let, Fault> {
        self.expect_word("let")?;
        self.link()?;
        let name = self.name("a name")?;
        self.expect("=")?;
        let value = self.definition()?;
        if !self.eat(";") {
            return Err(self.unexpected("`;` after the let statement"));
        }
        Ok(Let { name, value })
    }

    fn definition(&mut self) -> Result<Definition, Fault> {
        if self.eat_word("view") || self.is_function() {
            return self.deeper(Self::function).map(Definition::Function);
        }
        self.scalar_or_table()
    }

    /// An expression when all of it is one, else a table. What failed later knows better what is wrong.
    fn scalar_or_table(&mut self) -> Result<Definition, Fault> {
        let from = self.next;
        let depth = self.depth;
        let scalar = self.expr();
        let ends = matches!(self.peek(), Tok::Sign(";" | "}" | "," | ")") | Tok::End);
        let reached = self.next;
        let no_scalar = match scalar {
            Ok(expr) if ends => return Ok(Definition::Scalar(expr)),
            Ok(_) => None,
            Err(fault) => Some(fault),
        };
        self.next = from;
        self.depth = depth;
        match (self.pipe(), no_scalar) {
            (Err(_), Some(fault)) if reached > self.next => Err(fault),
            (table, _) => table.map(Definition::Table),
        }
    }

    fn is_function(&self) -> bool {
        let next = (self.peek_at(1), self.peek_at(2));
        let parameters = matches!(next, (Tok::Sign(")"), Tok::Sign("{")) | (Tok::Name(_), Tok::Sign(":")));
        self.is("(") && parameters
    }

    fn function(&mut self) -> Result<Function, Fault> {
        let mut parameters = Vec::new();
        self.expect("(")?;
        while !self.eat(")") {
            let name = self.name("a parameter")?;
            self.expect(":")?;
            if self.eat("(") {
                self.table_type()?;
                parameters.push((name, None));
            } else {
                parameters.push((name, Some(self.type_name()?)));
            }
            if self.is("=") {
                return Err(self.fault("default values of parameters are not supported here; pass the value"));
            }
            if !self.is(")") {
                self.expect(",")?;
            }
        }
        self.expect("{")?;
        let mut lets = Vec::new();
        while self.is_word("let") {
            lets.push(self.let_statement()?);
        }
        let body = self.scalar_or_table()?;
        self.eat(";");
        self.expect("}")?;
        Ok(Function { parameters, lets, body: Box::new(body) })
    }

    /// The columns of a table parameter; the argument's own columns count.
    fn table_type(&mut self) -> Result<(), Fault> {
        if self.eat("*") {
            return self.expect(")");
        }
        while !self.eat(")") {
            self.name("a column")?;
            self.expect(":")?;
            self.type_name()?;
            if !self.is(")") {
                self.expect(",")?;
            }
        }
        Ok(())
    }

    /// Arguments of a function that may take tables.
    fn arguments(&mut self) -> Result<Vec<Argument>, Fault> {
        let mut arguments = Vec::new();
        self.expect("(")?;
        while !self.eat(")") {
            arguments.push(match self.scalar_or_table()? {
                Definition::Table(pipe) => Argument::Table(pipe),
                Definition::Scalar(expr) => Argument::Scalar(expr),
                Definition::Function(_) => return Err(self.fault_before("a function is no argument")),
            });
            if !self.is(")") {
                self.expect(",")?;
            }
        }
        Ok(arguments)
    }
}

fn describe(tok: &Tok) -> String {
    match tok {
        Tok::Name(name) => format!("{name:?}"),
        Tok::Str(_) => "a string".to_owned(),
        Tok::Long(_) | Tok::Real(_) => "a number".to_owned(),
        Tok::Span(_) => "a timespan".to_owned(),
        Tok::Typed(word, _) => format!("a {word}"),
        Tok::Sign(sign) => format!("`{sign}`"),
        Tok::End => "the end".to_owned(),
    }
}

/// A table that is only a name.
pub(super) fn bare_table(at: At, name: &str) -> Pipe {
    Pipe { at, source: Source::Name(name.to_owned(), None), operators: Vec::new() }
}
