//! What the kernel tells of sockets by itself (`bpf/listen.bpf.c`): when one begins or ceases to listen, and, when it is
//! asked, which process holds which. TCP and SCTP only: a UDP socket is bound without a place to look at.

use std::error::Error;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{Iter, RawTracePoint};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use collector_common::parse::listen_record::{ListenRecord, holders};
use collector_common::root::Root;

use super::owner::{Hold, Holds};
use crate::collectors::exec::probe::bring_in;

/// Built by `make bpf`, and checked by `make check` to be what its source gives.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../bpf/listen.bpf.o");

/// The words for `status` and `check`.
pub(super) const NAME: &str = "eBPF";

/// The kernel tells the start of a process in hundredths of a second elsewhere (`USER_HZ`).
pub(super) const TICK_NS: u64 = 10_000_000;

/// The programs at work. They stop when this is dropped.
pub(super) struct Probe {
    records: RingBuf<MapData>,
    dropped: Array<MapData, u64>,
    /// Of the drops the kernel counted, how many were noted.
    noted: u64,
    _attached: RawTracePointLink,
    /// Holds the program that tells holders, where the kernel has what it needs (Linux 5.11).
    object: Option<Ebpf>,
}

impl Probe {
    /// Brings the programs into the kernel.
    ///
    /// # Errors
    /// Why that cannot be, in words that follow "because".
    pub(super) fn load(root: &Root) -> Result<Probe, String> {
        bring_in(root, Probe::attach)
    }

    fn attach() -> Result<Probe, Box<dyn Error + Send + Sync>> {
        let mut object = EbpfLoader::new().load(OBJECT)?;
        // The loader goes on without the kernel's types, and the programs would read what lies at another's offsets.
        let types = Btf::from_sys_fs()?;
        let mut map = |name: &str| object.take_map(name).ok_or(EbpfError::NoBTF);
        let (records, dropped) = (RingBuf::try_from(map("events")?)?, Array::try_from(map("dropped")?)?);
        let program: &mut RawTracePoint = object.program_mut("on_state").ok_or(EbpfError::NoBTF)?.try_into()?;
        program.load()?;
        let link = program.attach("inet_sock_set_state")?;
        let attached = program.take_link(link)?;
        let program: &mut Iter = object.program_mut("on_file").ok_or(EbpfError::NoBTF)?.try_into()?;
        let tells_holders = program.load("task_file", &types);
        if let Err(error) = &tells_holders {
            tracing::debug!("who holds sockets is read from /proc, because the kernel does not tell it: {error}");
        }
        let object = tells_holders.is_ok().then_some(object);
        Ok(Probe { records, dropped, noted: 0, _attached: attached, object })
    }

    /// Becomes readable when there is news.
    pub(super) fn news(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }

    /// Takes the news, and how much of it was lost since the last time.
    pub(super) fn take(&mut self) -> (Vec<ListenRecord>, u64) {
        let mut records = Vec::new();
        let mut is_empty = true;
        while let Some(item) = self.records.next() {
            records.extend(ListenRecord::parse(&item));
            is_empty = false;
        }
        // Nothing finds the ring full that is empty, and to ask is a call into the kernel.
        if is_empty {
            return (records, 0);
        }
        let counted = self.dropped.get(&0, 0).unwrap_or(self.noted);
        let lost = counted.saturating_sub(self.noted);
        self.noted = counted;
        (records, lost)
    }

    /// Which processes hold which sockets now; `None` where the kernel does not tell it.
    pub(super) fn holders(&mut self) -> Option<Holds> {
        let bytes = self.object.as_mut().and_then(|object| read_holders(object).ok())?;
        let mut found = Holds::new();
        for record in holders(&bytes) {
            let Ok(pid) = i32::try_from(record.pid) else { continue };
            let hold = Hold { pid, fd: record.fd };
            let holds = found.entry(record.inode).or_default();
            // A process may hold a socket more than once.
            if !holds.iter().any(|it| it.pid == pid) {
                holds.push(hold);
            }
        }
        Some(found)
    }
}

fn read_holders(object: &mut Ebpf) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let program: &mut Iter = object.program_mut("on_file").ok_or(EbpfError::NoBTF)?.try_into()?;
    let link = program.attach()?;
    let mut file = program.take_link(link)?.into_file()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
