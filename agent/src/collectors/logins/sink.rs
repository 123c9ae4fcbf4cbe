//! Where all sources bring their lines: the reader behind it, the emitter after it, and the cursor beside every event.

use std::fs;
use std::time::Duration;

use collector_common::clock::{Clock, EARLIEST_RECORD_US, Reading};
use collector_common::collector::{Closed, Context, Draft, Emitter, Failure, SourceCursor};
use collector_common::event::payload::{Diagnostic, LoginResult, Payload, Severity};
use collector_common::parse::login::attempts::ByPam;
use collector_common::parse::login::{Account, Handler, Verdict};
use collector_common::parse::syslog;
use collector_common::parse::utmp::Record;
use collector_common::root::Root;
use jiff::tz::TimeZone;
use tokio::time::Instant;

use super::accounts::Accounts;
use super::fold::Folder;
use super::reader::{self, Entry, Reader, Writer};
use super::witness::Witness;

/// Why a source is no longer followed.
#[derive(Debug)]
pub enum End {
    /// The agent is stopping.
    Closed,
    /// The source cannot be followed.
    Failed(Failure),
}

/// The way from lines to events.
#[derive(Debug)]
pub struct Sink {
    out: Emitter,
    clock: Clock,
    root: Root,
    reader: Reader,
    /// What the rows call the source, where the reader cannot know it.
    called: Option<&'static str>,
    /// Where repeated failures wait, if they shall.
    folder: Option<Folder>,
    accounts: Accounts,
    /// Who hears of each row.
    witness: Witness,
    source: String,
    /// Lines were read since a cursor was last sent.
    moved: bool,
    sent: Instant,
}

/// How long lines without an event may pass before their cursor is stored: what is read again after a crash, against
/// what is written to flash for nothing.
const CURSOR_EVERY: Duration = Duration::from_secs(300);

/// How far a source is read back from the cursor for the connections that were open there: a connection has two minutes
/// to log in. In a flood that is more than is read again at a start.
pub const REMEMBERED_US: i64 = 180_000_000;

/// The most entries that are read back.
pub const REMEMBERED_LINES: usize = 20_000;

/// The same of a log file, in bytes.
pub const REMEMBERED_BYTES: u64 = 4 * 1024 * 1024;

impl From<Closed> for End {
    fn from(_: Closed) -> End {
        End::Closed
    }
}

impl End {
    /// The source cannot be followed, and why.
    pub fn failed(reason: String) -> End {
        End::Failed(Failure(reason))
    }
}

impl Sink {
    /// The way out for the source with this name.
    pub fn new(cx: &Context, source: &str) -> Sink {
        let mut reader = Reader::default();
        reader.believe_pam(ByPam { console: true, ..ByPam::default() });
        Sink {
            out: cx.out.clone(),
            clock: cx.clock,
            root: cx.root.clone(),
            reader,
            called: None,
            folder: cx.settings.borrow().fold_failed_logins.then(Folder::default),
            accounts: Accounts::new(cx.root.path("/etc/passwd")),
            witness: Witness::default(),
            source: source.to_owned(),
            moved: false,
            sent: Instant::now(),
        }
    }

    /// The same for a source whose rows call it something else than a file.
    pub fn called(mut self, word: &'static str) -> Sink {
        self.called = Some(word);
        self
    }

    /// The same with somebody who hears of each row.
    pub fn heard_by(mut self, witness: &Witness) -> Sink {
        self.witness = witness.clone();
        self
    }

    /// The clocks of the machine.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// How far the source was read before.
    pub fn cursor(&self) -> Option<String> {
        self.out.cursor(&self.source)
    }

    /// Reads one line. `place` gives the place after it, and is asked only if the line became an event.
    pub async fn take(&mut self, entry: &Entry<'_>, place: impl FnOnce() -> String) -> Result<(), Closed> {
        let accounts = &mut self.accounts;
        let now = self.clock.now();
        let mut drafts = self.reader.given_up(Some(now));
        drafts.extend(self.reader.read(entry, now, &mut |name| accounts.uid(name)));
        if let Some(called) = self.called {
            let rows = drafts.iter_mut().filter_map(|draft| match &mut draft.payload {
                Some(Payload::Login(rows)) => Some(rows),
                _ => None,
            });
            rows.flatten().for_each(|row| drop(row.extra_details.insert("Source", called.to_owned())));
        }
        drafts.iter().for_each(|draft| self.witness.hear(draft));
        if let Some(folder) = &mut self.folder {
            drafts = folder.fold(drafts, now);
        }
        self.moved = true;
        self.send(drafts, place).await
    }

