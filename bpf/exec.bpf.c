/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * One record for every exec, written in the process that executes, before it runs its first instruction: nothing in it
 * can be gone or changed by then. collector-common/src/parse/exec_record.rs reads the records and draws them.
 *
 * A wake-up costs ten times what a record costs. So the reader is woken when it sleeps, and when another eighth of the
 * ring is full; while it is awake it looks by itself.
 */
#include "kernel.h"
#include "bpf.h"

/* Kept of the argument area: its beginning and its end. */
#define HEAD_BYTES 6144
#define TAIL_BYTES 2048
/* PATH_MAX, and NAME_MAX with its NUL. */
#define PATH_BYTES 4096
#define NAME_BYTES 256
/* Steps up a path, mounts crossed included, and up the tree of control groups. */
#define PATH_STEPS 96
#define CGROUP_STEPS 16
#define CGROUP_BYTES 1024

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
    u64 cgroup_id;
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

/* Appends the names of a path, the last one first, each with its NUL, as d_path would put them together
 * (fs/d_path.c). Sets the flag cut when it is not whole, and the flag deleted when the file is in no directory. */
INLINE void append_path(struct draft *draft, struct path *of, u32 cut, u32 deleted)
{
    struct dentry *dentry = READ(of->dentry);
    struct vfsmount *vfsmount = READ(of->mnt);
    struct mount *mount = (void *)vfsmount - __builtin_preserve_field_info(((struct mount *)0)->mnt, FIELD_BYTE_OFFSET);
    struct dentry *root = READ(mount->mnt.mnt_root);
    u32 most = draft->used + PATH_BYTES;
    for (u32 step = 0; step < PATH_STEPS; step++) {
        if (dentry == root) {
            struct mount *above = READ(mount->mnt_parent);
            if (above == mount)
                return;
            dentry = READ(mount->mnt_mountpoint);
            mount = above;
            root = READ(mount->mnt.mnt_root);
            continue;
        }
        struct dentry *parent = READ(dentry->d_parent);
        /* A file that never was in a directory, such as a memfd, is its own parent. */
        if (step == 0 && (parent == dentry || !READ(dentry->d_hash.pprev)))
            draft->record.flags |= deleted;
        if (draft->used > most || !append(draft, NAME_BYTES, READ(dentry->d_name.name)))
            break;
        if (parent == dentry)
            return;
        dentry = parent;
    }
    draft->record.flags |= cut;
}

INLINE struct kernfs_node *above(struct kernfs_node *node)
{
    struct kernfs_node___since_6_15 *newer = (void *)node;
    if (__builtin_preserve_field_info(newer->__parent, FIELD_EXISTS))
        return (void *)READ(newer->__parent);
    return READ(node->parent);
}

/* Appends the names of the control group, the last one first; its root has none. A process that is in the root of the
 * version 2 hierarchy may be in a group of the older ones; who makes groups makes them in each. */
INLINE void append_cgroup(struct draft *draft, struct task_struct *task)
{
    struct css_set *groups = READ(task->cgroups);
    struct kernfs_node *node = READ(READ(groups->dfl_cgrp)->kn);
    if (!above(node))
        node = READ(READ(READ(groups->subsys[0])->cgroup)->kn);
    u32 most = draft->used + CGROUP_BYTES;
    for (u32 step = 0; step < CGROUP_STEPS; step++) {
        struct kernfs_node *parent = above(node);
        if (!parent)
            return;
        if (draft->used > most || !append(draft, NAME_BYTES, READ(node->name)))
            break;
        node = parent;
    }
    draft->record.flags |= CGROUP_CUT;
}

/* Reads the beginning and the end of the memory the kernel just put the arguments into. What cannot be read is not
 * counted: the buffer may hold another process's there. */
