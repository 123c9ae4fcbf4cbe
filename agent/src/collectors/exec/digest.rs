//! SHA-256 of the programs that are executed, for who asks for it.
//!
//! ```text
//! back end --Draft--> thread "exec-pass" --Draft with Sha256--> recorder
//!                       | pid, path      ^ digest, or why not; after a second it is not waited for
//!                       v                |
//!                     thread "exec-hash", which remembers files by device, inode, size and time
//! ```
//!
//! A file may lie on a file system that answers when it likes, so the one thread that reads may be held up, and the
//! events go on without a digest.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use collector_common::collector::{Draft, Emitter, QUEUE_EVENTS, channel};
use collector_common::event::payload::{ExtraDetails, Payload};
use collector_common::root::Root;
use nix::fcntl::OFlag;
use ring::digest::{Context, SHA256};
use tokio::runtime::Handle;

use super::connector::STACK_BYTES;
use super::event::EXECUTABLE_SOURCE;

/// Larger programs are not read.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// So much is read in a minute, whatever is executed.
const MAX_BYTES_A_MINUTE: u64 = 256 * 1024 * 1024;

/// How many files are remembered; when there are more, all are forgotten and read again.
const MAX_REMEMBERED: usize = 1024;

/// An event waits this long for its digest.
const PATIENCE: Duration = Duration::from_secs(1);

/// A digest and whether the very image that ran was read, or why there is none.
type Answer = Result<(String, bool), &'static str>;

/// What to look at.
#[derive(Debug)]
struct Question {
    pid: i64,
    executable: String,
    may_be_elsewhere: bool,
}

/// An emitter whose execs get a digest on their way to `out`.
pub fn in_front_of(out: &Emitter, root: &Root) -> io::Result<Emitter> {
    let (front, mut queue) = channel(BTreeMap::new());
    let (ask, questions) = sync_channel(1);
    let (answer, answers) = sync_channel(1);
    let (mut files, losses, out, runtime) = (Files::new(root.clone()), front.losses(), out.clone(), Handle::current());
    let read = move || answer_all(&questions, &answer, &mut files);
    thread::Builder::new().name("exec-hash".to_owned()).stack_size(STACK_BYTES).spawn(read)?;
    let mut reader = Reader { ask, answers, is_held_up: false };
    let pass = move || {
        while let Some(mut draft) = queue.blocking_recv() {
            add_digest(&mut draft, &mut reader, queue.len());
            losses.take().into_iter().for_each(|(kind, events)| out.lost(kind, events));
            if runtime.block_on(out.send(draft)).is_err() {
                break;
            }
        }
        losses.take().into_iter().for_each(|(kind, events)| out.lost(kind, events));
    };
    thread::Builder::new().name("exec-pass".to_owned()).stack_size(STACK_BYTES).spawn(pass)?;
    Ok(front)
}

fn add_digest(draft: &mut Draft, reader: &mut Reader, waiting: usize) {
    let Some(Payload::ProcessCreate(event)) = &mut draft.payload else { return };
    let answer = if waiting > QUEUE_EVENTS / 2 {
        Err("busy")
    } else {
        // Of a process that was gone before it was looked at, nobody knows where it was.
        let may_be_elsewhere =
            ["ContainerId", EXECUTABLE_SOURCE].iter().any(|key| event.extra_details.contains_key(*key));
        reader.ask(Question { pid: event.process_id, executable: event.executable.clone(), may_be_elsewhere })
    };
    note(&mut event.extra_details, answer);
}

fn note(details: &mut ExtraDetails, answer: Answer) {
    match answer {
        Ok((digest, is_image)) => {
            details.insert("Sha256", digest);
            details.insert("Sha256Source", if is_image { "image" } else { "path" }.to_owned());
        }
        Err(why) => drop(details.insert("Sha256Missing", why.to_owned())),
    }
}

/// The thread that reads, seen from outside.
struct Reader {
    ask: SyncSender<Question>,
    answers: Receiver<Answer>,
    /// An answer is still to come that nobody waits for any more.
    is_held_up: bool,
}

impl Reader {
    fn ask(&mut self, question: Question) -> Answer {
        if self.is_held_up && self.answers.try_recv().is_err() {
            return Err("busy");
        }
        self.is_held_up = false;
        if self.ask.try_send(question).is_err() {
            return Err("busy");
        }
        self.answers.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            self.is_held_up = true;
            Err("busy")
        })
    }
}

fn answer_all(questions: &Receiver<Question>, answer: &SyncSender<Answer>, files: &mut Files) {
    while let Ok(question) = questions.recv() {
        if answer.send(files.digest(&question)).is_err() {
            break;
        }
    }
}

/// What a file is the same by.
type Identity = (u64, u64, u64, i64, i64, i64, i64);

struct Files {
    root: Root,
    known: HashMap<Identity, String>,
    minute: Instant,
    bytes: u64,
}

impl Files {
    fn new(root: Root) -> Files {
        Files { root, known: HashMap::new(), minute: Instant::now(), bytes: 0 }
    }

