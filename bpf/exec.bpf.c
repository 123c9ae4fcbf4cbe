/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * One record for every exec, written in the process that executes, before it runs its first instruction: nothing in it
 * can be gone or changed by then. collector-common/src/parse/exec_record.rs reads the records and draws them.
 *
 * For kernels that describe their types; exec_nobtf.bpf.c is for the others.
 */
#include "record.h"
#include "kernel.h"

/* Steps up a path, mounts crossed included, and up the tree of control groups. */
#define PATH_STEPS 96
#define CGROUP_STEPS 16
#define CGROUP_BYTES 1024

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

/* TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm), include/trace/events/sched.h */
SECTION("raw_tp/sched_process_exec")
int on_exec(u64 *arguments)
{
    struct draft *draft = new_draft();
    if (!draft)
        return 0;
    struct record *record = &draft->record;
    struct task_struct *task = (void *)(unsigned long)arguments[0];
    struct mm_struct *mm = READ(task->mm);
    struct mm_struct *parent_mm = READ(READ(task->real_parent)->mm);
    describe_process(record, task);
    u64 arguments_at = READ(mm->arg_start);
    append_arguments(draft, arguments_at, READ(mm->arg_end) - arguments_at);
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
