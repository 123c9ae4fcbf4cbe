//! A TCP relay that breaks, between the agent and the broker: it can cut at once, cut after so many bytes (in the
//! middle of a packet), refuse, lose the replies, hold them back, or swallow everything in silence as a half-open link
//! does. It can keep a tape of what went through.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A broker that hangs must not keep the relay from answering for ever.
const CONNECT: Duration = Duration::from_secs(10);

/// What went through one connection, and in which order: what `true` marks went up to the broker.
pub type Tape = Vec<(bool, Vec<u8>)>;

/// What happens to a new connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Welcome {
    Relay,
    Close,
    Silence,
}

/// One pair of sockets, and what has become of it.
struct Link {
    client: TcpStream,
    server: Option<TcpStream>,
    swallow_up: AtomicBool,
    swallow_down: AtomicBool,
    tape: Option<Arc<Mutex<Tape>>>,
}

struct State {
    welcome: Welcome,
    upstream: SocketAddr,
    /// Bytes that may still go up before the link is cut.
    budget: Option<usize>,
    cuts: usize,
    accepted: usize,
    replies: usize,
    links: Vec<Arc<Link>>,
    /// How long each reply is held back.
    delay: Duration,
    /// One for each connection since `record`.
    tapes: Option<Vec<Arc<Mutex<Tape>>>>,
}

/// The relay.
pub struct Proxy {
    /// Where the agent connects.
    pub port: u16,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// Relays to a port on this machine.
    pub fn start(upstream: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            welcome: Welcome::Relay,
            upstream: SocketAddr::from(([127, 0, 0, 1], upstream)),
            budget: None,
            cuts: 0,
            accepted: 0,
            replies: 0,
            links: Vec::new(),
            delay: Duration::ZERO,
            tapes: None,
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                accept(client, &shared);
            }
        });
        Proxy { port, state }
    }

    /// New connections go to another port; existing ones stay as they are.
    pub fn redirect(&self, upstream: u16) {
        self.state.lock().unwrap().upstream = SocketAddr::from(([127, 0, 0, 1], upstream));
    }

    /// Ends every connection now.
    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.cuts += 1;
        for link in state.links.drain(..) {
            link.end();
        }
    }

    /// Ends the connection that sends the `bytes`-th byte from now on towards the broker, behind that byte.
    pub fn cut_after(&self, bytes: usize) {
        self.state.lock().unwrap().budget = Some(bytes);
    }

    /// How many times the line was cut.
    pub fn cuts(&self) -> usize {
        self.state.lock().unwrap().cuts
    }

    /// How many connections were ever accepted.
    pub fn accepted(&self) -> usize {
        self.state.lock().unwrap().accepted
    }

    /// How many times the broker has answered something.
    pub fn replies(&self) -> usize {
        self.state.lock().unwrap().replies
    }

    /// New connections are closed at once until `relay`.
    pub fn refuse(&self) {
        self.state.lock().unwrap().welcome = Welcome::Close;
    }

    /// From now on nothing goes through in either direction and nobody is told; new connections meet silence too.
    pub fn stall(&self) {
        let mut state = self.state.lock().unwrap();
        state.welcome = Welcome::Silence;
        for link in &state.links {
            link.swallow_up.store(true, Ordering::SeqCst);
            link.swallow_down.store(true, Ordering::SeqCst);
        }
    }

    /// On the connections there are, what the agent sends arrives and what the broker answers does not.
    pub fn lose_replies(&self) {
        for link in &self.state.lock().unwrap().links {
            link.swallow_down.store(true, Ordering::SeqCst);
        }
    }

    /// From now on whatever the broker answers arrives so much later.
    pub fn delay_replies(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    /// From now on a tape is kept of each new connection.
    pub fn record(&self) {
        self.state.lock().unwrap().tapes = Some(Vec::new());
    }

    /// The tapes so far, in the order in which the connections were accepted.
    pub fn tapes(&self) -> Vec<Tape> {
        let tapes = self.state.lock().unwrap().tapes.clone().unwrap_or_default();
        tapes.iter().map(|tape| tape.lock().unwrap().clone()).collect()
    }

    /// New connections work again. Those that were spoilt stay spoilt: bytes are missing from them.
    pub fn relay(&self) {
        self.state.lock().unwrap().welcome = Welcome::Relay;
    }
}

