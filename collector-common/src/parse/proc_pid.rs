//! The files of `/proc/PID` that say what a process is (`proc(5)`, `Documentation/filesystems/proc.rst`).
//!
//! ```text
//! stat      4711 (na) me) S 1 4711 ...    the name may hold anything, the last `)` ends it; then state, ppid (4th),
//!                                         flags (9th), starttime (22nd), arg_start, arg_end, env_start, env_end (48th to 51st)
//! status    Name:\tsh                    a newline in it is written \n, a backslash \\
//!           PPid:\t12
//!           Uid:\t1000\t0\t0\t0           real, effective, saved, file system
//!           NSpid:\t4711\t1              one number for each pid namespace, the outermost first (Linux 4.1)
//! loginuid  1000                          4294967295 when nobody logged in
//! cgroup    0::/system.slice/docker-0123456789abcdef...64 hex digits....scope
//! ```

/// `PF_FORKNOEXEC` of `include/linux/sched.h`: forked, and has not executed a program of its own.
const FORKED_WITHOUT_EXEC: u64 = 0x40;

/// `PF_KTHREAD`: a thread of the kernel, which is no program.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// A login uid nobody has set, `(uid_t) -1`.
const UNSET: u32 = u32::MAX;

/// What `stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The name of the program as it was executed, at most 15 bytes, until the process changes it.
    pub name: Vec<u8>,
    /// The parent; 0 for the first process and for one whose parent is in another pid namespace.
    pub parent_pid: i32,
    /// When the process was made, in hundredths of a second since boot (`USER_HZ` is 100 on every architecture with
    /// a kernel of this century but alpha and ia64), suspend included.
    pub start_ticks: u64,
    /// Where the argument area begins and ends, and the same of the environment; 0 when we may not know.
    pub places: [u64; 4],
    flags: u64,
}

/// What `status` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The same as [`Stat::name`].
    pub name: Vec<u8>,
    /// The same as [`Stat::parent_pid`].
    pub parent_pid: i32,
    /// Who it runs as.
    pub uids: Uids,
    /// Whether its pid namespace is that of whoever mounted `/proc`. `None` where the kernel does not tell.
    pub is_in_our_pid_namespace: Option<bool>,
}

/// Real and effective uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uids {
    /// Who started it.
    pub real: u32,
    /// Whose rights it has.
    pub effective: u32,
}

impl Stat {
    /// Reads `/proc/PID/stat`.
    pub fn parse(text: &[u8]) -> Option<Stat> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let name = text.get(open + 1..close)?.to_vec();
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        // The first field behind the name is the third of the line.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            name,
            parent_pid: i32::try_from(number(4)?).ok()?,
            flags: number(9)?,
            start_ticks: number(22)?,
            places: [48, 49, 50, 51].map(|field| number(field).unwrap_or(0)),
        })
    }

    /// What is known of a program that executed without asking this file.
    pub fn of_exec(name: Vec<u8>, parent_pid: i32, start_ticks: u64) -> Stat {
        Stat { name, parent_pid, start_ticks, places: [0; 4], flags: 0 }
    }

    /// Where the argument area begins; 0 when we may not know.
    pub fn arguments_at(&self) -> u64 {
        self.places[0]
    }

    /// Length of the argument area in bytes; 0 when we may not know.
    pub fn argument_bytes(&self) -> u64 {
        self.places[1].saturating_sub(self.places[0])
    }

    /// Whether it still runs its parent's program.
    pub fn has_not_executed(&self) -> bool {
        self.flags & FORKED_WITHOUT_EXEC != 0
    }

    /// Whether it is a thread of the kernel.
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & KERNEL_THREAD != 0
    }
}

impl Status {
    /// Reads `/proc/PID/status`. No name can begin a line of its own.
    pub fn parse(text: &[u8]) -> Option<Status> {
        let field = |name: &[u8]| text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name));
        let numbers = |name: &[u8]| Some(std::str::from_utf8(field(name)?).ok()?.split_ascii_whitespace());
        let mut uids = numbers(b"Uid:")?.map(str::parse);
        Some(Status {
            name: without_escapes(field(b"Name:\t")?),
            parent_pid: numbers(b"PPid:")?.next()?.parse().ok().filter(|pid| *pid >= 0)?,
            uids: Uids { real: uids.next()?.ok()?, effective: uids.next()?.ok()? },
            is_in_our_pid_namespace: numbers(b"NSpid:").map(|pids| pids.count() <= 1),
        })
    }
}

/// Undoes `proc_task_name` of `fs/proc/array.c`.
fn without_escapes(name: &[u8]) -> Vec<u8> {
    let mut bytes = name.iter().copied();
    let next = || {
        let byte = bytes.next()?;
        if byte != b'\\' {
            return Some(byte);
        }
        bytes.next().map(|escaped| if escaped == b'n' { b'\n' } else { escaped })
    };
    std::iter::from_fn(next).collect()
}

