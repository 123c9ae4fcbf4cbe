//! What `/proc` says about a process, read as fast as it can be, because the process may end meanwhile.
//!
//! The directory is opened first and everything is opened below it: the descriptor stands for that one process, so
//! that nothing read here can be of another one that got the same number later. What it cannot exclude is that the
//! process executes once more between two reads; that is noticed by looking at `exe` twice.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use collector_common::parse::cmdline::{ArgumentArea, HEAD_BYTES, TAIL_BYTES};
use collector_common::parse::proc_pid::{self, Stat, Status, Uids};
use collector_common::root::Root;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;

use super::event::script_as_named;

/// `stat`, `status` and their like are shorter; a `cgroup` file of a deep version 1 hierarchy may not be.
const FILE_BYTES: usize = 8192;

/// What the kernel writes behind the path of a file that is deleted.
pub const DELETED: &[u8] = b" (deleted)";

/// What is known about a process. `None` is what was gone or not ours to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The path of the program, as the process sees it. `/memfd:NAME` for one that never was a file.
    pub executable: Option<Vec<u8>>,
    /// That path is only what was asked for: it may be a link, a script, or begin where the process is.
    pub is_only_asked_for: bool,
    /// The file was deleted, or never was one.
    pub deleted: bool,
    /// Its arguments.
    pub arguments: Option<ArgumentArea>,
    /// Name, parent, start.
    pub stat: Option<Stat>,
    /// Who it runs as.
    pub uids: Option<Uids>,
    /// Who logged in, a long way up.
    pub login_uid: Option<u32>,
    /// Which container it is in.
    pub container: Option<String>,
    /// The program of its parent.
    pub parent_executable: Option<Vec<u8>>,
    /// What was executed, where the kernel told that it is a script or the like; may be named from `directory`.
    pub script: Option<Vec<u8>>,
    /// Where it is, if it was asked because a script may be named from there.
    pub directory: Option<Vec<u8>>,
    /// The number of its pid namespace, when it is not ours.
    pub pid_namespace: Option<u32>,
    /// The number of its network namespace, when it is not ours.
    pub net_namespace: Option<u32>,
    /// It executed again while it was read: path and arguments may not belong together.
    pub changed: bool,
}

impl Image {
    /// Reads what there is of a process that executed just now. What disappears first is read first, and nothing that
    /// no event needs: each file of `/proc` costs some microseconds at every exec of the machine, most of it for
    /// making its inode. When the process was made is not looked up.
    pub fn of_exec(proc: &Proc, pid: i32) -> Image {
        proc.process(pid).map(|process| process.image(true)).unwrap_or_default()
    }

    /// Reads what there is of a process.
    pub fn read(root: &Root, pid: i32) -> Image {
        Image::read_parts(root, pid, true)
    }

    /// The same without what can hold the reader up: the arguments lie in the memory of the process, and it is not looked
    /// up what is at the path of its program. Both may be on a file system that answers when it likes.
    pub fn read_without_arguments(root: &Root, pid: i32) -> Image {
        Image::read_parts(root, pid, false)
    }

    fn read_parts(root: &Root, pid: i32, with_arguments: bool) -> Image {
        let Ok(proc) = Proc::open(root) else { return Image::default() };
        let Some(process) = proc.process(pid) else { return Image::default() };
        let image = process.image(with_arguments);
        let stat = process.stat().or(image.stat);
        let again = process.executable(with_arguments).0;
        let changed = again.is_some() && image.executable.is_some() && again != image.executable;
        Image { stat, changed, ..image }
    }

    /// What tells where a process belongs. Nothing of it can hold up whoever reads it.
    pub fn surroundings(root: &Root, pid: i32) -> Image {
        let Ok(proc) = Proc::open(root) else { return Image::default() };
        let Some(process) = proc.process(pid) else { return Image::default() };
        let (executable, deleted) = process.executable(false);
        Image {
            executable,
            deleted,
            container: process.file("cgroup", proc_pid::container_id),
            pid_namespace: process.namespace("pid"),
            net_namespace: process.namespace("net"),
            stat: process.stat(),
            ..Image::default()
        }
    }

    /// Whether there is a program to speak of: not so for threads of the kernel and for what already ended.
    pub fn is_program(&self) -> bool {
        let kernel = self.stat.as_ref().is_some_and(Stat::is_kernel_thread);
        !kernel && (self.executable.is_some() || self.arguments.is_some())
    }
}

/// `/proc`, to be looked into again and again.
pub struct Proc {
    path: PathBuf,
    directory: OwnedFd,
}

impl Proc {
    /// Opens it.
    pub fn open(root: &Root) -> io::Result<Proc> {
        let path = root.path("/proc");
        let directory = open(&path, DIRECTORY, Mode::empty())?;
        Ok(Proc { path, directory })
    }

