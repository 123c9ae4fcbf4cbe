//! Memory that was needed for a moment, such as for the types of the kernel.

/// Lets all threads take from one heap, and a big piece come straight from the system and go back to it. Else the C
/// library gives threads heaps of their own and keeps the upper end of each, where [`give_back`] does not reach
/// (`mallopt(3)`). To be called before the first thread is started. musl has neither the call nor such heaps.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls take no pointers; a value that the library does not like is not taken.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// Gives what was freed back to the system. Else the C library keeps most of it for later, and an agent that needed
/// much once would look as if it always did (`malloc_trim(3)`). musl has no such call and gives back by itself.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointers and may be made at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
