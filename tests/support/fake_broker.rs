//! A broker that misbehaves on request: what each connection is met with is scripted.
//!
//! It speaks as much MQTT 3.1.1 (OASIS, chapters 2 and 3) as a publishing device needs, by hand, so that it can also
//! say what no library would:
//!
//! ```text
//! packet   = type and flags: u8, remaining length: 1 to 4 bytes of 7 bits, lowest first, body
//! CONNECT  = 0x10 ...            CONNACK = 0x20 2 session:u8 code:u8
//! PUBLISH  = 0x3f topic [id:u16] payload, flags DUP:1 QoS:2 RETAIN:1; strings have a u16 length; big-endian
//! PUBACK   = 0x40 2 id:u16       PINGREQ = 0xc0 0, PINGRESP = 0xd0 0
//! ```

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::arrivals::{Arrival, of_message};
use crate::wire::{take_packet, u16_at};

/// How one connection is met.
#[derive(Clone, Debug)]
pub struct Conduct {
    pub greeting: Greeting,
    pub acks: Acks,
    /// Sent once, right behind the acknowledgement of the connection's first message.
    pub intrusion: Vec<u8>,
}

/// The answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    Accept,
    /// A CONNACK with this return code; then the broker closes, as 3.2.2.3 says.
    Refuse(u8),
    /// No answer; the connection stays open.
    Silence,
    /// The end of the connection, without an answer.
    Close,
    /// CONNACK, and the end of the connection right behind it.
    AcceptAndClose,
}

/// The answers to PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    AtOnce,
    /// Each twice.
    Twice,
    /// The newest first, once nothing more comes.
    Reversed,
    /// None for the message with this place in the connection, from 0.
    AllBut(usize),
    /// Each so much later.
    After(Duration),
}

impl Conduct {
    /// What a broker should do.
    pub fn good() -> Conduct {
        Conduct { greeting: Greeting::Accept, acks: Acks::AtOnce, intrusion: Vec::new() }
    }

    pub fn greeting(greeting: Greeting) -> Conduct {
        Conduct { greeting, ..Conduct::good() }
    }

    pub fn acks(acks: Acks) -> Conduct {
        Conduct { acks, ..Conduct::good() }
    }

    pub fn intrusion(intrusion: &[u8]) -> Conduct {
        Conduct { intrusion: intrusion.to_vec(), ..Conduct::good() }
    }
}

/// A message as it came in.
#[derive(Clone, Debug)]
pub struct Received {
    /// Counts connections from 0.
    pub connection: usize,
    pub text: String,
    pub is_acknowledged: bool,
}

/// The broker.
pub struct FakeBroker {
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    /// For the next connections, one each.
    script: VecDeque<Conduct>,
    /// For all others.
    habit: Conduct,
    connections: usize,
    open: Option<TcpStream>,
    received: Vec<Received>,
}

impl FakeBroker {
    /// One that does to every connection the same until told otherwise.
    pub fn start(habit: Conduct) -> FakeBroker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Shared { script: VecDeque::new(), habit, connections: 0, open: None, received: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), Arc::clone(&ours));
                std::thread::spawn(move || Connection::serve(stream, shared));
            }
        });
        FakeBroker { port, shared }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// What the next connection is met with, behind those that were planned before.
    pub fn plan(&self, conduct: Conduct) {
        self.lock().script.push_back(conduct);
    }

    /// What is done when nothing is planned.
    pub fn set_habit(&self, habit: Conduct) {
        self.lock().habit = habit;
    }

    /// Ends the connection that stands.
    pub fn cut(&self) {
        if let Some(stream) = self.lock().open.take() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Connections whose CONNECT has come in.
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    /// All messages in the order of their coming.
    pub fn received(&self) -> Vec<Received> {
        self.lock().received.clone()
    }

    /// What a client that trusts an acknowledgement may take for delivered.
    pub fn acknowledged(&self) -> Vec<Arrival> {
        let received = self.received();
        let texts = received.iter().filter(|message| message.is_acknowledged);
        texts.flat_map(|message| of_message(&serde_json::from_str(&message.text).unwrap())).collect()
    }

    /// Everything that came in, acknowledged or not.
    pub fn arrivals(&self) -> Vec<Arrival> {
        let received = self.received();
        received.iter().flat_map(|message| of_message(&serde_json::from_str(&message.text).unwrap())).collect()
    }
}

/// A PUBACK.
pub fn puback(id: u16) -> Vec<u8> {
    [&[0x40, 2][..], &id.to_be_bytes()].concat()
}

