use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use collector_common::clock::Clock;
use collector_common::collector::{Draft, LoginSource, State, StateSlot, channel};
use collector_common::event::payload::{ListeningPort, Payload, Severity};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::change::View;
use super::owner::Named;
use super::source::Reader;
use super::watch::look_by;
use super::*;

/// Protocol, local address, local port.
type Line = (String, IpAddr, u16);

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        snapshot_interval: Duration::from_secs(365 * 86_400),
        login_source: LoginSource::Auto,
        fold_failed_logins: false,
        process_backend: ProcessBackend::Auto,
        process_snapshot: false,
        process_hash: false,
        users_from_nss: false,
        redaction: Arc::default(),
    })
}

struct Agent {
    queue: mpsc::Receiver<Draft>,
    state: StateSlot,
    _settings: watch::Sender<Arc<Settings>>,
}

fn start(root: Root, once: bool) -> Agent {
    let (out, queue) = channel(BTreeMap::new());
    let (_settings, receiver) = watch::channel(settings());
    let state = StateSlot::new();
    let clock = Clock::new(&root);
    let cx = Context { root, state_directory: None, clock, settings: receiver, out, state: state.clone(), once };
    tokio::spawn(ListeningPorts.run(cx));
    Agent { queue, state, _settings }
}

impl Agent {
    /// The first event this makes something of. Others on the machine open and close sockets as they like.
    async fn until<T>(&mut self, mut wanted: impl FnMut(Draft) -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = wanted(self.queue.recv().await.expect("the collector runs")) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(180), search).await.expect("the event within three minutes")
    }
}

fn rows(draft: Draft) -> Option<Vec<ListeningPort>> {
    match draft.payload {
        Some(Payload::ListeningPorts(rows)) => Some(rows),
        _ => None,
    }
}

/// A machine that is this one in all but that the kernel is not asked through netlink.
fn tables_only() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    symlink("/proc", directory.path().join("proc")).unwrap();
    let root = Root::at(directory.path());
    (directory, root)
}

fn ours(root: &Root) -> Vec<Line> {
    let source = Source::open(root).unwrap();
    let look = look_by(&mut source.here().unwrap(), None, &View::default(), false).unwrap();
    let rows = snapshot::rows(&look, &Named::new());
    let mut lines: Vec<_> = rows
        .iter()
        .filter(|row| ["TCP", "UDP"].contains(&row.protocol))
        .map(|row| (row.protocol.to_owned(), row.local_address, row.local_port.parse().unwrap()))
        .collect();
    lines.sort();
    lines
}

fn of_ss() -> Option<Vec<Line>> {
    let output = Command::new("ss").args(["-H", "-tuln"]).output().ok()?;
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (host, port) = fields[4].rsplit_once(':').unwrap();
        let host = host.split('%').next().unwrap().trim_matches(['[', ']']);
        let host = if host == "*" { "::" } else { host };
        (fields[0].to_uppercase(), host.parse().unwrap(), port.parse().unwrap())
    };
    let mut lines: Vec<_> = text.lines().map(line).collect();
    lines.sort();
    Some(lines)
}

/// Listeners of all sorts: both protocols and families, one address and all, shared, mapped, and sockets that are none.
fn open_everything() -> (Vec<TcpListener>, Vec<UdpSocket>, Vec<TcpStream>) {
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    let v4 = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED].map(IpAddr::from);
    let v6 = [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, mapped].map(IpAddr::from);
    let addresses: Vec<_> = v4.into_iter().chain(v6).collect();
    let tcp: Vec<_> = addresses.iter().map(|address| TcpListener::bind((*address, 0)).unwrap()).collect();
    let mut udp: Vec<_> = addresses.iter().map(|address| UdpSocket::bind((*address, 0)).unwrap()).collect();
    let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
    connected.connect(udp[0].local_addr().unwrap()).unwrap();
    udp.push(connected);
    let client = TcpStream::connect(tcp[0].local_addr().unwrap()).unwrap();
    (tcp, udp, vec![client])
}

