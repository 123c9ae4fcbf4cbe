/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * One record for every exec on kernels that do not describe their types: who executes, what was asked for, and with
 * which arguments. What else there is to know, the reader asks /proc while the process is there.
 *
 * The few offsets are put in by the loader, which finds them out in its own process (peek.bpf.c). Nothing is read from
 * sys_enter_execve: that makes every system call of every process slower, reads memory that may not be there yet, and
 * needs tracefs and perf_event_open, which not every kernel leaves to a user other than root.
 */
#include "record.h"

/* In struct task_struct, and of the first of four numbers in struct mm_struct. */
const volatile u32 pid_at;
const volatile u32 mm_at;
const volatile u32 arg_start_at;
/* Size of a pointer. */
const volatile u32 word_bytes;

/* Who made whom, of the last so many. Threads are in here too, which does no harm. */
struct {
    UINT(type, BPF_MAP_TYPE_LRU_HASH);
    UINT(max_entries, 4096);
    TYPE(key, u32);
    TYPE(value, u32);
} parents SECTION(".maps");

INLINE u64 word(u64 at)
{
    u64 value = 0;
    if (word_bytes == 4)
        bpf_probe_read_kernel(&value, 4, (void *)(unsigned long)at);
    else
        bpf_probe_read_kernel(&value, 8, (void *)(unsigned long)at);
    return value;
}

/* TP_PROTO(struct task_struct *parent, struct task_struct *child), include/trace/events/sched.h */
SECTION("raw_tp/sched_process_fork")
int on_fork(u64 *arguments)
{
    u32 child = 0;
    u32 parent = bpf_get_current_pid_tgid() >> 32;
    bpf_probe_read_kernel(&child, sizeof(child), (void *)(unsigned long)(arguments[1] + pid_at));
    bpf_map_update_elem(&parents, &child, &parent, 0);
    return 0;
}

/* TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm) */
SECTION("raw_tp/sched_process_exec")
int on_exec(u64 *arguments)
{
    struct draft *draft = new_draft();
    if (!draft)
        return 0;
    struct record *record = &draft->record;
    record->boottime_ns = bpf_ktime_get_boot_ns();
    record->pid = bpf_get_current_pid_tgid() >> 32;
    record->uid = (u32)bpf_get_current_uid_gid();
    record->flags = PATH_CUT | PARENT_CUT | DIRECTORY_CUT | CGROUP_CUT;
    bpf_get_current_comm(record->name, sizeof(record->name));
    u32 *parent = bpf_map_lookup_elem(&parents, &record->pid);
    if (parent)
        record->parent_pid = *parent;
    /* arg_start, arg_end, env_start, env_end. Behind the environment lies what was asked for (bprm->exec, fs/exec.c). */
    u64 places = word(arguments[0] + mm_at) + arg_start_at;
    u64 start = word(places);
    append_arguments(draft, start, word(places + word_bytes) - start);
    u32 used = draft->used;
    u64 asked = word(places + 3 * word_bytes);
    long bytes = 0;
    if (used <= DATA_BYTES - PATH_BYTES)
        bytes = bpf_probe_read_user_str(&record->data[used], PATH_BYTES, (void *)(unsigned long)asked);
    if (bytes > 0) {
        record->filename = bytes;
        draft->used = used + bytes;
    }
    submit(draft);
    return 0;
}