/// Whether the effective capabilities in `/proc/PID/status` hold the one with this number (`capabilities(7)`,
/// `include/uapi/linux/capability.h`).
pub fn has_capability(status: &[u8], number: u32) -> Option<bool> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"CapEff:"))?;
    let set = u64::from_str_radix(std::str::from_utf8(line).ok()?.trim(), 16).ok()?;
    Some(set.checked_shr(number)? & 1 == 1)
}

/// The number of a namespace, as a link in `/proc/PID/ns` tells it: `net:[4026531833]`.
pub fn namespace(link: &[u8]) -> Option<u32> {
    let number = link.strip_suffix(b"]")?.rsplit(|byte| *byte == b'[').next()?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Reads `/proc/PID/loginuid`.
pub fn login_uid(text: &[u8]) -> Option<u32> {
    let uid = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
    (uid != UNSET).then_some(uid)
}

/// The container a process is in, by the name of its control group, of version 1 or 2. The innermost, if there are
/// several: 64 hexadecimal digits for Docker, containerd, Podman and CRI-O, the container's name for LXC and
/// systemd-nspawn. Not so for the process that looks after a container from outside.
pub fn container_id(cgroup: &[u8]) -> Option<String> {
    let lines = cgroup.split(|byte| *byte == b'\n').filter_map(|line| line.splitn(3, |byte| *byte == b':').nth(2));
    let mut names =
        lines.flat_map(|path| path.rsplit(|byte| *byte == b'/').zip(path.rsplit(|byte| *byte == b'/').skip(1)));
    let id = names.find_map(|(name, above)| by_digits(name).or_else(|| by_name(name, above)))?;
    Some(String::from_utf8_lossy(&id).into_owned())
}

fn by_digits(name: &[u8]) -> Option<Vec<u8>> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_outside = name.windows(7).any(|part| part == b"conmon-");
    let id = name.split(|byte| !is_digit(byte)).rfind(|run| run.len() == 64)?;
    (!is_outside).then(|| id.to_vec())
}

/// `lxc.payload.NAME` and, before LXC 4, `lxc/NAME`; `machine-NAME.scope` and `systemd-nspawn@NAME.service` below
/// `machine.slice`, with what a unit's name cannot hold written as `\x2d`.
fn by_name(name: &[u8], above: &[u8]) -> Option<Vec<u8>> {
    let between = |prefix: &[u8], suffix: &[u8]| name.strip_prefix(prefix)?.strip_suffix(suffix);
    let lxc = || between(b"lxc.payload.", b"").or_else(|| (above == b"lxc").then_some(name));
    let machine = || {
        let unit = between(b"machine-", b".scope").or_else(|| between(b"systemd-nspawn@", b".service"));
        unit.filter(|_| above == b"machine.slice").map(unescaped)
    };
    // Both engines hold names to those of hosts; whoever makes a group of another name makes no container.
    let is_name = |id: &Vec<u8>| (1..=64).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    lxc().map(<[u8]>::to_vec).or_else(machine).filter(is_name)
}