/// A PUBLISH from the broker.
pub fn publish(qos: u8, topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(topic);
    if qos > 0 {
        body.extend_from_slice(&[0, 9]);
    }
    body.extend_from_slice(payload);
    let mut packet = vec![0x30 | qos << 1];
    let mut rest = body.len();
    while rest >= 128 {
        packet.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    packet.push(u8::try_from(rest).unwrap());
    packet.extend_from_slice(&body);
    packet
}

struct Connection {
    stream: TcpStream,
    shared: Arc<Mutex<Shared>>,
    conduct: Conduct,
    number: usize,
    messages: usize,
    /// When to acknowledge, packet id, place in `received`.
    pending: Vec<(Instant, u16, usize)>,
}

impl Connection {
    fn serve(stream: TcpStream, shared: Arc<Mutex<Shared>>) {
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        stream.set_nodelay(true).unwrap();
        let conduct = Conduct::good();
        let mut connection = Connection { stream, shared, conduct, number: 0, messages: 0, pending: Vec::new() };
        let mut bytes = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            let silent = match connection.stream.read(&mut chunk) {
                Ok(0) => return,
                Ok(got) => {
                    bytes.extend_from_slice(&chunk[..got]);
                    false
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => true,
                Err(_) => return,
            };
            while let Some((kind, flags, body)) = take_packet(&mut bytes) {
                if connection.on_packet(kind, flags, &body).is_err() {
                    return;
                }
            }
            if connection.acknowledge_due(silent).is_err() {
                return;
            }
        }
    }

    /// An error ends the connection.
    fn on_packet(&mut self, kind: u8, flags: u8, body: &[u8]) -> std::io::Result<()> {
        match kind {
            1 => self.greet(),
            3 => self.on_publish(flags, body),
            12 => self.stream.write_all(&[0xd0, 0]),
            14 => Err(ErrorKind::ConnectionAborted.into()),
            // The answers to what we sent unasked.
            _ => Ok(()),
        }
    }

    fn greet(&mut self) -> std::io::Result<()> {
        let mut shared = self.shared.lock().unwrap();
        self.conduct = shared.script.pop_front().unwrap_or_else(|| shared.habit.clone());
        self.number = shared.connections;
        shared.connections += 1;
        shared.open = Some(self.stream.try_clone()?);
        drop(shared);
        match self.conduct.greeting {
            Greeting::Accept => self.stream.write_all(&[0x20, 2, 0, 0]),
            Greeting::Silence => Ok(()),
            Greeting::Close => self.close(),
            Greeting::Refuse(code) => {
                self.stream.write_all(&[0x20, 2, 0, code])?;
                self.close()
            }
            Greeting::AcceptAndClose => {
                self.stream.write_all(&[0x20, 2, 0, 0])?;
                self.close()
            }
        }
    }

    fn close(&self) -> std::io::Result<()> {
        self.stream.shutdown(Shutdown::Both)?;
        Err(ErrorKind::ConnectionAborted.into())
    }

    fn on_publish(&mut self, flags: u8, body: &[u8]) -> std::io::Result<()> {
        assert_eq!(flags >> 1 & 3, 1, "the agent publishes with QoS 1");
        let topic_bytes = usize::from(u16_at(body, 0));
        let id = u16_at(body, 2 + topic_bytes);
        let text = String::from_utf8(body[4 + topic_bytes..].to_vec()).expect("a message is UTF-8");
        let place = {
            let mut shared = self.shared.lock().unwrap();
            shared.received.push(Received { connection: self.number, text, is_acknowledged: false });
            shared.received.len() - 1
        };
        let (now, message) = (Instant::now(), self.messages);
        self.messages += 1;
        match self.conduct.acks {
            Acks::AllBut(withheld) if withheld == message => {}
            Acks::After(delay) => self.pending.push((now + delay, id, place)),
            Acks::Reversed => self.pending.push((now, id, place)),
            Acks::AtOnce | Acks::AllBut(_) => self.acknowledge(id, place)?,
            Acks::Twice => {
                self.acknowledge(id, place)?;
                self.acknowledge(id, place)?;
            }
        }
        if message == 0 && !self.conduct.intrusion.is_empty() {
            self.stream.write_all(&self.conduct.intrusion)?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, id: u16, place: usize) -> std::io::Result<()> {
        self.stream.write_all(&puback(id))?;
        self.shared.lock().unwrap().received[place].is_acknowledged = true;
        Ok(())
    }

    fn acknowledge_due(&mut self, silent: bool) -> std::io::Result<()> {
        let now = Instant::now();
        let is_due = |(at, ..): &(Instant, u16, usize)| *at <= now;
        let due: Vec<_> = match self.conduct.acks {
            Acks::Reversed if silent => self.pending.drain(..).rev().collect(),
            Acks::Reversed => Vec::new(),
            _ => self.pending.extract_if(.., |pending| is_due(pending)).collect(),
        };
        due.into_iter().try_for_each(|(_, id, place)| self.acknowledge(id, place))
    }
}
