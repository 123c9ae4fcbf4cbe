//! Lines in, drafts out: what is a login, what is a forgery, and what the row says. No I/O.

use collector_common::clock::Reading;
use collector_common::collector::Draft;
use collector_common::event::payload::{Diagnostic, ExtraDetails, Login, LoginResult, Payload, Severity};
use collector_common::parse::login::attempts::{Attempts, ByPam};
use collector_common::parse::login::{self, Account, Handler, Hidden, Peer, Remark, Verdict};
use uuid::Uuid;

use super::unanswered::{Server, Unanswered};
use crate::ids;

/// One line of a log.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When it was written.
    pub at: Reading,
    /// The program, by its own word.
    pub ident: &'a str,
    /// Its process.
    pub pid: Option<u32>,
    /// What it said.
    pub message: &'a str,
    /// What is known about the writer.
    pub writer: Writer<'a>,
}

/// What is known about who wrote a line.
#[derive(Clone, Copy, Debug)]
pub enum Writer<'a> {
    /// Nothing: anybody may have written it.
    Unproven,
    /// What the kernel told journald.
    Kernel {
        /// The user.
        uid: Option<u32>,
        /// The program, unless it was gone before journald looked.
        exe: Option<&'a str>,
    },
}

/// Turns lines into drafts.
#[derive(Debug, Default)]
pub struct Reader {
    attempts: Attempts,
    unanswered: Unanswered,
    /// Where the line just read left a name that waits.
    set_aside: Option<Server>,
    /// The verdict of the line before, for `last message repeated`.
    previous: Option<(Handler, u32, Verdict)>,
    forged: Muted,
    hidden: Muted,
    /// How many connections that are dropped now, for being too many, are counted in `hidden`.
    throttled: u64,
}

/// The most rows one line may become: `message repeated 4000000000 times` is one line, too.
const MAX_REPEATS: u64 = 1000;

/// Between two alarms of the same kind, microseconds. What comes between is counted in the second.
const MUTED_US: u64 = 60_000_000;

/// The most of a foreign line an alarm shows, in bytes.
const MAX_SHOWN: usize = 200;

impl Reader {
    /// Reads one line. `now` is when it was read; `uid_of` gives the uid of an account of this machine.
    pub fn read(&mut self, entry: &Entry, now: Reading, uid_of: &mut dyn FnMut(&str) -> Option<u32>) -> Vec<Draft> {
        self.set_aside = None;
        // A daemon that shortens its own file writes this; journald never does, so there it is somebody's invention.
        let previous = self.previous.take().filter(|_| matches!(entry.writer, Writer::Unproven));
        if let (Some(times), Some((handler, pid, verdict))) = (login::repeats_of_last(entry.message), &previous) {
            let row = row(*handler, *pid, verdict, &entry.writer, uid_of);
            return repeat(entry.at, row, times);
        }
        if let Some(count) = suppressed(entry) {
            return self.hidden(entry, now, count);
        }
        let Some(handler) = Handler::from_ident(entry.ident) else { return Vec::new() };
        let (times, message) =
            login::repeated(entry.message).map_or((None, entry.message), |(n, text)| (Some(n), text));
        if !entry.writer.can_be(handler) {
            return if handler.claims_verdict(entry.ident, message) { self.forged(entry, now) } else { Vec::new() };
        }
        let remark = handler.read(entry.ident, message);
        if let Some(count) = self.count_hidden(handler, &remark) {
            return self.hidden(entry, now, count.saturating_mul(times.unwrap_or(1)));
        }
        // A closing line that came several times is still one attempt of one connection.
        let times = times.filter(|_| matches!(remark, Remark::Verdict(_) | Remark::Refused(_)));
        self.wait_for_answer(handler, entry, &remark, now, uid_of);
        let Some((pid, verdict)) = self.attempts.judge(handler, entry.pid.unwrap_or(0), remark) else {
            return Vec::new();
        };
        self.unanswered.answer((handler, pid));
        let row = row(handler, pid, &verdict, &entry.writer, uid_of);
        self.previous = Some((handler, pid, verdict));
        match times {
            Some(times) => repeat(entry.at, row, times),
            None => vec![Draft::new(entry.at, Payload::Login(vec![row]))],
        }
    }

