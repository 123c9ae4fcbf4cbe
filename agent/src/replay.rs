//! `edgewarden replay`: the logins that the logs of another machine tell, such as those of a disk image.
//!
//! ```text
//! input.rs   what a file is: packed or not, text, journal, records; read twice, never kept
//! survey.rs  first time: how many New Years passed, whose uid is told, who tells how attempts ended
//! text.rs    second time: auth.log, secure, messages          ┐
//! journal.rs journalctl -o json, -o export                    ├▶ collectors/logins/reader.rs ─▶ output.rs
//! utmp.rs    wtmp, btmp, utmp                                 ┘
//! ```
//!
//! Nothing here asks the machine it runs on: accounts and dates are those of the files.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use collector_common::clock::{Origin, Reading};
use collector_common::collector::Draft;
use collector_common::event::payload::{Login, Payload};
use jiff::tz::TimeZone;
use tracing::{error, warn};
use uuid::Uuid;

use self::input::{Content, Input};
use self::survey::{Natives, Survey};
use self::years::Years;
use crate::collectors::logins::accounts;
use crate::collectors::logins::reader::Reader;
use crate::ids;
use crate::output::Printer;

mod input;
mod journal;
mod survey;
mod text;
mod utmp;
mod years;

#[cfg(test)]
mod tests;

/// What to read and how to print it.
pub struct Request {
    /// The files, in the order of their rows; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// The accounts of the machine the files are from.
    pub passwd: Option<PathBuf>,
    /// The year of the last line, where lines have none.
    pub year: Option<i16>,
    /// How to print.
    pub printer: Printer,
}

/// Reads the files and prints their rows.
///
/// # Errors
/// A sentence when a file could not be read to its end, after the others were, or when standard output is closed.
pub fn run(request: Request) -> Result<(), String> {
    let passwd = match &request.passwd {
        Some(path) => Some(read_passwd(path)?),
        None => None,
    };
    let out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let mut replay = Replay { year: request.year, ..Replay::new(request.printer, passwd, out) };
    let mut failed = 0;
    let cases: Vec<_> = request.files.iter().map(|path| replay.look_into(path)).collect();
    for case in cases {
        match case.and_then(|case| replay.file(&case)) {
            Ok(()) => {}
            Err(Problem::Output(reason)) => return Err(reason),
            Err(Problem::File(reason)) => {
                replay.out.flush().map_err(|error| format!("cannot write to standard output: {error}"))?;
                error!("{reason}");
                failed += 1;
            }
        }
    }
    if let Err(Problem::Output(reason)) = replay.end() {
        return Err(reason);
    }
    replay.out.flush().map_err(|error| format!("cannot write to standard output: {error}"))?;
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} of {} files could not be read to the end", request.files.len())),
    }
}

fn read_passwd(path: &Path) -> Result<HashMap<String, u32>, String> {
    let bytes = fs::read(path).map_err(|error| {
        format!("cannot read the accounts in {}: {error}. Name the etc/passwd of the image.", path.display())
    })?;
    Ok(accounts::uids(&String::from_utf8_lossy(&bytes)))
}

/// Why there are no more rows.
#[derive(Debug)]
enum Problem {
    /// Of this file.
    File(String),
    /// At all.
    Output(String),
}

/// A file that was looked through once.
struct Case {
    input: Input,
    content: Content,
    years: Years,
}

/// What goes on from file to file: connections that began in one log end in the next, and what one log tells, another
/// of the same machine need not.
struct Replay<W = BufWriter<StdoutLock<'static>>> {
    reader: Reader,
    accounts: Accounts,
    natives: Natives,
    year: Option<i16>,
    printer: Printer,
    out: W,
}

/// Whose uid is known.
struct Accounts {
    /// The image's own list. It has the last word.
    passwd: Option<HashMap<String, u32>>,
    /// What the logs say.
    told: HashMap<String, u32>,
}

/// The place of a row in its file.
struct Source<'a> {
    file: &'a str,
    /// Of the line or record, from 1.
    number: u64,
    /// Facts about the row's date.
    marks: &'a [&'static str],
    /// The offset from UTC of the machine's clock, if the line tells it.
    offset_seconds: Option<i32>,
    /// The line itself, for the row's id.
    bytes: &'a [u8],
}

impl<W: Write> Replay<W> {
    fn new(printer: Printer, passwd: Option<HashMap<String, u32>>, out: W) -> Replay<W> {
        let accounts = Accounts { passwd, told: HashMap::new() };
        let (reader, natives) = (Reader::default(), Natives::default());
        Replay { reader, accounts, natives, year: None, printer, out }
    }

