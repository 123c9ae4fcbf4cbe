//! The programs for kernels that do not tell their types (`bpf/exec_nobtf.bpf.c`): brought in with what they have to know
//! of this kernel.

use std::error::Error;

use aya::programs::RawTracePoint;
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::{Ebpf, EbpfError, EbpfLoader};
use collector_common::root::Root;
use collector_common::sys::memory;

use super::layout::{self, Layout};
use super::probe::{Probe, may_be_used, words};

/// The words for `status` and `check`.
pub const NAME: &str = "eBPF without BTF";

/// What these programs do not see.
pub const GAP: &str = "a program that is gone when its record is read is reported with the path that was asked for \
                       instead of the path that ran, and without its container";

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../bpf/exec_nobtf.bpf.o");

/// Brings the programs into the kernel.
///
/// # Errors
/// Why that cannot be, in words that follow "because".
pub fn load(root: &Root) -> Result<Probe, String> {
    may_be_used(root)?;
    let loaded = layout::find().and_then(|layout| layout.map(attach).transpose());
    // The loader looks for types even when it is told to do without.
    memory::give_back();
    loaded
        .map_err(|error| words(error.as_ref()))?
        .ok_or_else(|| "where this kernel keeps the arguments of a process was not found".to_owned())
}

fn attach(layout: Layout) -> Result<Probe, Box<dyn Error + Send + Sync>> {
    let mut object = EbpfLoader::new()
        .btf(None)
        .override_global("pid_at", &layout.pid_at, true)
        .override_global("mm_at", &layout.mm_at, true)
        .override_global("arg_start_at", &layout.arg_start_at, true)
        .override_global("word_bytes", &(usize::BITS / 8), true)
        .load(OBJECT)?;
    let forks = attach_one(&mut object, "on_fork", "sched_process_fork")?;
    let execs = attach_one(&mut object, "on_exec", "sched_process_exec")?;
    Probe::of(&mut object, false, Box::new((forks, execs)))
}

fn attach_one(object: &mut Ebpf, program: &str, to: &str) -> Result<RawTracePointLink, Box<dyn Error + Send + Sync>> {
    let program: &mut RawTracePoint = object.program_mut(program).ok_or(EbpfError::NoBTF)?.try_into()?;
    program.load()?;
    let link = program.attach(to)?;
    Ok(program.take_link(link)?)
}