fn agrees_with_ss(root: &Root) {
    let (tcp, udp, _clients) = open_everything();
    // Other tests and programs open sockets meanwhile, so only an answer between two equal looks is compared.
    let quiet = (0..1000).find_map(|_| {
        let before = ours(root);
        let theirs = of_ss();
        (ours(root) == before).then_some((before, theirs))
    });
    match quiet.expect("a moment in which nobody opens or closes a socket") {
        (ours, Some(theirs)) => assert_eq!(ours, theirs),
        (_, None) => eprintln!("there is no ss on this machine: only the sockets of this test are looked for"),
    }
    let rows = ours(root);
    let expected = tcp.iter().map(|it| ("TCP", it.local_addr().unwrap()));
    let expected: Vec<_> = expected.chain(udp.iter().map(|it| ("UDP", it.local_addr().unwrap()))).collect();
    let (connected, listening) = expected.split_last().unwrap();
    for (protocol, address) in listening {
        let line = (protocol.to_string(), address.ip(), address.port());
        assert_eq!(rows.iter().filter(|row| **row == line).count(), 1, "{line:?} in {rows:?}");
    }
    assert!(!rows.contains(&("UDP".to_owned(), connected.1.ip(), connected.1.port())));
}

#[test]
fn sock_diag_shows_what_ss_shows() {
    agrees_with_ss(&Root::host());
}

#[test]
fn the_tables_show_what_ss_shows() {
    let (_directory, root) = tables_only();
    agrees_with_ss(&root);
}

#[test]
fn lines_of_an_unknown_layout_are_counted_in_the_gap() {
    let machine = tempfile::tempdir().unwrap();
    let net = machine.path().join("proc/net");
    std::fs::create_dir_all(&net).unwrap();
    std::fs::write(net.join("tcp"), "  sl\n  0: what is this\n").unwrap();
    std::fs::write(net.join("udp"), "  sl\n").unwrap();
    let survey = ListeningPorts.survey(&Root::at(machine.path()), &settings());
    assert_eq!(survey.backend, "/proc/net (TCP, UDP)");
    assert!(survey.lacks.iter().any(|lack| lack.starts_with("1 lines of /proc/net/tcp")), "{survey:?}");
}

/// A program with a listener on port 4711 in a network namespace of its own, which it ends with.
struct Elsewhere(Child);

