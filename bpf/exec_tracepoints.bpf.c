/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * One record for every exec on kernels that do not describe their types: who executes, what was asked for, and with
 * which arguments. What else there is to know, the reader asks /proc while the process is there.
 *
 * The numbers of the running kernel are put in by the loader. Where the fields of the tracepoints are, tracefs says;
 * where a process has its arguments, the loader has found out in its own (peek.bpf.c). Not from sys_enter_execve: that
 * makes every system call of every process slower, and reads memory that may not be there yet.
 */
#include "record.h"

const volatile u32 filename_at;
const volatile u32 child_at;
/* In struct task_struct and in struct mm_struct; the second is 0 when it is not known. */
const volatile u32 mm_at;
const volatile u32 arg_start_at;
const volatile u32 word_bytes;

/* Who made whom, of the last so many. Threads are in here too, which does no harm. */
struct {
    UINT(type, BPF_MAP_TYPE_LRU_HASH);
    UINT(max_entries, 4096);
    TYPE(key, u32);
    TYPE(value, u32);
} parents SECTION(".maps");

SECTION("tracepoint/sched/sched_process_fork")
int on_fork(void *fields)
{
    u32 child = 0;
    u32 parent = bpf_get_current_pid_tgid() >> 32;
    bpf_probe_read_kernel(&child, sizeof(child), fields + child_at);
    bpf_map_update_elem(&parents, &child, &parent, 0);
    return 0;
}

SECTION("tracepoint/sched/sched_process_exec")
int on_exec(void *fields)
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
    u64 mm = arg_start_at ? READ_WORD(bpf_get_current_task() + mm_at, word_bytes) : 0;
    u64 start = mm ? READ_WORD(mm + arg_start_at, word_bytes) : 0;
    if (start)
        append_arguments(draft, start, READ_WORD(mm + arg_start_at + word_bytes, word_bytes) - start);
    else
        record->flags |= ARGUMENTS_UNREAD;
    /* The field of a string says where the string is, in its lower half. */
    u32 place = 0;
    bpf_probe_read_kernel(&place, sizeof(place), fields + filename_at);
    record->filename = append(draft, PATH_BYTES, fields + (place & 0xffff));
    submit(draft);
    return 0;
}
