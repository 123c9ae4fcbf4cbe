//! `ProcessCreate`: one event for every program that is executed.
//!
//! Five back ends tell that something ran: [`probe`], where a program in the kernel writes down what ran; [`nobtf`],
//! where another one writes down what it can without the kernel's types; [`audit`], where the kernel's own records do;
//! [`connector`], where the kernel says that something ran; and [`poll`], a repeated look at `/proc`. Each gives an
//! [`image`], read from `/proc` where the kernel does not tell, and [`event`] writes it down, the same for all.
//! `ORDER` says which is better, and why.

mod apart;

pub mod audit;

pub mod bpf;

pub mod probe;

pub mod connector;

mod digest;

pub mod drops;

pub mod event;

mod glance;

pub mod image;

mod layout;

pub mod nobtf;

pub mod poll;

mod timer;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use collector_common::collector::{
    Closed, Collector, Context, Draft, Failure, ProcessBackend, Running, Settings, Survey,
};
use collector_common::event::kind::Kind;
use collector_common::event::payload::{self, Diagnostic, Payload, Severity};
use collector_common::root::Root;
use collector_common::sys::connector::Connector;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use self::audit::standing::{self, Demand, Way};
use self::probe::Probe;

/// No process takes this long to be read unless it wants to.
const HELD_UP: Duration = Duration::from_secs(30);

/// As many as a thread has by default; what is not used costs nothing.
const CHOICE_STACK_BYTES: usize = 2 * 1024 * 1024;

/// How many processes are read ahead of what has room in the queue.
const IMAGES_WAITING: usize = 16;

/// The collector.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessCreate;

/// A back end with what it needs.
enum Backend {
    Bpf(Box<Probe>),
    BpfNoBtf(Box<Probe>),
    Audit(Way),
    Connector(Connector),
    Poll,
}

/// The back end in use.
struct Choice {
    backend: Backend,
    /// In the order, if it was taken from there.
    place: usize,
    /// Why it is not a better one, unless this one was asked for.
    passed_over: Vec<String>,
}

/// The best first. BPF comes before all because it costs the least; without the kernel's types it misses the path of what
/// ended at once, not its arguments. What audit records is complete, path and arguments of every exec. So it comes before the connector
/// where another process owns it and records execs anyway: to read along costs the machine nothing. To own it comes
/// behind the connector, which tells of every exec too and misses arguments of very short programs only: audit makes
/// every system call of the machine slower, takes some 45 us in each exec, and keeps others from owning it at the first
/// attempt. Looking at `/proc` is what is always left.
const ORDER: [(ProcessBackend, Demand); 6] = [
    (ProcessBackend::Bpf, Demand::Any),
    (ProcessBackend::BpfNoBtf, Demand::Any),
    (ProcessBackend::Audit, Demand::Beside),
    (ProcessBackend::Connector, Demand::Any),
    (ProcessBackend::Audit, Demand::Own),
    (ProcessBackend::Poll, Demand::Any),
];

/// How often it is tried whether one works again that failed.
const BETTER_AGAIN: Duration = Duration::from_secs(600);

/// Lets the reader run before the program that would end meanwhile (`capabilities(7)`).
const CAP_SYS_NICE: u32 = 23;
/// The kernel tells the start of a process in hundredths of a second on every architecture (`USER_HZ`): microseconds.
const TICK_US: u64 = 10_000;
const LATE: &str = "many programs that end at once are gone before they are read: give the agent CAP_SYS_NICE";

/// Without it the programs of other users keep their paths to themselves (`ptrace(2)`).
const CAP_SYS_PTRACE: u32 = 19;
const BLIND: &str = "the paths of programs of other users cannot be read: give the agent CAP_SYS_PTRACE";

impl Collector for ProcessCreate {
    fn kind(&self) -> Kind {
        Kind::ProcessCreate
    }