    fn process(&self, pid: i32) -> Option<Process<'_>> {
        let directory = openat(&self.directory, pid.to_string().as_str(), DIRECTORY, Mode::empty()).ok()?;
        Some(Process { proc: self, pid, directory })
    }

    fn executable(&self, pid: i32) -> Option<Vec<u8>> {
        let link = readlinkat(&self.directory, format!("{pid}/exe").as_str()).ok()?.into_vec();
        Some(link.strip_suffix(DELETED).map(<[u8]>::to_vec).unwrap_or(link))
    }
}

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// The directory of a process. It stands for this one process, whoever gets its number later.
struct Process<'a> {
    proc: &'a Proc,
    pid: i32,
    directory: OwnedFd,
}

impl Process<'_> {
    fn image(&self, with_arguments: bool) -> Image {
        let area = with_arguments.then(|| self.arguments()).flatten();
        let (executable, deleted) = self.executable(with_arguments);
        let status = self.file("status", Status::parse);
        // A process that ended has no memory, and then its argument area reads as empty instead of failing.
        let arguments = area.filter(|area| executable.is_some() || !area.head.is_empty());
        let parent = status.as_ref().map_or(0, |status| status.parent_pid);
        let is_in_our_pid_namespace = status.as_ref().and_then(|status| status.is_in_our_pid_namespace);
        let pid_namespace = (is_in_our_pid_namespace != Some(true)).then(|| self.namespace("pid")).flatten();
        let mut image = Image {
            executable,
            is_only_asked_for: false,
            deleted,
            arguments: arguments.map(|area| self.complete(area)),
            uids: status.as_ref().map(|status| status.uids),
            stat: status.map(|status| Stat::of_exec(status.name, status.parent_pid, 0)),
            login_uid: self.file("loginuid", proc_pid::login_uid),
            container: self.file("cgroup", proc_pid::container_id),
            parent_executable: (parent > 0).then(|| self.proc.executable(parent)).flatten(),
            pid_namespace,
            net_namespace: self.namespace("net"),
            script: None,
            directory: None,
            changed: false,
        };
        // Whoever has the arguments from elsewhere finds the name of a script in them later.
        if !with_arguments || script_as_named(&image).is_some_and(|script| !script.starts_with(b"/")) {
            image.directory = self.link("cwd");
        }
        image
    }

    fn arguments(&self) -> Option<ArgumentArea> {
        let mut room = [0; HEAD_BYTES];
        let bytes = self.fill("cmdline", 0, &mut room).ok()?;
        Some(ArgumentArea::whole(&room[..bytes]))
    }

    /// Reads the end of an area whose beginning filled the room for it. The length comes from `stat`; where we may not
    /// know it, the rest is counted as far as one more room goes.
    fn complete(&self, mut area: ArgumentArea) -> ArgumentArea {
        if area.head.len() < HEAD_BYTES {
            return area;
        }
        let (head, tail) = (HEAD_BYTES as u64, TAIL_BYTES as u64);
        let known = self.stat().map_or(0, |stat| stat.argument_bytes());
        let tail_at = known.saturating_sub(tail).max(head);
        let mut room = [0; TAIL_BYTES];
        let bytes = self.fill("cmdline", tail_at, &mut room).unwrap_or(0);
        area.tail = room[..bytes].to_vec();
        let total = known.max(tail_at.saturating_add(bytes as u64));
        area.unread_bytes = total - head - bytes as u64;
        area
    }

    fn stat(&self) -> Option<Stat> {
        self.file("stat", Stat::parse)
    }

    /// The path of its program and whether that is gone. The kernel writes ` (deleted)` behind the path of a file that
    /// is, and a file may be called that: then the path with the mark leads to the very file that runs. To follow it may
    /// take any time.
    fn executable(&self, follow: bool) -> (Option<Vec<u8>>, bool) {
        let Some(link) = self.link("exe") else { return (None, false) };
        let Some(path) = link.strip_suffix(DELETED) else { return (Some(link), false) };
        if !follow {
            return (Some(path.to_vec()), true);
        }
        let directory = self.proc.path.join(self.pid.to_string());
        let named = directory.join("root").join(OsStr::from_bytes(link.strip_prefix(b"/").unwrap_or(&link)));
        match (fs::metadata(directory.join("exe")), fs::metadata(named)) {
            (Ok(runs), Ok(named)) if (runs.dev(), runs.ino()) == (named.dev(), named.ino()) => (Some(link), false),
            _ => (Some(path.to_vec()), true),
        }
    }

    /// The number of a namespace of it that is not ours.
    fn namespace(&self, kind: &str) -> Option<u32> {
        proc_pid::namespace(&self.link(&format!("ns/{kind}"))?).filter(|number| is_foreign(kind, *number))
    }

    fn link(&self, name: &str) -> Option<Vec<u8>> {
        readlinkat(&self.directory, name).ok().map(OsStringExt::into_vec)
    }

    /// `name` is one of the small files.
    fn file<T>(&self, name: &str, parse: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let mut room = [0; FILE_BYTES];
        let bytes = self.fill(name, 0, &mut room).ok()?;
        parse(&room[..bytes])
    }

    /// Reads in one call: the kernel writes such a file anew for each, as much of it as there is room for, and
    /// a process that is about to end does not wait for a second one.
    fn fill(&self, name: &str, offset: u64, room: &mut [u8]) -> nix::Result<usize> {
        let file = openat(&self.directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let offset = offset.try_into().map_err(|_| Errno::EOVERFLOW)?;
        loop {
            match pread(&file, room, offset) {
                Err(Errno::EINTR) => {}
                read => return read,
            }
        }
    }
}

