//! Sockets that listened between two looks only, as the kernel told of them.

use std::net::SocketAddr;

use collector_common::event::payload::{Diagnostic, Severity};
use collector_common::parse::listen_record::ListenRecord;
use collector_common::root::Root;

use super::owner::executable;
use super::probe::TICK_NS;
use super::{Look, NAMED_AT_MOST};
use crate::collectors::exec::image::start_ticks;

/// So many are kept until the next look; what is beyond is counted.
const KEPT: usize = 4096;
/// Of so many the program is asked for; the others are told by their name.
const PROGRAMS_ASKED: usize = 64;

/// What came and went.
#[derive(Debug, Default)]
pub(super) struct Passing {
    /// Began to listen since the last look, each with its program.
    begun: Vec<(ListenRecord, Option<String>)>,
    /// Was not there at a look.
    names: Vec<String>,
    /// How many more.
    more: u64,
}

impl Passing {
    /// Takes what the kernel told. The program is asked for now, because its process may end at any moment.
    pub(super) fn note(&mut self, root: &Root, records: Vec<ListenRecord>, lost: u64) {
        self.more += lost;
        for record in records.into_iter().filter(|record| record.begins && record.port != 0) {
            if self.begun.len() == KEPT {
                self.more += 1;
                continue;
            }
            let program = if self.begun.len() < PROGRAMS_ASKED { program(root, &record) } else { None };
            self.begun.push((record, program));
        }
    }

    /// Keeps what a look did not see.
    pub(super) fn settle<'a>(
        &mut self,
        looks: impl Iterator<Item = &'a Look> + Clone,
        foreign: impl Fn(u32) -> Option<u32>,
    ) {
        for (record, program) in std::mem::take(&mut self.begun) {
            let namespace = foreign(record.net_namespace);
            let mut seen = looks.clone().filter(|look| look.namespace == namespace).flat_map(|look| &look.listeners);
            let is_there = seen.any(|(protocol, socket)| {
                (*protocol, socket.local, socket.local_port) == (record.protocol, record.local, record.port)
            });
            if is_there {
                continue;
            }
            let is_looked_into = looks.clone().any(|look| look.namespace == namespace);
            if self.names.len() == NAMED_AT_MOST {
                self.more += 1;
                continue;
            }
            let mut words = words(&record, program.as_deref(), namespace);
            if !is_looked_into {
                words.push_str(", which is not looked into, so it may still be there");
            }
            self.names.push(words);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.more == 0
    }

    /// Names them, once.
    pub(super) fn tell(&mut self) -> Diagnostic {
        let Passing { mut names, more, .. } = std::mem::take(self);
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        let message = format!("listened for a moment: {}", names.join(", "));
        Diagnostic::new(Severity::Warning, message).with("MomentaryListeners", names.join(";"))
    }
}

fn program(root: &Root, record: &ListenRecord) -> Option<String> {
    let pid = i32::try_from(record.pid).ok()?;
    let program = executable(&root.path(format!("/proc/{pid}")))?;
    (start_ticks(root, pid)? == record.start_boottime_ns / TICK_NS).then_some(program)
}

fn words(record: &ListenRecord, program: Option<&str>, namespace: Option<u32>) -> String {
    let address = SocketAddr::new(record.local, record.port);
    let within = namespace.map(|number| format!(" in network namespace {number}")).unwrap_or_default();
    let program = program.unwrap_or(&record.name);
    format!("{} {address} ({program}, process {}, user {}){within}", record.protocol.name(), record.pid, record.uid)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use collector_common::parse::inet_socket::{InetSocket, LISTEN, Protocol};

    use super::*;

    fn record(port: u16) -> ListenRecord {
        ListenRecord {
            boottime_ns: 0,
            start_boottime_ns: 1,
            pid: u32::MAX,
            uid: 33,
            net_namespace: 7,
            protocol: Protocol::Tcp,
            local: [127, 0, 0, 1].into(),
            port,
            interface: 0,
            begins: true,
            name: "nc".to_owned(),
        }
    }

    fn look(port: u16) -> Look {
        let (local, peer) = ([127, 0, 0, 1].into(), [0; 4].into());
        let (state, v6_only) = (LISTEN, None);
        let socket =
            InetSocket { local, local_port: port, peer, peer_port: 0, state, interface: 0, uid: 33, inode: 5, v6_only };
        let listeners = vec![(Protocol::Tcp, socket)];
        Look { namespace: None, listeners, connections: Vec::new(), interfaces: BTreeMap::new() }
    }

    #[test]
    fn what_no_look_saw_is_named_once_and_much_of_it_counted() {
        let mut passing = Passing::default();
        let records = vec![record(8888), record(22), ListenRecord { begins: false, ..record(9) }];
        passing.note(&Root::host(), records, 0);
        passing.settle([look(22)].iter(), |_| None);
        let told = passing.tell();
        assert_eq!(told.message, "listened for a moment: TCP 127.0.0.1:8888 (nc, process 4294967295, user 33)");
        assert!(passing.is_empty());
        passing.note(&Root::host(), (1..=5000).map(record).collect(), 3);
        passing.settle([look(22)].iter(), Some);
        let told = passing.tell();
        assert!(told.message.contains("127.0.0.1:1 (nc, process 4294967295, user 33) in network namespace 7, "));
        assert!(told.extra_details["MomentaryListeners"].ends_with(";and 4983 more"), "{told:?}");
    }
}
