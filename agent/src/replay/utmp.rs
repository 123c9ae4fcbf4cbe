//! wtmp and btmp: sessions that began, and attempts that failed.
//!
//! A wtmp names who got a terminal: `ssh host command`, scp and sftp leave no record. A btmp of OpenSSH on Debian 11 and
//! 12 holds an attempt of a name that is no account twice, when it is named and when its password is refused.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Read, Write};

use collector_common::collector::Draft;
use collector_common::event::payload::{LoginResult, Payload};
use collector_common::parse::login::{Account, Handler, Peer, Verdict, address};
use collector_common::parse::utmp::{Layout, Record, Type};
use tracing::warn;

use super::input::Input;
use super::{Problem, Replay, Source, at};
use crate::collectors::logins::reader::{self, Writer};

/// A connection lives two minutes without a login, so a second record of its process later is another process's.
const ONE_CONNECTION_US: i64 = 10 * 60 * 1_000_000;

/// The most names of attempts that are kept in mind.
const MAX_NAMED: usize = 200_000;

/// Who wrote `UNKNOWN` where a name or a terminal belongs: shadow, busybox and util-linux.
const NO_NAMES: [&str; 3] = ["", "UNKNOWN", "(unknown)"];

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Book {
    /// Sessions: wtmp, and utmp, which is its present.
    Sessions,
    /// Failures: btmp.
    Failures,
}

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
    let mut told = HashMap::new();
    let damaged = each_record(input, layout, |number, record| {
        let attempt = match book {
            Book::Sessions => session(record),
            Book::Failures => failure(replay, &first, &mut told, record),
        };
        let Some((handler, verdict)) = attempt else { return Ok(()) };
        let accounts = &replay.accounts;
        let mut row = reader::row(handler, record.pid, &verdict, &Writer::Unproven, &mut |name| accounts.uid(name));
        row.extra_details.insert("Source", if book == Book::Failures { "btmp" } else { "wtmp" }.to_owned());
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

    /// What the file is, where its name does not say: only sessions end, and only sshd fails without a terminal.
    fn book(&self) -> Book {
        if self.sessions || self.named.is_empty() { Book::Sessions } else { Book::Failures }
    }
}

fn key(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    (record.pid, &record.user, &record.host).hash(&mut hasher);
    hasher.finish()
}

/// Dropbear writes wtmp as OpenSSH does, and neither leaves its name there; OpenSSH stands for both.
fn session(record: &Record) -> Option<(Handler, Verdict)> {
    // A file server is no way to a shell.
    let is_ftp = record.line.starts_with("ftp") || record.line.starts_with("vsftpd");
    if record.kind != Type::User || record.user.is_empty() || is_ftp {
        return None;
    }
    let peer = peer(record);
    let is_ssh_id = record.id.len() == 4 && record.line.starts_with("pts/") && record.line.ends_with(&record.id);
    let has_peer = peer.address.is_some() || peer.name.is_some();
    let handler = if is_ssh_id && has_peer { Handler::OpenSsh } else { Handler::Console };
    let account = Account::Known(record.user.clone());
    Some((handler, verdict(LoginResult::Success, account, peer, record)))
}

fn failure<W: Write>(
    replay: &Replay<W>,
    first: &FirstLook,
    told: &mut HashMap<u64, (u64, i64)>,
    record: &Record,
) -> Option<(Handler, Verdict)> {
    if !matches!(record.kind, Type::Waiting | Type::User) {
        return None;
    }
    let peer = peer(record);
    if !is_ssh_failure(record) {
        // Only su of util-linux has neither terminal nor peer, and su is no login.
        if record.line.is_empty() && record.host.is_empty() {
            return None;
        }
        // Shadow's login, which writes type 7, puts no name there that is no account; util-linux does.
        let account = match record.user.as_str() {
            user if NO_NAMES.contains(&user) => Account::Invalid { typed: None },
            user if record.kind == Type::User => Account::Known(user.to_owned()),
            user => Account::Typed(user.to_owned()),
        };
        return Some((Handler::Console, verdict(LoginResult::Fail, account, peer, record)));
    }
    let is_account = match (&replay.accounts.passwd, replay.accounts.uid(&record.user)) {
        (_, Some(_)) => true,
        (Some(_), None) => false,
        // Without a list of accounts the second record is what tells.
        (None, None) => !record.user.is_empty() && !first.named_twice.contains(&key(record)),
    };
    if !is_account && is_second(told, record) {
        return None;
    }
    let account = match is_account {
        true => Account::Known(record.user.clone()),
        false => Account::Invalid { typed: Some(record.user.clone()) },
    };
    Some((Handler::OpenSsh, verdict(LoginResult::Fail, account, peer, record)))
}

/// Whether this is the second record of a connection for the same name. The third is its second attempt.
fn is_second(told: &mut HashMap<u64, (u64, i64)>, record: &Record) -> bool {
    if told.len() >= MAX_NAMED {
        told.clear();
    }
    let (count, last_us) = told.entry(key(record)).or_insert((0, record.wall_us));
    if record.wall_us - *last_us > ONE_CONNECTION_US {
        *count = 0;
    }
    *count += 1;
    *last_us = record.wall_us;
    *count == 2
}

fn is_ssh_failure(record: &Record) -> bool {
    record.kind == Type::Waiting && record.line.starts_with("ssh")
}

/// The host where it is an address: the other field cannot tell an IPv4 address from an IPv6 one that ends in zeros.
fn peer(record: &Record) -> Peer {
    let mut peer = Peer::new(&record.host, None);
    if peer.address.is_none() {
        peer.address = record.address.and_then(|found| address(&found.to_string()));
    }
    peer
}

fn verdict(result: LoginResult, account: Account, peer: Peer, record: &Record) -> Verdict {
    let is_terminal = !NO_NAMES.contains(&record.line.as_str()) && !is_ssh_failure(record);
    let terminal = is_terminal.then(|| record.line.clone());
    Verdict { result, account, peer, method: None, key: None, terminal }
}
