//! Secrets that show themselves in any text: `NAME=value`, `"name": "value"`, headers, `user:password@` of a URL, keys
//! of well-known services.

use std::ops::Range;

use super::table::{ASSIGNED_NAMES, NAMES, NO_SECRETS, TOKENS, Token};

/// Longer names are looked at by their end.
const NAME_BYTES: usize = 48;

/// A user part of a URL this long is a token and no name.
const TOKEN_USER_BYTES: usize = 20;

/// So many URLs of a text are looked at.
const MAX_URLS: usize = 32;

/// The bytes a known key begins with, and those a name that says "secret" ends in: most words have neither.
const BEGINNINGS: [bool; 256] = beginnings();
const ENDS: [bool; 256] = ends();

/// A `KEY=` this short is a sort key or a letter.
const MIN_KEY_BYTES: usize = 8;

/// How a name stands before its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// `NAME=value`.
    Equals,
    /// `name: value`, and `--name value`.
    Otherwise,
}

/// Whether a name says that its value is a secret. `own` are the operator's.
pub fn is_secret_name(name: &[u8], joined: Joined, own: &[Vec<u8>]) -> bool {
    let mut buffer = [0; NAME_BYTES];
    let mut length = 0;
    let tail = &name[name.len().saturating_sub(NAME_BYTES)..];
    for byte in tail.iter().filter(|byte| !matches!(byte, b'-' | b'_' | b'.')) {
        buffer[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    let plain = &buffer[..length];
    let may_be_known = plain.last().is_some_and(|last| ENDS[usize::from(*last)]);
    let ends = |(end, _): &(&str, &str)| plain.ends_with(end.as_bytes());
    let is_known =
        may_be_known && (NAMES.iter().any(ends) || joined == Joined::Equals && ASSIGNED_NAMES.iter().any(ends));
    let is_own = || own.iter().any(|end| plain.ends_with(end));
    (is_known && !NO_SECRETS.iter().any(|name| plain == name.as_bytes())) || is_own()
}

/// What there is to know about the text.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// The operator's own names.
    pub own: &'a [Vec<u8>],
    /// It is a shell's command, where a value ends at a blank; elsewhere an argument that begins with a name is all
    /// value behind it.
    pub is_script: bool,
    /// Its end was not read, and the mark that ends a secret may be there.
    pub is_cut: bool,
}

/// Finds the secrets in a text, in no order.
pub fn secrets(text: &[u8], about: About, found: &mut Vec<Range<usize>>) {
    let (mut is_start, mut covered, mut urls) = (true, 0, 0);
    for (at, byte) in text.iter().enumerate() {
        let secret = match byte {
            // Nothing is looked for in what is a secret already, so that no text takes longer than its length.
            _ if at < covered => None,
            b'=' => assigned(text, at, about),
            b':' if text[at..].starts_with(b"://") && urls < MAX_URLS => {
                urls += 1;
                user_of_url(text, at + 3, about.is_cut)
            }
            b':' => field(text, at, about),
            _ if is_start && BEGINNINGS[usize::from(*byte)] => known_by_beginning(text, at, about.is_cut),
            _ => None,
        };
        if let Some(secret) = secret {
            covered = secret.end;
            found.push(secret);
        }
        is_start = !(byte.is_ascii_alphanumeric() || *byte == b'_');
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Where the name begins that ends before `at`.
fn name_before(text: &[u8], at: usize) -> usize {
    at - text[..at].iter().rev().take_while(|byte| is_name_byte(**byte)).count()
}

fn assigned(text: &[u8], at: usize, about: About) -> Option<Range<usize>> {
    let begin = name_before(text, at);
    let name = &text[begin..at];
    if !is_secret_name(name, Joined::Equals, about.own) {
        return None;
    }
    let range = match begin == 0 && !about.is_script {
        true => at + 1..text.len(),
        false => value(text, at + 1),
    };
    let shown = &text[range.clone()];
    let is_only_key = !is_secret_name(name, Joined::Otherwise, about.own) && !name.ends_with(b"sig");
    let is_path = [&b"/"[..], b"./", b"../", b"~/"].iter().any(|path| shown.starts_with(path));
    let is_no_key = is_only_key && (shown.len() < MIN_KEY_BYTES || is_path);
    // What a shell would run is evidence, and its output is not in the command line.
    let is_command = about.is_script && [&b"$("[..], b"`"].iter().any(|begin| shown.starts_with(begin));
    (!shown.is_empty() && !is_no_key && !is_command).then_some(range)
}

/// `name: value` and `"name":"value"`. A header that authorises is a secret up to its end, without its scheme.
fn field(text: &[u8], at: usize, about: About) -> Option<Range<usize>> {
    let end = at - usize::from(at > 0 && matches!(text[at - 1], b'"' | b'\''));
    // In a string inside a string the quote has a backslash.
    let end = end - usize::from(end < at && end > 0 && text[end - 1] == b'\\');
    let name = &text[name_before(text, end)..end];
    if !is_secret_name(name, Joined::Otherwise, about.own) {
        return None;
    }
    let blanks = text[at + 1..].iter().take_while(|byte| **byte == b' ').count();
    let begin = at + 1 + blanks;
    let is_header = name.eq_ignore_ascii_case(b"authorization")
        || name.eq_ignore_ascii_case(b"proxy-authorization")
        || name.eq_ignore_ascii_case(b"cookie");
    let range = if is_header && text.get(begin).is_some_and(|byte| is_name_byte(*byte)) {
        let length = text[begin..].iter().position(|byte| matches!(byte, b'\n' | b'"' | b'\''));
        let line = begin..length.map_or(text.len(), |length| begin + length);
        let scheme = text[line.clone()].iter().take_while(|byte| is_name_byte(**byte)).count();
        match text.get(begin + scheme) {
            Some(b' ') if begin + scheme + 1 < line.end => begin + scheme + 1..line.end,
            _ => line,
        }
    } else {
        value(text, begin)
    };
    (!range.is_empty()).then_some(range)
}

/// A value inside a text: to the quote that ends it, else to what cannot be in one.
fn value(text: &[u8], begin: usize) -> Range<usize> {
    let begin_of = |quote: &[u8]| text[begin..].starts_with(quote).then_some(begin + quote.len());
    if let Some(inner) = begin_of(b"\\\"") {
        let end = text[inner..].windows(2).position(|pair| pair == b"\\\"");
        return inner..end.map_or(text.len(), |end| inner + end);
    }
    for quote in [b'"', b'\''] {
        let Some(inner) = begin_of(&[quote]) else { continue };
        let mut escaped = false;
        let end = text[inner..].iter().position(|byte| {
            let ends = *byte == quote && !escaped;
            escaped = *byte == b'\\' && !escaped && quote == b'"';
            ends
        });
        return inner..end.map_or(text.len(), |end| inner + end);
    }
    let ends =
        |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'&' | b';' | b'"' | b'\'' | b'|' | b'}' | b')');
    begin..text[begin..].iter().position(ends).map_or(text.len(), |end| begin + end)
}

/// The password of `scheme://user:password@host`, which may hold a `/` although it should not.
fn user_of_url(text: &[u8], begin: usize, is_cut: bool) -> Option<Range<usize>> {
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'|' | b'<' | b'>');
    let end = text[begin..].iter().position(is_end).map_or(text.len(), |end| begin + end);
    let word = &text[begin..end];
    let authority = word.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(word.len());
    let colon = word[..authority].iter().position(|byte| *byte == b':');
    let at = word[..authority].iter().rposition(|byte| *byte == b'@');
    let is_port = |from: usize| word[from..authority].iter().all(u8::is_ascii_digit);
    match (colon, at) {
        (Some(colon), Some(at)) if colon < at => Some(begin + colon + 1..begin + at),
        (_, Some(at)) => (at >= TOKEN_USER_BYTES).then_some(begin..begin + at),
        (Some(colon), None) if !word.starts_with(b"[") && !is_port(colon + 1) => {
            let at = word.iter().rposition(|byte| *byte == b'@');
            let at = at.or((is_cut && end == text.len()).then_some(word.len()))?;
            Some(begin + colon + 1..begin + at)
        }
        (Some(colon), None) if is_cut && end == text.len() && authority == word.len() => Some(begin + colon + 1..end),
        _ => None,
    }
    .filter(|range| !range.is_empty())
}

fn known_by_beginning(text: &[u8], at: usize, is_cut: bool) -> Option<Range<usize>> {
    let rest = &text[at..];
    if rest.starts_with(b"-----BEGIN") {
        let is_private = rest[..rest.len().min(64)].windows(11).any(|part| part == b"PRIVATE KEY");
        let begin = at + rest.iter().position(u8::is_ascii_whitespace).unwrap_or(10);
        let end = rest.windows(8).position(|part| part == b"-----END").unwrap_or(rest.len());
        return (is_private && begin < at + end).then_some(begin..at + end);
    }
    TOKENS.iter().filter(|token| token.prefix.as_bytes()[0] == rest[0]).find_map(|token| {
        let value = rest.strip_prefix(token.prefix.as_bytes())?;
        let length = value.iter().take_while(|byte| is_token_byte(token, **byte)).count();
        let goes_on = is_cut && length == value.len();
        let begin = at + token.prefix.len();
        (length > 0 && (length >= token.min_bytes || goes_on)).then_some(begin..begin + length)
    })
}

const fn beginnings() -> [bool; 256] {
    let mut out = [false; 256];
    out[b'-' as usize] = true;
    let mut index = 0;
    while index < TOKENS.len() {
        out[TOKENS[index].prefix.as_bytes()[0] as usize] = true;
        index += 1;
    }
    out
}

const fn ends() -> [bool; 256] {
    let mut out = [false; 256];
    let mut index = 0;
    while index < NAMES.len() + ASSIGNED_NAMES.len() {
        let (name, _) = if index < NAMES.len() { NAMES[index] } else { ASSIGNED_NAMES[index - NAMES.len()] };
        out[name.as_bytes()[name.len() - 1] as usize] = true;
        index += 1;
    }
    out
}

fn is_token_byte(token: &Token, byte: u8) -> bool {
    is_name_byte(byte) || token.more.contains(&byte)
}