    fn survey(&self, root: &Root, settings: &Settings) -> Survey {
        match choose(root, settings.process_backend, &[]) {
            Ok(choice) => Survey { backend: choice.backend.words(root), lacks: choice.lacks(root) },
            Err(Failure(reason)) => Survey { backend: name(settings.process_backend).to_owned(), lacks: vec![reason] },
        }
    }

    fn run(&self, cx: Context) -> Running {
        Box::pin(run(cx))
    }
}

impl Backend {
    fn kind(&self) -> ProcessBackend {
        match self {
            Backend::Bpf(_) => ProcessBackend::Bpf,
            Backend::BpfNoBtf(_) => ProcessBackend::BpfNoBtf,
            Backend::Audit(_) => ProcessBackend::Audit,
            Backend::Connector(_) => ProcessBackend::Connector,
            Backend::Poll => ProcessBackend::Poll,
        }
    }

    async fn observe(self, cx: &Context) -> Result<(), Failure> {
        match self {
            Backend::Bpf(probe) | Backend::BpfNoBtf(probe) => bpf::observe(cx, *probe).await,
            Backend::Audit(way) => audit::observe(cx, way).await,
            Backend::Connector(socket) => connector::observe(cx, socket).await,
            Backend::Poll => poll::observe(cx).await,
        }
    }

    /// For `status` and `check`.
    fn words(&self, root: &Root) -> String {
        match self {
            Backend::Audit(way) => way.name(root),
            other => name(other.kind()).to_owned(),
        }
    }
}

impl Choice {
    /// What it does not see, why it is not a better one, and what would help.
    fn lacks(&self, root: &Root) -> Vec<String> {
        let gap = match &self.backend {
            Backend::Bpf(_) => None,
            Backend::BpfNoBtf(_) => Some(nobtf::GAP.to_owned()),
            Backend::Audit(way) => Some(way.gap().to_owned()),
            Backend::Connector(_) => Some(connector::GAP.to_owned()),
            Backend::Poll => Some(poll::GAP.to_owned()),
        };
        let reads_proc = gap.is_some();
        let late = matches!(self.backend, Backend::Connector(_)) && !image::may(root, CAP_SYS_NICE);
        let blind = reads_proc && !image::may(root, CAP_SYS_PTRACE);
        let mut lacks: Vec<String> = gap.into_iter().chain(self.passed_over.iter().cloned()).collect();
        lacks.extend(late.then(|| LATE.to_owned()));
        lacks.extend(blind.then(|| BLIND.to_owned()));
        lacks
    }
}

fn name(backend: ProcessBackend) -> &'static str {
    match backend {
        ProcessBackend::Auto | ProcessBackend::Bpf => probe::NAME,
        ProcessBackend::BpfNoBtf => nobtf::NAME,
        ProcessBackend::Audit => audit::NAME,
        ProcessBackend::Connector => connector::NAME,
        ProcessBackend::Poll => poll::NAME,
    }
}

async fn run(mut cx: Context) -> Result<(), Failure> {
    let mut broken: Vec<(ProcessBackend, String)> = Vec::new();
    let mut better: Option<Choice> = None;
    let recorder = cx.out.clone();
    let mut wanted = cx.settings.borrow_and_update().process_backend;
    loop {
        let choice = match better.take() {
            Some(choice) => choice,
            None => choose_apart(&cx.root, wanted, &broken).await?,
        };
        let lacks = choice.lacks(&cx.root);
        let (kind, place) = (choice.backend.kind(), choice.place);
        cx.state.running(choice.backend.words(&cx.root), (!lacks.is_empty()).then(|| lacks.join("; ")));
        let hash = cx.settings.borrow().process_hash;
        cx.out = match hash {
            true => digest::in_front_of(&recorder, &cx.root)
                .map_err(|error| Failure(format!("cannot start a thread that reads programs: {error}")))?,
            false => recorder.clone(),
        };
        let mut settings = cx.settings.clone();
        tokio::select! {
            ended = choice.backend.observe(&cx) => match ended {
                Err(Failure(why)) if falls_back(wanted, kind) => {
                    if say_lowered(&cx, kind, &why).await.is_err() {
                        return Ok(());
                    }
                    broken.push((kind, why));
                }
                ended => return ended,
            },
            () = other_wanted(&mut settings, wanted, hash) => {
                broken.clear();
                wanted = cx.settings.borrow_and_update().process_backend;
            }
            // The one in use goes on until then, so that nothing is missed; what is executed while both are at work is
            // told twice.
            found = better_one(&cx.root, place), if !broken.is_empty() => {
                let is_above = |failed| ORDER[..found.place].iter().any(|(kind, _)| *kind == failed);
                broken.retain(|(failed, _)| is_above(*failed));
                better = Some(found);
            }
        }
    }
}