INLINE void append_arguments(struct draft *draft, struct mm_struct *mm)
{
    struct record *record = &draft->record;
    u64 start = READ(mm->arg_start);
    u64 bytes = READ(mm->arg_end) - start;
    u32 head = bytes > HEAD_BYTES ? HEAD_BYTES : bytes;
    u32 tail = bytes - head > TAIL_BYTES ? TAIL_BYTES : bytes - head;
    OPAQUE(head);
    OPAQUE(tail);
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

/* The innermost of the pid namespaces the process has a number in. */
INLINE struct pid_namespace *pid_namespace(struct task_struct *task)
{
    struct pid *pid = READ(task->thread_pid);
    void *number = (void *)&pid->numbers[0] + READ(pid->level) * __builtin_preserve_type_info(*(struct upid *)0, TYPE_SIZE);
    return READ(((struct upid *)number)->ns);
}

INLINE void describe_process(struct record *record, struct task_struct *task)
{
    struct cred *cred = READ(task->cred);
    struct nsproxy *nsproxy = READ(task->nsproxy);
    record->boottime_ns = bpf_ktime_get_boot_ns();
    record->start_boottime_ns = READ(task->start_boottime);
    record->cgroup_id = bpf_get_current_cgroup_id();
    record->pid = bpf_get_current_pid_tgid() >> 32;
    record->parent_pid = READ(READ(task->real_parent)->tgid);
    record->uid = READ(cred->uid.val);
    record->euid = READ(cred->euid.val);
    record->pid_namespace = READ(pid_namespace(task)->ns.inum);
    record->net_namespace = READ(READ(nsproxy->net_ns)->ns.inum);
    if (__builtin_preserve_field_info(task->loginuid, FIELD_EXISTS)) {
        record->login_uid = READ(task->loginuid.val);
        record->flags |= LOGIN_UID_KNOWN;
    }
    bpf_get_current_comm(record->name, sizeof(record->name));
}

/* What was asked for, and the interpreter, when it was a script: then the kernel ended up with another program than
 * the one it was given. A script may be named from where the process is. */
INLINE void append_script(struct draft *draft, struct task_struct *task, struct linux_binprm *binprm)
{
    struct record *record = &draft->record;
    const char *filename = READ(binprm->filename);
    const char *interpreter = READ(binprm->interp);
    record->filename = append(draft, PATH_BYTES, filename);
    if (interpreter == filename)
        return;
    record->interpreter = append(draft, NAME_BYTES, interpreter);
    u8 first = 0;
    bpf_probe_read_kernel(&first, 1, filename);
    u32 before = draft->used;
    if (first != '/')
        append_path(draft, &READ(task->fs)->pwd, DIRECTORY_CUT, 0);
    record->directory = draft->used - before;
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

/* TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm), include/trace/events/sched.h */
SECTION("raw_tp/sched_process_exec")
int on_exec(u64 *arguments)
{
    u32 zero = 0;
    struct draft *draft = bpf_map_lookup_elem(&drafts, &zero);
    if (!draft)
        return 0;
    struct record *record = &draft->record;
    struct task_struct *task = (void *)(unsigned long)arguments[0];
    struct mm_struct *mm = READ(task->mm);
    struct mm_struct *parent_mm = READ(READ(task->real_parent)->mm);
    __builtin_memset(record, 0, __builtin_offsetof(struct record, data));
    draft->used = 0;
    describe_process(record, task);
    append_arguments(draft, mm);
    u32 before = draft->used;
    append_path(draft, &READ(mm->exe_file)->f_path, PATH_CUT, DELETED);
    record->path = draft->used - before;
    before = draft->used;
    if (parent_mm)
        append_path(draft, &READ(parent_mm->exe_file)->f_path, PARENT_CUT, 0);
    record->parent_path = draft->used - before;
    append_script(draft, task, (void *)(unsigned long)arguments[2]);
    before = draft->used;
    append_cgroup(draft, task);
    record->cgroup = draft->used - before;
    submit(draft);
    return 0;
}

/* The helpers that read memory are for programs that may be used under the GPL, which this file may. */
char gpl_licence[] SECTION("license") = "GPL";
