/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The kernel's structures, as far as exec.bpf.c reads them. No offset here is that of any kernel: the compiler notes
 * which field is meant (preserve_access_index), and the loader puts in where the running kernel has it, by the BTF it
 * describes itself with. Names and nesting are the kernel's, include/linux/{sched,binfmts,fs,dcache,mount}.h and
 * fs/mount.h.
 */
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct qstr {
    u32 len;
    const unsigned char *name;
};

struct hlist_bl_node {
    void **pprev;
};

struct dentry {
    struct hlist_bl_node d_hash;
    struct dentry *d_parent;
    struct qstr d_name;
};

struct vfsmount {
    struct dentry *mnt_root;
};

struct mount {
    struct mount *mnt_parent;
    struct dentry *mnt_mountpoint;
    struct vfsmount mnt;
};

struct path {
    struct vfsmount *mnt;
    struct dentry *dentry;
};

struct file {
    struct path f_path;
};

struct fs_struct {
    struct path pwd;
};

struct mm_struct {
    unsigned long arg_start;
    unsigned long arg_end;
    struct file *exe_file;
};

typedef struct {
    u32 val;
} kuid_t;

struct cred {
    kuid_t uid;
    kuid_t euid;
};

struct ns_common {
    u32 inum;
};

struct net {
    struct ns_common ns;
};

struct pid_namespace {
    struct ns_common ns;
};

struct upid {
    struct pid_namespace *ns;
};

struct pid {
    u32 level;
    struct upid numbers[1];
};

struct nsproxy {
    struct net *net_ns;
};

struct kernfs_node {
    struct kernfs_node *parent;
    const char *name;
};

/* Since Linux 6.15. */
struct kernfs_node___since_6_15 {
    struct kernfs_node *__parent;
};

struct cgroup {
    struct kernfs_node *kn;
};

struct cgroup_subsys_state {
    struct cgroup *cgroup;
};

struct css_set {
    struct cgroup_subsys_state *subsys[1];
    struct cgroup *dfl_cgrp;
};

struct task_struct {
    int tgid;
    u64 start_boottime;
    struct task_struct *real_parent;
    struct mm_struct *mm;
    struct cred *cred;
    struct pid *thread_pid;
    struct nsproxy *nsproxy;
    struct fs_struct *fs;
    struct css_set *cgroups;
    /* With CONFIG_AUDIT. */
    kuid_t loginuid;
};

struct linux_binprm {
    const char *filename;
    const char *interp;
};

#pragma clang attribute pop
