//! Follows a log that is kept in memory, through `logread`.
//!
//! ```text
//! busybox syslogd -C   a ring in System V shared memory with the key "GENA"   logread -F           Nov 24 02:53:59 board auth.info sshd[7]: ...
//! OpenWrt logd         a ring in the daemon, asked for over ubus              logread -l N -f      Thu Nov 24 02:53:32 2026 authpriv.warn dropbear[9]: ...
//! ```
//!
//! Both print the whole ring first and then what comes. There are no numbers of lines, so a place is what the last lines
//! read were: it is looked for in what the ring holds at the next start, and reading goes on behind it. What the ring
//! holds is asked for without following, because only that has an end.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use collector_common::event::payload::Severity;
use collector_common::root::Root;
use jiff::tz::TimeZone;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use uuid::Uuid;

use super::lines::{Line, Lines};
use super::sink::{End, REMEMBERED_BYTES, REMEMBERED_LINES, REMEMBERED_US, Sink};
use super::skip::Skip;

/// `KEY_ID` of busybox, as `/proc/sysvipc/shm` prints it.
const BUSYBOX_KEY: &str = "1095648583";

/// A line of a ring has at most some kilobytes.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// How long it may take to print what the ring holds: some hundred KiB, on a board that may be busy.
const CONTENT_WITHIN: Duration = Duration::from_secs(60);

/// After such a pause the lines of one look of `logread` are all there.
const BURST: Duration = Duration::from_millis(200);

/// So much at once may be more than a ring holds: the smallest have 4 KiB, most 16 or 64.
const FLOOD_BYTES: usize = 4 * 1024;

/// Between two alarms about lines that were written over.
const MUTED: Duration = Duration::from_secs(60);

/// How many lines make a place: so many in a row are never the same twice.
const PLACE_LINES: usize = 16;

/// How often `logread` may end soon after it began before that is a failure, and what "soon" is.
const MAX_STARTS: u32 = 6;
const GOOD_RUN: Duration = Duration::from_secs(60);

/// A ring and its reader.
#[derive(Debug)]
pub struct Ring {
    program: PathBuf,
    is_openwrt: bool,
}

/// The last lines that were read, in which boot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    boot: Uuid,
    /// Their CRC-32, the newest last, at most [`PLACE_LINES`].
    lines: VecDeque<u32>,
}

/// What the ring held when it was asked.
#[derive(Debug, Default)]
struct Content {
    /// The CRC-32 of each line.
    crcs: Vec<u32>,
    /// The last of the lines.
    last: VecDeque<Line>,
}

/// Why a place is gone.
const WRITTEN_OVER: &str = "more was written since than it holds";

impl Ring {
    /// The ring of this machine, if it has one.
    pub fn find(root: &Root) -> Option<Ring> {
        let exists = |path: &&str| root.path(path).exists();
        let program = ["/sbin/logread", "/usr/sbin/logread", "/bin/logread", "/usr/bin/logread"];
        let program = root.path(program.iter().find(|path| exists(path))?);
        let rings = fs::read_to_string(root.path("/proc/sysvipc/shm")).unwrap_or_default();
        if rings.lines().any(|line| line.split_ascii_whitespace().next() == Some(BUSYBOX_KEY)) {
            return Some(Ring { program, is_openwrt: false });
        }
        let bus = ["/var/run/ubus/ubus.sock", "/var/run/ubus.sock"];
        let has_daemon = exists(&"/sbin/logd") && bus.iter().any(exists);
        has_daemon.then_some(Ring { program, is_openwrt: true })
    }

    /// Prints what the ring holds, and then what comes if that is wanted, too.
    fn spawn(&self, following: bool) -> Result<(Child, ChildStdout), End> {
        let mut command = Command::new(&self.program);
        command.args(match (following, self.is_openwrt) {
            (false, _) => &[][..],
            (true, true) => &["-l", "1000000", "-f"],
            (true, false) => &["-F"],
        });
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| self.failure(&format!("it cannot be run: {error}")))?;
        let stdout = child.stdout.take().ok_or_else(|| self.failure("it has no output"))?;
        Ok((child, stdout))
    }

    fn is_slow(&self) -> End {
        self.failure(&format!("it did not print what the log holds within {} s", CONTENT_WITHIN.as_secs()))
    }

    fn failure(&self, words: &str) -> End {
        let program = self.program.display();
        End::failed(format!(
            "The log in memory is not followed by {program}: {words}. Try {program} as the agent's user, and look whether the syslog daemon runs."
        ))
    }
}

