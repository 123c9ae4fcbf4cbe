//! The program in the kernel that writes a record for every exec (`bpf/exec.bpf.c`): brought in, and taken out when
//! dropped. Where the kernel does not tell its types there is another one, see `nobtf`.
//!
//! The object holds no offsets. Which field of which structure is meant is put in by `aya`, from the types the running
//! kernel describes itself with. For that moment it needs some 20 MB.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use aya::maps::{Array, MapData, MapError, RingBuf};
use aya::programs::RawTracePoint;
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use collector_common::root::Root;
use collector_common::sys::memory;
use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::utsname::uname;

use super::image::may;

/// Built by `make bpf`, and checked by `make check` to be what its source gives.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../bpf/exec.bpf.o");

/// Places in the map `shared`.
const DROPPED: u32 = 0;
const ASLEEP: u32 = 1;

/// Where a kernel tells its types.
const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// `PROC_PID_INIT_INO` of `include/linux/proc_ns.h`.
const HOST_PID_NAMESPACE: u64 = 0xefff_fffc;

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The words for `status` and `check`.
pub const NAME: &str = "eBPF";

/// The program at work. It stops when this is dropped.
pub struct Probe {
    /// Its records.
    pub records: RingBuf<MapData>,
    /// Whether they tell all there is to know.
    pub is_whole: bool,
    shared: Array<MapData, u64>,
    _attached: Box<dyn Send + Sync>,
}

impl Probe {
    /// Brings the program into the kernel.
    ///
    /// # Errors
    /// Why that cannot be, in words that follow "because".
    pub fn load(root: &Root) -> Result<Probe, String> {
        bring_in(root, Probe::attach)
    }

    fn attach() -> Result<Probe, Box<dyn Error + Send + Sync>> {
        // The loader reads the types too, but goes on without when it cannot, and the program would read what lies at
        // some other kernel's offsets. One after the other, because each takes as much memory as both should.
        drop(Btf::from_sys_fs()?);
        let mut object = EbpfLoader::new().load(OBJECT)?;
        let program: &mut RawTracePoint = object.program_mut("on_exec").ok_or(EbpfError::NoBTF)?.try_into()?;
        program.load()?;
        let link = program.attach("sched_process_exec")?;
        let attached = Box::new(program.take_link(link)?);
        Probe::of(&mut object, true, attached)
    }

    /// An object that was brought in.
    pub fn of(
        object: &mut Ebpf,
        is_whole: bool,
        attached: Box<dyn Send + Sync>,
    ) -> Result<Probe, Box<dyn Error + Send + Sync>> {
        let mut map = |name: &str| object.take_map(name).ok_or(EbpfError::NoBTF);
        let (records, shared) = (RingBuf::try_from(map("events")?)?, Array::try_from(map("shared")?)?);
        Ok(Probe { records, is_whole, shared, _attached: attached })
    }

    /// How many records it had no room for.
    pub fn dropped(&self) -> Result<u64, MapError> {
        self.shared.get(&DROPPED, 0)
    }

    /// Asks for a wake-up at the next record. Before that, and without asking, there is one only when the ring fills up.
    pub fn wake_me(&mut self) -> Result<(), MapError> {
        self.shared.set(ASLEEP, 1, 0)
    }
}

/// Brings a program into the kernel that reads the kernel's own types. One after the other, because each takes much memory for a moment.
///
/// # Errors
/// Why that cannot be, in words that follow "because".
pub fn bring_in<T>(root: &Root, load: impl FnOnce() -> Result<T, Box<dyn Error + Send + Sync>>) -> Result<T, String> {
    static ALONE: Mutex<()> = Mutex::new(());
    may_be_used(root)?;
    // The programs copy pointers of 64 bits.
    if cfg!(not(target_pointer_width = "64")) {
        return Err("the BPF program that tells all is for 64-bit systems".to_owned());
    }
    fs::metadata(TYPES).map_err(|error| {
        format!("the kernel does not tell its types in {TYPES} ({error}): this needs CONFIG_DEBUG_INFO_BTF=y")
    })?;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = load();
    memory::give_back();
    loaded.map_err(|error| words(error.as_ref()))
}

