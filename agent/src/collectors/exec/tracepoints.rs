//! The programs for kernels that do not tell their types (`bpf/exec_tracepoints.bpf.c`): brought in with what they have
//! to know of this kernel.
//!
//! Where the fields of a tracepoint are is told by its `format` file in tracefs, which has to be mounted:
//!
//! ```text
//! field:__data_loc char[] filename;  offset:8;  size:4;  signed:0;
//! ```

use std::error::Error;
use std::fs;
use std::path::Path;

use aya::programs::TracePoint;
use aya::programs::trace_point::TracePointLink;
use aya::{Ebpf, EbpfError, EbpfLoader};
use collector_common::parse::trace_format;
use collector_common::root::Root;

use super::layout::{self, Layout};
use super::probe::{Probe, Records, may_be_used, words};

/// The words for `status` and `check`.
pub const NAME: &str = "eBPF by tracepoints";

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../bpf/exec_tracepoints.bpf.o");

/// Where tracefs is, the second on old systems; the same places `aya` looks at.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];

/// What these programs do not see.
pub fn gap(records: Records) -> &'static str {
    match records {
        Records::Whole | Records::WithoutPath => {
            "a program that is gone when its record is read is reported with the path that was asked for instead of \
             the path that ran, and without its container"
        }
        Records::WithoutArguments => {
            "a program that ends within a fraction of a millisecond is reported with the path that was asked for \
             instead of the path that ran, and without its container and its arguments, which were not found in this \
             kernel's memory"
        }
    }
}

/// Brings the programs into the kernel.
///
/// # Errors
/// Why that cannot be, in words that follow "because".
pub fn load(root: &Root) -> Result<Probe, String> {
    may_be_used(root)?;
    let filename_at = field("sched/sched_process_exec", "filename")?;
    // Without these two, parent and arguments are only known while the process is there.
    let child_at = field("sched/sched_process_fork", "child_pid").ok();
    let layout = layout::find().unwrap_or_else(|error| {
        tracing::debug!("where the kernel keeps arguments is not known: {}", words(error.as_ref()));
        None
    });
    attach(filename_at, child_at, layout).map_err(|error| words(error.as_ref()))
}

fn attach(filename_at: u32, child_at: Option<u32>, layout: Option<Layout>) -> Result<Probe, Box<dyn Error>> {
    let Layout { mm_at, arg_start_at } = layout.unwrap_or(Layout { mm_at: 0, arg_start_at: 0 });
    let mut object = EbpfLoader::new()
        .btf(None)
        .override_global("filename_at", &filename_at, true)
        .override_global("child_at", &child_at.unwrap_or(0), true)
        .override_global("mm_at", &mm_at, true)
        .override_global("arg_start_at", &arg_start_at, true)
        .override_global("word_bytes", &(usize::BITS / 8), true)
        .load(OBJECT)?;
    let parents = child_at.and_then(|_| {
        let attached = attach_one(&mut object, "on_fork", "sched_process_fork");
        attached.inspect_err(|error| tracing::debug!("parents are not known: {}", words(error.as_ref()))).ok()
    });
    let execs = attach_one(&mut object, "on_exec", "sched_process_exec")?;
    let kind = if layout.is_some() { Records::WithoutPath } else { Records::WithoutArguments };
    Probe::of(&mut object, kind, Box::new((execs, parents)))
}

fn attach_one(object: &mut Ebpf, program: &str, tracepoint: &str) -> Result<TracePointLink, Box<dyn Error>> {
    let program: &mut TracePoint = object.program_mut(program).ok_or(EbpfError::NoBTF)?.try_into()?;
    program.load()?;
    let link = program.attach("sched", tracepoint)?;
    Ok(program.take_link(link)?)
}

/// Where a field of a tracepoint is.
fn field(tracepoint: &str, name: &str) -> Result<u32, String> {
    let format = |events: &str| fs::read(Path::new(events).join(tracepoint).join("format"));
    let text = format(TRACEFS[0]).or_else(|error| format(TRACEFS[1]).map_err(|_| error)).map_err(|error| {
        format!(
            "{}/{tracepoint}/format cannot be read ({error}): it needs CONFIG_PERF_EVENTS=y and tracefs, which \
             systemd mounts, and else: mount -t tracefs tracefs /sys/kernel/tracing",
            TRACEFS[0]
        )
    })?;
    trace_format::offset(&text, name)
        .ok_or_else(|| format!("{}/{tracepoint}/format does not name the field {name}", TRACEFS[0]))
}
