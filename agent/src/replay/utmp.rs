//! wtmp and btmp: sessions that began, and attempts that failed.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};

use collector_common::collector::Draft;
use collector_common::event::payload::Payload;
use collector_common::parse::utmp::{Layout, Record, Type};
use tracing::warn;

use super::input::Input;
use super::{Problem, Replay, Source, at};
use crate::collectors::logins::books::{Book, MAX_NAMED, Told, is_ssh_failure, key};
use crate::collectors::logins::reader::{self, Writer};

/// Prints the logins of a file of records.
pub fn replay<W: Write>(replay: &mut Replay<W>, input: &Input, layout: &Layout) -> Result<(), Problem> {
    let mut first = FirstLook::default();
    // A file that breaks off is told when it is read for its rows.
    let looked = each_record(input, layout, |_, record| {
        first.note(record);
        Ok(())
    });
    tracing::debug!(?looked, file = input.name, "the first look");
    let book = match input.file_name() {
        name if name.contains("btmp") => Book::Failures,
        name if name.contains("tmp") => Book::Sessions,
        _ => first.book(),
    };
    let name = input.name.clone();
    let mut told = Told::default();
    let damaged = each_record(input, layout, |number, record| {
        let attempt = book.attempt(record, &mut told, |record| first.is_account(replay, record));
        let Some((handler, verdict)) = attempt else { return Ok(()) };
        let accounts = &replay.accounts;
        let mut row = reader::row(handler, record.pid, &verdict, &Writer::Unproven, &mut |name| accounts.uid(name));
        row.extra_details.insert("Source", book.name().to_owned());
        let draft = Draft::new(at(record.wall_us), Payload::Login(vec![row]));
        let facts = [record.line.as_str(), &record.user, &record.host].concat();
        replay.print(vec![draft], &Source::new(&name, number, facts.as_bytes()))
    })?;
    if damaged > 0 {
        warn!("{name}: {damaged} of its records are damaged and passed over");
    }
    Ok(())
}

/// Gives each record that can be true, and how many are damaged; those keep their number.
fn each_record(
    input: &Input,
    layout: &Layout,
    mut take: impl FnMut(u64, &Record) -> Result<(), Problem>,
) -> Result<u64, Problem> {
    let mut reader = input.reader().map_err(Problem::File)?;
    let mut bytes = vec![0; layout.record_bytes];
    let (mut number, mut damaged) = (0, 0_u64);
    let failed = loop {
        match reader.read_exact(&mut bytes) {
            Ok(()) => number += 1,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break None,
            Err(error) => break Some(error),
        }
        match layout.read(&bytes) {
            Some(record) => take(number, &record)?,
            None => damaged += 1,
        }
    };
    drop(reader);
    failed.map_or(Ok(damaged), |error| Err(Problem::File(input.failure(&error))))
}

/// What has to be known of all records before the first becomes a row.
#[derive(Debug, Default)]
struct FirstLook {
    named: HashSet<u64>,
    named_twice: HashSet<u64>,
    sessions: bool,
}

impl FirstLook {
    fn note(&mut self, record: &Record) {
        self.sessions |= matches!(record.kind, Type::Machine | Type::Dead);
        if is_ssh_failure(record) && self.named.len() < MAX_NAMED && !self.named.insert(key(record)) {
            self.named_twice.insert(key(record));
        }
    }

    /// Whether the name of a failure is an account.
    fn is_account<W: Write>(&self, replay: &Replay<W>, record: &Record) -> bool {
        match (&replay.accounts.passwd, replay.accounts.uid(&record.user)) {
            (_, Some(_)) => true,
            (Some(_), None) => false,
            // Without a list of accounts the second record is what tells.
            (None, None) => !record.user.is_empty() && !self.named_twice.contains(&key(record)),
        }
    }

    /// What the file is, where its name does not say: only sessions end, and only sshd fails without a terminal.
    fn book(&self) -> Book {
        if self.sessions || self.named.is_empty() { Book::Sessions } else { Book::Failures }
    }
}
