//! Records of the kernel's audit (`kernel/auditsc.c`), as far as they tell of an exec. One exec is several records, which
//! share a number and may stand between those of other processors:
//!
//! ```text
//! 1300 SYSCALL  audit(1364481363.243:24287): arch=c000003e syscall=59 success=yes ... ppid=1 pid=42 auid=1000 uid=1000 gid=1000 euid=0 ...
//!                                            comm="cat" exe="/usr/bin/cat" subj=... key=...
//! 1309 EXECVE   audit(1364481363.243:24287): argc=3 a0="cat" a1=61206220 a2_len=20000 a2[0]=7878 ...
//! 1309 EXECVE   audit(1364481363.243:24287):  a2[1]=7878 ...
//! 1307 CWD      audit(1364481363.243:24287): cwd="/home/u"
//! 1320 EOE      audit(1364481363.243:24287):                 there are no more
//! ```
//!
//! Text stands in quotes, or in hexadecimal digits when a byte of it is a blank, a quote or not printable ASCII. PATH
//! repeats what `exe` and `comm` tell, and PROCTITLE the first 128 bytes of EXECVE; both are passed over.

use std::collections::VecDeque;

use super::audit_control::Abi;
use super::cmdline::{ArgumentArea, HEAD_BYTES, TAIL_BYTES};

/// `AUDIT_SYSCALL` and its like (`include/uapi/linux/audit.h`).
pub const SYSCALL: u16 = 1300;
/// `AUDIT_CWD`.
pub const CWD: u16 = 1307;
/// `AUDIT_EXECVE`.
pub const EXECVE: u16 = 1309;
/// `AUDIT_EOE`.
pub const END: u16 = 1320;

/// The kernel keeps this many records for one exec of an ordinary program: SYSCALL, EXECVE, CWD, two of PATH, PROCTITLE
/// and EOE.
pub const RECORDS_OF_AN_EXEC: u64 = 7;

/// How many system calls may be told of at the same time. The kernel writes all records of one in a go, so there are
/// hardly more than processors; each takes at most some 15 KiB.
const MAX_PENDING: usize = 64;

/// What is still incomplete after this time will stay so.
const PATIENCE_US: i64 = 5_000_000;

/// A login uid nobody has set, `(uid_t) -1`.
const UNSET: u32 = u32::MAX;

/// An exec that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// What the wall clock said: microseconds.
    pub wall_us: i64,
    /// The process, as the initial pid namespace numbers it.
    pub pid: i32,
    /// Its parent.
    pub parent_pid: i32,
    /// Real uid.
    pub uid: u32,
    /// Effective uid.
    pub effective_uid: u32,
    /// Who logged in, a long way up.
    pub login_uid: Option<u32>,
    /// The kernel's name of the process, at most 15 bytes.
    pub name: Vec<u8>,
    /// The path of the program, from the root of the process.
    pub executable: Option<Vec<u8>>,
    /// The file was deleted, or never was one.
    pub deleted: bool,
    /// Its arguments; `None` when some of them did not come.
    pub arguments: Option<ArgumentArea>,
    /// Where the process was.
    pub directory: Option<Vec<u8>>,
}

/// Puts records together.
#[derive(Debug)]
pub struct Assembler {
    abis: &'static [Abi],
    /// The oldest first.
    pending: VecDeque<Pending>,
    /// Execs of which the arguments came, and not which process it was.
    lost: u64,
}

#[derive(Debug)]
struct Pending {
    serial: u64,
    exec: Exec,
    /// By its number. One that cannot be told so is an exec when arguments come.
    is_exec: bool,
    arguments: Option<Arguments>,
}

impl Assembler {
    /// For records of a kernel with these architectures.
    pub fn new(abis: &'static [Abi]) -> Assembler {
        Assembler { abis, pending: VecDeque::new(), lost: 0 }
    }

