//! Where the kernel keeps the number of a process and the place of its arguments, found out without its types (`bpf/peek.bpf.c`).
//!
//! The agent looks into what the kernel keeps of the agent, for what `/proc/self/stat` says has to be there:
//!
//! ```text
//! struct task_struct { ... pid, tgid ... mm, active_mm ... }              two numbers; twice the same pointer
//! struct mm_struct   { ... arg_start, arg_end, env_start, env_end ... }   four numbers
//! ```
//!
//! Only a pointer that stands there twice is followed: what is read at any other number may be the register of a device.

use std::error::Error;
use std::{fs, mem, process, thread};

use aya::EbpfLoader;
use aya::maps::{Array, MapData};
use aya::programs::RawTracePoint;
use collector_common::parse::proc_pid::Stat;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../bpf/peek.bpf.o");

const WORD_BYTES: usize = size_of::<usize>();
/// `struct peek`: thread, whether it was read, where, offset, and what was there.
const PIECE_BYTES: usize = 2048;
type Peek = [u64; 4 + PIECE_BYTES / 8];

/// Where it is, and what is there.
type Piece = (usize, Vec<u8>);

type Failed = Box<dyn Error + Send + Sync>;

/// How far into a `task_struct` is looked.
const PIECES: usize = 4;

/// Offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Of `pid` in `struct task_struct`.
    pub pid_at: u32,
    /// Of `mm` in `struct task_struct`.
    pub mm_at: u32,
    /// Of `arg_start` in `struct mm_struct`.
    pub arg_start_at: u32,
}

/// Finds out. `None` when the kernel keeps things in another way than it has for twenty years.
///
/// In a thread of its own, whose number is not that of the process.
pub fn find() -> Result<Option<Layout>, Failed> {
    thread::Builder::new().spawn(find_here)?.join().unwrap_or_else(|_| Err("a thread died".into()))
}

fn find_here() -> Result<Option<Layout>, Failed> {
    let stat = Stat::parse(&fs::read("/proc/self/stat")?).ok_or("/proc/self/stat cannot be read")?;
    let known = stat.places.map(|place| usize::try_from(place).unwrap_or(0));
    let thread = fs::read_link("/proc/thread-self")?.file_name().and_then(|name| name.to_str()?.parse().ok());
    let numbers: [u32; 2] = [thread.ok_or("/proc/thread-self names no thread")?, process::id()];
    let own = u64::from(numbers[1]) << 32 | u64::from(numbers[0]);
    let mut object = EbpfLoader::new().btf(None).load(OBJECT)?;
    let program: &mut RawTracePoint = object.program_mut("on_peek").ok_or("no such program")?.try_into()?;
    program.load()?;
    program.attach("sched_process_fork")?;
    let mut peeks: Array<MapData, Peek> = Array::try_from(object.take_map("peeks").ok_or("no such map")?)?;
    let (mut pid_at, mut mm_at) = (None, None);
    for piece in 0..PIECES {
        // A word more than once, because two neighbours are looked for.
        let offset = piece * (PIECE_BYTES - WORD_BYTES);
        let Some((task, bytes)) = look(&mut peeks, own, 0, offset)? else { break };
        let place =
            bytes.as_chunks().0.windows(2).position(|pair| [pair[0], pair[1]].map(u32::from_ne_bytes) == numbers);
        pid_at = pid_at.or(place.map(|place| offset + place * size_of::<u32>()));
        for (index, pointer) in twice(&words(&bytes), task) {
            let Some((_, bytes)) = look(&mut peeks, own, pointer, 0)? else { continue };
            let place = words(&bytes).windows(known.len()).position(|words| words == known);
            mm_at = mm_at.or(place.map(|place| (offset + index * WORD_BYTES, place * WORD_BYTES)));
        }
    }
    let Some((pid_at, (mm_at, arg_start_at))) = pid_at.zip(mm_at) else { return Ok(None) };
    let narrow = u32::try_from;
    Ok(Some(Layout { pid_at: narrow(pid_at)?, mm_at: narrow(mm_at)?, arg_start_at: narrow(arg_start_at)? }))
}

/// Reads a piece of the kernel's memory, at 0 of what it keeps of this thread, `own`: where that was, and what is there.
fn look(peeks: &mut Array<MapData, Peek>, own: u64, at: usize, offset: usize) -> Result<Option<Piece>, Failed> {
    let mut peek: Peek = [0; 4 + PIECE_BYTES / 8];
    (peek[0], peek[2], peek[3]) = (own, u64::try_from(at)?, u64::try_from(offset)?);
    peeks.set(0, peek, 0)?;
    // The program runs in who makes a thread.
    thread::Builder::new().stack_size(16 * 1024).spawn(|| ())?.join().map_err(|_| "a thread died")?;
    let peek = peeks.get(&0, 0)?;
    if peek[1] == 0 {
        return Ok(None);
    }
    let bytes = peek[4..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    // A kernel of 32 bits tells its pointers with 32 more, which are a sign.
    Ok(Some((usize::try_from(peek[2] & usize::MAX as u64)?, bytes)))
}

fn words(bytes: &[u8]) -> Vec<usize> {
    bytes.as_chunks().0.iter().map(|word| usize::from_ne_bytes(*word)).collect()
}

/// What stands somewhere twice in a row and could be a pointer to something else than the task itself, as the ends of
/// an empty list are.
fn twice(words: &[usize], task: usize) -> Vec<(usize, usize)> {
    let is_pointer = |word: usize| word > 1 << 16 && word.is_multiple_of(mem::align_of::<usize>());
    let is_outside = |word: usize| !(task..task.saturating_add(PIECES * PIECE_BYTES)).contains(&word);
    let pairs = words.windows(2).enumerate().filter(|(_, pair)| pair[0] == pair[1]);
    pairs.map(|(index, pair)| (index, pair[0])).filter(|(_, word)| is_pointer(*word) && is_outside(*word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pointer_that_stands_there_twice_is_followed() {
        let task = 0x8000_0000;
        let words = [7, 7, 0, 0, task + 16, task + 16, 0x9000_0000, 0x9000_0000, 0x9000_0001, 0x9000_0001, 0xa000_0000];
        assert_eq!(twice(&words, task), [(6, 0x9000_0000)]);
    }
}