/// The namespaces of the agent, which is where the events of a machine are expected to be from.
static OWN_NAMESPACES: LazyLock<[(&str, Option<u32>); 2]> =
    LazyLock::new(|| ["pid", "net"].map(|kind| (kind, own_namespace(kind))));

fn own_namespace(kind: &str) -> Option<u32> {
    proc_pid::namespace(fs::read_link(format!("/proc/self/ns/{kind}")).ok()?.as_os_str().as_bytes())
}

/// Whether a namespace is another one than ours.
pub fn is_foreign(kind: &str, number: u32) -> bool {
    OWN_NAMESPACES.iter().any(|(own_kind, own)| *own_kind == kind && own.is_some_and(|own| own != number))
}

/// Whether this process has a capability, as far as `/proc` tells. Where it does not, nothing is said to be missing.
pub fn may(root: &Root, capability: u32) -> bool {
    let status = fs::read(root.path("/proc/self/status")).ok();
    status.and_then(|status| proc_pid::has_capability(&status, capability)).unwrap_or(true)
}

/// When a process was made, in the unit of [`Stat::start_ticks`].
pub fn start_ticks(root: &Root, pid: i32) -> Option<u64> {
    Stat::parse(&fs::read(root.path(format!("/proc/{pid}/stat"))).ok()?).map(|stat| stat.start_ticks)
}