impl Place {
    fn new(boot: Uuid) -> Place {
        Place { boot, lines: VecDeque::new() }
    }

    fn push(&mut self, crc: u32) {
        if self.lines.len() == PLACE_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(crc);
    }

    /// How many of the ring's lines were read already; nothing if it no longer holds the place. Of lines that the ring has
    /// given up since, the place may still speak.
    fn find(&self, ring: &[u32]) -> Option<usize> {
        if self.lines.is_empty() {
            return Some(0);
        }
        let ends_at = |end: &usize| {
            let pairs = ring[..*end].iter().rev().zip(self.lines.iter().rev());
            pairs.into_iter().all(|(one, other)| one == other)
        };
        (1..=ring.len()).rev().find(ends_at)
    }

    fn to_text(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(|line| format!("{line:08x}")).collect();
        format!("boot={} lines={}", self.boot, lines.join(","))
    }

    fn from_text(text: &str) -> Option<Place> {
        let (boot, lines) = text.strip_prefix("boot=")?.split_once(" lines=")?;
        let lines = lines.split(',').filter(|line| !line.is_empty()).map(|line| u32::from_str_radix(line, 16));
        let lines: VecDeque<u32> = lines.collect::<Result<_, _>>().ok()?;
        Some(Place { boot: Uuid::parse_str(boot).ok()?, lines }).filter(|place| place.lines.len() <= PLACE_LINES)
    }
}