    /// Takes the text of one record and gives the exec that is complete with it, or that had to make room.
    pub fn take(&mut self, kind: u16, text: &[u8]) -> Option<Exec> {
        let (wall_us, serial, rest) = stamp(text)?;
        let words = || rest.split(u8::is_ascii_whitespace).filter_map(word);
        if kind == SYSCALL {
            let exec = syscall(wall_us, words())?;
            let is_exec = is_exec(self.abis, words());
            self.pending.push_back(Pending { serial, exec, is_exec, arguments: None });
            return if self.pending.len() > MAX_PENDING { self.pending.pop_front()?.finish() } else { None };
        }
        let Some(at) = self.pending.iter().position(|pending| pending.serial == serial) else {
            let begins = kind == EXECVE && words().any(|(key, _)| key == b"argc");
            self.lost = self.lost.saturating_add(begins.into());
            return None;
        };
        let pending = self.pending.get_mut(at)?;
        match kind {
            EXECVE => pending.arguments.get_or_insert_default().take(words()),
            CWD => {
                pending.exec.directory = words().find(|(key, _)| *key == b"cwd").and_then(|(_, value)| text_of(value))
            }
            END => return self.pending.remove(at)?.finish(),
            _ => {}
        }
        None
    }

    /// How many execs are known of only by their arguments, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Gives the execs whose last record did not come in time.
    pub fn give_up(&mut self, now_wall_us: i64) -> Vec<Exec> {
        let is_old = |pending: &Pending| now_wall_us.abs_diff(pending.exec.wall_us) > PATIENCE_US.unsigned_abs();
        let (old, young) = std::mem::take(&mut self.pending).into_iter().partition(is_old);
        self.pending = young;
        VecDeque::into_iter(old).filter_map(Pending::finish).collect()
    }
}

impl Pending {
    fn finish(self) -> Option<Exec> {
        let is_exec = self.is_exec || self.arguments.is_some();
        is_exec.then(|| Exec { arguments: self.arguments.and_then(Arguments::finish), ..self.exec })
    }
}

/// Arguments while they come.
#[derive(Debug, Default)]
struct Arguments {
    claimed: Option<u64>,
    /// How many have begun.
    begun: u64,
    /// The last of them comes in pieces: the number of the next.
    next_piece: Option<u64>,
    /// Something is missing or makes no sense.
    is_broken: bool,
    head: Vec<u8>,
    tail: Vec<u8>,
    total: u64,
}

impl Arguments {
    fn take<'a>(&mut self, words: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        for (key, value) in words {
            if key == b"argc" {
                self.claimed = self.claimed.or_else(|| number(value));
                continue;
            }
            let Some((argument, piece)) = place(key) else { continue };
            // Before Linux 5.18 a program may have no argument, and what stands here then is of its environment.
            if self.claimed.is_some_and(|claimed| argument >= claimed) {
                continue;
            }
            let Some(bytes) = text_of(value) else {
                self.is_broken = true;
                continue;
            };
            self.take_one(argument, piece, &bytes);
        }
    }

    fn take_one(&mut self, argument: u64, piece: Option<u64>, bytes: &[u8]) {
        let goes_on = piece.is_some_and(|piece| piece > 0);
        if goes_on {
            self.is_broken |= self.begun != argument.saturating_add(1) || self.next_piece != piece;
        } else {
            self.end_pieces();
            self.is_broken |= self.begun != argument;
            self.begun = argument.saturating_add(1);
        }
        self.add(bytes);
        self.next_piece = piece.map(|piece| piece.saturating_add(1));
        if piece.is_none() {
            self.add(b"\0");
        }
    }

    fn end_pieces(&mut self) {
        if self.next_piece.take().is_some() {
            self.add(b"\0");
        }
    }

    /// Keeps the beginning and the end of it all.
    fn add(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let (first, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.head.len()));
        self.head.extend_from_slice(first);
        self.tail.extend_from_slice(rest);
        if self.tail.len() > 2 * TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
    }

    fn finish(mut self) -> Option<ArgumentArea> {
        self.end_pieces();
        if self.is_broken || self.claimed != Some(self.begun) {
            return None;
        }
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        let kept = u64::try_from(self.head.len() + self.tail.len()).ok()?;
        Some(ArgumentArea { head: self.head, unread_bytes: self.total.saturating_sub(kept), tail: self.tail })
    }
}

