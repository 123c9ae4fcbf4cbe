//! `sudoers(5)`: who may run programs as somebody else, and whether sudo asks for a password.
//!
//! ```text
//! user,%group,#uid,%#gid,ALIAS,!user  hosts = (runas) TAG: command, TAG: command : hosts = ...
//! User_Alias NAME = user, %group : NAME = ...        Cmnd_Alias NAME = command, ...
//! Defaults:user !authenticate                        @include FILE   #includedir FOLDER
//! ```
//!
//! A `\` at the end goes on with the next line. `#` begins a comment, but for `#include` and a `#` before a number. What
//! a rule says of hosts is not looked at: a rule for another host is taken for one that holds here.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::passwd::FAULTS_KEPT;

/// The rules of all files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sudoers {
    rules: Vec<Rule>,
    /// Who is never asked for a password, as `Defaults !authenticate` says it.
    trusted: Vec<Vec<Subject>>,
    user_aliases: BTreeMap<String, Vec<Subject>>,
    command_aliases: BTreeMap<String, Vec<Command>>,
}

/// What a file says of other files, in its order, and lines nobody understands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// More files.
    pub includes: Vec<Include>,
    /// `line N: ...`, the first [`FAULTS_KEPT`].
    pub faults: Vec<String>,
}

/// Another file, or a folder of such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// As it is written.
    pub path: String,
    /// All files in it whose names hold no `.` and do not end in `~`.
    pub is_folder: bool,
}

/// An account, as rules name it.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Login name.
    pub name: &'a str,
    /// User id.
    pub uid: u32,
    /// Names of its groups.
    pub groups: &'a [&'a str],
    /// Their ids.
    pub gids: &'a [u32],
}

/// What rules let an account do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// No password is asked for.
    pub no_password: bool,
    /// Every command may be run.
    pub is_all: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    subjects: Vec<Subject>,
    commands: Vec<(Command, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    is_excluded: bool,
    whom: Whom,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Whom {
    All,
    /// An alias, where there is one of this name.
    Name(String),
    Uid(u32),
    Group(String),
    Gid(u32),
    /// A netgroup or a group nobody but a plugin knows.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    All,
    Alias(String),
    Other,
}

/// So many rules are kept; a file with more is no configuration.
const RULES_KEPT: usize = 4096;
/// So many steps are taken to find out who is meant, and so deep, because aliases can name each other without end.
const STEPS: usize = 10_000;
const DEPTH: usize = 32;
const TAGS: [&str; 18] = [
    "EXEC",
    "NOEXEC",
    "FOLLOW",
    "NOFOLLOW",
    "LOG_INPUT",
    "NOLOG_INPUT",
    "LOG_OUTPUT",
    "NOLOG_OUTPUT",
    "MAIL",
    "NOMAIL",
    "PASSWD",
    "NOPASSWD",
    "SETENV",
    "NOSETENV",
    "INTERCEPT",
    "NOINTERCEPT",
    "NOLOG_SUBCMDS",
    "LOG_SUBCMDS",
];
const DIGESTS: [&str; 4] = ["sha224", "sha256", "sha384", "sha512"];

impl Grant {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match (self.no_password, self.is_all) {
            (true, true) => "sudoers:NOPASSWD",
            (true, false) => "sudoers:NOPASSWD:some",
            (false, true) => "sudoers",
            (false, false) => "sudoers:some",
        }
    }
}

impl Sudoers {
    /// Adds a file.
    pub fn read(&mut self, bytes: &[u8]) -> Read {
        let mut read = Read::default();
        for (number, line) in logical_lines(&String::from_utf8_lossy(bytes)) {
            match self.line(line.trim()) {
                Ok(include) => read.includes.extend(include),
                Err(fault) if read.faults.len() < FAULTS_KEPT => read.faults.push(format!("line {number}: {fault}")),
                Err(_) => {}
            }
        }
        read
    }

    /// What an account may do, by all rules that name it.
    pub fn grants(&self, who: Who) -> BTreeSet<Grant> {
        let steps = Cell::new(STEPS);
        let is_trusted = self.trusted.iter().any(|subjects| self.names(subjects, who, &steps, DEPTH) == Some(true));
        let rules = self.rules.iter().filter(|rule| self.names(&rule.subjects, who, &steps, DEPTH) == Some(true));
        rules
            .flat_map(|rule| &rule.commands)
            .map(|(command, no_password)| Grant {
                no_password: *no_password || is_trusted,
                is_all: self.is_all(command, &steps, DEPTH),
            })
            .collect()
    }

