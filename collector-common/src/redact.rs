//! Keeps the passwords and keys that people put into command lines on the device.
//!
//! ```text
//! mysql \0 -u \0 root \0 -pS3CRET \0 shop        becomes        mysql -u root -p%REDACTED% shop     and 1
//! ```
//!
//! It works on the arguments, before they are joined and before anything is cut out of them, because then it is known
//! where each begins and ends. What is taken for a secret is in `table`; anything else stays as it is. The string of
//! `sh -c` and its like is taken apart as a shell would and looked at word by word.

mod shell;
mod table;
mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::parse::cmdline::ArgumentArea;
use shell::{ends_cluster, is_shell_option, option_name, shell_words};
use table::{OPTIONS, Part, Takes};
use text::{About, Joined, is_secret_name, secrets};

/// Stands for a secret. It needs no quotes in a shell, so it stands out as itself.
pub const MARK: &str = "%REDACTED%";

/// Quotes inside quotes are followed so deep.
const MAX_DEPTH: usize = 4;

/// What may be added by the operator.
const MAX_OWN: usize = 64;
const MAX_OWN_BYTES: usize = 64;

/// What is taken for a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// Whether anything is taken out at all.
    pub is_on: bool,
    own: Vec<String>,
    /// Ends of names, as `NAMES` of the table.
    names: Vec<Vec<u8>>,
    /// Program and option.
    options: Vec<(Vec<u8>, Vec<u8>)>,
    /// Rows of `OPTIONS` and, counted on from there, of `options`, by program.
    programs: BTreeMap<Vec<u8>, Vec<usize>>,
}

impl Redaction {
    /// The table and what the operator adds: `NAME`, the end of the name of an option, a variable or a field; or
    /// `PROGRAM OPTION`. An error is the one that is neither.
    pub fn new(is_on: bool, own: &[String]) -> Result<Redaction, String> {
        let mut redaction =
            Redaction { is_on, own: own.to_vec(), names: Vec::new(), options: Vec::new(), programs: BTreeMap::new() };
        for (index, option) in OPTIONS.iter().enumerate() {
            for program in option.programs {
                redaction.programs.entry(program.as_bytes().to_vec()).or_default().push(index);
            }
        }
        for (index, addition) in own.iter().enumerate() {
            redaction.add(addition).filter(|()| index < MAX_OWN).ok_or_else(|| addition.clone())?;
        }
        Ok(redaction)
    }

    /// What the operator added, as it was written.
    pub fn own(&self) -> &[String] {
        &self.own
    }

    fn add(&mut self, addition: &str) -> Option<()> {
        let is_fit =
            (2..=MAX_OWN_BYTES).contains(&addition.len()) && addition.bytes().all(|byte| matches!(byte, 32..=126));
        let words: Vec<&str> = addition.split(' ').collect();
        match words.as_slice() {
            _ if !is_fit => None,
            [name] => {
                let is_kept = |byte: &u8| byte.is_ascii_alphanumeric();
                let name: Vec<u8> = name.bytes().filter(is_kept).map(|byte| byte.to_ascii_lowercase()).collect();
                (!name.is_empty()).then(|| self.names.push(name))
            }
            [program, option] if !program.is_empty() && !option.is_empty() => {
                let row = OPTIONS.len() + self.options.len();
                self.options.push((program.as_bytes().to_vec(), option.as_bytes().to_vec()));
                self.programs.entry(program.as_bytes().to_vec()).or_default().push(row);
                Some(())
            }
            _ => None,
        }
    }

    /// The arguments with a mark in the place of each secret, and how many marks there are.
    ///
    /// Where a part of the area was not read, the word the reading was cut off in may belong to a secret whose name is
    /// in that part, so it is not shown.
    pub fn apply<'a>(&self, area: &'a ArgumentArea) -> (Cow<'a, ArgumentArea>, usize) {
        if !self.is_on {
            return (Cow::Borrowed(area), 0);
        }
        if area.unread_bytes == 0 && !area.tail.is_empty() {
            let whole = ArgumentArea::whole([area.head.as_slice(), &area.tail].concat());
            let (redacted, marks) = self.apply(&whole);
            return (Cow::Owned(redacted.into_owned()), marks);
        }
        let is_cut = area.unread_bytes > 0;
        let head = self.spans(&area.head, Known::Nothing, is_cut);
        let goes_on = head.last().is_some_and(|span| span.end == area.head.len());
        let skipped = if is_cut { unsafe_beginning(&area.tail, goes_on) } else { 0 };
        let rest = &area.tail[skipped..];
        let tail = if rest.is_empty() { Vec::new() } else { self.spans(rest, Known::NotAnything, false) };
        let marks = head.len() + tail.len();
        if marks == 0 && skipped == 0 {
            return (Cow::Borrowed(area), 0);
        }
        let redacted = ArgumentArea {
            head: marked(&area.head, &head),
            unread_bytes: area.unread_bytes.saturating_add(skipped as u64),
            tail: marked(rest, &tail),
        };
        (Cow::Owned(redacted), marks)
    }

    /// Where the secrets are, in order and apart from each other.
    fn spans(&self, area: &[u8], program: Known, is_cut: bool) -> Vec<Range<usize>> {
        let mut scan = Scan { redaction: self, found: Vec::new() };
        let mut words = Words { program, ..Words::default() };
        let mut at = 0;
        for argument in area.split(|byte| *byte == 0) {
            let is_cut = is_cut && at + argument.len() == area.len();
            scan.argument(argument, at, &mut words, 0, is_cut);
            at += argument.len() + 1;
        }
        merged(scan.found)
    }
}

