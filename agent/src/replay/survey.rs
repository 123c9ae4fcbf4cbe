//! The first look at a file: what has to be known before its first line can become a row.

use std::io::BufRead;

use collector_common::parse::login::attempts::ByPam;
use collector_common::parse::syslog;
use memchr::{memchr, memmem};
use tracing::debug;

use super::input::{Content, Input};
use super::years::Years;
use super::{Accounts, Problem, journal};

/// A syslog line has at most 8 KiB by default everywhere; a journal's entry as JSON is several times its message.
const MAX_LINE_BYTES: usize = 256 * 1024;

/// `Nov 24`, which a line without a year begins with.
const DAY_BYTES: usize = 6;

/// The most accounts whose uid is taken from a log.
const MAX_TOLD: usize = 10_000;

/// What PAM writes when a session begins: `session opened for user NAME(uid=N) by ...`.
const OPENED: &str = "session opened for user ";

/// Which handlers say themselves how attempts ended, in any of the files. Where one does, what PAM writes about the
/// same attempts accompanies it; where none does, PAM's lines are the attempts. Lines of `sshd` may go to `secure`
/// while those of PAM go to `messages`, and a copy of one alone still tells who got in.
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
        ByPam { ssh: !self.ssh, console: !self.console, console_root: !self.console_root, remote: !self.console }
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
        let mut day = [0; DAY_BYTES];
        let looked = each_line(input, |number, line| {
            // Most lines are of the same day as the one above them and about nobody new.
            if line.starts_with(&day) && !self.may_tell(line) {
                return Ok(());
            }
            if let Some(parsed) = syslog::parse(&String::from_utf8_lossy(line)) {
                self.years.note(number, &parsed.stamp);
                self.natives.note(parsed.ident, parsed.message);
                learn(self.accounts, parsed.message);
                day = line.first_chunk().copied().filter(|day| day[0].is_ascii_alphabetic()).unwrap_or_default();
            }
            Ok(())
        });
        debug!(?looked, file = input.name, "the first look");
    }

    /// Whether a line may say more than its date.
    fn may_tell(&self, line: &[u8]) -> bool {
        let has = |word: &str| memmem::find(line, word.as_bytes()).is_some();
        has(OPENED) || has("login") || has("LOGIN") || (!self.natives.ssh && has("sshd"))
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

/// Gives each line of a file to `take` with its number from 1, the half line at its end too. NULs, which a power cut
/// leaves, are left out; lines that are too long are passed over, and keep their number.
pub fn each_line(input: &Input, mut take: impl FnMut(u64, &[u8]) -> Result<(), Problem>) -> Result<(), Problem> {
    let mut reader = input.reader().map_err(Problem::File)?;
    let mut half = Vec::new();
    let (mut number, mut too_long) = (1, false);
    let failed = loop {
        let bytes = match reader.fill_buf() {
            Ok([]) => break None,
            Ok(bytes) => bytes,
            Err(error) => break Some(error),
        };
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, behind) = (&rest[..end], &rest[end + 1..]);
            if !too_long {
                match half.as_slice() {
                    [] => without_nuls(line, |line| take(number, line))?,
                    _ => {
                        half.extend_from_slice(line);
                        without_nuls(&half, |line| take(number, line))?;
                    }
                }
            }
            half.clear();
            too_long = false;
            number += 1;
            rest = behind;
        }
        too_long |= half.len() + rest.len() > MAX_LINE_BYTES;
        if too_long {
            half = Vec::new();
        } else {
            half.extend_from_slice(rest);
        }
        let read = bytes.len();
        reader.consume(read);
    };
    if !half.is_empty() {
        without_nuls(&half, |line| take(number, line))?;
    }
    failed.map_or(Ok(()), |error| Err(Problem::File(input.failure(&error))))
}

fn without_nuls<T>(line: &[u8], take: impl FnOnce(&[u8]) -> T) -> T {
    match memchr(0, line) {
        None => take(line),
        Some(_) => take(&line.iter().copied().filter(|byte| *byte != 0).collect::<Vec<_>>()),
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