fn unescaped(unit: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(unit.len());
    let mut rest = unit;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.strip_prefix(b"x").and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok());
        let byte = digits.filter(|_| *first == b'\\').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[3..] } else { behind };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] = b"4711 (a) S (b) S 12 4711 4711 0 -1 4194368 1 0 0 0 1 2 0 0 20 0 1 0 98765 1 2 3 4 5 6 7 8 9 \
        0 0 0 0 0 0 17 1 0 0 0 0 0 1 2 3 1000 1017 5 6 0\n";

    #[test]
    fn a_name_cannot_shift_the_fields() {
        let stat = Stat::parse(STAT).unwrap();
        assert_eq!((stat.name.as_slice(), stat.parent_pid, stat.start_ticks), (&b"a) S (b"[..], 12, 98_765));
        assert_eq!((stat.arguments_at(), stat.argument_bytes()), (1000, 17));
        assert!(stat.has_not_executed() && !stat.is_kernel_thread());
    }

    #[test]
    fn a_namespace_is_its_number() {
        assert_eq!(namespace(b"net:[4026531833]"), Some(4_026_531_833));
        for wrong in [&b""[..], b"net:", b"]", b"net:[]", b"net:[x]", b"net:[4294967296]"] {
            assert_eq!(namespace(wrong), None);
        }
    }

    #[test]
    fn this_process_reads_like_a_process() {
        let stat = Stat::parse(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
        let cmdline = std::fs::read("/proc/self/cmdline").unwrap();
        assert_eq!(stat.argument_bytes(), cmdline.len() as u64);
        assert!(!stat.has_not_executed() && !stat.is_kernel_thread());
        assert!(stat.start_ticks > 0);
        assert_eq!(u32::try_from(stat.parent_pid).unwrap(), std::os::unix::process::parent_id());
        let status = Status::parse(&std::fs::read("/proc/self/status").unwrap()).unwrap();
        let uids = Uids { real: nix::unistd::getuid().as_raw(), effective: nix::unistd::geteuid().as_raw() };
        assert_eq!((status.name, status.parent_pid, status.uids), (stat.name, stat.parent_pid, uids));
        assert_ne!(status.is_in_our_pid_namespace, Some(false));
    }

    #[test]
    fn a_status_is_read_whatever_the_name_is() {
        let status = |name: &str, pids: &str| {
            let text = format!("Name:\t{name}\nUmask:\t0022\nPPid:\t12\nUid:\t1000\t0\t0\t0\nGid:\t1\n{pids}");
            Status::parse(text.as_bytes()).unwrap()
        };
        let uids = Uids { real: 1000, effective: 0 };
        let plain = Status { name: b"Uid:\t7".to_vec(), parent_pid: 12, uids, is_in_our_pid_namespace: Some(true) };
        assert_eq!(status("Uid:\t7", "NSpid:\t4711\n"), plain);
        let escaped = status(r"a\\n\nPPid:\\", "");
        assert_eq!((escaped.name.as_slice(), escaped.parent_pid), (&b"a\\n\nPPid:\\"[..], 12));
        assert_eq!(escaped.is_in_our_pid_namespace, None);
        assert_eq!(status("", "NSpid:\t4711\t1\n").is_in_our_pid_namespace, Some(false));
        for cut in ["", "Name:\tx\nPPid:\t1\n", "Name:\tx\nPPid:\t-1\nUid:\t1\t1\n", "PPid:\t1\nUid:\t1\t1\n"] {
            assert_eq!(Status::parse(cut.as_bytes()), None, "{cut}");
        }
    }

    #[test]
    fn ids_are_read_and_the_unset_one_is_none() {
        let status = b"Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000080000\n";
        assert_eq!(has_capability(status, 19), Some(true));
        assert_eq!(has_capability(status, 20), Some(false));
        assert_eq!((has_capability(status, 64), has_capability(b"CapEff:\tx\n", 1)), (None, None));
        assert_eq!(login_uid(b"1000"), Some(1000));
        assert_eq!(login_uid(b"4294967295"), None);
    }

    #[test]
    fn a_container_is_named_by_its_64_digits() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("0::/docker/{id}\n"),
            format!("1:name=x:/\n0::/kubepods/pod{}/cri-containerd-{id}.scope\n", "a".repeat(32)),
        ] {
            assert_eq!(container_id(path.as_bytes()), Some(id.clone()));
        }
        assert_eq!(container_id(format!("0::/x/{id}a\n").as_bytes()), None);
        assert_eq!(container_id(b"0::/user.slice/user-1000.slice\n"), None);
    }

    #[test]
    fn each_engine_names_its_containers_in_its_own_way() {
        let id = "0123456789abcdef".repeat(4);
        let by_digits = [
            format!("0::/system.slice/docker-{id}.scope"),
            format!("12:pids:/docker/{id}\n1:name=systemd:/docker/{id}\n0::/"),
            format!("0::/machine.slice/libpod-{id}.scope/container"),
            format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope"),
            format!("0::/kubepods.slice/kubepods-burstable.slice/crio-{id}.scope"),
            format!("0::/default/{id}"),
            format!("0::/lxc.payload.box/system.slice/docker-{id}.scope"),
        ];
        for cgroup in &by_digits {
            assert_eq!(container_id(cgroup.as_bytes()), Some(id.clone()), "{cgroup}");
        }
        for (cgroup, name) in [
            ("0::/lxc.payload.box/init.scope", "box"),
            ("9:memory:/lxc/box\n0::/lxc/box/user.slice", "box"),
            ("0::/machine.slice/machine-my\\x2dbox.scope/payload", "my-box"),
            ("0::/machine.slice/systemd-nspawn@box.service/payload/system.slice/x.service", "box"),
        ] {
            assert_eq!(container_id(cgroup.as_bytes()).as_deref(), Some(name), "{cgroup}");
        }
        for cgroup in [
            format!("0::/machine.slice/libpod-conmon-{id}.scope"),
            "0::/lxc.monitor.box".to_owned(),
            "0::/machine.slice".to_owned(),
            "0::/system.slice/machine-x.scope".to_owned(),
            "0::/lxc/".to_owned(),
            format!("0::/lxc/{}", "x".repeat(65)),
        ] {
            assert_eq!(container_id(cgroup.as_bytes()), None, "{cgroup}");
        }
    }

    #[test]
    fn mangled_files_never_panic() {
        let mut random = fastrand::Rng::with_seed(13);
        for _ in 0..5000 {
            let mut bytes = STAT.to_vec();
            for _ in 0..random.usize(..8) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            if let Some(stat) = Stat::parse(&bytes) {
                assert!(stat.parent_pid >= 0);
            }
            assert_eq!(Status::parse(&bytes), None);
            assert_eq!(container_id(&bytes), None);
            assert!(login_uid(&bytes).is_none_or(|uid| uid != UNSET));
        }
    }
}