    /// Says in what PAM's lines are attempts.
    pub fn believe_pam(&mut self, by_pam: ByPam) {
        self.attempts.by_pam = by_pam;
    }

    /// Takes in a line that was read before this process began: what it says of a connection that may still be open
    /// counts, but it is no event a second time. Gives the attempt that ended with it.
    pub fn remember(
        &mut self,
        entry: &Entry,
        now: Reading,
        uid_of: &mut dyn FnMut(&str) -> Option<u32>,
    ) -> Option<Verdict> {
        let handler = Handler::from_ident(entry.ident).filter(|handler| entry.writer.can_be(*handler))?;
        let (_, message) = login::repeated(entry.message).unwrap_or((1, entry.message));
        let remark = handler.read(entry.ident, message);
        self.wait_for_answer(handler, entry, &remark, now, uid_of);
        let (pid, verdict) = self.attempts.judge(handler, entry.pid.unwrap_or(0), remark)?;
        self.unanswered.answer((handler, pid));
        Some(verdict)
    }

    /// Sets a name aside that was called, until a line says how it ended.
    fn wait_for_answer(
        &mut self,
        handler: Handler,
        entry: &Entry,
        remark: &Remark,
        now: Reading,
        uid_of: &mut dyn FnMut(&str) -> Option<u32>,
    ) {
        let (Remark::Named { account: Account::Invalid { typed: Some(typed) }, peer }, Some(pid)) = (remark, entry.pid)
        else {
            return;
        };
        let verdict = unanswered(Account::Invalid { typed: Some(typed.clone()) }, peer);
        let row = row(handler, pid, &verdict, &entry.writer, uid_of);
        let draft = Draft::new(entry.at, Payload::Login(vec![row]));
        self.unanswered.wait((handler, pid), peer.clone(), draft, now);
        self.set_aside = Some((handler, pid));
    }

    /// The row that waits since the line just read, for whoever marks rows with their place.
    pub fn set_aside(&mut self) -> Option<&mut Draft> {
        self.unanswered.waiting(self.set_aside?)
    }

    /// The names that got no answer until `now`, and those for which there was no room.
    pub fn given_up(&mut self, now: Option<Reading>) -> Vec<Draft> {
        if self.unanswered.is_empty() {
            return Vec::new();
        }
        if let Some(now) = now {
            self.unanswered.give_up_until(now);
        }
        let given_up = self.unanswered.take().into_iter().map(|((handler, pid), draft)| {
            self.attempts.tell_nothing_more(handler, pid);
            // After a crash the line is remembered, and told again under the same id.
            Draft { id: draft.id.or_else(|| Some(id_of(&draft))), ..draft }
        });
        given_up.collect()
    }

    /// The counts that no further line has brought out.
    pub fn overdue(&mut self, now: Reading) -> Vec<Draft> {
        let forged = self.forged.overdue(now).map(|count| {
            let text = format!("{count} more login lines were forged in the journal.");
            Draft::alarm(now, Diagnostic::new(Severity::Error, text).with("Count", count))
        });
        let hidden = self.hidden.overdue(now).map(|count| {
            let text =
                format!("The log said that {count} more login attempts, or lines about them, are kept out of it.");
            Draft::alarm(now, Diagnostic::new(Severity::Warning, text).with("Count", count))
        });
        forged.into_iter().chain(hidden).collect()
    }

    /// Whether [`Reader::overdue`] or [`Reader::given_up`] will have something to say.
    pub fn holds_something(&self) -> bool {
        self.forged.held + self.hidden.held > 0 || !self.unanswered.is_empty()
    }

