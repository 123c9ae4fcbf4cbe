//! Entries that `journalctl` wrote out. Their trusted fields say who wrote them, so a forged line is told from a login
//! as it is on the machine itself; where they were left out, nothing is proven.

use std::io::Write;

use collector_common::parse::journal::export::Next;
use collector_common::parse::journal::{self, Entry as Found, export};
use tracing::warn;

use super::input::Input;
use super::{Problem, Replay, Source, at, running, survey};
use crate::collectors::logins::reader::{Entry, Writer};

/// Prints the logins of `journalctl --output=json`: an entry on each line.
pub fn replay_json<W: Write>(replay: &mut Replay<W>, input: &Input) -> Result<(), Problem> {
    survey_accounts(replay, input);
    let name = input.name.clone();
    let (mut number, mut broken, mut last_us) = (0, 0_u64, 0);
    survey::each_line(input, |line| {
        number = line.number;
        // `--output=json-seq` puts a record separator before each.
        let bytes = line.bytes.trim_ascii();
        let bytes = bytes.strip_prefix(&[0x1e]).unwrap_or(bytes);
        match journal::parse(bytes) {
            Some(found) => {
                last_us = found.wall_us;
                take(replay, &found, &Source { file: &name, number, marks: &[], bytes })
            }
            None => {
                broken += u64::from(!bytes.is_empty());
                Ok(())
            }
        }
    })?;
    finish(replay, &name, number, last_us, broken)
}

/// Prints the logins of `journalctl --output=export`.
pub fn replay_export<W: Write>(replay: &mut Replay<W>, input: &Input) -> Result<(), Problem> {
    survey_accounts(replay, input);
    let name = input.name.clone();
    let (mut number, mut broken, mut last_us) = (0, 0, 0);
    let mut reader = input.reader().map_err(Problem::File)?;
    let failed = loop {
        match export::next(&mut reader) {
            Ok(Next::End) => break None,
            Ok(Next::Broken) => {
                number += 1;
                broken += 1;
            }
            Ok(Next::Entry(found)) => {
                number += 1;
                last_us = found.wall_us;
                let source = Source { file: &name, number, marks: &[], bytes: found.message.as_bytes() };
                take(replay, &found, &source)?;
            }
            Err(error) => break Some(error),
        }
    };
    drop(reader);
    finish(replay, &name, number, last_us, broken)?;
    failed.map_or(Ok(()), |error| Err(Problem::File(input.failure(&error))))
}

/// A file that breaks off is told when it is read for its entries.
fn survey_accounts<W: Write>(replay: &mut Replay<W>, input: &Input) {
    if let Err(problem) = survey::of_journal(input, &mut replay.accounts) {
        tracing::debug!(?problem, "the first look ended early");
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
    replay.print(drafts, source)
}

fn finish<W: Write>(replay: &mut Replay<W>, name: &str, number: u64, last_us: i64, broken: u64) -> Result<(), Problem> {
    if broken > 0 {
        warn!("{name}: {broken} of its records are no entries of a journal");
    }
    replay.finish(&Source { file: name, number, marks: &[], bytes: &[] }, last_us)
}
