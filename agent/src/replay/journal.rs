//! Entries that `journalctl` wrote out. Their trusted fields say who wrote them, so a forged line is told from a login
//! as it is on the machine itself; where they were left out, nothing is proven.

use std::io::Write;

use collector_common::parse::journal::export::Next;
use collector_common::parse::journal::{self, Entry as Found, export};
use tracing::warn;

use super::input::{Content, Input};
use super::{Problem, Replay, Source, at, running, survey};
use crate::collectors::logins::reader::{Entry, Writer};

/// Prints the logins of an exported journal.
pub fn replay<W: Write>(replay: &mut Replay<W>, input: &Input, content: Content) -> Result<(), Problem> {
    let name = input.name.clone();
    let (mut last, mut last_us, mut broken) = (0, 0, 0_u64);
    let read = each_entry(input, content, |number, found, bytes| {
        last = number;
        let source = Source::new(&name, number, bytes);
        match found {
            Some(found) => {
                last_us = found.wall_us;
                take(replay, &found, &source)
            }
            None => {
                broken += 1;
                Ok(())
            }
        }
    });
    if broken > 0 {
        warn!("{name}: {broken} of its records are no entries of a journal");
    }
    replay.finish(&Source::new(&name, last, &[]), last_us)?;
    read
}

/// Gives each entry with its number from 1 and something that tells it from others; nothing for a record that is none.
pub fn each_entry(
    input: &Input,
    content: Content,
    mut take: impl FnMut(u64, Option<Found>, &[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    if content == Content::Json {
        return survey::each_line(input, |number, line| {
            // `--output=json-seq` puts a record separator before each.
            let bytes = line.trim_ascii();
            let bytes = bytes.strip_prefix(&[0x1e]).unwrap_or(bytes);
            if bytes.is_empty() { Ok(()) } else { take(number, journal::parse(bytes), bytes) }
        });
    }
    let mut reader = input.reader().map_err(Problem::File)?;
    let mut number = 0;
    loop {
        let found = match export::next(&mut reader) {
            Ok(Next::End) => return Ok(()),
            Ok(Next::Broken) => None,
            Ok(Next::Entry(found)) => Some(found),
            Err(error) => return Err(Problem::File(input.failure(&error))),
        };
        number += 1;
        let said = found.as_ref().map(|found| found.message.clone()).unwrap_or_default();
        take(number, found, said.as_bytes())?;
    }
}

fn take<W: Write>(replay: &mut Replay<W>, found: &Found, source: &Source) -> Result<(), Problem> {
    let writer = match found.is_vouched_for {
        true => Writer::Kernel { uid: found.uid, exe: found.exe.as_deref() },
        false => Writer::Unproven,
    };
    let mut moment = at(found.wall_us);
    moment.boot = found.boot.unwrap_or(moment.boot);
    let entry = Entry { at: moment, ident: &found.ident, pid: found.pid, message: &found.message, writer };
    let accounts = &replay.accounts;
    let drafts = replay.reader.read(&entry, running(moment), &mut |name| accounts.uid(name));
    replay.give_up(None)?;
    replay.set_aside(source, None);
    replay.print(drafts, source)
}