    fn digest(&mut self, question: &Question) -> Answer {
        let (file, is_image) = self.open(question).ok_or("gone")?;
        let file_is = file.metadata().map_err(|_| "gone")?;
        if !file_is.is_file() {
            return Err("gone");
        }
        let times = (file_is.mtime(), file_is.mtime_nsec(), file_is.ctime(), file_is.ctime_nsec());
        let identity = (file_is.dev(), file_is.ino(), file_is.len(), times.0, times.1, times.2, times.3);
        if let Some(digest) = self.known.get(&identity) {
            return Ok((digest.clone(), is_image));
        }
        if file_is.len() > MAX_FILE_BYTES {
            return Err("large");
        }
        if self.minute.elapsed() > Duration::from_secs(60) {
            (self.minute, self.bytes) = (Instant::now(), 0);
        }
        self.bytes = self.bytes.saturating_add(file_is.len());
        if self.bytes > MAX_BYTES_A_MINUTE {
            return Err("busy");
        }
        let digest = sha256(file).map_err(|_| "unreadable")?;
        if self.known.len() >= MAX_REMEMBERED {
            self.known.clear();
        }
        self.known.insert(identity, digest.clone());
        Ok((digest, is_image))
    }

    /// The image of the process while it is the one that was noticed, else what lies at its path now, where that is
    /// the path of a file of ours.
    fn open(&self, question: &Question) -> Option<(File, bool)> {
        let link = self.root.path(format!("/proc/{}/exe", question.pid));
        let image = open_without_waiting(&link);
        let runs = fs::read_link(&link).ok();
        let is_it = runs.is_some_and(|runs| {
            let runs = runs.to_string_lossy();
            runs.strip_suffix(" (deleted)").unwrap_or(&runs) == question.executable || runs == question.executable
        });
        if let Some(image) = image.filter(|_| is_it) {
            return Some((image, true));
        }
        let is_path = question.executable.starts_with('/') && !question.may_be_elsewhere;
        Some((open_without_waiting(&self.root.path(&question.executable)).filter(|_| is_path)?, false))
    }
}

/// A named pipe would hold the opening up until somebody writes.
fn open_without_waiting(path: &Path) -> Option<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).ok()
}

fn sha256(mut file: File) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    let mut left = MAX_FILE_BYTES;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            bytes => {
                left = left.checked_sub(bytes as u64).ok_or(io::ErrorKind::FileTooLarge)?;
                context.update(&buffer[..bytes]);
            }
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn question(pid: i64, executable: &Path) -> Question {
        Question { pid, executable: executable.to_str().unwrap().to_owned(), may_be_elsewhere: false }
    }

    fn by_coreutils(path: &Path) -> String {
        let out = Command::new("sha256sum").arg(path).output().unwrap().stdout;
        String::from_utf8(out).unwrap().split(' ').next().unwrap().to_owned()
    }

    #[test]
    fn the_image_that_runs_is_read_and_not_what_lies_at_its_path_now() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("x");
        fs::copy("/bin/sleep", &path).unwrap();
        let expected = by_coreutils(&path);
        // Another test may have the file open for writing in a child of its own for a moment.
        let mut child = loop {
            match Command::new(&path).arg("100").spawn() {
                Ok(child) => break child,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy),
            }
        };
        fs::remove_file(&path).unwrap();
        fs::write(&path, "something else").unwrap();
        let mut files = Files::new(Root::host());
        let of_child = question(child.id().into(), &path);
        assert_eq!(files.digest(&of_child), Ok((expected, true)));
        let read = files.bytes;
        assert!(files.digest(&of_child).is_ok());
        assert_eq!(files.bytes, read, "it is remembered");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(files.digest(&of_child), Ok((by_coreutils(&path), false)), "what is at its path now, and said so");
        assert_eq!(files.digest(&Question { may_be_elsewhere: true, ..of_child }), Err("gone"));
    }

    #[test]
    fn a_file_that_changed_is_read_again_and_what_cannot_be_read_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let mut files = Files::new(Root::host());
        let at_path = question(0, &path);
        assert_eq!(files.digest(&at_path), Err("gone"));
        fs::write(&path, "one").unwrap();
        let first = files.digest(&at_path).unwrap();
        fs::write(&path, "three").unwrap();
        assert_ne!(files.digest(&at_path).unwrap(), first);
        File::options().write(true).open(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(files.digest(&at_path), Err("large"));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(files.digest(&at_path), Err("gone"));
    }

    #[test]
    fn a_reader_that_is_held_up_costs_digests_and_no_events() {
        let (ask, _questions) = sync_channel(1);
        let (late, answers) = sync_channel(1);
        let mut reader = Reader { ask, answers, is_held_up: true };
        let any = || question(1, Path::new("/x"));
        assert_eq!(reader.ask(any()), Err("busy"));
        late.send(Ok(("of an earlier question".to_owned(), true))).unwrap();
        assert_eq!(reader.ask(any()), Err("busy"), "nobody answers this one");
        assert!(reader.is_held_up);
    }
}
