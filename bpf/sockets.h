/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The kernel's structures, as far as listen.bpf.c reads more of them than kernel.h has. What follows ___ in a name is
 * no part of it for the loader. Names and nesting are the kernel's, include/linux/{sched,fs,net,bpf}.h and
 * include/net/sock.h.
 */
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_struct___leader {
    int tgid;
    struct task_struct *group_leader;
};

struct inode {
    unsigned long i_ino;
};

struct file___inode {
    struct inode *f_inode;
};

struct in6_addr {
    u8 bytes[16];
};

typedef struct {
    struct net *net;
} possible_net_t;

struct sock_common {
    u32 skc_rcv_saddr;
    u16 skc_num;
    u16 skc_family;
    int skc_bound_dev_if;
    possible_net_t skc_net;
    struct in6_addr skc_v6_rcv_saddr;
};

struct sock {
    struct sock_common __sk_common;
    u16 sk_protocol;
};

struct socket {
    struct sock *sk;
};

struct seq_file;

struct bpf_iter_meta {
    struct seq_file *seq;
};

#pragma clang attribute pop