    /// The first look at a file.
    fn look_into(&mut self, path: &Path) -> Result<Case, Problem> {
        let input = Input::open(path).map_err(Problem::File)?;
        let content = input.content().map_err(Problem::File)?;
        let mut survey = Survey::new(&mut self.accounts, &mut self.natives);
        match content {
            Content::Text => survey.text(&input),
            Content::Json | Content::Export => survey.journal(&input, content),
            Content::Nothing | Content::Records(_) => {}
        }
        let years = survey.years;
        Ok(Case { input, content, years })
    }

    /// Prints the rows of a file, after the first look at all of them.
    fn file(&mut self, case: &Case) -> Result<(), Problem> {
        self.reader.believe_pam(self.natives.by_pam());
        match case.content {
            Content::Nothing => {
                warn!("{}: the file is empty", case.input.name);
                Ok(())
            }
            Content::Text => text::replay(self, case),
            Content::Json | Content::Export => journal::replay(self, &case.input, case.content),
            Content::Records(layout) => utmp::replay(self, &case.input, &layout),
        }
    }

    fn zone(&self) -> TimeZone {
        self.printer.zone.clone()
    }

    /// Prints what a line became.
    fn print(&mut self, drafts: Vec<Draft>, source: &Source) -> Result<(), Problem> {
        for (part, mut draft) in drafts.into_iter().enumerate() {
            match &mut draft.payload {
                Some(Payload::Login(rows)) => rows.iter_mut().for_each(|row| source.mark(row)),
                Some(Payload::Diagnostic(remark)) => {
                    remark.extra_details.insert("SourceFile", source.file.to_owned());
                    remark.extra_details.insert("SourceLine", source.number.to_string());
                }
                _ => {}
            }
            draft.id = Some(source.id(draft.at.wall_us, part));
            self.printer.write(draft, source.offset_seconds, &mut self.out).map_err(Problem::Output)?;
        }
        Ok(())
    }

    /// Gives the name that the line just read called its place, in case no line says how it ended.
    fn set_aside(&mut self, source: &Source, wall_us: Option<i64>) {
        if let Some(draft) = self.reader.set_aside() {
            if let Some(wall_us) = wall_us {
                draft.at = at(wall_us);
            }
            draft.id = Some(source.id(draft.at.wall_us, 0));
            if let Some(Payload::Login(rows)) = &mut draft.payload {
                rows.iter_mut().for_each(|row| source.mark(row));
            }
        }
    }

    /// Prints the names that still wait when all files are read.
    fn end(&mut self) -> Result<(), Problem> {
        self.give_up(Some(Reading { boottime_us: u64::MAX, ..at(0) }))
    }

    /// Prints the names that no line can answer any more.
    fn give_up(&mut self, until: Option<Reading>) -> Result<(), Problem> {
        for draft in self.reader.given_up(until) {
            self.printer.write(draft, None, &mut self.out).map_err(Problem::Output)?;
        }
        Ok(())
    }

    /// Counts that no further line brought out.
    fn finish(&mut self, source: &Source, wall_us: i64) -> Result<(), Problem> {
        let rest = self.reader.overdue(Reading { boottime_us: u64::MAX, ..at(wall_us) });
        self.print(rest, source)
    }
}

impl<'a> Source<'a> {
    fn new(file: &'a str, number: u64, bytes: &'a [u8]) -> Source<'a> {
        Source { file, number, marks: &[], offset_seconds: None, bytes }
    }

    fn mark(&self, row: &mut Login) {
        row.extra_details.insert("SourceFile", self.file.to_owned());
        row.extra_details.insert("SourceLine", self.number.to_string());
        for mark in self.marks {
            row.extra_details.insert(mark, "true".to_owned());
        }
    }

    /// The same each time the file is read, wherever it lies then.
    fn id(&self, wall_us: i64, part: usize) -> Uuid {
        let name = Path::new(self.file).file_name().unwrap_or_default().as_encoded_bytes();
        let part = part as u64;
        ids::derived(&[
            b"replay\0",
            name,
            &[0],
            &self.number.to_le_bytes(),
            &part.to_le_bytes(),
            &wall_us.to_le_bytes(),
            self.bytes,
        ])
    }
}

impl Accounts {
    /// The uid of an account. Without a list the log is believed, and root is 0 everywhere.
    fn uid(&self, name: &str) -> Option<u32> {
        match &self.passwd {
            Some(passwd) => passwd.get(name).copied(),
            None if name == "root" => Some(0),
            None => self.told.get(name).copied(),
        }
    }
}

/// A moment of the other machine. Its boot is not known.
fn at(wall_us: i64) -> Reading {
    Reading { boot: Uuid::nil(), boottime_us: 0, wall_us, origin: Origin::Source }
}

/// The same with a time that runs, for what is said once a minute.
fn running(at: Reading) -> Reading {
    Reading { boottime_us: u64::try_from(at.wall_us).unwrap_or(0), ..at }
}