/// Follows the ring until it cannot be read any more.
pub async fn follow(sink: &mut Sink, ring: &Ring) -> End {
    match follow_from_place(sink, ring).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

async fn follow_from_place(sink: &mut Sink, ring: &Ring) -> Result<std::convert::Infallible, End> {
    let mut place = match sink.cursor().as_deref().and_then(Place::from_text) {
        Some(place) => place,
        None => at_end(sink, ring).await?,
    };
    let mut starts = 0;
    loop {
        let began = Instant::now();
        run(sink, ring, &mut place).await?;
        starts = if began.elapsed() >= GOOD_RUN { 1 } else { starts + 1 };
        if starts >= MAX_STARTS {
            return Err(ring.failure(&format!("it ended {starts} times soon after it began")));
        }
        tracing::warn!("logread ended and is started again");
        sleep(Duration::from_secs(1 << starts.min(5))).await;
    }
}

/// The place behind all that the ring holds now, where the very first start begins.
async fn at_end(sink: &Sink, ring: &Ring) -> Result<Place, End> {
    let mut place = Place::new(sink.clock().boot());
    Content::of(ring).await?.crcs.into_iter().for_each(|crc| place.push(crc));
    Ok(place)
}

/// Runs `logread` once and takes what is new in it.
async fn run(sink: &mut Sink, ring: &Ring, place: &mut Place) -> Result<(), End> {
    let zone = sink.zone();
    let Content { crcs, mut last } = Content::of(ring).await?;
    let read = begin(sink, &crcs, place).await?;
    last.truncate(last.len().saturating_sub(crcs.len() - read));
    remember(sink, last.make_contiguous(), &zone);
    if place.boot != sink.clock().boot() {
        *place = Place::new(sink.clock().boot());
    }
    sink.store(place.to_text()).await?;
    let (_child, mut stdout) = ring.spawn(true)?;
    let mut lines = Lines::new(MAX_LINE_BYTES);
    let mut skip = Skip::new(&crcs, read);
    let mut next = skip_read(ring, &mut stdout, &mut lines, &mut skip).await?;
    if skip.has_gap() {
        gap(sink, WRITTEN_OVER).await?;
    }
    drop((crcs, last));
    let mut chunk = vec![0; 16 * 1024];
    let mut watch = Watch::default();
    loop {
        for line in next.drain(..) {
            place.push(crc32fast::hash(&line.bytes));
            sink.take_line(&line.bytes, &zone, || place.to_text()).await?;
        }
        sink.idle(|| place.to_text()).await?;
        let read = match watch.before.as_ref().map_or_else(|| sink.idle_for(), |_| Some(BURST)) {
            Some(quiet) => match timeout(quiet, stdout.read(&mut chunk)).await {
                Ok(read) => read,
                Err(_) => {
                    watch.look(sink, ring).await?;
                    continue;
                }
            },
            None => stdout.read(&mut chunk).await,
        };
        match read.map_err(|error| ring.failure(&format!("reading from it failed: {error}")))? {
            0 => return Ok(()),
            bytes => {
                next = lines.feed(&chunk[..bytes]);
                if !ring.is_openwrt {
                    let is_whole = next.first().is_none_or(|first| sink.time_of(&first.bytes, &zone).is_some());
                    watch.came(place, bytes, is_whole);
                }
            }
        }
    }
}

/// Looks whether lines were written over before they were read. `logread -F` of busybox looks once a second, and does
/// not notice when more than the ring holds was written in between: it goes on somewhere in the ring, nearly always in
/// the middle of a line, and what was read before is gone.
#[derive(Default)]
struct Watch {
    /// The place before the lines that came at once.
    before: Option<Place>,
    /// So much came.
    bytes: usize,
    /// Something in it begins in the middle of a line.
    is_torn: bool,
    /// When an alarm was raised.
    told: Option<Instant>,
}

impl Watch {
    fn came(&mut self, place: &Place, bytes: usize, is_whole: bool) {
        if self.before.is_none() {
            *self = Watch { before: Some(place.clone()), bytes: 0, is_torn: false, told: self.told };
        }
        self.bytes += bytes;
        self.is_torn |= !is_whole;
    }

    async fn look(&mut self, sink: &mut Sink, ring: &Ring) -> Result<(), End> {
        let Some(before) = self.before.take() else { return Ok(()) };
        let is_muted = self.told.is_some_and(|told| told.elapsed() < MUTED);
        let is_harmless = self.bytes < FLOOD_BYTES && !self.is_torn;
        if is_muted || is_harmless || before.find(&Content::of(ring).await?.crcs).is_some() {
            return Ok(());
        }
        self.told = Some(Instant::now());
        gap(sink, WRITTEN_OVER).await
    }
}

/// Reads the last of the lines before the place once more, for the connections that were open there.
fn remember(sink: &mut Sink, before: &[Line], zone: &TimeZone) {
    let time_of = |line: &Line| sink.time_of(&line.bytes, zone);
    let last_us = before.iter().rev().find_map(time_of);
    let is_old =
        |line: &Line| time_of(line).zip(last_us).is_some_and(|(wall_us, last_us)| last_us - wall_us > REMEMBERED_US);
    let begin = before.iter().rposition(is_old).map_or(0, |old| old + 1);
    before[begin..].iter().for_each(|line| sink.remember_line(&line.bytes, zone));
}

/// Reads the stream until it is known what in it was read before; gives what was not.
async fn skip_read(
    ring: &Ring,
    stdout: &mut ChildStdout,
    lines: &mut Lines,
    skip: &mut Skip<'_>,
) -> Result<Vec<Line>, End> {
    let (mut new, mut chunk, until) = (Vec::new(), vec![0; 16 * 1024], Instant::now() + CONTENT_WITHIN);
    while !skip.is_decided() {
        let read = match timeout_at(until, stdout.read(&mut chunk)).await {
            Err(_) if skip.has_found() => break,
            read => read.map_err(|_| ring.is_slow())?,
        };
        let bytes = read.map_err(|error| ring.failure(&format!("reading from it failed: {error}")))?;
        if bytes == 0 {
            break;
        }
        for line in lines.feed(&chunk[..bytes]) {
            match !skip.is_decided() && skip.was_read(crc32fast::hash(&line.bytes)) {
                true => new.clear(),
                false => new.push(line),
            }
        }
    }
    Ok(new)
}

impl Content {
    async fn of(ring: &Ring) -> Result<Content, End> {
        let (_child, mut stdout) = ring.spawn(false)?;
        let (mut lines, mut chunk, mut kept) = (Lines::new(MAX_LINE_BYTES), vec![0; 16 * 1024], 0);
        let (mut content, until) = (Content::default(), Instant::now() + CONTENT_WITHIN);
        loop {
            let read = timeout_at(until, stdout.read(&mut chunk)).await.map_err(|_| ring.is_slow())?;
            let bytes = read.map_err(|error| ring.failure(&format!("reading from it failed: {error}")))?;
            if bytes == 0 {
                return Ok(content);
            }
            for line in lines.feed(&chunk[..bytes]) {
                content.crcs.push(crc32fast::hash(&line.bytes));
                kept += line.bytes.len() as u64;
                content.last.push_back(line);
                while content.last.len() > REMEMBERED_LINES || kept > REMEMBERED_BYTES {
                    kept -= content.last.pop_front().map_or(0, |first| first.bytes.len() as u64);
                }
            }
        }
    }
}

/// How many of the ring's lines were read before.
async fn begin(sink: &mut Sink, held: &[u32], place: &Place) -> Result<usize, End> {
    let is_of_this_boot = place.boot == sink.clock().boot();
    if let Some(read) = place.find(held).filter(|_| is_of_this_boot) {
        return Ok(read);
    }
    let rebooted = "the machine was started again, and it does not outlive that";
    gap(sink, if is_of_this_boot { WRITTEN_OVER } else { rebooted }).await?;
    Ok(0)
}

async fn gap(sink: &mut Sink, why: &str) -> Result<(), End> {
    let text = format!(
        "The log in memory no longer holds the place up to which logins were read: {why}. Logins between then and its oldest line may be lost. Make it bigger (syslogd -C, log_size on OpenWrt), or let the log go to a file, if they must not be."
    );
    Ok(sink.alarm(Severity::Warning, text).await?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::super::rig::Rig;
    use super::*;

    fn lines(text: &str) -> Vec<u32> {
        text.lines().map(|line| crc32fast::hash(line.as_bytes())).collect()
    }

    #[test]
    fn a_place_is_found_behind_the_lines_it_is_made_of() {
        let mut place = Place::new(Uuid::from_u128(7));
        assert_eq!(place.find(&lines("a\nb\n")), Some(0));
        for line in ["x", "a", "b", "b"] {
            place.push(crc32fast::hash(line.as_bytes()));
        }
        assert_eq!(Place::from_text(&place.to_text()), Some(place.clone()));
        assert_eq!(place.find(&lines("x\na\nb\nb\n")), Some(4));
        assert_eq!(place.find(&lines("x\na\nb\nb\nb\nc\n")), Some(4), "the same line came once more");
        assert_eq!(place.find(&lines("b\nb\nnew\n")), Some(2), "its first lines are no longer held");
        assert_eq!(place.find(&lines("z\na\nb\nb\nnew\n")), None);
        assert_eq!(place.find(&[]), None);
        for text in ["", "boot=x lines=", "boot=00000000-0000-0000-0000-000000000007 lines=xyz", "s=1;i=2"] {
            assert_eq!(Place::from_text(text), None, "{text}");
        }
    }

    /// A machine laid out like OpenWrt, whose `logread` prints a file and what is appended to it.
    struct OpenWrt {
        directory: tempfile::TempDir,
    }

    impl OpenWrt {
        fn new() -> OpenWrt {
            let machine = OpenWrt { directory: tempfile::tempdir().unwrap() };
            for directory in ["sbin", "var/run/ubus", "etc"] {
                fs::create_dir_all(machine.path(directory)).unwrap();
            }
            for file in ["sbin/logd", "var/run/ubus/ubus.sock", "etc/passwd", "ring"] {
                File::create(machine.path(file)).unwrap();
            }
            let ring = machine.path("ring").display().to_string();
            let script =
                format!("#!/bin/sh\ncase \"$*\" in\n\"\") cat {ring} ;;\n*) exec tail -n \"$2\" -f {ring} ;;\nesac\n");
            fs::write(machine.path("sbin/logread"), script).unwrap();
            fs::set_permissions(machine.path("sbin/logread"), fs::Permissions::from_mode(0o755)).unwrap();
            machine.log(1);
            machine
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn log(&self, port: u16) {
            let line = format!(
                "Tue Nov 24 02:53:32 2026 authpriv.warn dropbear[9]: Bad password attempt for 'root' from 192.0.2.7:{port}\n"
            );
            File::options().append(true).open(self.path("ring")).unwrap().write_all(line.as_bytes()).unwrap();
        }

        fn start(&self, cursors: BTreeMap<String, String>) -> Rig {
            Rig::start(&Root::at(self.directory.path()), cursors)
        }
    }

    #[tokio::test]
    async fn a_ring_is_read_once_over_restarts_and_what_it_lost_is_told() {
        let machine = OpenWrt::new();
        fs::write(machine.path("etc/TZ"), "CET-1CEST,M3.5.0,M10.5.0/3\n").unwrap();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        assert_eq!(rig.backend(), "log in memory (logread)");
        machine.log(2);
        machine.log(2);
        let login = rig.login().await;
        assert_eq!((login.remote_port.as_deref(), login.executable.as_str()), (Some("2"), "/usr/sbin/dropbear"));
        assert_eq!((&*login.extra_details["Source"], &*login.extra_details["Trust"]), ("logread", "file"));
        // The second of two lines that are the same was not handed over before the crash.
        let cursors = rig.kill().await;
        machine.log(3);
        let mut rig = machine.start(cursors);
        assert_eq!(rig.ports(2).await, ["2", "3"]);
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
        let cursors = rig.kill().await;
        // As after a flood, or after the ring was emptied.
        fs::write(machine.path("ring"), "").unwrap();
        machine.log(4);
        let mut rig = machine.start(cursors);
        assert_eq!(rig.ports(1).await, ["4"]);
        assert_eq!(rig.alarms.len(), 1);
        assert!(rig.alarms[0].message.contains("more was written"), "{}", rig.alarms[0].message);
        let mut cursors = rig.kill().await;
        let place = Place { boot: Uuid::nil(), lines: VecDeque::from([1]) };
        cursors.insert("logread".to_owned(), place.to_text());
        let mut rig = machine.start(cursors);
        assert_eq!(rig.ports(1).await, ["4"]);
        assert!(rig.alarms[0].message.contains("started again"), "{}", rig.alarms[0].message);
    }

    #[tokio::test]
    async fn a_connection_is_known_after_a_restart_in_a_flood() {
        let machine = OpenWrt::new();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        let say = |text: &str| {
            let line = format!("Tue Nov 24 02:53:33 2026 authpriv.info dropbear[8]: {text}\n");
            File::options().append(true).open(machine.path("ring")).unwrap().write_all(line.as_bytes()).unwrap();
        };
        say("Child connection from 192.0.2.7:2");
        say(&"Early exit: Terminated by signal\n".repeat(5000));
        machine.log(3);
        assert_eq!(rig.ports(1).await, ["3"]);
        let cursors = rig.kill().await;
        say("Login attempt for nonexistent user");
        assert_eq!(machine.start(cursors).ports(1).await, ["2"]);
    }

    #[tokio::test]
    async fn a_log_that_never_pauses_is_followed() {
        let machine = std::sync::Arc::new(OpenWrt::new());
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        let writer = tokio::spawn({
            let machine = std::sync::Arc::clone(&machine);
            async move {
                for port in 2.. {
                    machine.log(port);
                    sleep(Duration::from_millis(500)).await;
                }
            }
        });
        assert_eq!(rig.ports(2).await, ["2", "3"]);
        writer.abort();
    }

    #[tokio::test]
    async fn a_logread_that_ends_is_started_again_where_it_was() {
        let machine = OpenWrt::new();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        machine.log(2);
        assert_eq!(rig.ports(1).await, ["2"]);
        let ours = machine.path("ring");
        let follows = |pid: &str| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| word == ours.as_os_str().as_encoded_bytes())
        };
        let pids = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let readers: Vec<_> = pids.filter(|pid| pid.parse::<u32>().is_ok() && follows(pid)).collect();
        assert!(std::process::Command::new("kill").args(&readers).status().unwrap().success());
        machine.log(3);
        assert_eq!(rig.ports(1).await, ["3"]);
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
    }

    #[tokio::test]
    async fn a_logread_that_hesitates_is_waited_for() {
        let machine = OpenWrt::new();
        machine.log(2);
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        machine.log(3);
        assert_eq!(rig.ports(1).await, ["3"]);
        let cursors = rig.kill().await;
        machine.log(4);
        let ring = machine.path("ring").display().to_string();
        let script = format!(
            "#!/bin/sh\nhead -n 1 {ring}; sleep 3\ncase \"$*\" in\n\"\") tail -n +2 {ring} ;;\n*) exec tail -n +2 -f {ring} ;;\nesac\n"
        );
        fs::write(machine.path("sbin/logread"), script).unwrap();
        let mut rig = machine.start(cursors);
        assert_eq!(rig.ports(1).await, ["4"]);
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
    }

    #[tokio::test]
    async fn a_ring_of_busybox_that_was_written_over_between_two_looks_is_a_gap() {
        let machine = OpenWrt::new();
        fs::create_dir_all(machine.path("proc/sysvipc")).unwrap();
        fs::write(machine.path("proc/sysvipc/shm"), "       key      shmid\n1095648583          0   644\n").unwrap();
        let (ring, stream) = (machine.path("ring"), machine.path("stream"));
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n\"\") cat {} ;;\n*) exec tail -n +1 -f {} ;;\nesac\n",
            ring.display(),
            stream.display()
        );
        fs::write(machine.path("sbin/logread"), script).unwrap();
        let line = |port: u16| {
            format!(
                "Nov 24 02:53:32 board auth.warn dropbear[9]: Bad password attempt for 'root' from 192.0.2.7:{port}\n"
            )
        };
        fs::write(&ring, line(1)).unwrap();
        fs::write(&stream, line(1)).unwrap();
        let mut rig = machine.start(BTreeMap::new());
        rig.started().await;
        let append = |path: &PathBuf, port| {
            File::options().append(true).open(path).unwrap().write_all(line(port).as_bytes()).unwrap();
        };
        append(&ring, 2);
        append(&stream, 2);
        assert_eq!(rig.ports(1).await, ["2"]);
        sleep(BURST * 3).await;
        append(&ring, 3);
        append(&stream, 3);
        assert_eq!(rig.ports(1).await, ["3"]);
        assert!(rig.alarms.is_empty(), "{:?}", rig.alarms);
        fs::write(&ring, line(4)).unwrap();
        let torn = format!(" torn apart\n{}", line(4));
        File::options().append(true).open(&stream).unwrap().write_all(torn.as_bytes()).unwrap();
        assert_eq!(rig.ports(1).await, ["4"]);
        if rig.alarms.is_empty() {
            rig.next().await;
        }
        assert!(rig.alarms[0].message.contains("more was written"), "{:?}", rig.alarms);
    }

    #[test]
    fn a_machine_without_a_ring_has_none() {
        let machine = OpenWrt::new();
        let root = Root::at(machine.directory.path());
        assert!(Ring::find(&root).is_some_and(|ring| ring.is_openwrt));
        fs::remove_file(machine.path("var/run/ubus/ubus.sock")).unwrap();
        assert!(Ring::find(&root).is_none());
        fs::create_dir_all(machine.path("proc/sysvipc")).unwrap();
        fs::write(machine.path("proc/sysvipc/shm"), "       key      shmid\n1095648583          0   644\n").unwrap();
        assert!(Ring::find(&root).is_some_and(|ring| !ring.is_openwrt));
    }
}