/// Looks again and again whether one works that is better than that of a place in the order.
async fn better_one(root: &Root, used: usize) -> Choice {
    loop {
        tokio::time::sleep(BETTER_AGAIN).await;
        match in_a_thread(root, move |root| better_than(root, used)).await {
            Ok(choice) => return choice,
            Err(Failure(why)) => tracing::debug!("no better back end for ProcessCreate works yet: {why}"),
        }
    }
}

fn better_than(root: &Root, used: usize) -> Result<Choice, Failure> {
    // Audit as its owner would find itself as the owner to read beside.
    let itself = (ORDER[used].0, "a better one works again".to_owned());
    best_of(root, &ORDER[..used], &[itself])
}

/// Whether something is left to go on with when a back end fails. The last one is started again by the supervisor.
fn falls_back(wanted: ProcessBackend, failed: ProcessBackend) -> bool {
    wanted == ProcessBackend::Auto && failed != ProcessBackend::Poll
}

async fn say_lowered(cx: &Context, failed: ProcessBackend, why: &str) -> Result<(), Closed> {
    let message = format!("ProcessCreate goes on with less: {} failed: {why}", name(failed));
    tracing::warn!("{message}");
    let remark = Diagnostic::new(Severity::Error, message).with("Collector", Kind::ProcessCreate.name());
    cx.out.send(Draft::alarm(cx.clock.now(), remark)).await
}

async fn choose_apart(
    root: &Root,
    wanted: ProcessBackend,
    broken: &[(ProcessBackend, String)],
) -> Result<Choice, Failure> {
    let broken = broken.to_vec();
    let prepared = move |root: &Root| {
        audit::owner::clean_up(root);
        choose(root, wanted, &broken)
    };
    in_a_thread(root, prepared).await
}

/// Chooses in a thread of its own: to bring a program into the kernel takes a slow board a second.
async fn in_a_thread(
    root: &Root,
    choose: impl FnOnce(&Root) -> Result<Choice, Failure> + Send + 'static,
) -> Result<Choice, Failure> {
    let root = root.clone();
    let chosen = apart::done("exec-choice", CHOICE_STACK_BYTES, HELD_UP, move || choose(&root)).await;
    chosen.unwrap_or_else(|undone| Err(Failure(format!("choosing a back end failed: {undone}"))))
}

/// The best that works, without those that failed a moment ago; or the one that is asked for.
fn choose(root: &Root, wanted: ProcessBackend, broken: &[(ProcessBackend, String)]) -> Result<Choice, Failure> {
    if wanted != ProcessBackend::Auto {
        let backend = open(root, wanted, Demand::Any).map_err(Failure)?;
        return Ok(Choice { backend, place: 0, passed_over: Vec::new() });
    }
    best_of(root, &ORDER, broken)
}

