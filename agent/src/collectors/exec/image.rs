//! What `/proc` says about a process, read as fast as it can be, because the process may end meanwhile.
//!
//! The directory is opened first and everything is opened below it: the descriptor stands for that one process, so
//! that nothing read here can be of another one that got the same number later. What it cannot exclude is that the
//! process executes once more between two reads; that is noticed by looking at `exe` twice.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::LazyLock;

use collector_common::parse::cmdline::{ArgumentArea, HEAD_BYTES, TAIL_BYTES};
use collector_common::parse::proc_pid::{self, Stat, Uids};
use collector_common::root::Root;
use procfs::process::Process;

/// `stat`, `status` and their like are shorter; a `cgroup` file of a deep version 1 hierarchy may not be.
const FILE_BYTES: usize = 8192;

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
    /// Reads what there is of a process. What disappears first is read first.
    pub fn read(root: &Root, pid: i32) -> Image {
        Image::read_parts(root, pid, true)
    }

    /// The same without the arguments. Those lie in the memory of the process, which may be on a file system that
    /// answers when it likes; nothing else here can hold the reader up.
    pub fn read_without_arguments(root: &Root, pid: i32) -> Image {
        Image::read_parts(root, pid, false)
    }

    fn read_parts(root: &Root, pid: i32, with_arguments: bool) -> Image {
        let directory = root.path("/proc").join(pid.to_string());
        let Ok(process) = Process::new_with_root(directory.clone()) else {
            return Image::default();
        };
        let area = with_arguments.then(|| arguments(&process)).flatten();
        let link = process.exe().ok().map(|path| path.into_os_string().into_vec());
        let stat = file(&process, "stat").and_then(|text| Stat::parse(&text));
        let uids = file(&process, "status").and_then(|text| proc_pid::uids(&text));
        let again = process.exe().ok().map(|path| path.into_os_string().into_vec());
        let changed = again.is_some() && link.is_some() && again != link;
        // A process that ended has no memory, and then its argument area reads as empty instead of failing.
        let arguments = area.filter(|area| link.is_some() || !area.head.is_empty());
        let parent = stat.as_ref().map_or(0, |stat| stat.parent_pid);
        let (executable, deleted) = link.map_or((None, false), |link| without_mark(&directory, link));
        Image {
            executable,
            is_only_asked_for: false,
            deleted,
            arguments: arguments.map(|area| complete(&process, area, stat.as_ref())),
            login_uid: file(&process, "loginuid").and_then(|text| proc_pid::login_uid(&text)),
            container: file(&process, "cgroup").and_then(|text| proc_pid::container_id(&text)),
            parent_executable: parent_executable(root, parent),
            directory: process.cwd().ok().map(|path| path.into_os_string().into_vec()),
            script: None,
            pid_namespace: namespace(&directory, "pid").filter(|number| is_foreign("pid", *number)),
            net_namespace: namespace(&directory, "net").filter(|number| is_foreign("net", *number)),
            stat,
            uids,
            changed,
        }
    }

    /// What tells where a process belongs. Nothing of it lies in the memory of the process, which could hold up whoever
    /// reads it.
    pub fn surroundings(root: &Root, pid: i32) -> Image {
        let directory = root.path("/proc").join(pid.to_string());
        let Ok(process) = Process::new_with_root(directory.clone()) else {
            return Image::default();
        };
        let link = process.exe().ok().map(|path| path.into_os_string().into_vec());
        let (executable, deleted) = link.map_or((None, false), |link| without_mark(&directory, link));
        Image {
            executable,
            deleted,
            container: file(&process, "cgroup").and_then(|text| proc_pid::container_id(&text)),
            pid_namespace: namespace(&directory, "pid").filter(|number| is_foreign("pid", *number)),
            net_namespace: namespace(&directory, "net").filter(|number| is_foreign("net", *number)),
            stat: file(&process, "stat").and_then(|text| Stat::parse(&text)),
            ..Image::default()
        }
    }

    /// Whether there is a program to speak of: not so for threads of the kernel and for what already ended.
    pub fn is_program(&self) -> bool {
        let kernel = self.stat.as_ref().is_some_and(Stat::is_kernel_thread);
        !kernel && (self.executable.is_some() || self.arguments.is_some())
    }
}

