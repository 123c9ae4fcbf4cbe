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

use self::text::{Cursor, aliases, logical_lines};
use super::passwd::FAULTS_KEPT;

mod text;

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

#[cfg(test)]
mod tests;