    fn line(&mut self, line: &str) -> Result<Option<Include>, String> {
        let (word, rest) = line.split_at(line.find(|char: char| char.is_ascii_whitespace()).unwrap_or(line.len()));
        let include = |is_folder| {
            let mut cursor = Cursor(rest.trim_start());
            Ok(Some(Include { path: cursor.word("").ok_or("it includes nothing")?, is_folder }))
        };
        match word {
            "" => return Ok(None),
            "@include" | "#include" => return include(false),
            "@includedir" | "#includedir" => return include(true),
            "User_Alias" => {
                for (name, cursor) in aliases(rest)? {
                    self.user_aliases.insert(name, Cursor(&cursor).subjects()?);
                }
            }
            "Cmnd_Alias" | "Cmd_Alias" => {
                for (name, list) in aliases(rest)? {
                    let commands = Cursor(&list).commands()?;
                    self.command_aliases.insert(name, commands.into_iter().map(|(command, _)| command).collect());
                }
            }
            "Runas_Alias" | "Host_Alias" => {}
            _ if word.starts_with("Defaults") => self.defaults(&line["Defaults".len()..])?,
            _ if self.rules.len() >= RULES_KEPT => return Err(format!("more than {RULES_KEPT} rules")),
            _ => {
                let mut cursor = Cursor(line);
                let subjects = cursor.subjects()?;
                cursor.hosts()?;
                self.rules.push(Rule { subjects, commands: cursor.commands()? });
            }
        }
        Ok(None)
    }

    fn defaults(&mut self, rest: &str) -> Result<(), String> {
        let all = || vec![Subject { is_excluded: false, whom: Whom::All }];
        let (subjects, settings) = match rest.strip_prefix(':') {
            Some(list) => {
                let mut cursor = Cursor(list);
                (cursor.subjects()?, cursor.0)
            }
            // For a host, which is not looked at, or for everybody.
            None if rest.starts_with(['@', ' ', '\t']) => (all(), rest),
            None => return Ok(()),
        };
        let without_blanks: String = settings.chars().filter(|char| !char.is_ascii_whitespace()).collect();
        if without_blanks.split(',').any(|setting| setting.ends_with("!authenticate")) {
            self.trusted.push(subjects);
        }
        Ok(())
    }

    /// Whether a list names an account; the last subject that fits decides. `None`: no subject fits.
    fn names(&self, subjects: &[Subject], who: Who, steps: &Cell<usize>, depth: usize) -> Option<bool> {
        let depth = depth.checked_sub(1)?;
        subjects.iter().rev().find_map(|subject| {
            steps.set(steps.get().checked_sub(1)?);
            let fits = match &subject.whom {
                Whom::All => true,
                Whom::Uid(uid) => *uid == who.uid,
                Whom::Group(name) => who.groups.contains(&name.as_str()),
                Whom::Gid(gid) => who.gids.contains(gid),
                Whom::Unknown => false,
                Whom::Name(name) => match self.user_aliases.get(name) {
                    Some(alias) => return Some(self.names(alias, who, steps, depth)? != subject.is_excluded),
                    None => name == who.name,
                },
            };
            fits.then_some(!subject.is_excluded)
        })
    }

    fn is_all(&self, command: &Command, steps: &Cell<usize>, depth: usize) -> bool {
        match command {
            Command::All => true,
            Command::Other => false,
            Command::Alias(name) => {
                let left = steps.get().checked_sub(1).zip(depth.checked_sub(1));
                let Some((left, depth)) = left else { return false };
                steps.set(left);
                let list = self.command_aliases.get(name);
                list.is_some_and(|list| list.iter().any(|inner| self.is_all(inner, steps, depth)))
            }
        }
    }
}

/// Lines put together at each `\`, without comments, with the number of their first part.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let (number, before) = open.take().unwrap_or((index + 1, String::new()));
        let is_first = before.is_empty();
        let line = without_comment(line, is_first);
        match line.strip_suffix('\\') {
            Some(part) => open = Some((number, before + part + " ")),
            None => lines.push((number, before + line)),
        }
    }
    lines.extend(open);
    lines
}

fn without_comment(line: &str, is_first: bool) -> &str {
    let include = line.trim_start().strip_prefix("#include").filter(|_| is_first);
    if include.is_some_and(|rest| rest.strip_prefix("dir").unwrap_or(rest).starts_with([' ', '\t'])) {
        return line;
    }
    let bytes = line.as_bytes();
    let (mut is_quoted, mut at) = (false, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => is_quoted = !is_quoted,
            b'#' if !is_quoted && !bytes.get(at + 1).is_some_and(|next| next.is_ascii_digit() || *next == b'-') => {
                return &line[..at];
            }
            _ => {}
        }
        at += 1;
    }
    line
}

/// `NAME = list : NAME = list`, each with its list.
fn aliases(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.trim().is_empty() {
        let (name, behind) = rest.split_once('=').ok_or("an alias has no =")?;
        // A `:` that ends a list is not escaped, and a `NAME =` comes behind it.
        let is_end =
            |at: usize| !behind[..at].ends_with('\\') && behind[at + 1..].contains('=') && !is_in_digest(behind, at);
        let end = behind.match_indices(':').map(|(at, _)| at).find(|at| is_end(*at)).unwrap_or(behind.len());
        found.push((name.trim().to_owned(), behind[..end].to_owned()));
        rest = behind.get(end + 1..).unwrap_or_default();
    }
    Ok(found)
}