    /// Reads one line of a log that a syslog daemon wrote, of which nobody vouches for the writer.
    pub async fn take_line(
        &mut self,
        line: &[u8],
        zone: &TimeZone,
        place: impl FnOnce() -> String,
    ) -> Result<(), Closed> {
        let text = String::from_utf8_lossy(line);
        let parsed = syslog::parse(&text);
        let now_us = self.clock.now().wall_us;
        let wall_us = parsed.as_ref().and_then(|parsed| parsed.stamp.wall_us(now_us, zone));
        let at = self.source_time(wall_us);
        // A line of no known form still ends what "last message repeated" may speak of.
        let (ident, pid, message) = parsed.map_or(("", None, ""), |parsed| (parsed.ident, parsed.pid, parsed.message));
        self.take(&Entry { at, ident, pid, message, writer: Writer::Unproven }, place).await
    }

    /// When such a line was written, by its own word.
    pub fn time_of(&self, line: &[u8], zone: &TimeZone) -> Option<i64> {
        syslog::parse(&String::from_utf8_lossy(line))?.stamp.wall_us(self.clock.now().wall_us, zone)
    }

    /// Takes in such a line from before the cursor.
    pub fn remember_line(&mut self, line: &[u8], zone: &TimeZone) {
        let now_us = self.clock.now().wall_us;
        if let Some(syslog::Line { stamp, ident, pid, message, .. }) = syslog::parse(&String::from_utf8_lossy(line)) {
            let at = self.source_time(stamp.wall_us(now_us, zone));
            self.remember(&Entry { at, ident, pid, message, writer: Writer::Unproven });
        }
    }

    /// The zone of the machine's clock face. OpenWrt has its rules in `/etc/TZ`, in POSIX's own form.
    pub fn zone(&self) -> TimeZone {
        if self.root.is_host() && (std::env::var_os("TZ").is_some() || self.root.path("/etc/localtime").exists()) {
            return TimeZone::system();
        }
        let rules = fs::read(self.root.path("/etc/localtime")).ok();
        let zone = rules.and_then(|rules| TimeZone::tzif("local", &rules).ok()).or_else(|| {
            let rules = fs::read_to_string(self.root.path("/etc/TZ")).ok()?;
            TimeZone::posix(rules.trim()).ok()
        });
        zone.unwrap_or(TimeZone::UTC)
    }

    /// Sends the row of an attempt that a record of utmp(5) tells. `book` is its file.
    pub async fn take_record(
        &mut self,
        record: &Record,
        handler: Handler,
        verdict: &Verdict,
        book: &'static str,
        place: impl FnOnce() -> String,
    ) -> Result<(), Closed> {
        let accounts = &mut self.accounts;
        let mut row = reader::row(handler, record.pid, verdict, &Writer::Unproven, &mut |name| accounts.uid(name));
        row.extra_details.insert("Source", book.to_owned());
        let mut drafts = vec![Draft::new(self.source_time(Some(record.wall_us)), Payload::Login(vec![row]))];
        if let Some(folder) = &mut self.folder {
            drafts = folder.fold(drafts, self.clock.now());
        }
        self.moved = true;
        self.send(drafts, place).await
    }

    /// Whether a name is an account of the machine.
    pub fn is_account(&mut self, name: &str) -> bool {
        self.accounts.uid(name).is_some()
    }

    /// Notes that the source was read further without an event.
    pub fn moved(&mut self) {
        self.moved = true;
    }

    /// Takes in a line from before the cursor, see [`Reader::remember`]. Its row is out, but who got in with it may not
    /// have been compared with wtmp yet.
    pub fn remember(&mut self, entry: &Entry<'_>) {
        let accounts = &mut self.accounts;
        let verdict = self.reader.remember(entry, self.clock.now(), &mut |name| accounts.uid(name));
        if let Some(Verdict { result: LoginResult::Success, account: Account::Known(user), peer, .. }) = verdict
            && let Some(from) = peer.address
        {
            self.witness.note(&user, from, entry.at.wall_us);
        }
    }

    /// Raises an alarm about the source.
    pub async fn alarm(&mut self, severity: Severity, text: String) -> Result<(), Closed> {
        let draft = Draft::alarm(self.clock.now(), Diagnostic::new(severity, text).with("Source", &self.source));
        self.out.send(draft).await
    }

    /// Stores a place without an event, at once.
    pub async fn store(&mut self, place: String) -> Result<(), Closed> {
        self.moved = false;
        self.sent = Instant::now();
        self.out.send(Draft::cursor_only(self.clock.now(), self.at(place))).await
    }

