//! `/proc/net/tcp` and its like: each line is a socket or is counted as a bad one. Of SCTP a line may be several.
#![no_main]

use collector_common::parse::proc_net::{read, read_sctp};
use libfuzzer_sys::fuzz_target;

const HEADING: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const SOCKET: &str =
    "\n   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     5        0 482 1\n";

fuzz_target!(|text: &str| {
    let table = read(&[HEADING, text].concat());
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
    assert_eq!(table.sockets.len() + table.bad_lines, lines);
    let sctp = read_sctp(&[" ENDPT SOCK STY SSK HBKT LPORT UID INODE LADDRS\n", text].concat());
    assert!(sctp.bad_lines <= lines && sctp.sockets.len() <= text.split_ascii_whitespace().count());
    let more = read(&[HEADING, text, SOCKET].concat());
    assert_eq!(more.sockets.len(), table.sockets.len() + 1);
    assert!(more.sockets.last().is_some_and(|socket| (socket.local_port, socket.uid, socket.inode) == (22, 5, 482)));
});