    fn forged(&mut self, entry: &Entry, now: Reading) -> Vec<Draft> {
        let Writer::Kernel { uid, exe } = entry.writer else { return Vec::new() };
        let Some(count) = self.forged.count(now, 1) else { return Vec::new() };
        let (uid, exe) = (uid.map_or("?".to_owned(), |uid| uid.to_string()), exe.unwrap_or("?"));
        let pid = entry.pid.unwrap_or(0);
        let text = format!(
            "Forged login line in the journal: process {pid} of user id {uid} ({exe}) wrote as {}. It is no login; find out who runs that process.",
            shown(entry.ident)
        );
        let alarm = Diagnostic::new(Severity::Error, text)
            .with("WriterUserId", uid)
            .with("WriterProcessId", pid)
            .with("WriterExecutable", exe)
            .with("ForgedIdent", shown(entry.ident))
            .with("ForgedLine", shown(entry.message))
            .with("Count", count);
        vec![Draft::alarm(entry.at, alarm)]
    }

    /// How many attempts, if any, a remark says are kept out of the log, beside those that were counted.
    fn count_hidden(&mut self, handler: Handler, remark: &Remark) -> Option<u64> {
        match remark {
            Remark::RefusedMore(count) => self.attempts.is_told_by_pam(handler, None).then_some(*count),
            Remark::Hidden(Hidden::More(count)) => Some(*count),
            Remark::Hidden(Hidden::Throttled(count)) => {
                self.throttled += count;
                Some(*count)
            }
            Remark::Hidden(Hidden::ThrottledInAll(count)) => {
                Some(count.saturating_sub(std::mem::replace(&mut self.throttled, *count)))
            }
            _ => None,
        }
    }

    fn hidden(&mut self, entry: &Entry, now: Reading, count: u64) -> Vec<Draft> {
        let Some(count) = self.hidden.count(now, count) else { return Vec::new() };
        let text = format!("Login attempts are kept out of the log: {}", shown(entry.message));
        vec![Draft::alarm(entry.at, Diagnostic::new(Severity::Warning, text).with("Count", count))]
    }
}

/// The id of a row by what its line says.
fn id_of(draft: &Draft) -> Uuid {
    let facts = format!("{} {:?}", draft.at.wall_us, draft.payload);
    ids::derived(&[b"unanswered\0", facts.as_bytes()])
}

/// How an attempt ended of which nothing but a name is known.
fn unanswered(account: Account, peer: &Peer) -> Verdict {
    Verdict { result: LoginResult::Fail, account, peer: peer.clone(), method: None, key: None, terminal: None }
}

impl Writer<'_> {
    /// Whether this writer may speak for the handler. A verdict line is written by root, and a program the kernel names
    /// must be the handler's; short-lived ones are often gone before journald can ask for their name.
    fn can_be(&self, handler: Handler) -> bool {
        match self {
            Writer::Unproven => true,
            Writer::Kernel { uid, exe } => *uid == Some(0) && exe.is_none_or(|exe| handler.can_be(exe)),
        }
    }

    /// `ExtraDetails.Source` and `ExtraDetails.Trust`: what proves that the handler wrote the line.
    fn provenance(&self) -> (&'static str, &'static str) {
        match self {
            Writer::Unproven => ("file", "file"),
            Writer::Kernel { exe: Some(_), .. } => ("journal", "executable"),
            Writer::Kernel { exe: None, .. } => ("journal", "uid"),
        }
    }
}

/// How many messages a log daemon says it dropped: journald of a unit that lets people in, rsyslog of anybody.
fn suppressed(entry: &Entry) -> Option<u64> {
    let message = entry.message;
    let (counted, unit) = message.split_once(" messages ")?;
    let is_dropped = match entry.writer {
        Writer::Unproven => {
            entry.ident.starts_with("rsyslogd")
                && (message.contains(" lost due to rate-limiting") || message.contains("imuxsock lost "))
        }
        Writer::Kernel { uid, .. } => {
            let lets_in = ["ssh", "dropbear", "getty", "session-", "telnet"].iter().any(|part| unit.contains(part));
            let by_journald = entry.ident == "systemd-journald" && uid == Some(0);
            by_journald && lets_in && message.starts_with("Suppressed ") && unit.starts_with("from ")
        }
    };
    let count = counted.rsplit(' ').next().and_then(|count| count.parse().ok());
    is_dropped.then(|| count.unwrap_or(1))
}