/// The namespaces of the agent, which is where the events of a machine are expected to be from.
static OWN_NAMESPACES: LazyLock<[(&str, Option<u32>); 2]> =
    LazyLock::new(|| ["pid", "net"].map(|kind| (kind, namespace(Path::new("/proc/self"), kind))));

/// Whether a namespace is another one than ours.
pub fn is_foreign(kind: &str, number: u32) -> bool {
    OWN_NAMESPACES.iter().any(|(own_kind, own)| *own_kind == kind && own.is_some_and(|own| own != number))
}

fn namespace(directory: &Path, kind: &str) -> Option<u32> {
    proc_pid::namespace(fs::read_link(directory.join("ns").join(kind)).ok()?.as_os_str().as_bytes())
}

/// Whether this process has a capability, as far as `/proc` tells. Where it does not, nothing is said to be missing.
pub fn may(root: &Root, capability: u32) -> bool {
    let status = || read_at_most(File::open(root.path("/proc/self/status")).ok()?, FILE_BYTES).ok();
    status().and_then(|status| proc_pid::has_capability(&status, capability)).unwrap_or(true)
}

/// When a process was made, in the unit of [`Stat::start_ticks`].
pub fn start_ticks(root: &Root, pid: i32) -> Option<u64> {
    let stat = File::open(root.path(format!("/proc/{pid}/stat"))).ok()?;
    Stat::parse(&read_at_most(stat, FILE_BYTES).ok()?).map(|stat| stat.start_ticks)
}

fn arguments(process: &Process) -> Option<ArgumentArea> {
    let file = process.open_relative("cmdline").ok()?;
    Some(ArgumentArea::whole(read_at_most(file, HEAD_BYTES).ok()?))
}

/// Reads the end of an area whose beginning filled the room for it. The length comes from `stat`; where we may not
/// know it, the rest is counted as far as one more room goes.
fn complete(process: &Process, mut area: ArgumentArea, stat: Option<&Stat>) -> ArgumentArea {
    if area.head.len() < HEAD_BYTES {
        return area;
    }
    let (head, tail) = (HEAD_BYTES as u64, TAIL_BYTES as u64);
    let known = stat.map_or(0, |stat| stat.argument_bytes());
    let tail_at = known.saturating_sub(tail).max(head);
    let read = || -> io::Result<Vec<u8>> {
        let mut file = process.open_relative("cmdline").map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(tail_at))?;
        read_at_most(file, TAIL_BYTES)
    };
    area.tail = read().unwrap_or_default();
    let total = known.max(tail_at.saturating_add(area.tail.len() as u64));
    area.unread_bytes = total - head - area.tail.len() as u64;
    area
}

/// The kernel writes ` (deleted)` behind the path of a file that is gone, and a file may be called that: then the
/// path with the mark leads to the very file that runs.
fn without_mark(directory: &Path, link: Vec<u8>) -> (Option<Vec<u8>>, bool) {
    let Some(path) = link.strip_suffix(b" (deleted)") else {
        return (Some(link), false);
    };
    let named = directory.join("root").join(OsStr::from_bytes(link.strip_prefix(b"/").unwrap_or(&link)));
    match (fs::metadata(directory.join("exe")), fs::metadata(named)) {
        (Ok(runs), Ok(named)) if (runs.dev(), runs.ino()) == (named.dev(), named.ino()) => (Some(link), false),
        _ => (Some(path.to_vec()), true),
    }
}

/// The program of a process that is named as the parent of another; 0 is none.
pub fn parent_executable(root: &Root, pid: i32) -> Option<Vec<u8>> {
    let link = fs::read_link(root.path(format!("/proc/{pid}/exe"))).ok()?.into_os_string().into_vec();
    Some(link.strip_suffix(b" (deleted)").map(<[u8]>::to_vec).unwrap_or(link))
}

/// `name` is one of the small files.
fn file(process: &Process, name: &str) -> Option<Vec<u8>> {
    read_at_most(process.open_relative(name).ok()?, FILE_BYTES).ok()
}

/// Reads with all the room at once: the kernel writes such a file anew for each call, and a process that is about to
/// end does not wait for a second one.
fn read_at_most(mut file: File, bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match file.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.truncate(filled);
    out.shrink_to_fit();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Child, Command, Stdio};

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
        end(child);
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