/// Which argument `a12` is, and which piece of it `a12[3]` is; `a12_len` is neither.
fn place(key: &[u8]) -> Option<(u64, Option<u64>)> {
    let key = key.strip_prefix(b"a")?;
    match key.strip_suffix(b"]") {
        None => Some((number(key)?, None)),
        Some(key) => {
            let open = key.iter().position(|byte| *byte == b'[')?;
            Some((number(&key[..open])?, Some(number(&key[open + 1..])?)))
        }
    }
}

/// `audit(SECONDS.MILLISECONDS:NUMBER):`, and what stands behind it.
fn stamp(text: &[u8]) -> Option<(i64, u64, &[u8])> {
    let text = text.strip_prefix(b"audit(")?;
    let end = text.iter().position(|byte| *byte == b')')?;
    let (stamp, rest) = (std::str::from_utf8(&text[..end]).ok()?, text.get(end + 2..).unwrap_or_default());
    let (time, serial) = stamp.split_once(':')?;
    let (seconds, millis) = time.split_once('.')?;
    let (seconds, millis): (i64, i64) = (seconds.parse().ok()?, millis.parse().ok()?);
    let wall_us = seconds.checked_mul(1_000_000)?.checked_add(millis.checked_mul(1000)?)?;
    Some((wall_us, serial.parse().ok()?, rest))
}

fn word(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = word.iter().position(|byte| *byte == b'=')?;
    Some((&word[..equals], &word[equals + 1..]))
}

/// `None` for a system call that failed. A key counts where it stands first: a label of a security module may hold
/// blanks, and comes behind what is read here.
fn syscall<'a>(wall_us: i64, words: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Option<Exec> {
    let value = |wanted: &[u8]| words.clone().find(|(key, _)| *key == wanted).map(|(_, value)| value);
    if value(b"success") != Some(b"yes") {
        return None;
    }
    let whole = |key: &[u8]| u32::try_from(number(value(key)?)?).ok();
    let (path, mark) = (value(b"exe").and_then(text_of), b" (deleted)");
    let deleted = path.as_ref().is_some_and(|path| path.ends_with(mark));
    Some(Exec {
        wall_us,
        pid: i32::try_from(whole(b"pid")?).ok()?,
        parent_pid: i32::try_from(whole(b"ppid")?).ok()?,
        uid: whole(b"uid")?,
        effective_uid: whole(b"euid")?,
        login_uid: whole(b"auid").filter(|uid| *uid != UNSET),
        name: value(b"comm").and_then(text_of).unwrap_or_default(),
        executable: path.map(|path| path.strip_suffix(mark).map(<[u8]>::to_vec).unwrap_or(path)),
        deleted,
        arguments: None,
        directory: None,
    })
}

/// `arch=c000003e syscall=59`
fn is_exec<'a>(abis: &[Abi], words: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> bool {
    let value = |wanted: &[u8]| {
        let (_, value) = words.clone().find(|(key, _)| *key == wanted)?;
        std::str::from_utf8(value).ok()
    };
    let arch = value(b"arch").and_then(|arch| u32::from_str_radix(arch, 16).ok());
    let call = value(b"syscall").and_then(|call| call.parse().ok());
    let (Some(arch), Some(call)) = (arch, call) else { return false };
    abis.iter().any(|abi| abi.is_exec(arch, call))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What stands in quotes or in hexadecimal digits; `None` for `(null)` and for what is neither.
