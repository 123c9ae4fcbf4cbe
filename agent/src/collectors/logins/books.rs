//! What a record of wtmp or btmp says of an attempt. No I/O.
//!
//! A wtmp names who got a terminal: `ssh host command`, scp and sftp leave no record. A btmp of OpenSSH on Debian 11 and
//! 12 holds an attempt of a name that is no account twice, when it is named and when its password is refused.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use collector_common::event::payload::LoginResult;
use collector_common::parse::login::{Account, Handler, Peer, Verdict, address};
use collector_common::parse::utmp::{Record, Type};

/// A connection lives two minutes without a login, so a second record of its process later is another process's.
const ONE_CONNECTION_US: i64 = 10 * 60 * 1_000_000;

/// The most names of attempts that are kept in mind.
pub const MAX_NAMED: usize = 200_000;

/// Who wrote `UNKNOWN` where a name or a terminal belongs: shadow, busybox and util-linux.
const NO_NAMES: [&str; 3] = ["", "UNKNOWN", "(unknown)"];

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Book {
    /// Sessions: wtmp, and utmp, which is its present.
    Sessions,
    /// Failures: btmp.
    Failures,
}

/// The names that were told, by process and host.
#[derive(Debug, Default)]
pub struct Told(HashMap<u64, (u64, i64)>);

impl Book {
    /// The name of the file, which rows give as their source.
    pub fn name(self) -> &'static str {
        match self {
            Book::Sessions => "wtmp",
            Book::Failures => "btmp",
        }
    }

    /// The attempt that a record is, if it is one.
    pub fn attempt(
        self,
        record: &Record,
        told: &mut Told,
        is_account: impl FnOnce(&Record) -> bool,
    ) -> Option<(Handler, Verdict)> {
        match self {
            Book::Sessions => session(record),
            Book::Failures => failure(record, told, is_account),
        }
    }
}

/// Dropbear writes wtmp as OpenSSH does, and neither leaves its name there; OpenSSH stands for both.
pub fn session(record: &Record) -> Option<(Handler, Verdict)> {
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

fn failure(record: &Record, told: &mut Told, is_account: impl FnOnce(&Record) -> bool) -> Option<(Handler, Verdict)> {
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
    let account = match is_account(record) {
        true => Account::Known(record.user.clone()),
        false if told.is_second(record) => return None,
        false => Account::Invalid { typed: Some(record.user.clone()) },
    };
    Some((Handler::OpenSsh, verdict(LoginResult::Fail, account, peer, record)))
}

impl Told {
    /// Whether this is the second record of a connection for the same name. The third is its second attempt.
    fn is_second(&mut self, record: &Record) -> bool {
        if self.0.len() >= MAX_NAMED {
            self.0.clear();
        }
        let (count, last_us) = self.0.entry(key(record)).or_insert((0, record.wall_us));
        if record.wall_us - *last_us > ONE_CONNECTION_US {
            *count = 0;
        }
        *count += 1;
        *last_us = record.wall_us;
        *count == 2
    }
}

/// What tells a process's attempts at a name from others.
pub fn key(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    (record.pid, &record.user, &record.host).hash(&mut hasher);
    hasher.finish()
}

/// Whether sshd wrote this about somebody it did not let in.
pub fn is_ssh_failure(record: &Record) -> bool {
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