    /// What is due when no line comes: counts, and the place if it moved and was not stored for long.
    pub async fn idle(&mut self, place: impl FnOnce() -> String) -> Result<(), Closed> {
        let now = self.clock.now();
        let folded = self.folder.as_mut().map(|folder| folder.overdue(now)).unwrap_or_default();
        let given_up = self.reader.given_up(Some(now));
        for draft in self.reader.overdue(now).into_iter().chain(given_up).chain(folded) {
            self.out.send(draft).await?;
        }
        if self.moved && self.sent.elapsed() >= CURSOR_EVERY {
            self.store(place()).await?;
        }
        Ok(())
    }

    /// How long [`Sink::idle`] need not be called; nothing if it has nothing to say until the next line.
    pub fn idle_for(&self) -> Option<Duration> {
        let is_folding = self.folder.as_ref().is_some_and(Folder::is_waiting);
        match (self.reader.holds_something() || is_folding, self.moved) {
            (true, _) => Some(Duration::from_secs(60)),
            (false, true) => Some(CURSOR_EVERY.saturating_sub(self.sent.elapsed()).max(Duration::from_secs(1))),
            (false, false) => None,
        }
    }

    /// A moment by the source's own record. One that cannot be true was written while the clock of the machine was
    /// wrong, and our own reading can be corrected later.
    pub fn source_time(&self, wall_us: Option<i64>) -> Reading {
        match wall_us.filter(|wall_us| *wall_us >= EARLIEST_RECORD_US) {
            Some(wall_us) => self.clock.from_source(wall_us),
            None => self.clock.now(),
        }
    }

    /// The last draft of a line carries the place after it: with an earlier one a crash between them would lose rows.
    async fn send(&mut self, mut drafts: Vec<Draft>, place: impl FnOnce() -> String) -> Result<(), Closed> {
        let Some(last) = drafts.pop() else { return Ok(()) };
        for draft in drafts {
            self.out.send(draft).await?;
        }
        let cursor = self.at(place());
        self.moved = false;
        self.sent = Instant::now();
        self.out.send(last.with_cursor(cursor)).await
    }

    fn at(&self, place: String) -> SourceCursor {
        SourceCursor { source: self.source.clone(), place }
    }
}

/// What waits goes out when the source is left or the agent stops. There is no waiting for room then; what finds none is
/// counted as lost.
impl Drop for Sink {
    fn drop(&mut self) {
        for draft in self.folder.as_mut().map(Folder::flush).unwrap_or_default() {
            if self.out.offer(draft).is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use collector_common::collector::{self, LoginSource, StateSlot};
    use collector_common::root::Root;
    use tokio::sync::watch;

    use super::super::reader::Writer;
    use super::super::rig::settings;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_without_an_event_store_their_place_seldom_and_only_if_something_moved() {
        let (out, mut drafts) = collector::channel(BTreeMap::new());
        let (_sender, receiver) = watch::channel(Arc::new(settings(LoginSource::Auto)));
        let root = Root::host();
        let clock = Clock::new(&root);
        let cx = Context {
            root,
            state_directory: None,
            clock,
            settings: receiver,
            out,
            state: StateSlot::new(),
            once: false,
        };
        let mut sink = Sink::new(&cx, "file:/x");
        let entry = Entry { at: clock.now(), ident: "cron", pid: None, message: "x", writer: Writer::Unproven };
        sink.take(&entry, || panic!("no event, no cursor")).await.unwrap();
        sink.idle(|| "a".to_owned()).await.unwrap();
        assert!(drafts.try_recv().is_err());
        assert!(sink.idle_for().is_some());
        tokio::time::advance(CURSOR_EVERY).await;
        sink.idle(|| "a".to_owned()).await.unwrap();
        let draft = drafts.try_recv().unwrap();
        assert_eq!(draft.cursor, Some(SourceCursor { source: "file:/x".to_owned(), place: "a".to_owned() }));
        assert!(draft.payload.is_none() && sink.idle_for().is_none());
        tokio::time::advance(CURSOR_EVERY * 2).await;
        sink.idle(|| panic!("nothing moved")).await.unwrap();
        assert!(drafts.try_recv().is_err());
        assert_eq!(sink.cursor().as_deref(), Some("a"));
    }

    #[tokio::test]
    async fn a_time_that_cannot_be_true_is_replaced_by_our_own() {
        let (out, _drafts) = collector::channel(BTreeMap::new());
        let (_sender, receiver) = watch::channel(Arc::new(settings(LoginSource::Auto)));
        let root = Root::host();
        let clock = Clock::new(&root);
        let cx = Context {
            root,
            state_directory: None,
            clock,
            settings: receiver,
            out,
            state: StateSlot::new(),
            once: false,
        };
        let sink = Sink::new(&cx, "file:/x");
        assert_eq!(sink.source_time(Some(1_795_500_000_000_000)).boottime_us, 0);
        assert!(sink.source_time(Some(5_000_000)).boottime_us > 0);
        assert!(sink.source_time(None).boottime_us > 0);
    }
}