/// What can be said in better words than the kernel's, before it is asked.
pub fn may_be_used(root: &Root) -> Result<(), String> {
    if !root.is_host() {
        return Err("a BPF program tells only of the running machine".to_owned());
    }
    let machine = uname().ok().and_then(|names| names.machine().to_str().map(str::to_owned)).unwrap_or_default();
    if is_wider(&machine, usize::BITS) {
        return Err(format!(
            "this is a 32-bit agent on a 64-bit kernel ({machine}): install the agent for the kernel's architecture"
        ));
    }
    let may_use = may(root, CAP_SYS_ADMIN) || may(root, CAP_BPF) && may(root, CAP_PERFMON);
    if !may_use {
        return Err("the agent may not use BPF: give it CAP_BPF and CAP_PERFMON".to_owned());
    }
    if fs::metadata("/proc/self/ns/pid").is_ok_and(|own| own.ino() != HOST_PID_NAMESPACE) {
        return Err("BPF tells process ids of the host, and the agent is in a pid namespace of its own".to_owned());
    }
    // Before Linux 5.11 maps count as locked memory. Where the limit is high enough or does not matter, that this
    // is refused does not matter either.
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::debug!("cannot raise the limit of locked memory: {error}");
    }
    Ok(())
}

/// Whether a kernel has longer words than the agent, by the machine that `uname(2)` says; `armv8l` is what it says to
/// programs of 32 bits on some 64-bit ones.
fn is_wider(machine: &str, agent_bits: u32) -> bool {
    agent_bits < 64 && (machine.contains("64") || machine == "armv8l")
}

/// What aya says, down to what the system said.
pub fn words(error: &(dyn Error + 'static)) -> String {
    let causes = || std::iter::successors(Some(error), |error| (*error).source());
    let Some(system) = causes().find_map(|cause| cause.downcast_ref::<io::Error>()) else {
        let all: Vec<String> = causes().map(ToString::to_string).collect();
        return format!("the BPF program cannot be loaded: {}", all.join(": "));
    };
    let hint = match Errno::from_raw(system.raw_os_error().unwrap_or(0)) {
        Errno::EPERM | Errno::EACCES => ": is BPF forbidden by a seccomp filter or by the kernel's lockdown?",
        Errno::EINVAL | Errno::ENOSYS => ": it needs Linux 5.8 with CONFIG_BPF_SYSCALL=y and CONFIG_BPF_EVENTS=y",
        _ => "",
    };
    format!("the kernel did not take the BPF program ({system}){hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_cannot_be_looked_at() {
        let refused = Probe::load(&Root::at("/nonexistent")).err();
        assert!(refused.is_some_and(|why| why.contains("running machine")));
    }

    #[test]
    fn an_agent_of_32_bits_looks_for_nothing_in_a_64_bit_kernel() {
        for (machine, is_wide) in
            [("aarch64", true), ("x86_64", true), ("armv8l", true), ("armv7l", false), ("i686", false)]
        {
            assert_eq!(is_wider(machine, 32), is_wide, "{machine}");
            assert!(!is_wider(machine, 64), "{machine}");
        }
    }

    #[test]
    fn a_refusal_is_told_with_what_the_system_said_and_what_to_do() {
        let refused = EbpfError::FileError { path: "x".into(), error: io::Error::from_raw_os_error(1) };
        assert!(
            words(&refused).contains("(Operation not permitted (os error 1)): is BPF forbidden"),
            "{}",
            words(&refused)
        );
        assert_eq!(words(&EbpfError::NoBTF), "the BPF program cannot be loaded: no BTF parsed for object");
    }
}
