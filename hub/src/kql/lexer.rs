//! Text to tokens. A literal such as `datetime(2026-11-24)` is one token, because its inside is no expression.

use super::Fault;
use super::time;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub enum Tok {
    /// A name, a keyword, or a word operator such as `!has` or `in~`; after a pipe with its hyphens.
    Name(String),
    /// A string.
    Str(String),
    /// A whole number.
    Long(i64),
    /// A number with a point or an exponent.
    Real(f64),
    /// `1d`, in ticks.
    Span(i64),
    /// `datetime(...)`, `timespan(...)`, `guid(...)`: the word and the inside.
    Typed(&'static str, String),
    /// A sign.
    Sign(&'static str),
    /// The end of the text.
    End,
}

/// A token and its place.
#[derive(Clone, Debug)]
pub struct Token {
    /// What.
    pub tok: Tok,
    /// Its first byte.
    pub at: usize,
}

/// The longest text that is read; a query of an investigator is a few thousand bytes.
const MAX_BYTES: usize = 1 << 20;

const SIGNS: &[&str] = &[
    "=~", "!~", "==", "!=", "<>", "<=", ">=", "=>", "..", "(", ")", "[", "]", "{", "}", ",", ";", ":", "|", ".", "+",
    "-", "*", "/", "%", "<", ">", "=",
];

/// Words whose parentheses hold a literal.
const TYPED: &[&str] = &["datetime", "date", "timespan", "time", "guid", "decimal"];

/// Reads the whole text.
///
/// # Errors
///
/// At the first byte that begins no token.
pub fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    if text.len() > MAX_BYTES {
        return Err(Fault::at(text, 0, format!("the query has {} bytes; at most {MAX_BYTES} are read", text.len())));
    }
    let mut lexer = Lexer { text, at: 0, out: Vec::new() };
    while lexer.skip_blanks() {
        let at = lexer.at;
        let tok = lexer.next()?;
        lexer.out.push(Token { tok, at });
    }
    lexer.out.push(Token { tok: Tok::End, at: text.len() });
    Ok(lexer.out)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    out: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn fault(&self, at: usize, message: impl Into<String>) -> Fault {
        Fault::at(self.text, at, message)
    }

    /// Passes blanks and comments; whether something follows.
    fn skip_blanks(&mut self) -> bool {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(|char: char| char.is_whitespace() || char == '\u{feff}');
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return !trimmed.is_empty();
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn next(&mut self) -> Result<Tok, Fault> {
        let rest = self.rest();
        let mut chars = rest.chars();
        let first = chars.next().unwrap_or(' ');
        let second = chars.next().unwrap_or(' ');
        let quote = |char: char| char == '"' || char == '\'';
        match first {
            '`' if rest.starts_with("```") => self.multi_line(),
            '"' | '\'' => self.string(0),
            '@' if quote(second) => self.verbatim(1),
            'h' | 'H' if quote(second) => self.string(1),
            'h' | 'H' if second == '@' && chars.next().is_some_and(quote) => self.verbatim(2),
            '0'..='9' => self.number(),
            '!' if second.is_ascii_alphabetic() => Ok(self.word(1)),
            '$' if second.is_ascii_alphabetic() => Ok(self.word(1)),
            '_' | 'a'..='z' | 'A'..='Z' => self.word_or_typed(),
            _ => self.sign(first),
        }
    }

    fn sign(&mut self, first: char) -> Result<Tok, Fault> {
        let Some(sign) = SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) else {
            return Err(self.fault(self.at, format!("{first:?} begins nothing that is known here")));
        };
        self.at += sign.len();
        Ok(Tok::Sign(sign))
    }

    /// A word; directly after a pipe hyphens belong to it, and after `in` a tilde.
    fn word(&mut self, prefix: usize) -> Tok {
        let after_pipe = matches!(self.out.last(), Some(Token { tok: Tok::Sign("|"), .. }));
        let rest = self.rest();
        let end = rest
            .char_indices()
            .skip(prefix)
            .find(|(_, char)| !(char.is_ascii_alphanumeric() || *char == '_' || (after_pipe && *char == '-')))
            .map_or(rest.len(), |(end, _)| end);
        let mut word = rest.get(..end).unwrap_or("").to_owned();
        self.at += end;
        if matches!(word.as_str(), "in" | "!in") && self.rest().starts_with('~') {
            word.push('~');
            self.at += 1;
        }
        Tok::Name(word)
    }

    fn word_or_typed(&mut self) -> Result<Tok, Fault> {
        let at = self.at;
        let word = self.word(0);
        let Tok::Name(name) = &word else { return Ok(word) };
        let Some(typed) = TYPED.iter().find(|typed| *typed == name) else { return Ok(word) };
        let rest = self.rest();
        let Some(inside) = rest.trim_start().strip_prefix('(') else { return Ok(word) };
        let Some(end) = inside.find(')') else {
            return Err(self.fault(at, format!("{name}( is not closed")));
        };
        let body = inside.get(..end).unwrap_or("").trim();
        self.at += rest.len() - inside.len() + end + 1;
        Ok(Tok::Typed(typed, body.trim_matches(['"', '\'']).trim().to_owned()))
    }

    fn number(&mut self) -> Result<Tok, Fault> {
        let at = self.at;
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let digits = |from: usize| bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let end = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
            self.at += 2 + end;
            let number = u64::from_str_radix(hex.get(..end).unwrap_or(""), 16);
            return number.map(|number| Tok::Long(number.cast_signed())).map_err(|_| self.too_large(at));
        }
        let mut end = digits(0);
        let mut real = false;
        if bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
            real = true;
            end += 1 + digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end + 1 + sign);
            if exponent > 0 {
                real = true;
                end += 1 + sign + exponent;
            }
        }
        let number = rest.get(..end).unwrap_or("");
        let unit_len = bytes.iter().skip(end).take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let unit = rest.get(end..end + unit_len).unwrap_or("");
        self.at += end + unit_len;
        if !unit.is_empty() {
            let span = time::scale(number, unit).map(Tok::Span);
            return span.ok_or_else(|| {
                self.fault(at, format!("{number}{unit} is no number and no timespan such as 1d or 30m"))
            });
        }
        if real {
            return number.parse().map(Tok::Real).map_err(|_| self.too_large(at));
        }
        number.parse().map(Tok::Long).map_err(|_| self.too_large(at))
    }

    fn too_large(&self, at: usize) -> Fault {
        self.fault(at, "the number does not fit into a long")
    }

    /// `"..."` or `'...'` with escapes.
    fn string(&mut self, prefix: usize) -> Result<Tok, Fault> {
        let at = self.at;
        let mut chars = self.text.get(at + prefix..).unwrap_or("").char_indices();
        let quote = chars.next().map_or('"', |(_, quote)| quote);
        let mut out = String::new();
        while let Some((offset, char)) = chars.next() {
            match char {
                '\n' => break,
                '\\' => match escape(&mut chars) {
                    Some(char) => out.push(char),
                    None => {
                        return Err(self.fault(
                            at + prefix + offset,
                            "no such escape in a string; write @\"...\" to take \\ as it is",
                        ));
                    }
                },
                char if char == quote => {
                    self.at = at + prefix + offset + 1;
                    return Ok(Tok::Str(out));
                }
                char => out.push(char),
            }
        }
        Err(self.fault(at, "the string is not closed on its line"))
    }

    /// `@"..."`, in which only the quote is special: two stand for one.
    fn verbatim(&mut self, prefix: usize) -> Result<Tok, Fault> {
        let at = self.at;
        let mut chars = self.text.get(at + prefix..).unwrap_or("").char_indices().peekable();
        let quote = chars.next().map_or('"', |(_, quote)| quote);
        let mut out = String::new();
        while let Some((offset, char)) = chars.next() {
            if char == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
                self.at = at + prefix + offset + 1;
                return Ok(Tok::Str(out));
            }
            out.push(char);
        }
        Err(self.fault(at, "the string is not closed"))
    }

    fn multi_line(&mut self) -> Result<Tok, Fault> {
        let at = self.at;
        let inside = self.rest().get(3..).unwrap_or("");
        let Some(end) = inside.find("```") else { return Err(self.fault(at, "the string is not closed")) };
        self.at += end + 6;
        Ok(Tok::Str(inside.get(..end).unwrap_or("").to_owned()))
    }
}

fn escape(chars: &mut std::str::CharIndices) -> Option<char> {
    let (_, char) = chars.next()?;
    let mut hex = |digits: usize| {
        let mut code = 0;
        for _ in 0..digits {
            code = code * 16 + chars.next()?.1.to_digit(16)?;
        }
        char::from_u32(code)
    };
    match char {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        '0' => Some('\0'),
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'v' => Some('\u{b}'),
        'x' => hex(2),
        'u' => hex(4),
        'U' => hex(8),
        '\\' | '"' | '\'' => Some(char),
        _ => None,
    }
}