/// The first of an order that works, without those that failed.
fn best_of(
    root: &Root,
    order: &[(ProcessBackend, Demand)],
    broken: &[(ProcessBackend, String)],
) -> Result<Choice, Failure> {
    let mut passed_over: Vec<(ProcessBackend, String)> = Vec::new();
    let said = |(kind, why): (ProcessBackend, String)| format!("{} is not used: {why}", name(kind));
    for (place, (kind, demand)) in order.iter().copied().enumerate() {
        let failed = broken.iter().find(|(failed, _)| *failed == kind).map(|(_, why)| why.clone());
        let opened = failed.map_or_else(|| open(root, kind, demand), Err);
        // Of a back end with two places in the order the last word counts.
        passed_over.retain(|(passed, _)| *passed != kind);
        match opened {
            Ok(backend) => {
                return Ok(Choice { backend, place, passed_over: passed_over.into_iter().map(said).collect() });
            }
            Err(why) => passed_over.push((kind, why)),
        }
    }
    let all: Vec<String> = passed_over.into_iter().map(said).collect();
    Err(Failure(format!("no back end is left: {}", all.join("; "))))
}

/// BPF, audit and the connector speak of the machine this process runs on, so another root can only be looked at.
fn open(root: &Root, kind: ProcessBackend, demand: Demand) -> Result<Backend, String> {
    match kind {
        ProcessBackend::Auto | ProcessBackend::Bpf => Probe::load(root).map(|probe| Backend::Bpf(Box::new(probe))),
        ProcessBackend::BpfNoBtf => nobtf::load(root).map(|probe| Backend::BpfNoBtf(Box::new(probe))),
        ProcessBackend::Audit => standing::look(root, demand).map(Backend::Audit),
        ProcessBackend::Connector if !root.is_host() => {
            Err("the netlink process connector tells only of the running machine".to_owned())
        }
        ProcessBackend::Connector => Connector::subscribe().map(Backend::Connector).map_err(|error| error.to_string()),
        ProcessBackend::Poll => Ok(Backend::Poll),
    }
}

async fn other_wanted(settings: &mut watch::Receiver<Arc<Settings>>, wanted: ProcessBackend, hash: bool) {
    let is_other = |settings: &Arc<Settings>| settings.process_backend != wanted || settings.process_hash != hash;
    if settings.wait_for(is_other).await.is_err() {
        // Nobody is left who could change a setting.
        std::future::pending::<()>().await;
    }
}