/// The program of a process that is named as the parent of another; 0 is none.
pub fn parent_executable(root: &Root, pid: i32) -> Option<Vec<u8>> {
    Proc::open(root).ok()?.executable(pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc;
    use std::time::Duration;

    fn pid_of(child: &Child) -> i32 {
        i32::try_from(child.id()).unwrap()
    }

    /// Other tests fork at the same time, and a child of theirs may hold a file open that was written just now.
    fn spawn(command: &mut Command) -> Child {
        loop {
            match command.spawn() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                child => return child.unwrap(),
            }
        }
    }

    /// `spawn` returns in the middle of the exec, before the arguments are in place.
    fn image_of(child: &Child) -> Image {
        loop {
            let image = Image::read(&Root::host(), pid_of(child));
            if image.arguments.as_ref().is_some_and(|area| !area.head.is_empty()) {
                return image;
            }
            std::thread::yield_now();
        }
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// A copy of `sleep` under a name of our choice.
    fn copy_of_sleep(directory: &Path, name: &str) -> std::path::PathBuf {
        let path = directory.join(name);
        fs::copy("/bin/sleep", &path).unwrap();
        path
    }

    #[test]
    fn a_running_program_is_known_whole() {
        let child = spawn(Command::new("/bin/sleep").arg("30"));
        let image = image_of(&child);
        assert_eq!(image.executable.as_deref(), Some(fs::canonicalize("/bin/sleep").unwrap().as_os_str().as_bytes()));
        assert_eq!(image.arguments, Some(ArgumentArea::whole(*b"/bin/sleep\x0030\0")));
        let stat = image.stat.clone().unwrap();
        assert_eq!(
            (stat.name.as_slice(), stat.parent_pid),
            (&b"sleep"[..], i32::try_from(std::process::id()).unwrap())
        );
        assert_eq!(image.uids.map(|uids| uids.real), Some(nix::unistd::getuid().as_raw()));
        let own = std::env::current_exe().unwrap();
        assert_eq!(image.parent_executable.as_deref(), Some(own.as_os_str().as_bytes()));
        assert!(image.is_program() && !image.deleted && !image.changed);
        end(child);
    }

    #[test]
    fn a_deleted_program_keeps_its_path_and_one_that_is_called_deleted_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let (path, named) = (copy_of_sleep(directory.path(), "x"), copy_of_sleep(directory.path(), "y (deleted)"));
        let mut child = spawn(Command::new(&path).arg("30"));
        fs::remove_file(&path).unwrap();
        let image = image_of(&child);
        assert_eq!((image.executable.as_deref(), image.deleted), (Some(path.as_os_str().as_bytes()), true));
        end(child);
        child = spawn(Command::new(&named).arg("30"));
        let image = image_of(&child);
        assert_eq!((image.executable.as_deref(), image.deleted), (Some(named.as_os_str().as_bytes()), false));
        // The file system of the program may answer when it likes, so who may not wait does not ask it.
        let without_mark = directory.path().join("y").into_os_string().into_vec();
        for image in
            [Image::surroundings, Image::read_without_arguments].map(|read| read(&Root::host(), pid_of(&child)))
        {
            assert_eq!((image.executable.as_ref(), image.deleted), (Some(&without_mark), true));
        }
        end(child);
    }

    /// The program is deleted, and a file system of which the server says nothing is where it was.
    #[test]
    fn a_file_system_that_does_not_answer_holds_up_nobody_who_may_not_wait() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("not run: only root may mount");
        }
        let directory = tempfile::tempdir().unwrap();
        copy_of_sleep(directory.path(), "x");
        let script = r#"
            "$0/x" 1000 & until [ "$(readlink /proc/$!/exe)" = "$0/x" ]; do :; done
            rm "$0/x" && exec 5<>/dev/fuse && mount -i -t fuse -o fd=5,rootmode=40000,user_id=0,group_id=0 none "$0" && echo $!
            read line; kill $!"#;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = spawn(&mut command);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if let Ok(pid) = line.trim().parse() {
            let (tell, told) = mpsc::sync_channel(1);
            std::thread::spawn(move || {
                let image = Image::read_without_arguments(&Root::host(), pid);
                drop(tell.send([image, Image::surroundings(&Root::host(), pid)]));
            });
            let images = told.recv_timeout(Duration::from_secs(20));
            let path = directory.path().join("x").into_os_string().into_vec();
            let told = images.map(|images| images.map(|image| (image.executable, image.deleted)));
            assert_eq!(told, Ok([(Some(path.clone()), true), (Some(path), true)]));
        } else {
            eprintln!("not run: there is no FUSE here");
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn long_arguments_are_read_at_both_ends_only() {
        let long = "y".repeat(100_000);
        let child = spawn(Command::new("/bin/sh").args(["-c", "read line", &long, "last"]).stdin(Stdio::piped()));
        let image = image_of(&child);
        let area = image.arguments.unwrap();
        assert_eq!((area.head.len(), area.tail.len()), (HEAD_BYTES, TAIL_BYTES));
        assert_eq!(area.total_bytes(), ("/bin/sh -c read line  last ".len() + long.len()) as u64);
        assert!(area.head.starts_with(b"/bin/sh\0-c\0read line\0yyy") && area.tail.ends_with(b"yyy\0last\0"));
        end(child);
    }

    #[test]
    fn a_script_is_its_interpreter_and_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("a script with a long name");
        let mut file = File::create(&script).unwrap();
        file.write_all(b"#!/bin/sh\nread line\n").unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
        drop(file);
        let mut command = Command::new("./a script with a long name");
        let mut child = spawn(command.current_dir(directory.path()).stdin(Stdio::piped()));
        let image = image_of(&child);
        child.stdin.take();
        child.wait().unwrap();
        assert_eq!(image.executable.as_deref(), Some(fs::canonicalize("/bin/sh").unwrap().as_os_str().as_bytes()));
        assert_eq!(image.stat.unwrap().name, b"a script with a");
        assert_eq!(image.directory.as_deref(), Some(directory.path().as_os_str().as_bytes()));
    }

    #[test]
    fn what_ended_leaves_a_name_and_ids_until_it_is_waited_for() {
        let mut child = spawn(&mut Command::new("/bin/true"));
        let pid = pid_of(&child);
        let ended = || fs::read(format!("/proc/{pid}/stat")).unwrap().windows(3).any(|part| part == b" Z ");
        while !ended() {
            std::thread::yield_now();
        }
        let image = Image::read(&Root::host(), pid);
        assert_eq!((image.executable.as_ref(), image.arguments.as_ref()), (None, None));
        assert_eq!(image.stat.as_ref().unwrap().name, b"true");
        assert!(image.uids.is_some() && !image.is_program());
        child.wait().unwrap();
        assert_eq!(Image::read(&Root::host(), pid), Image::default());
    }

    #[test]
    fn threads_of_the_kernel_are_no_programs() {
        let kthread = fs::read_dir("/proc").unwrap().find_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)?;
            stat.is_kernel_thread().then_some(pid)
        });
        match kthread {
            Some(pid) => assert!(!Image::read(&Root::host(), pid).is_program()),
            None => eprintln!("not run: this pid namespace has no threads of the kernel"),
        }
    }
}
