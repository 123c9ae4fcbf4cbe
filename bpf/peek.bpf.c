/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Shows the loader a piece of what the kernel keeps of the loader's own process, in which it looks for what it knows to
 * be there: on kernels that do not describe their types. Brought in for that moment only.
 */
#include "bpf.h"

#define PEEK_BYTES 2048

struct peek {
    /* Whose, as the helper tells it; all others are none of its business. */
    u64 thread;
    /* Whether bytes could be read. */
    u64 is_read;
    /* Where to read; 0 is the process itself, and then this says where that was. */
    u64 at;
    u64 offset;
    u8 bytes[PEEK_BYTES];
};

struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct peek);
} peeks SECTION(".maps");

/* In the thread that makes another one. */
SECTION("raw_tp/sched_process_fork")
int on_peek(u64 *arguments __attribute__((unused)))
{
    u32 zero = 0;
    struct peek *peek = bpf_map_lookup_elem(&peeks, &zero);
    if (!peek || peek->thread != bpf_get_current_pid_tgid())
        return 0;
    if (!peek->at)
        peek->at = bpf_get_current_task();
    peek->is_read = !bpf_probe_read_kernel(peek->bytes, PEEK_BYTES, (void *)(unsigned long)(peek->at + peek->offset));
    return 0;
}

char gpl_licence[] SECTION("license") = "GPL";