/// Says of every program that already runs that it does. The events may wait for room, but reading may not hold up the
/// runtime: a process whose memory lies on a file system of its own answers a look at its arguments when it likes. So
/// a thread reads, and is left behind when it does not come back.
async fn report_running(cx: &Context) -> Result<(), Closed> {
    let (found, mut images) = mpsc::channel(IMAGES_WAITING);
    let root = cx.root.clone();
    let read = move || {
        let mut rest = poll::pids(&root).unwrap_or_default().into_iter();
        let look = |entry: poll::Entry| (entry.pid, image::Image::read(&root, entry.pid));
        while rest.next().is_some_and(|entry| found.blocking_send(look(entry)).is_ok()) {}
    };
    let thread = thread::Builder::new().name("exec-snapshot".to_owned()).stack_size(connector::STACK_BYTES).spawn(read);
    let why = match thread {
        Ok(_left_alone) => loop {
            match timeout(HELD_UP, images.recv()).await {
                Ok(Some((pid, image))) if image.is_program() => {
                    cx.out.send(snapshot(cx, pid, &image)).await?;
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(_) => break "a process holds up whoever reads its files in /proc".to_owned(),
            }
        },
        Err(error) => format!("no thread could be started: {error}"),
    };
    let message = format!("the programs that already run are not all reported: {why}");
    cx.out.send(Draft::alarm(cx.clock.now(), Diagnostic::new(Severity::Warning, message))).await
}

/// The event of a program that already ran: dated by its start, and with an id made of the boot, its number and its
/// start, so that it is recognised when the agent starts again.
fn snapshot(cx: &Context, pid: i32, image: &image::Image) -> Draft {
    let mut draft = draft(cx, event::snapshot(pid, image, &cx.settings.borrow().redaction));
    if let Some(stat) = &image.stat {
        let started_us = stat.start_ticks.saturating_mul(TICK_US);
        let age_us = i64::try_from(draft.at.boottime_us.saturating_sub(started_us)).unwrap_or(0);
        draft.at.wall_us = draft.at.wall_us.saturating_sub(age_us);
        draft.at.boottime_us = started_us;
        let facts = [draft.at.boot.as_bytes().as_slice(), &pid.to_be_bytes(), &stat.start_ticks.to_be_bytes()];
        draft.id = Some(crate::ids::derived(&facts));
    }
    draft
}

/// The event of an exec that was noticed just now.
fn draft(cx: &Context, event: payload::ProcessCreate) -> Draft {
    Draft::new(cx.clock.now(), Payload::ProcessCreate(event))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::process::{Command, Stdio};

    use collector_common::clock::Clock;
    use collector_common::collector::{LoginSource, State, StateSlot, channel};
    use collector_common::event::payload::ProcessCreate as Event;

    /// A context of this machine, and the events that come out of it.
    pub fn context(process_backend: ProcessBackend) -> (Context, mpsc::Receiver<Draft>) {
        let (cx, _, events) = adjustable(Settings {
            snapshot_interval: Duration::from_secs(3600),
            login_source: LoginSource::Auto,
            fold_failed_logins: false,
            process_backend,
            process_snapshot: false,
            process_hash: false,
            users_from_nss: false,
            redaction: Arc::default(),
        });
        (cx, events)
    }

    fn adjustable(settings: Settings) -> (Context, watch::Sender<Arc<Settings>>, mpsc::Receiver<Draft>) {
        let root = Root::host();
        let (out, events) = channel(BTreeMap::new());
        let (sender, settings) = watch::channel(Arc::new(settings));
        let cx = Context {
            clock: Clock::new(&root),
            root,
            state_directory: None,
            settings,
            out,
            state: StateSlot::new(),
            once: false,
        };
        (cx, sender, events)
    }

    /// Runs the collector and waits for the first event that `wanted` accepts.
    async fn first(events: &mut mpsc::Receiver<Draft>, wanted: impl Fn(&Event) -> bool) -> Event {
        let search = async {
            loop {
                match events.recv().await.expect("the collector still runs").payload {
                    Some(Payload::ProcessCreate(event)) if wanted(&event) => return event,
                    _ => {}
                }
            }
        };
        timeout(Duration::from_secs(20), search).await.expect("the event comes")
    }

    async fn until_running(state: &StateSlot) {
        while state.get() == State::Starting {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What a shell of ours must look like to the collector.
    fn assert_is_our_shell(event: &Event, pid: u32, line: &str) {
        let shell = std::fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(event.executable, shell.to_str().unwrap());
        assert_eq!(event.command_line, line);
        assert_eq!(event.process_id, i64::from(pid));
        assert_eq!(event.parent_process_id, i64::from(std::process::id()));
        assert_eq!(event.user_id, nix::unistd::getuid().to_string());
        let own = std::env::current_exe().unwrap();
        assert_eq!(event.extra_details["ParentExecutable"], own.to_str().unwrap());
        assert!(!event.extra_details.contains_key("Incomplete"), "{event:?}");
    }

    /// Whether a back end works here; root of the host can use every one.
    fn works(kind: ProcessBackend) -> bool {
        match choose(&Root::host(), kind, &[]) {
            Ok(_) => true,
            Err(Failure(why)) => {
                eprintln!("not run: {why}");
                assert!(!nix::unistd::getuid().is_root() || why.contains("namespace") || why.contains("btf"), "{why}");
                false
            }
        }
    }

    async fn tells_of_a_shell(kind: ProcessBackend) {
        if !works(kind) {
            return;
        }
        let (cx, mut events) = context(kind);
        let state = cx.state.clone();
        let running = tokio::spawn(ProcessCreate.run(cx));
        until_running(&state).await;
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "echo edgewarden-test; sleep 0.3"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = shell.id();
        let event = first(&mut events, |event| event.process_id == i64::from(pid)).await;
        assert_is_our_shell(&event, pid, "/bin/sh -c 'echo edgewarden-test; sleep 0.3'");
        let sleep = first(&mut events, |event| event.parent_process_id == i64::from(pid)).await;
        assert_eq!(sleep.command_line, "sleep 0.3");
        assert!(matches!(state.get(), State::Running { backend, .. } if backend == name(kind)));
        running.abort();
        shell.wait().unwrap();
    }

    #[tokio::test]
    async fn a_program_in_the_kernel_tells_of_a_shell() {
        tells_of_a_shell(ProcessBackend::Bpf).await;
    }

    #[tokio::test]
    async fn a_program_that_knows_no_types_tells_of_a_shell() {
        tells_of_a_shell(ProcessBackend::BpfNoBtf).await;
    }

    #[tokio::test]
    async fn the_kernel_announces_a_shell() {
        tells_of_a_shell(ProcessBackend::Connector).await;
    }

    /// 400 programs of a microsecond, some with 130 kB of arguments: more than fits into the ring at once, and nothing of
    /// one may show in another.
    #[tokio::test]
    async fn long_arguments_under_load_are_each_their_own() {
        for kind in [ProcessBackend::Bpf, ProcessBackend::BpfNoBtf] {
            if works(kind) {
                long_arguments_under_load(kind).await;
            }
        }
    }

    async fn long_arguments_under_load(kind: ProcessBackend) {
        let (cx, mut events) = context(kind);
        let (state, losses) = (cx.state.clone(), cx.out.losses());
        let running = tokio::spawn(ProcessCreate.run(cx));
        until_running(&state).await;
        let spawners: Vec<_> = (0..4_u8)
            .map(|spawner| {
                std::thread::spawn(move || {
                    for number in 0..100 {
                        let letter = char::from(b'a' + spawner);
                        let long = letter.to_string().repeat(1 << (number % 17));
                        let mark = format!("mark-{letter}-{number}");
                        let args = [mark.as_str(), &long, &long, "end"];
                        assert!(Command::new("/bin/true").args(args).status().unwrap().success());
                    }
                })
            })
            .collect();
        // What finds no room in the ring is counted, with what others executed.
        let (mut seen, mut lost) = (BTreeSet::new(), 0);
        let mut quiet = 0;
        while seen.len() as u64 + lost < 400 && quiet < 20 {
            let next = first(&mut events, |event| event.command_line.starts_with("/bin/true mark-"));
            // All that was lost may be known only after the last event.
            match timeout(Duration::from_secs(1), next).await {
                Ok(event) => (_, quiet) = (seen.insert(assert_is_own(&event)), 0),
                Err(_) => quiet += 1,
            }
            lost += losses.take().iter().map(|(_, execs)| execs).sum::<u64>();
        }
        assert!(seen.len() as u64 + lost >= 400, "{} events, {lost} lost", seen.len());
        spawners.into_iter().for_each(|spawner| spawner.join().unwrap());
        running.abort();
    }

    /// Nothing of one may show in another. Gives its mark.
    fn assert_is_own(event: &Event) -> String {
        let words: Vec<&str> = event.command_line.split(' ').collect();
        let letter = words[1].as_bytes()[5];
        let own = |word: &str| word.bytes().all(|byte| byte == letter);
        let is_own = |word: &&str| own(word) || ["[...", "bytes", "cut...]"].contains(word) || word.starts_with("[...");
        let middle = &words[2..words.len() - 1];
        assert!(middle.iter().all(|word| is_own(word) || word.parse::<u64>().is_ok()), "{}", event.command_line);
        assert_eq!(words.last(), Some(&"end"), "{}", event.command_line);
        words[1].to_owned()
    }

    #[tokio::test]
    async fn a_look_at_proc_finds_a_shell_that_stays_and_none_that_was_there() {
        let line = "echo edgewarden-poll; read line";
        let spawn = || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", line]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
        };
        let mut before = spawn();
        let (cx, mut events) = context(ProcessBackend::Poll);
        let state = cx.state.clone();
        let running = tokio::spawn(ProcessCreate.run(cx));
        until_running(&state).await;
        // The collector has listed what already ran as soon as it first waits.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut shell = spawn();
        let pid = shell.id();
        let event = first(&mut events, |event| event.command_line.contains("edgewarden-poll")).await;
        assert_is_our_shell(&event, pid, &format!("/bin/sh -c '{line}'"));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let again = std::iter::from_fn(|| events.try_recv().ok()).filter(
            |draft| matches!(&draft.payload, Some(Payload::ProcessCreate(event)) if event.process_id == i64::from(pid)),
        );
        assert_eq!(again.count(), 0, "one exec is one event");
        running.abort();
        for shell in [&mut before, &mut shell] {
            shell.stdin.take();
            shell.wait().unwrap();
        }
    }

    #[test]
    fn what_already_runs_has_the_same_id_and_time_at_every_look() {
        let (cx, _events) = context(ProcessBackend::Poll);
        let pid = i32::try_from(std::process::id()).unwrap();
        let look = || snapshot(&cx, pid, &image::Image::read(&Root::host(), pid));
        let (first, second) = (look(), look());
        assert!(first.id.is_some());
        assert_eq!((first.id, first.at.boottime_us), (second.id, second.at.boottime_us));
        assert!(first.at.wall_us.abs_diff(second.at.wall_us) < 1000, "{first:?} {second:?}");
        assert_ne!(first.id, snapshot(&cx, 1, &image::Image::read(&Root::host(), 1)).id);
    }

    #[tokio::test]
    async fn what_already_runs_is_reported_when_asked_for() {
        let mut sleep = Command::new("/bin/sleep").arg("31.41").spawn().unwrap();
        let settings = (*context(ProcessBackend::Poll).0.settings.borrow()).as_ref().clone();
        let (cx, _sender, mut events) = adjustable(Settings { process_snapshot: true, ..settings });
        let running = tokio::spawn(ProcessCreate.run(cx));
        let event = first(&mut events, |event| event.command_line.ends_with("sleep 31.41")).await;
        assert_eq!(event.extra_details["Snapshot"], "true");
        assert!(event.extra_details["StartBoottimeMs"].parse::<u64>().unwrap() > 0);
        running.abort();
        sleep.kill().unwrap();
        sleep.wait().unwrap();
    }

    #[tokio::test]
    async fn programs_are_read_when_asked_for() {
        let settings = (*context(ProcessBackend::Poll).0.settings.borrow()).as_ref().clone();
        let (cx, _sender, mut events) = adjustable(Settings { process_hash: true, ..settings });
        let state = cx.state.clone();
        let running = tokio::spawn(ProcessCreate.run(cx));
        until_running(&state).await;
        let out = Command::new("sha256sum").arg("/bin/sleep").output().unwrap().stdout;
        let expected = String::from_utf8(out).unwrap().split(' ').next().unwrap().to_owned();
        // The reader may be busy with a large program of others.
        for attempt in 0..10 {
            let seconds = format!("27.18{attempt}");
            let mut sleep = Command::new("/bin/sleep").arg(&seconds).spawn().unwrap();
            let event = first(&mut events, |event| event.command_line == format!("/bin/sleep {seconds}")).await;
            sleep.kill().unwrap();
            sleep.wait().unwrap();
            match event.extra_details.get("Sha256") {
                Some(digest) => {
                    assert_eq!(*digest, expected);
                    return running.abort();
                }
                None => assert_eq!(event.extra_details["Sha256Missing"], "busy"),
            }
        }
        panic!("it is always busy");
    }

    #[tokio::test]
    async fn another_back_end_takes_over_when_it_is_asked_for() {
        let settings = (*context(ProcessBackend::Poll).0.settings.borrow()).as_ref().clone();
        let (cx, sender, _events) = adjustable(settings.clone());
        let state = cx.state.clone();
        let running = tokio::spawn(ProcessCreate.run(cx));
        until_running(&state).await;
        let poll = state.get();
        let State::Running { backend, gap: Some(gap) } = &poll else { panic!("{poll:?}") };
        assert!(backend == poll::NAME && gap.starts_with(poll::GAP), "{poll:?}");
        sender.send_replace(Arc::new(Settings { process_backend: ProcessBackend::Auto, ..settings }));
        while state.get() == poll {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.abort();
    }

    #[test]
    fn what_failed_is_passed_over_for_a_while_and_named() {
        let better = [ProcessBackend::Bpf, ProcessBackend::BpfNoBtf, ProcessBackend::Audit, ProcessBackend::Connector];
        let broken = better.map(|kind| (kind, "it broke".to_owned()));
        let Ok(choice) = choose(&Root::host(), ProcessBackend::Auto, &broken) else { panic!("something is left") };
        assert_eq!(choice.backend.kind(), ProcessBackend::Poll);
        assert!(choice.lacks(&Root::host()).contains(&"eBPF is not used: it broke".to_owned()));
        assert!(falls_back(ProcessBackend::Auto, ProcessBackend::Connector));
        assert!(!falls_back(ProcessBackend::Auto, ProcessBackend::Poll), "nothing would be left");
        assert!(!falls_back(ProcessBackend::Bpf, ProcessBackend::Bpf), "this one was asked for");
    }

    #[test]
    fn only_what_is_better_and_works_takes_over_again() {
        let last = ORDER.len() - 1;
        assert!(better_than(&Root::at("/nonexistent"), last).is_err(), "none works on a machine that is not there");
        let Some(best) = choose(&Root::host(), ProcessBackend::Auto, &[]).ok().filter(|best| best.place < last) else {
            return eprintln!("not run: nothing is better here than the last");
        };
        assert!(better_than(&Root::host(), 0).is_err(), "nothing is better than the first");
        let Ok(better) = better_than(&Root::host(), last) else { panic!("{} works", name(best.backend.kind())) };
        assert!(better.place < last, "{:?}", better.passed_over);
    }

    #[tokio::test]
    async fn the_collector_ends_with_the_recorder() {
        let (cx, events) = context(ProcessBackend::Auto);
        drop(events);
        let state = cx.state.clone();
        let running = tokio::spawn(ProcessCreate.run(cx));
        until_running(&state).await;
        let mut shell = Command::new("/bin/sleep").arg("2").spawn().unwrap();
        assert_eq!(timeout(Duration::from_secs(20), running).await.unwrap().unwrap(), Ok(()));
        shell.wait().unwrap();
    }

    #[test]
    fn a_survey_says_what_would_run_and_what_it_lacks() {
        let (cx, _events) = context(ProcessBackend::Poll);
        let settings = cx.settings.borrow().clone();
        let survey = ProcessCreate.survey(&cx.root, &settings);
        assert_eq!((survey.backend.as_str(), survey.lacks[0].as_str()), (poll::NAME, poll::GAP));
        let may_trace = nix::unistd::geteuid().is_root();
        assert!(!may_trace || survey.lacks.len() == 1, "{survey:?}");

        let elsewhere = Root::at("/nonexistent");
        let auto = Settings { process_backend: ProcessBackend::Auto, ..(*settings).clone() };
        let survey = ProcessCreate.survey(&elsewhere, &auto);
        assert_eq!(survey.backend, poll::NAME);
        assert!(survey.lacks[1].starts_with("eBPF is not used: "), "{survey:?}");
        assert!(survey.lacks[2].starts_with("eBPF without BTF is not used: "), "{survey:?}");
        assert!(survey.lacks[3].starts_with("netlink process connector is not used: "), "{survey:?}");
        assert!(survey.lacks[4].starts_with("kernel audit is not used: "), "{survey:?}");
        let forced = Settings { process_backend: ProcessBackend::Connector, ..auto };
        assert_eq!(ProcessCreate.survey(&elsewhere, &forced).backend, connector::NAME);
    }
}