impl Elsewhere {
    fn start() -> Elsewhere {
        let inside = "busybox nc -l -p 4711 & echo ready; read line; kill $!";
        let mut shell = Command::new("unshare")
            .args(["--map-root-user", "--net", "sh", "-c", inside])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut ready)
            .expect("unshare --map-root-user --net to be allowed here");
        Elsewhere(shell)
    }

    fn number(&self) -> u32 {
        let link = std::fs::read_link(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        link.to_str().unwrap().trim_matches(|it: char| !it.is_ascii_digit()).parse().unwrap()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn another_network_namespace_is_looked_into_whether_it_may_be_entered_or_not() {
    let elsewhere = Elsewhere::start();
    let source = Source::open(&Root::host()).unwrap();
    let entering = Namespaces::open(&Root::host());
    let beside = Namespaces::without_entering(&Root::host());
    for (mut namespaces, way) in [(entering, "entered"), (beside, "its tables")] {
        namespaces.refresh();
        let number = elsewhere.number();
        assert!(namespaces.knows(number), "{way}");
        let listener = (0..1000).find_map(|_| {
            let read = |reader: &mut Reader<'_>| look_by(reader, Some(number), &View::default(), false);
            let look = namespaces.visit(number, &source, read).unwrap().expect("it is there");
            std::thread::sleep(Duration::from_millis(10));
            look.listeners.into_iter().find(|(_, socket)| socket.local_port == 4711)
        });
        let (protocol, socket) = listener.unwrap_or_else(|| panic!("no listener by {way}"));
        assert_eq!((protocol, socket.local), (Protocol::Tcp, Ipv6Addr::UNSPECIFIED.into()), "{way}");
        if way == "its tables" {
            assert!(namespaces.gaps()[0].contains("not allowed"), "{:?}", namespaces.gaps());
        }
    }
}

#[test]
fn the_back_end_and_what_it_lacks_are_said_before_anything_runs() {
    let survey = ListeningPorts.survey(&Root::host(), &settings());
    assert!(survey.backend.contains("TCP") && survey.backend.contains("UDP"), "{survey:?}");
    let (_directory, root) = tables_only();
    let survey = ListeningPorts.survey(&root, &settings());
    assert!(survey.backend.starts_with("/proc/net (TCP, UDP"), "{survey:?}");
    assert!(survey.lacks[0].contains("dual-stack"), "{survey:?}");
    let empty = tempfile::tempdir().unwrap();
    let survey = ListeningPorts.survey(&Root::at(empty.path()), &settings());
    assert_eq!(survey.backend, "none");
    assert!(survey.lacks[0].contains("/proc/net/tcp"), "{survey:?}");
}

#[tokio::test]
async fn a_peer_of_a_dual_stack_listener_is_a_row_with_its_owner() {
    let (_directory, tables) = tables_only();
    for root in [Root::host(), tables] {
        let is_host = root.is_host();
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let port = port.to_string();
        let (_server, _) = listener.accept().unwrap();
        let mut agent = start(root, true);
        let rows = agent.until(rows).await;
        assert!(agent.queue.recv().await.is_none(), "one snapshot and no more");
        let State::Running { backend, .. } = agent.state.get() else { panic!("{:?}", agent.state.get()) };
        assert!(backend.contains("TCP"));

        let on_port: Vec<_> = rows.iter().filter(|row| (row.protocol, &row.local_port) == ("TCP", &port)).collect();
        let [waiting, peer] = on_port.as_slice() else { panic!("{on_port:?}") };
        assert_eq!((waiting.protocol, waiting.local_address), ("TCP", Ipv6Addr::UNSPECIFIED.into()));
        assert_eq!((waiting.remote_address, waiting.remote_port.as_str()), (Ipv6Addr::UNSPECIFIED.into(), "*"));
        assert_eq!(waiting.extra_details["State"], "LISTEN");
        assert_eq!(waiting.extra_details["ProcessId"], std::process::id().to_string());
        assert_eq!(waiting.extra_details["Executable"], std::env::current_exe().unwrap().to_str().unwrap());
        assert_eq!(waiting.extra_details["UserId"], nix::unistd::getuid().to_string());
        assert_eq!(waiting.extra_details.get("DualStack").map(String::as_str), is_host.then_some("true"));
        assert_eq!((peer.local_address, peer.remote_address), (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()));
        assert_eq!(peer.remote_port, client.local_addr().unwrap().port().to_string());
        assert_eq!(peer.extra_details["State"], "ESTAB");
        let outgoing = ("TCP", &peer.remote_port);
        assert!(rows.iter().all(|row| (row.protocol, &row.local_port) != outgoing), "{rows:?}");
    }
}

#[tokio::test]
async fn a_listener_that_comes_and_goes_gives_snapshots_and_an_alarm() {
    let mut agent = start(Root::host(), false);
    agent.until(rows).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = address.port().to_string();
    let has_it = |rows: &[ListeningPort]| rows.iter().any(|row| row.local_port == port && row.remote_port == "*");
    agent.until(|draft| rows(draft).filter(|rows| has_it(rows))).await;
    drop(listener);
    agent.until(|draft| rows(draft).filter(|rows| !has_it(rows))).await;
    let name = format!("TCP {address}");
    let ours = |draft| match draft {
        Draft { payload: Some(Payload::Diagnostic(it)), security_relevant: true, .. } => {
            it.message.contains(&name).then_some(it)
        }
        _ => None,
    };
    let alarm = agent.until(ours).await;
    assert_eq!(alarm.severity, Severity::Warning);
    assert!(alarm.extra_details["VanishedListeners"].contains(&name), "{alarm:?}");
}