impl Default for Redaction {
    fn default() -> Redaction {
        Redaction::new(true, &[]).unwrap_or_else(|_| unreachable!("nothing was added"))
    }
}

/// How much of what follows an unread part is not shown: the word it begins with, or the argument if the secret before
/// the part may go on into it. No secret is as long as half of what is read, and of a longer word more may be shown.
fn unsafe_beginning(tail: &[u8], goes_on: bool) -> usize {
    let ends = |byte: &u8| *byte == 0 || !goes_on && byte.is_ascii_whitespace();
    let word = tail.iter().position(ends).unwrap_or(tail.len());
    if goes_on { word } else { word.min(tail.len() / 2) }
}

fn merged(mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    found.sort_unstable_by_key(|span| span.start);
    let mut out: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for span in found {
        match out.last_mut().filter(|last| span.start < last.end) {
            Some(last) => last.end = last.end.max(span.end),
            None => out.push(span),
        }
    }
    out
}

fn marked(bytes: &[u8], spans: &[Range<usize>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for span in spans {
        out.extend_from_slice(&bytes[at..span.start]);
        out.extend_from_slice(MARK.as_bytes());
        at = span.end;
    }
    out.extend_from_slice(&bytes[at..]);
    out
}

/// Which program's options are looked for.
#[derive(Clone, Copy, Debug, Default)]
enum Known<'a> {
    /// No program with options of its own was named.
    #[default]
    Nothing,
    /// Its name was not read, so it may be any.
    NotAnything,
    /// The rows of the first that was named, and those of the last.
    Rows { first: &'a [usize], last: &'a [usize] },
}

/// What the words so far say about the next.
#[derive(Clone, Copy, Debug, Default)]
struct Words<'a> {
    program: Known<'a>,
    /// The word of an option's row that came.
    word: &'static str,
    pending: Option<Pending>,
    /// How many words are left until the one that is a secret.
    left: Option<u8>,
    /// The word before was `-c` or a like option of a shell.
    is_script_next: bool,
}

/// The next word is a secret.
#[derive(Clone, Copy, Debug)]
struct Pending {
    part: Part,
    /// Even if it looks like an option.
    surely: bool,
}

struct Scan<'a> {
    redaction: &'a Redaction,
    found: Vec<Range<usize>>,
}

impl<'a> Scan<'a> {
    /// Looks at one argument, or at one word of a script, that lies at `at`.
    fn argument(&mut self, text: &[u8], at: usize, words: &mut Words<'a>, depth: usize, is_cut: bool) {
        let is_script = std::mem::replace(&mut words.is_script_next, is_shell_option(text));
        if let Some(pending) = words.pending.take() {
            let is_option = text.starts_with(b"--") || text.len() == 2 && text[0] == b'-';
            if pending.surely || !is_option {
                self.take(pending.part, text, at);
                return;
            }
        }
        if text.is_empty() || self.own_option(text, at, words) || self.is_secret_word(text, at, words) {
            return;
        }
        if depth == 0 {
            let about = About { own: &self.redaction.names, is_script, is_cut };
            let begin = self.found.len();
            secrets(text, about, &mut self.found);
            self.found[begin..].iter_mut().for_each(|span| *span = span.start + at..span.end + at);
        }
        if depth < MAX_DEPTH && text.iter().any(u8::is_ascii_whitespace) {
            self.script(text, at, depth + 1, is_cut);
        } else if let Some(name) = option_name(text) {
            let is_secret = is_secret_name(name, Joined::Otherwise, &self.redaction.names);
            words.pending = is_secret.then_some(Pending { part: Part::All, surely: false });
        }
    }

    /// Takes the words of a shell's command apart.
    fn script(&mut self, text: &[u8], at: usize, depth: usize, is_cut: bool) {
        let mut words = Words::default();
        for word in shell_words(text) {
            let Some(range) = word else {
                words = Words::default();
                continue;
            };
            let raw = &text[range.clone()];
            let (inner, skipped) = match raw {
                [quote @ (b'"' | b'\''), inner @ .., end] if quote == end => (inner, 1),
                [b'"' | b'\'', inner @ ..] => (inner, 1),
                _ => (raw, 0),
            };
            let begin = range.start + skipped;
            self.argument(inner, at + begin, &mut words, depth, is_cut && range.end == text.len());
        }
    }

