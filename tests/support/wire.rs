//! What a relay's tapes say: which messages were sent, and which of them the broker acknowledged.
//!
//! ```text
//! packet  = type:4 flags:4 | remaining length, 1 to 4 bytes of 7 bits, least first | rest     MQTT 3.1.1, section 2.2
//! PUBLISH = 3 | topic length:u16 topic | packet id:u16 where QoS > 0 | message                section 3.3
//! PUBACK  = 4 | packet id:u16                                                                 section 3.4
//! ```

use crate::proxy::Tape;

/// The type of a message.
pub const PUBLISH: u8 = 3;
/// The type of its acknowledgement.
pub const PUBACK: u8 = 4;

/// One message that went up whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which connection, counted from 0.
    pub link: usize,
    /// The message.
    pub message: Vec<u8>,
    /// Whether the broker answered with its PUBACK.
    pub is_acknowledged: bool,
}

/// All messages, in the order in which they were sent.
pub fn sent(tapes: &[Tape]) -> Vec<Sent> {
    tapes.iter().enumerate().flat_map(|(link, tape)| sent_on(link, tape)).collect()
}

fn sent_on(link: usize, tape: &Tape) -> Vec<Sent> {
    let mut out: Vec<(u16, Sent)> = Vec::new();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for (is_up, bytes) in tape {
        let pending = if *is_up { &mut up } else { &mut down };
        pending.extend_from_slice(bytes);
        while let Some((kind, flags, rest)) = take_packet(pending) {
            if *is_up && kind == PUBLISH {
                let topic = usize::from(u16_at(&rest, 0));
                assert_eq!(flags & 0b0110, 0b0010, "the agent publishes with QoS 1");
                let message = rest[topic + 4..].to_vec();
                out.push((u16_at(&rest, topic + 2), Sent { link, message, is_acknowledged: false }));
            } else if !*is_up && kind == PUBACK {
                let id = u16_at(&rest, 0);
                // An id is used again once it was acknowledged.
                let of = out.iter_mut().find(|(of, sent)| *of == id && !sent.is_acknowledged);
                of.expect("the broker acknowledges what it was sent").1.is_acknowledged = true;
            }
        }
    }
    out.into_iter().map(|(_, sent)| sent).collect()
}

/// Takes the first packet off the bytes, once it is whole: type, flags, rest.
pub fn take_packet(pending: &mut Vec<u8>) -> Option<(u8, u8, Vec<u8>)> {
    let mut length = 0;
    for (index, byte) in pending.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let begin = index + 2;
            let rest = pending.get(begin..begin + length)?.to_vec();
            let first = pending[0];
            pending.drain(..begin + length);
            return Some((first >> 4, first & 0xf, rest));
        }
    }
    None
}

/// A number in a packet.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[test]
fn a_tape_tells_what_was_sent_whole_and_what_was_acknowledged() {
    let publish = |id: u8, message: &str| {
        let mut packet = vec![0x32, u8::try_from(5 + message.len()).unwrap(), 0, 1, b't', 0, id];
        packet.extend_from_slice(message.as_bytes());
        packet
    };
    let connect = vec![0x10, 2, 0, 0];
    let (first, rest) = (publish(1, "one"), publish(2, "two"));
    let tape = vec![
        (true, [connect, first[..4].to_vec()].concat()),
        (false, vec![0x20, 2, 0, 0, 0x40]),
        (true, [first[4..].to_vec(), rest].concat()),
        (false, vec![2, 0, 1]),
        (true, [publish(1, "again"), publish(3, "cut off")[..9].to_vec()].concat()),
    ];
    let told: Vec<_> = sent(&[Tape::new(), tape])
        .into_iter()
        .map(|sent| (sent.link, String::from_utf8(sent.message).unwrap(), sent.is_acknowledged))
        .collect();
    assert_eq!(told, [(1, "one".into(), true), (1, "two".into(), false), (1, "again".into(), false)]);
}
