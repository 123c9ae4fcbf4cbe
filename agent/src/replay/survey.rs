//! The first look at a file: what has to be known before its first line can become a row.

use std::io::BufRead;

use collector_common::parse::login::attempts::ByPam;
use collector_common::parse::syslog;
use tracing::debug;

use super::input::{Content, Input};
use super::years::Years;
use super::{Accounts, Problem, journal};
use crate::collectors::logins::lines::{Line, Lines};

/// A syslog line has at most 8 KiB by default everywhere; a journal's entry as JSON is several times its message.
const MAX_LINE_BYTES: usize = 256 * 1024;

/// The most accounts whose uid is taken from a log.
const MAX_TOLD: usize = 10_000;

/// What PAM writes when a session begins: `session opened for user NAME(uid=N) by ...`.
const OPENED: &str = "session opened for user ";

/// Which handlers say themselves how attempts ended, in any of the files. Where one does, what PAM writes about the same
/// attempts accompanies it; where none does, PAM's lines are the attempts. Lines of `sshd` may go to `secure` while those
/// of PAM go to `messages`, and a copy of one alone still tells who got in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Natives {
    ssh: bool,
    console: bool,
    console_root: bool,
}

/// What is found in a file.
pub struct Survey<'a> {
    /// For lines without a year.
    pub years: Years,
    accounts: &'a mut Accounts,
    natives: &'a mut Natives,
}

impl Natives {
    /// What PAM's lines are to be believed in.
    pub fn by_pam(self) -> ByPam {
        ByPam { ssh: !self.ssh, console: !self.console, console_root: !self.console_root }
    }

    fn note(&mut self, ident: &str, message: &str) {
        let starts = |words: &[&str]| words.iter().any(|word| message.starts_with(word));
        match ident {
            "sshd" | "sshd-session" | "sshd-auth" => {
                self.ssh |= starts(&["Accepted ", "Failed ", "message repeated "]);
            }
            "login" => {
                self.console |= starts(&["LOGIN ON "]) || message.contains("' logged in  on '");
                self.console_root |= starts(&["ROOT LOGIN ", "root login on "]);
            }
            _ => {}
        }
    }
}

impl<'a> Survey<'a> {
    /// Nothing found yet.
    pub fn new(accounts: &'a mut Accounts, natives: &'a mut Natives) -> Survey<'a> {
        Survey { years: Years::default(), accounts, natives }
    }

    /// Looks through a log of lines. What cannot be read is told when it is read for its rows.
    pub fn text(&mut self, input: &Input) {
        let looked = each_line(input, |line| {
            let text = String::from_utf8_lossy(&line.bytes);
            if let Some(parsed) = syslog::parse(&text) {
                self.years.note(line.number, &parsed.stamp);
                self.natives.note(parsed.ident, parsed.message);
                learn(self.accounts, parsed.message);
            }
            Ok(())
        });
        debug!(?looked, file = input.name, "the first look");
    }

    /// Looks through an exported journal; lines that anybody may have written tell nothing.
    pub fn journal(&mut self, input: &Input, content: Content) {
        let looked = journal::each_entry(input, content, |_, found, _| {
            if let Some(found) = found.filter(|found| !found.is_vouched_for || found.uid == Some(0)) {
                self.natives.note(&found.ident, &found.message);
                learn(self.accounts, &found.message);
            }
            Ok(())
        });
        debug!(?looked, file = input.name, "the first look");
    }
}

/// Keeps the uid that a line says an account has. The first word counts.
fn learn(accounts: &mut Accounts, text: &str) {
    if accounts.passwd.is_some() || accounts.told.len() >= MAX_TOLD {
        return;
    }
    let told = text.find(OPENED).and_then(|at| {
        let (name, rest) = text[at + OPENED.len()..].split_once("(uid=")?;
        let (uid, _) = rest.split_once(')')?;
        let is_name = !name.is_empty() && name.len() <= 32 && !name.contains(' ');
        Some((name, uid.parse::<u32>().ok()?)).filter(|_| is_name)
    });
    if let Some((name, uid)) = told
        && !accounts.told.contains_key(name)
    {
        accounts.told.insert(name.to_owned(), uid);
    }
}

/// Gives each line of a file to `take`, the half line at its end too. Lines that are too long are passed over, and keep
/// their number.
pub fn each_line(input: &Input, mut take: impl FnMut(&Line) -> Result<(), Problem>) -> Result<(), Problem> {
    let mut lines = Lines::new(MAX_LINE_BYTES);
    let mut reader = input.reader().map_err(Problem::File)?;
    let failed = loop {
        let bytes = match reader.fill_buf() {
            Ok([]) => break None,
            Ok(bytes) => bytes,
            Err(error) => break Some(error),
        };
        for line in lines.feed(bytes) {
            take(&line)?;
        }
        let read = bytes.len();
        reader.consume(read);
    };
    drop(reader);
    if let Some(line) = lines.finish() {
        take(&line)?;
    }
    match failed {
        Some(error) => Err(Problem::File(input.failure(&error))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_uid_is_learnt_from_what_pam_says_unless_there_is_a_list() {
        let mut accounts = Accounts { passwd: None, told: HashMap::new() };
        for text in [
            "pam_unix(sshd:session): session opened for user tester(uid=1000) by (uid=0)",
            "pam_unix(sshd:session): session opened for user tester(uid=7) by (uid=0)",
            r#"{"MESSAGE":"pam_unix(sshd:session): session opened for user bob(uid=1001) by (uid=0)"}"#,
            "session opened for user root by (uid=5)",
            "session opened for user a b(uid=8)",
        ] {
            learn(&mut accounts, text);
        }
        assert_eq!(
            (accounts.uid("tester"), accounts.uid("bob"), accounts.uid("root")),
            (Some(1000), Some(1001), Some(0))
        );
        assert_eq!(accounts.told.len(), 2);
        let accounts = Accounts { passwd: Some(HashMap::from([("bob".to_owned(), 5)])), told: accounts.told };
        assert_eq!((accounts.uid("tester"), accounts.uid("bob"), accounts.uid("root")), (None, Some(5), None));
    }
}