    /// Whether the argument is a program, or an option or a word such a program is known for.
    fn own_option(&mut self, text: &[u8], at: usize, words: &mut Words<'a>) -> bool {
        let (first, last): (&[usize], &[usize]) = match words.program {
            Known::Nothing => (&[], &[]),
            Known::Rows { first, last } => (first, last),
            Known::NotAnything => return self.any_option(text, at, words),
        };
        if first.iter().chain(last).any(|row| self.row(*row, text, at, words)) {
            return true;
        }
        // A URL or a script may end in the name of a program as well.
        if text[0] == b'-' || !text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(byte)) {
            return false;
        }
        let base = text.rsplit(|byte| *byte == b'/').next().unwrap_or(text);
        let Some(rows) = self.redaction.programs.get(base) else { return false };
        // The first stays: what looks like another may be the name of its user.
        let first = if first.is_empty() { rows } else { first };
        *words = Words { program: Known::Rows { first, last: rows }, ..Words::default() };
        words.left = rows.iter().filter_map(|row| OPTIONS.get(*row)).find_map(|option| match option.takes {
            Takes::Nth(words) if option.flag.is_empty() => Some(words),
            _ => None,
        });
        true
    }

    fn any_option(&mut self, text: &[u8], at: usize, words: &mut Words<'a>) -> bool {
        (0..OPTIONS.len() + self.redaction.options.len()).any(|row| self.row(row, text, at, words))
    }

    fn row(&mut self, row: usize, text: &[u8], at: usize, words: &mut Words<'a>) -> bool {
        let Some(option) = OPTIONS.get(row) else {
            let own = row.checked_sub(OPTIONS.len()).and_then(|row| self.redaction.options.get(row));
            return own.is_some_and(|(_, flag)| self.value_of(flag, Takes::Either, Part::All, text, at, words));
        };
        if !option.word.is_empty() && text == option.word.as_bytes() {
            words.word = option.word;
        }
        let is_unknown = matches!(words.program, Known::NotAnything);
        if !is_unknown && words.word != option.word {
            return false;
        }
        if let Takes::Nth(count) = option.takes {
            let is_cluster = text[0] == b'-' && !text.starts_with(b"--") && !is_unknown;
            if is_cluster && !option.flag.is_empty() && text.contains(&option.flag.as_bytes()[0]) {
                words.left = Some(if text.contains(&b'n') { count - 1 } else { count });
            }
            return false;
        }
        self.value_of(option.flag.as_bytes(), option.takes, option.part, text, at, words)
    }

    fn value_of(
        &mut self,
        flag: &[u8],
        takes: Takes,
        part: Part,
        text: &[u8],
        at: usize,
        words: &mut Words<'a>,
    ) -> bool {
        if takes == Takes::Either && ends_cluster(text, flag) && !matches!(words.program, Known::NotAnything) {
            words.pending = Some(Pending { part, surely: true });
            return true;
        }
        let Some(value) = text.strip_prefix(flag) else { return false };
        if value.is_empty() {
            let is_next = takes != Takes::Attached;
            words.pending = is_next.then_some(Pending { part, surely: true });
            return is_next;
        }
        let (value, skipped) = match (flag.starts_with(b"--"), value) {
            (true, [b'=', value @ ..]) => (value, flag.len() + 1),
            (true, _) => return false,
            (false, value) => (value, flag.len()),
        };
        let is_attached = takes != Takes::Next && !text.starts_with(b"--") || flag.starts_with(b"--");
        if is_attached {
            self.take(part, value, at + skipped);
        }
        is_attached
    }

    fn is_secret_word(&mut self, text: &[u8], at: usize, words: &mut Words<'a>) -> bool {
        let Some(left) = words.left.filter(|_| text[0] != b'-') else { return false };
        words.left = left.checked_sub(1).filter(|left| *left > 0);
        let is_it = left == 1;
        if is_it {
            self.take(Part::All, text, at);
        }
        is_it
    }

    /// Notes the secret part of a value.
    fn take(&mut self, part: Part, value: &[u8], at: usize) {
        let begin = match part {
            Part::All => Some(0),
            Part::After(separator) => value.iter().position(|byte| *byte == separator).map(|at| at + 1),
            Part::Behind(prefix) => value.starts_with(prefix.as_bytes()).then_some(prefix.len()),
        };
        self.found.extend(begin.filter(|begin| *begin < value.len()).map(|begin| at + begin..at + value.len()));
    }
}

#[cfg(test)]
mod tests;