/// What a verdict looks like as a row.
pub fn row(
    handler: Handler,
    pid: u32,
    verdict: &Verdict,
    writer: &Writer,
    uid_of: &mut dyn FnMut(&str) -> Option<u32>,
) -> Login {
    let (user_name, user_id) = match &verdict.account {
        Account::Known(name) => (name.as_str(), uid_of(name)),
        Account::Typed(name) => match uid_of(name) {
            Some(uid) => (name.as_str(), Some(uid)),
            None => ("(invalid user)", None),
        },
        // An account that the handler's rules keep out is "invalid" to it; its uid says that it exists.
        Account::Invalid { typed } => ("(invalid user)", typed.as_deref().and_then(uid_of)),
        Account::Unknown => ("(unknown user)", None),
    };
    Login {
        process_id: i64::from(pid),
        user_id: user_id.map(|uid| uid.to_string()),
        user_name: user_name.to_owned(),
        operation: verdict.result.operation(),
        executable: handler.executable().to_owned(),
        remote_address: verdict.peer.address,
        remote_port: verdict.peer.address.and(verdict.peer.port).map(|port| port.to_string()),
        local_port: None,
        result: verdict.result,
        extra_details: details(handler, verdict, writer),
    }
}

fn details(handler: Handler, verdict: &Verdict, writer: &Writer) -> ExtraDetails {
    let (source, trust) = writer.provenance();
    let mut details = ExtraDetails::from([("Source", source.to_owned()), ("Trust", trust.to_owned())]);
    let mut add = |key, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            details.insert(key, value.to_owned());
        }
    };
    add("Method", verdict.method.as_deref());
    add("Terminal", verdict.terminal.as_deref());
    add("RemoteHost", verdict.peer.name.as_deref());
    add("KeyFingerprint", verdict.key.as_ref().map(|key| key.fingerprint.as_str()));
    add("KeyType", verdict.key.as_ref().and_then(|key| key.kind.as_deref()));
    // People type passwords at a console where a name is asked for, and telnet is a console, too.
    if let (Account::Invalid { typed }, false) = (&verdict.account, handler.is_console()) {
        add("AttemptedUserName", typed.as_deref());
    }
    details
}

/// One row for each time, all in one event, so that no crash can come between them. Beyond the bound the rest is told in an alarm, so that nothing is silently left out.
fn repeat(at: Reading, row: Login, times: u64) -> Vec<Draft> {
    let rows = times.min(MAX_REPEATS);
    let numbered = |number| {
        let mut row = row.clone();
        row.extra_details.insert("Repeat", format!("{number}/{times}"));
        row
    };
    let mut drafts = vec![Draft::new(at, Payload::Login((1..=rows).map(numbered).collect()))];
    if times > rows {
        let text =
            format!("A log line says that a login attempt was repeated {times} times; {rows} rows stand for them.");
        drafts.push(Draft::alarm(at, Diagnostic::new(Severity::Warning, text).with("Count", times)));
    }
    drafts
}