fn text_of(value: &[u8]) -> Option<Vec<u8>> {
    if let Some(quoted) = value.strip_prefix(b"\"") {
        return quoted.strip_suffix(b"\"").map(<[u8]>::to_vec);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = value.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::audit_control::abis;

    fn record(serial: u64, rest: &str) -> Vec<u8> {
        format!("audit(1364481363.243:{serial}): {rest}").into_bytes()
    }

    fn syscall_of(serial: u64, pid: u32) -> Vec<u8> {
        let rest = format!(
            "arch=c000003e syscall=59 success=yes exit=0 a0=7ffe a1=1 a2=2 a3=3 items=2 ppid=41 pid={pid} auid=4294967295 \
             uid=1000 gid=5 euid=0 suid=0 fsuid=0 egid=5 sgid=5 fsgid=5 tty=(none) ses=4294967295 comm=612062 \
             exe=\"/usr/bin/cat\" subj=/a (b) pid=7 uid=8 key=\"edgewarden\""
        );
        record(serial, &rest)
    }

    /// What comes of records of one exec, and of another that stands between them.
    fn exec_of(execve: &[&str]) -> Exec {
        let mut assembler = Assembler::new(abis("x86_64"));
        assert_eq!(assembler.take(SYSCALL, &syscall_of(7, 42)), None);
        assert_eq!(assembler.take(SYSCALL, &syscall_of(8, 43)), None);
        for rest in execve {
            assert_eq!(assembler.take(EXECVE, &record(7, rest)), None);
        }
        assert_eq!(assembler.take(EXECVE, &record(8, "argc=1 a0=\"other\"")), None);
        assert_eq!(assembler.take(CWD, &record(7, "cwd=\"/home/u\"")), None);
        assert_eq!(assembler.take(1302, &record(7, "item=0 name=\"/usr/bin/cat\"")), None);
        assert_eq!(assembler.take(END, &record(8, "")).unwrap().pid, 43);
        let exec = assembler.take(END, &record(7, "")).unwrap();
        assert!(assembler.pending.is_empty());
        exec
    }

    fn whole(bytes: &[u8]) -> Option<ArgumentArea> {
        Some(ArgumentArea::whole(bytes))
    }

    #[test]
    fn an_exec_is_what_its_records_say_and_nothing_of_another() {
        let exec = exec_of(&["argc=3 a0=\"cat\" a1=2F7420C3A9 a2=\"\""]);
        assert_eq!((exec.wall_us, exec.pid, exec.parent_pid), (1_364_481_363_243_000, 42, 41));
        assert_eq!((exec.uid, exec.effective_uid, exec.login_uid), (1000, 0, None));
        assert_eq!((exec.name.as_slice(), exec.deleted), (&b"a b"[..], false));
        assert_eq!(exec.executable.as_deref(), Some(&b"/usr/bin/cat"[..]));
        assert_eq!(exec.directory.as_deref(), Some(&b"/home/u"[..]));
        assert_eq!(exec.arguments, whole("cat\0/t \u{e9}\0\0".as_bytes()));
    }

    #[test]
    fn pieces_are_one_argument_again() {
        let exec = exec_of(&["argc=3 a0=\"x\" a1_len=8 a1[0]=\"ab\"", " a1[1]=63 a1[2]=\"d\" a2=\"e\""]);
        assert_eq!(exec.arguments, whole(b"x\0abcd\0e\0"));
        let exec = exec_of(&["argc=1 a0_len=4 a0[0]=61", " a0[1]=62"]);
        assert_eq!(exec.arguments, whole(b"ab\0"));
    }

    #[test]
    fn of_long_arguments_both_ends_are_kept_and_all_are_counted() {
        let piece = "78".repeat(3000);
        let records: Vec<String> = (0..30).map(|number| format!(" a1[{number}]={piece}")).collect();
        let mut all = vec!["argc=3 a0=\"first\" a1_len=180000"];
        all.extend(records.iter().map(String::as_str));
        all.push(" a2=\"last\"");
        let area = exec_of(&all).arguments.unwrap();
        assert_eq!((area.head.len(), area.tail.len()), (HEAD_BYTES, TAIL_BYTES));
        assert!(area.head.starts_with(b"first\0xxx") && area.tail.ends_with(b"xxx\0last\0"));
        assert_eq!(area.total_bytes(), 6 + 90_001 + 5);
    }

    #[test]
    fn what_is_missing_is_not_made_up() {
        for missing in [
            &["argc=3 a0=\"x\" a1=\"y\""][..],
            &["argc=2 a1=\"y\""],
            &["argc=2 a0=\"x\" a1[0]=61", " a1[2]=61"],
            &["argc=1 a0[1]=61"],
            &["argc=1 a0=6"],
            &["argc=1 a0=\"x"],
            &[" a0=\"x\""],
        ] {
            assert_eq!(exec_of(missing).arguments, None, "{missing:?}");
        }
        assert_eq!(exec_of(&["argc=0 a0=\"PASSWORD=x\""]).arguments, whole(b""));
    }

    #[test]
    fn a_failure_and_another_system_call_are_no_execs() {
        let mut assembler = Assembler::new(abis("x86_64"));
        let failed = String::from_utf8(syscall_of(1, 9)).unwrap().replace("success=yes", "success=no");
        assembler.take(SYSCALL, failed.as_bytes());
        assert!(assembler.pending.is_empty());
        let read = String::from_utf8(syscall_of(2, 9)).unwrap().replace("syscall=59", "syscall=0");
        assembler.take(SYSCALL, read.as_bytes());
        assert_eq!(assembler.take(END, &record(2, "")), None);
        let gone =
            String::from_utf8(syscall_of(3, 9)).unwrap().replace("\"/usr/bin/cat\"", "2F612028 64656C6574656429");
        assembler.take(SYSCALL, gone.as_bytes());
        let gone = gone.replace("2F612028 64656C6574656429", "2F61202864656C6574656429");
        assembler.take(SYSCALL, gone.replace(":3)", ":4)").as_bytes());
        assembler.take(EXECVE, &record(4, "argc=1 a0=\"a\""));
        let exec = assembler.take(END, &record(4, "")).unwrap();
        assert_eq!((exec.executable.as_deref(), exec.deleted), (Some(&b"/a"[..]), true));
    }

    #[test]
    fn what_does_not_end_is_given_up_and_makes_room() {
        let mut assembler = Assembler::new(abis("x86_64"));
        let mut out = Vec::new();
        for serial in 0..200 {
            out.extend(assembler.take(SYSCALL, &syscall_of(serial, 1)));
            assembler.take(EXECVE, &record(serial, "argc=1 a0=\"x\""));
        }
        assert_eq!((out.len(), assembler.pending.len()), (200 - MAX_PENDING, MAX_PENDING));
        assert_eq!(assembler.give_up(1_364_481_364_000_000), []);
        assert_eq!(assembler.give_up(1_364_481_369_000_000).len(), MAX_PENDING);
        assert!(assembler.pending.is_empty());
    }

    #[test]
    fn an_exec_of_which_records_were_dropped_is_still_an_exec_or_counted() {
        let mut assembler = Assembler::new(abis("x86_64"));
        assembler.take(SYSCALL, &syscall_of(1, 9));
        let exec = assembler.take(END, &record(1, "")).unwrap();
        assert_eq!((exec.pid, exec.arguments), (9, None));
        for rest in ["argc=2 a0=\"x\"", " a1[0]=61", " a1[1]=62"] {
            assert_eq!(assembler.take(EXECVE, &record(2, rest)), None);
        }
        assert_eq!((assembler.take(END, &record(2, "")), assembler.take_lost(), assembler.take_lost()), (None, 1, 0));
    }

    #[test]
    fn mangled_records_never_panic() {
        let mut random = fastrand::Rng::with_seed(17);
        let texts = [
            (SYSCALL, syscall_of(7, 42)),
            (EXECVE, record(7, "argc=3 a0=\"cat\" a1_len=8 a1[0]=6162 a1[1]=63 a2=\"\"")),
            (CWD, record(7, "cwd=2F61")),
            (END, record(7, "")),
        ];
        let mut assembler = Assembler::new(abis("x86_64"));
        for _ in 0..20_000 {
            let (kind, text) = &texts[random.usize(..texts.len())];
            let mut mangled = text.clone();
            for _ in 0..random.usize(..4) {
                let at = random.usize(..mangled.len());
                mangled[at] = if random.bool() { random.u8(..) } else { random.choice(*b"0a[]=\"() :.").unwrap() };
            }
            mangled.truncate(random.usize(..=mangled.len() * 4).min(mangled.len()));
            drop(assembler.take(*kind, &mangled));
            assert!(assembler.pending.len() <= MAX_PENDING);
        }
    }
}
