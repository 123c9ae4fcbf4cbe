//! Memory that was needed for a moment.

/// Gives what was freed back to the system. Else the C library keeps most of it for later, and an agent that needed
/// much once would look as if it always did (`malloc_trim(3)`). Where the library has no such call it needs none.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointers and may be made at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