/// The beginning of a foreign text, without control characters.
fn shown(text: &str) -> String {
    let mut end = text.len().min(MAX_SHOWN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// Counts what is not worth an alarm each time.
#[derive(Debug, Default)]
struct Muted {
    quiet_until_us: u64,
    held: u64,
}

impl Muted {
    /// Counts some more, and gives the count if it is time for an alarm.
    fn count(&mut self, now: Reading, more: u64) -> Option<u64> {
        self.held = self.held.saturating_add(more);
        self.overdue(now)
    }

    fn overdue(&mut self, now: Reading) -> Option<u64> {
        if self.held == 0 || now.boottime_us < self.quiet_until_us {
            return None;
        }
        self.quiet_until_us = now.boottime_us.saturating_add(MUTED_US);
        Some(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use collector_common::clock::Clock;
    use collector_common::parse::{journal, syslog};
    use collector_common::root::Root;
    use jiff::tz::TimeZone;
    use serde_json::{Value, json};

    use super::*;

    const NOW_US: i64 = 1_795_500_000_000_000;

    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/logins").join(name)
    }

    fn now(seconds: u64) -> Reading {
        Reading { boottime_us: seconds * 1_000_000, ..Clock::new(&Root::host()).from_source(NOW_US) }
    }

    fn uid_of(name: &str) -> Option<u32> {
        [("root", 0), ("tester", 1000), ("denied", 1001), ("locked", 1002)]
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, uid)| *uid)
    }

    fn read_file_line(reader: &mut Reader, line: &str) -> Vec<Draft> {
        let parsed = syslog::parse(line).unwrap_or_else(|| panic!("{line}"));
        let at = now(1);
        let wall_us = parsed.stamp.wall_us(NOW_US, &TimeZone::UTC).unwrap();
        let entry = Entry {
            at: Reading { wall_us, ..at },
            ident: parsed.ident,
            pid: parsed.pid,
            message: parsed.message,
            writer: Writer::Unproven,
        };
        reader.read(&entry, at, &mut uid_of)
    }

    fn read_journal_line(reader: &mut Reader, line: &str) -> Vec<Draft> {
        let found = journal::parse(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
        let writer = Writer::Kernel { uid: found.uid, exe: found.exe.as_deref() };
        let at = Reading { wall_us: found.wall_us, ..now(1) };
        let entry = Entry { at, ident: &found.ident, pid: found.pid, message: &found.message, writer };
        reader.read(&entry, now(1), &mut uid_of)
    }

    fn as_json(drafts: Vec<Draft>) -> Vec<Value> {
        let rows = |draft: Draft| {
            let payload = draft.payload.unwrap();
            let kind = payload.kind().name();
            let items = payload.to_items().unwrap();
            items.into_iter().map(move |item| {
                let mut item: Value = serde_json::from_str(&item).unwrap();
                // The agent's own process differs from run to run.
                if kind == "Diagnostic" {
                    item["ProcessId"] = json!(0);
                    item["ThreadId"] = json!(0);
                }
                json!({ "at": draft.at.wall_us, "kind": kind, "item": item })
            })
        };
        drafts.into_iter().flat_map(rows).collect()
    }

    /// Compares with the rows that were looked through by hand; `WRITE_GOLDEN=1` writes them anew.
    fn check_golden(name: &str, rows: Vec<Value>) {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let path = fixture(name);
        if std::env::var_os("WRITE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for (row, expected) in text.lines().zip(golden.lines()) {
            assert_eq!(row, expected, "{name}");
        }
        assert_eq!(text.lines().count(), golden.lines().count(), "{name}");
    }

    #[test]
    fn logs_of_genuine_daemons_give_the_rows_that_were_checked_by_hand() {
        let whole = ["debian11", "debian12", "debian13"];
        for name in whole.into_iter().chain(["debian11-privileges", "debian12-privileges", "debian13-privileges"]) {
            let mut reader = Reader::default();
            let log = fs::read_to_string(fixture(&format!("{name}.log"))).unwrap();
            let rows = log.lines().flat_map(|line| as_json(read_file_line(&mut reader, line))).collect();
            check_golden(&format!("{name}.golden.jsonl"), rows);
        }
    }

    #[test]
    fn the_journal_of_genuine_daemons_gives_logins_and_names_the_forger() {
        let mut reader = Reader::default();
        let log = fs::read_to_string(fixture("debian13-journal.json")).unwrap();
        let mut rows: Vec<Value> = log.lines().flat_map(|line| as_json(read_journal_line(&mut reader, line))).collect();
        rows.extend(as_json(reader.overdue(now(100))));
        check_golden("debian13-journal.golden.jsonl", rows);
    }

    #[test]
    fn a_repeated_message_is_one_row_each_time_in_one_event() {
        let mut reader = Reader::default();
        let line = "Nov 24 02:53:51 vm sshd[7]: message repeated 3 times: [ Failed password for root from 192.0.2.1 port 22 ssh2]";
        let drafts = read_file_line(&mut reader, line);
        assert_eq!(drafts.len(), 1);
        let repeats: Vec<_> = as_json(drafts).iter().map(|row| row["item"]["ExtraDetails"]["Repeat"].clone()).collect();
        assert_eq!(repeats, [json!("1/3"), json!("2/3"), json!("3/3")]);

        let mut rows = |line: &str| as_json(read_file_line(&mut reader, line)).len();
        let failed = "Nov 24 02:53:51 vm sshd[7]: Failed password for root from 192.0.2.1 port 22 ssh2";
        assert_eq!(rows(failed), 1);
        assert_eq!(rows("Nov 24 02:53:51 vm last message repeated 2 times"), 2);
        assert_eq!(rows("Nov 24 02:53:51 vm last message repeated 2 times"), 0);
        assert_eq!(rows(failed), 1);
        assert_eq!(rows("Nov 24 02:53:51 vm cron[7]: x"), 0);
        assert_eq!(rows("Nov 24 02:53:51 vm last message repeated 2 times"), 0);

        let flood = "Nov 24 02:53:51 vm sshd[7]: message repeated 4000000000 times: [ Failed password for root from 192.0.2.1 port 22 ssh2]";
        let drafts = read_file_line(&mut reader, flood);
        assert!(drafts.last().unwrap().security_relevant);
        assert_eq!(as_json(drafts).len() as u64, MAX_REPEATS + 1);
    }

    #[test]
    fn a_row_from_nowhere_has_no_address_and_a_console_row_no_typed_name() {
        let mut reader = Reader::default();
        let rows = as_json(read_file_line(
            &mut reader,
            "Nov 24 02:47:10 vm login: FAILED LOGIN 2 FROM pts/0 FOR hunter2, Authentication failure",
        ));
        let text = rows[0]["item"].to_string();
        assert!(!text.to_lowercase().contains("remoteaddress") && !text.contains("hunter2"), "{text}");
        assert_eq!(rows[0]["item"]["UserName"], "(invalid user)");
        let rows = as_json(read_file_line(
            &mut reader,
            "Nov 24 02:47:10 vm login: FAILED LOGIN 2 FROM evil.example FOR tester, Authentication failure",
        ));
        assert_eq!(rows[0]["item"].get("RemoteAddress"), None);
        assert_eq!(rows[0]["item"]["ExtraDetails"]["RemoteHost"], "evil.example");
        assert_eq!(rows[0]["item"]["UserId"], "1000");
    }

    #[test]
    fn privilege_changes_and_jobs_are_no_logins() {
        let mut reader = Reader::default();
        for line in [
            "Nov 24 02:53:51 vm su[7]: (to root) tester on pts/0",
            "Nov 24 02:53:51 vm sudo:   tester : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/id",
            "Nov 24 02:53:51 vm doas: tester ran command id as root from /",
            "Nov 24 02:53:51 vm CRON[7]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)",
            "Nov 24 02:53:51 vm systemd: pam_unix(systemd-user:session): session opened for user root(uid=0) by (uid=0)",
            "Nov 24 02:53:51 vm su: Accepted password for root from 192.0.2.1 port 22 ssh2",
        ] {
            assert!(read_file_line(&mut reader, line).is_empty(), "{line}");
        }
    }

    fn journal_entry(uid: Option<u32>, exe: Option<&'static str>, message: &'static str) -> Entry<'static> {
        Entry { at: now(1), ident: "sshd", pid: Some(7), message, writer: Writer::Kernel { uid, exe } }
    }

    #[test]
    fn only_roots_handler_is_believed_and_a_flood_of_forgeries_is_counted() {
        let accepted = "Accepted password for root from 203.0.113.9 port 4444 ssh2";
        for (uid, exe, is_login) in [
            (Some(0), Some("/usr/sbin/sshd"), true),
            (Some(0), Some("/usr/lib/openssh/sshd-session"), true),
            (Some(0), None, true),
            (Some(0), Some("/usr/bin/logger"), false),
            (Some(1000), None, false),
            (Some(1000), Some("/usr/sbin/sshd"), false),
            (None, None, false),
        ] {
            let rows = as_json(Reader::default().read(&journal_entry(uid, exe, accepted), now(1), &mut uid_of));
            assert_eq!(rows.len(), 1, "{uid:?} {exe:?}");
            assert_eq!(rows[0]["kind"] == "Login", is_login, "{uid:?} {exe:?}");
        }
        let mut reader = Reader::default();
        let forgery = journal_entry(Some(1000), None, accepted);
        let alarms: Vec<usize> = (0..5).map(|_| reader.read(&forgery, now(1), &mut uid_of).len()).collect();
        assert_eq!(alarms, [1, 0, 0, 0, 0]);
        assert!(reader.holds_something() && reader.overdue(now(2)).is_empty());
        assert_eq!(as_json(reader.overdue(now(90)))[0]["item"]["ExtraDetails"]["Count"], "4");
        assert!(!reader.holds_something());
        // What a session's own process says after the login is neither.
        for message in ["Disconnected from user tester 192.0.2.1 port 5", "Connection closed by 192.0.2.1 port 5"] {
            let child = journal_entry(Some(1000), None, message);
            assert!(reader.read(&child, now(200), &mut uid_of).is_empty() && !reader.holds_something(), "{message}");
        }
        let repeated = journal_entry(Some(1000), None, "last message repeated 900 times");
        reader.read(&journal_entry(Some(0), None, accepted), now(100), &mut uid_of);
        assert!(reader.read(&repeated, now(100), &mut uid_of).is_empty());
    }

    #[test]
    fn a_name_that_got_no_answer_is_an_attempt_after_a_while_and_only_once() {
        let named = |port: u16| format!("Nov 24 02:53:51 vm sshd[7]: Invalid user oracle from 192.0.2.1 port {port}");
        let mut reader = Reader::default();
        assert!(read_file_line(&mut reader, &named(9)).is_empty());
        assert!(reader.holds_something() && reader.given_up(Some(now(100))).is_empty());
        let told = reader.given_up(Some(now(182)));
        let id = told[0].id;
        let rows = as_json(told);
        let (row, details) = (&rows[0]["item"], &rows[0]["item"]["ExtraDetails"]);
        assert_eq!([&row["UserName"], &details["AttemptedUserName"]], ["(invalid user)", "oracle"]);
        assert_eq!([&row["RemoteAddress"], &row["RemotePort"], &row["Result"]], ["192.0.2.1", "9", "Fail"]);
        let closed = "Nov 24 02:59:51 vm sshd[7]: Connection closed by invalid user oracle 192.0.2.1 port 9 [preauth]";
        assert!(read_file_line(&mut reader, closed).is_empty() && !reader.holds_something());

        // After a crash the line is read once more, and told under the same id.
        let parsed = syslog::parse(&named(9)).map(|line| line.message.to_owned()).unwrap();
        let wall_us = rows[0]["at"].as_i64().unwrap();
        let at = Reading { wall_us, ..now(1) };
        let entry = Entry { at, ident: "sshd", pid: Some(7), message: &parsed, writer: Writer::Unproven };
        let mut reader = Reader::default();
        reader.remember(&entry, now(200), &mut uid_of);
        assert_eq!(reader.given_up(Some(now(400)))[0].id, id);

        // A process that serves another peer no longer serves this one.
        let mut reader = Reader::default();
        read_file_line(&mut reader, &named(9));
        read_file_line(&mut reader, &named(10));
        assert_eq!(as_json(reader.given_up(None))[0]["item"]["RemotePort"], "9");
        let failed = "Nov 24 02:53:52 vm sshd[7]: Failed password for invalid user oracle from 192.0.2.1 port 10 ssh2";
        assert_eq!(read_file_line(&mut reader, failed).len(), 1);
        assert!(reader.given_up(Some(now(1000))).is_empty());

        for port in 0..5000 {
            let line = named(9).replace("[7]", &format!("[{}]", 8 + port));
            read_file_line(&mut reader, &line);
        }
        assert_eq!(reader.given_up(None).len(), 5000 - 1024);
    }

    #[test]
    fn hidden_attempts_are_an_alarm_and_no_row() {
        let mut reader = Reader::default();
        let dropped = journal_entry(
            Some(0),
            None,
            "drop connection #3 from [192.0.2.7]:4 on [192.0.2.8]:22 penalty: failed authentication",
        );
        let rows = as_json(reader.read(&dropped, now(1), &mut uid_of));
        assert_eq!((rows.len(), &rows[0]["kind"]), (1, &json!("Diagnostic")));
        let suppressed = Entry {
            ident: "systemd-journald",
            ..journal_entry(Some(0), None, "Suppressed 512 messages from ssh.service")
        };
        let rows = as_json(Reader::default().read(&suppressed, now(1), &mut uid_of));
        assert!(rows[0]["item"]["Message"].as_str().unwrap().contains("Suppressed 512"));
        assert_eq!(rows[0]["item"]["ExtraDetails"]["Count"], "512");
    }

    #[test]
    fn hidden_attempts_are_counted_once_by_the_numbers_of_the_lines() {
        let mut reader = Reader::default();
        let lines = [
            "error: beginning MaxStartups throttling",
            "drop connection #10 from [192.0.2.7]:4 on [192.0.2.8]:22 past MaxStartups",
            "error: in MaxStartups throttling for 00:05:02, 4012 connections dropped",
            "exited MaxStartups throttling after 00:05:03, 4013 connections dropped",
            "error: beginning MaxStartups throttling",
            "drop connection #10 from [192.0.2.7]:4 on [192.0.2.8]:22 past MaxStartups",
        ];
        let told = lines.map(|line| as_json(reader.read(&journal_entry(Some(0), None, line), now(1), &mut uid_of)));
        assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 0, 0, 0, 0]);
        assert_eq!(told[1][0]["item"]["ExtraDetails"]["Count"], "1");
        assert_eq!(as_json(reader.overdue(now(90)))[0]["item"]["ExtraDetails"]["Count"], "4013");
    }

    #[test]
    fn what_rsyslog_dropped_is_told() {
        let dropped = [
            "rsyslogd: imuxsock[pid 4711]: 512 messages lost due to rate-limiting",
            "rsyslogd-2177: imuxsock lost 512 messages from pid 4711 due to rate-limiting",
            "rsyslogd: imjournal: 512 messages lost due to rate-limiting (20000 allowed within 600 seconds)",
        ];
        for line in dropped {
            let rows = as_json(read_file_line(&mut Reader::default(), &format!("Nov 24 02:53:51 vm {line}")));
            assert_eq!((rows.len(), &rows[0]["kind"]), (1, &json!("Diagnostic")), "{line}");
            assert_eq!(rows[0]["item"]["ExtraDetails"]["Count"], "512", "{line}");
        }
        let started = "Nov 24 02:53:51 vm rsyslogd: [origin software=\"rsyslogd\"] start";
        assert!(read_file_line(&mut Reader::default(), started).is_empty());
    }

    #[test]
    fn no_extra_detail_is_named_like_a_field_the_guide_searches() {
        let mut reader = Reader::default();
        for name in ["debian11.log", "debian12.log", "debian13.log"] {
            for line in fs::read_to_string(fixture(name)).unwrap().lines() {
                for row in as_json(read_file_line(&mut reader, line)) {
                    let details = row["item"]["ExtraDetails"].as_object().unwrap();
                    assert!(
                        ["RemoteAddress", "UserName", "Result"].iter().all(|key| !details.contains_key(*key)),
                        "{row}"
                    );
                    assert_eq!(details["Trust"], "file");
                }
            }
        }
    }
}