impl Link {
    fn keep(&self, is_up: bool, bytes: &[u8]) {
        if let Some(tape) = &self.tape {
            tape.lock().unwrap().push((is_up, bytes.to_vec()));
        }
    }

    fn end(&self) {
        self.client.shutdown(Shutdown::Both).ok();
        if let Some(server) = &self.server {
            server.shutdown(Shutdown::Both).ok();
        }
    }
}

fn accept(client: TcpStream, shared: &Arc<Mutex<State>>) {
    let (welcome, upstream, tape) = {
        let mut state = shared.lock().unwrap();
        state.accepted += 1;
        let tape = state.tapes.as_mut().map(|tapes| {
            tapes.push(Arc::default());
            Arc::clone(&tapes[tapes.len() - 1])
        });
        (state.welcome, state.upstream, tape)
    };
    let server = match welcome {
        Welcome::Close => return,
        Welcome::Silence => None,
        Welcome::Relay => match TcpStream::connect_timeout(&upstream, CONNECT) {
            Ok(server) => Some(server),
            // The broker is down; closing is what the agent would see without us.
            Err(_) => return,
        },
    };
    let silent = server.is_none();
    let [swallow_up, swallow_down] = [silent; 2].map(AtomicBool::new);
    let link = Arc::new(Link { client, server, swallow_up, swallow_down, tape });
    {
        // A stall may have come between the look at `welcome` and here.
        let mut state = shared.lock().unwrap();
        if state.welcome == Welcome::Silence {
            link.swallow_up.store(true, Ordering::SeqCst);
            link.swallow_down.store(true, Ordering::SeqCst);
        } else if silent {
            // Or gone, and the cut after it: nobody would ever end this one.
            return link.end();
        }
        state.links.push(Arc::clone(&link));
    }
    let (up, state) = (Arc::clone(&link), Arc::clone(shared));
    std::thread::spawn(move || pump_up(&up, &state));
    if link.server.is_some() {
        let state = Arc::clone(shared);
        std::thread::spawn(move || pump_down(&link, &state));
    }
}

/// From the agent to the broker, within the budget.
fn pump_up(link: &Link, state: &Mutex<State>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = (&link.client).read(&mut buffer) {
        if link.swallow_up.load(Ordering::SeqCst) {
            continue;
        }
        let (may, cut) = {
            let mut state = state.lock().unwrap();
            match state.budget {
                Some(left) if left <= read => {
                    state.budget = None;
                    state.cuts += 1;
                    (left, true)
                }
                Some(left) => {
                    state.budget = Some(left - read);
                    (read, false)
                }
                None => (read, false),
            }
        };
        let server = link.server.as_ref().expect("a link without a server swallows");
        // On the tape before anybody can answer it.
        link.keep(true, &buffer[..may]);
        if (&*server).write_all(&buffer[..may]).is_err() || cut {
            break;
        }
    }
    link.end();
}

/// From the broker to the agent.
fn pump_down(link: &Link, state: &Mutex<State>) {
    let server = link.server.as_ref().expect("only started with a server");
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = (&*server).read(&mut buffer) {
        link.keep(false, &buffer[..read]);
        let delay = {
            let mut state = state.lock().unwrap();
            state.replies += 1;
            state.delay
        };
        std::thread::sleep(delay);
        if !link.swallow_down.load(Ordering::SeqCst) && (&link.client).write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    if !link.swallow_down.load(Ordering::SeqCst) {
        link.end();
    }
}
