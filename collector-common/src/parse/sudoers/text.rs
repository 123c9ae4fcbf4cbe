//! How the text of sudoers comes apart: lines, lists, commands and what stands before them.

use super::{Command, Subject, Whom};

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

/// Lines put together at each `\`, without comments, with the number of their first part.
pub(super) fn logical_lines(text: &str) -> Vec<(usize, String)> {
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
pub(super) fn aliases(text: &str) -> Result<Vec<(String, String)>, String> {
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
pub(super) struct Cursor<'a>(pub(super) &'a str);

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
    pub(super) fn word(&mut self, until: &str) -> Option<String> {
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

    pub(super) fn subjects(&mut self) -> Result<Vec<Subject>, String> {
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
    pub(super) fn hosts(&mut self) -> Result<(), String> {
        let end = self.0.find('=').ok_or("a rule has no =")?;
        if self.0[..end].trim().is_empty() {
            return Err("a rule names no host".to_owned());
        }
        self.0 = &self.0[end + 1..];
        Ok(())
    }

    /// Commands, each with whether no password is asked for.
    pub(super) fn commands(&mut self) -> Result<Vec<(Command, bool)>, String> {
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
