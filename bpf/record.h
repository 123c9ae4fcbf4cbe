/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The record of an exec, and how it is put together and handed over. collector-common/src/parse/exec_record.rs reads the
 * records and draws them. Nothing in here has another size on a 32-bit kernel.
 *
 * A wake-up costs ten times what a record costs. So the reader is woken when it sleeps, and when another eighth of the
 * ring is full; while it is awake it looks by itself.
 */
#pragma once
#include "bpf.h"

/* Kept of the argument area: its beginning and its end. */
#define HEAD_BYTES 6144
#define TAIL_BYTES 2048
/* PATH_MAX, and NAME_MAX with its NUL. */
#define PATH_BYTES 4096
#define NAME_BYTES 256

#define RING_BYTES (1 << 20)
#define MARK_BYTES (RING_BYTES / 8)

/* Everything that can be in one record, and a name more, because each is read with the room for the longest. */
#define DATA_BYTES (HEAD_BYTES + TAIL_BYTES + 4 * PATH_BYTES + 2048)

/* Which parts were cut or not to be read. */
#define DELETED (1 << 0)
#define PATH_CUT (1 << 1)
#define PARENT_CUT (1 << 2)
#define DIRECTORY_CUT (1 << 3)
#define CGROUP_CUT (1 << 4)
#define ARGUMENTS_UNREAD (1 << 5)
#define LOGIN_UID_KNOWN (1 << 6)

struct record {
    u64 boottime_ns;
    u64 start_boottime_ns;
    u64 arguments_at;
    u64 argument_bytes;
    u32 pid;
    u32 parent_pid;
    u32 uid;
    u32 euid;
    u32 login_uid;
    u32 pid_namespace;
    u32 net_namespace;
    u32 flags;
    /* Lengths of the parts of data, in order. */
    u16 head;
    u16 tail;
    u16 path;
    u16 parent_path;
    u16 filename;
    u16 interpreter;
    u16 directory;
    u16 cgroup;
    u8 name[16];
    u8 data[DATA_BYTES];
};

struct {
    UINT(type, BPF_MAP_TYPE_RINGBUF);
    UINT(max_entries, RING_BYTES);
} events SECTION(".maps");

/* A record is put together here, because it is longer than the stack. What it holds from before is never sent: only
 * what was written this time is counted in its lengths. How much of data is used is kept in memory, so that the
 * verifier forgets it: else it would follow each way through one loop into each way through the next. */
struct draft {
    volatile u32 used;
    struct record record;
};

struct {
    UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct draft);
} drafts SECTION(".maps");

/* What program and reader tell each other: how many records found the ring full, and whether the reader sleeps. */
#define DROPPED 0
#define ASLEEP 1
struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 2);
    TYPE(key, u32);
    TYPE(value, u64);
} shared SECTION(".maps");

INLINE struct draft *new_draft(void)
{
    u32 zero = 0;
    struct draft *draft = bpf_map_lookup_elem(&drafts, &zero);
    if (!draft)
        return draft;
    __builtin_memset(&draft->record, 0, __builtin_offsetof(struct record, data));
    draft->used = 0;
    return draft;
}

/* Appends a string of the kernel with its NUL. How long it is; 0 when there is no room or it cannot be read. */
INLINE u32 append(struct draft *draft, u32 most, const void *string)
{
    u32 used = draft->used;
    if (used > DATA_BYTES - PATH_BYTES)
        return 0;
    long bytes = bpf_probe_read_kernel_str(&draft->record.data[used], most, string);
    if (bytes <= 0)
        return 0;
    draft->used = used + bytes;
    return bytes;
}

/* Reads the beginning and the end of the memory the kernel just put the arguments into. What cannot be read is not
 * counted: the buffer may hold another process's there. */
INLINE void append_arguments(struct draft *draft, u64 start, u64 bytes)
{
    struct record *record = &draft->record;
    u32 head = bytes > HEAD_BYTES ? HEAD_BYTES : bytes;
    u32 tail = bytes - head > TAIL_BYTES ? TAIL_BYTES : bytes - head;
    OPAQUE(head);
    OPAQUE(tail);
    record->arguments_at = start;
    record->argument_bytes = bytes;
    if (head > HEAD_BYTES || tail > TAIL_BYTES)
        return;
    if (bpf_probe_read_user(record->data, head, (void *)(unsigned long)start)) {
        record->flags |= ARGUMENTS_UNREAD;
        return;
    }
    record->head = head;
    if (tail && !bpf_probe_read_user(&record->data[head], tail, (void *)(unsigned long)(start + bytes - tail)))
        record->tail = tail;
    draft->used = record->head + record->tail;
}

INLINE void submit(struct draft *draft)
{
    u64 bytes = __builtin_offsetof(struct record, data) + draft->used;
    OPAQUE(bytes);
    if (bytes > sizeof(struct record))
        return;
    u32 key = DROPPED;
    u64 *dropped = bpf_map_lookup_elem(&shared, &key);
    key = ASLEEP;
    u64 *asleep = bpf_map_lookup_elem(&shared, &key);
    if (!dropped || !asleep)
        return;
    u64 before = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);
    u64 flags = BPF_RB_NO_WAKEUP;
    if (*asleep || before / MARK_BYTES != (before + bytes) / MARK_BYTES) {
        *asleep = 0;
        flags = BPF_RB_FORCE_WAKEUP;
    }
    if (bpf_ringbuf_output(&events, &draft->record, bytes, flags))
        __sync_fetch_and_add(dropped, 1);
}

/* The helpers that read memory are for programs that may be used under the GPL, which these files may. */
char gpl_licence[] SECTION("license") = "GPL";