fn is_in_digest(text: &str, colon: usize) -> bool {
    DIGESTS.iter().any(|digest| text[..colon].trim_end().ends_with(digest))
}

/// What of a line is not read yet.
struct Cursor<'a>(&'a str);

impl Cursor<'_> {
    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start();
    }

    fn take(&mut self, char: char) -> bool {
        self.skip_blanks();
        let rest = self.0.strip_prefix(char);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// A word up to a blank or one of these, without its quotes and backslashes.
    fn word(&mut self, until: &str) -> Option<String> {
        self.skip_blanks();
        let (mut word, mut is_quoted, mut end) = (String::new(), false, self.0.len());
        let mut chars = self.0.char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => word.extend(chars.next().map(|(_, next)| next)),
                '"' => is_quoted = !is_quoted,
                _ if !is_quoted && (char.is_ascii_whitespace() || until.contains(char)) => {
                    end = at;
                    break;
                }
                _ => word.push(char),
            }
        }
        self.0 = &self.0[end..];
        (!word.is_empty()).then_some(word)
    }

    fn subjects(&mut self) -> Result<Vec<Subject>, String> {
        let mut subjects = Vec::new();
        loop {
            let mut is_excluded = false;
            while self.take('!') {
                is_excluded = !is_excluded;
            }
            let word = self.word(",=:").ok_or("a list of users ends too early")?;
            subjects.push(Subject { is_excluded, whom: whom(word) });
            if !self.take(',') {
                return Ok(subjects);
            }
        }
    }

    /// Passes over hosts and the `=` behind them.
    fn hosts(&mut self) -> Result<(), String> {
        let end = self.0.find('=').ok_or("a rule has no =")?;
        if self.0[..end].trim().is_empty() {
            return Err("a rule names no host".to_owned());
        }
        self.0 = &self.0[end + 1..];
        Ok(())
    }

    /// Commands, each with whether no password is asked for.
    fn commands(&mut self) -> Result<Vec<(Command, bool)>, String> {
        let (mut commands, mut no_password) = (Vec::new(), false);
        loop {
            self.options(&mut no_password)?;
            let end = end_of_command(self.0);
            let command = self.0[..end].trim();
            match command {
                "" => return Err("a list of commands ends too early".to_owned()),
                "ALL" => commands.push((Command::All, no_password)),
                _ if command.starts_with('!') => {}
                _ if is_alias(command) => commands.push((Command::Alias(command.to_owned()), no_password)),
                _ => commands.push((Command::Other, no_password)),
            }
            self.0 = &self.0[end..];
            if self.take(':') {
                no_password = false;
                self.hosts()?;
            } else if !self.take(',') {
                return Ok(commands);
            }
        }
    }

    /// `(runas)`, `NAME=value`, tags and digests before a command.
    fn options(&mut self, no_password: &mut bool) -> Result<(), String> {
        loop {
            self.skip_blanks();
            if let Some(rest) = self.0.strip_prefix('(') {
                self.0 = rest.split_once(')').ok_or("a ( has no )")?.1;
                continue;
            }
            let length = self.0.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(self.0.len());
            let (word, behind) = self.0.split_at(length);
            let behind = behind.trim_start();
            match behind.chars().next() {
                Some(':') if TAGS.contains(&word) => {
                    *no_password = if word.ends_with("PASSWD") { word == "NOPASSWD" } else { *no_password };
                    self.0 = &behind[1..];
                }
                Some(':') if DIGESTS.contains(&word) => {
                    self.0 = behind[1..].trim_start();
                    self.word(",");
                }
                Some('=') if !word.is_empty() => {
                    self.0 = &behind[1..];
                    self.word(",");
                }
                _ => return Ok(()),
            }
        }
    }
}

fn end_of_command(text: &str) -> usize {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' | b':' if !is_quoted => return at,
            _ => {}
        }
    }
    text.len()
}

fn is_alias(word: &str) -> bool {
    word.starts_with(|char: char| char.is_ascii_uppercase())
        && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

fn whom(word: String) -> Whom {
    let number = |text: &str| text.parse().ok();
    if word == "ALL" {
        Whom::All
    } else if let Some(uid) = word.strip_prefix('#') {
        number(uid).map_or(Whom::Unknown, Whom::Uid)
    } else if let Some(gid) = word.strip_prefix("%#") {
        number(gid).map_or(Whom::Unknown, Whom::Gid)
    } else if word.starts_with('+') || word.starts_with("%:") {
        Whom::Unknown
    } else if let Some(group) = word.strip_prefix('%') {
        Whom::Group(group.to_owned())
    } else {
        Whom::Name(word)
    }
}

#[cfg(test)]
mod tests;
