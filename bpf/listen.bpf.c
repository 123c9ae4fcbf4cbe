/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * One record whenever a socket begins or ceases to listen, written in the process that makes it so;
 * collector-common/src/parse/listen_record.rs reads the records and draws them. And, when it is asked, one record for
 * each internet socket that a process holds.
 */
#include "bpf.h"
#include "kernel.h"
#include "sockets.h"

#define AF_INET 2
#define AF_INET6 10
/* include/net/tcp_states.h */
#define TCP_CLOSE 7
#define TCP_LISTEN 10

#define RING_BYTES (1 << 16)

struct record {
    u64 boottime_ns;
    u64 start_boottime_ns;
    u32 pid;
    u32 uid;
    u32 net_namespace;
    u32 interface;
    u16 protocol;
    u16 family;
    u16 port;
    /* 1 when it begins, 0 when it ceases. */
    u16 begins;
    u8 local[16];
    u8 name[16];
};

struct {
    UINT(type, BPF_MAP_TYPE_RINGBUF);
    UINT(max_entries, RING_BYTES);
} events SECTION(".maps");

/* How many records found the ring full. */
struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, u64);
} dropped SECTION(".maps");

/* TP_PROTO(const struct sock *sk, const int oldstate, const int newstate), include/trace/events/sock.h. A connection
 * that comes in is a copy of its listener, and leaves LISTEN for another state than CLOSE. */
SECTION("raw_tp/inet_sock_set_state")
int on_state(u64 *arguments)
{
    int before = arguments[1], after = arguments[2];
    if (!((before == TCP_CLOSE && after == TCP_LISTEN) || (before == TCP_LISTEN && after == TCP_CLOSE)))
        return 0;
    struct sock *sock = (void *)(unsigned long)arguments[0];
    struct task_struct___leader *task = (void *)bpf_get_current_task();
    struct record record = {};
    record.boottime_ns = bpf_ktime_get_boot_ns();
    record.start_boottime_ns = READ(READ(task->group_leader)->start_boottime);
    record.pid = bpf_get_current_pid_tgid() >> 32;
    record.uid = bpf_get_current_uid_gid();
    record.net_namespace = READ(READ(sock->__sk_common.skc_net.net)->ns.inum);
    record.interface = READ(sock->__sk_common.skc_bound_dev_if);
    record.protocol = READ(sock->sk_protocol);
    record.family = READ(sock->__sk_common.skc_family);
    record.port = READ(sock->__sk_common.skc_num);
    record.begins = after == TCP_LISTEN;
    if (record.family == AF_INET6)
        bpf_probe_read_kernel(record.local, 16, &sock->__sk_common.skc_v6_rcv_saddr);
    else
        bpf_probe_read_kernel(record.local, 4, &sock->__sk_common.skc_rcv_saddr);
    bpf_get_current_comm(record.name, sizeof(record.name));
    if (bpf_ringbuf_output(&events, &record, sizeof(record), 0)) {
        u32 zero = 0;
        u64 *count = bpf_map_lookup_elem(&dropped, &zero);
        if (count)
            __sync_fetch_and_add(count, 1);
    }
    return 0;
}

struct holder {
    u64 inode;
    u32 pid;
    u32 fd;
};

/* struct bpf_iter__task_file, kernel/bpf/task_iter.c. What the kernel hands over lies at fixed places. */
struct task_file {
    struct bpf_iter_meta *meta;
    struct task_struct___leader *task;
    u64 fd;
    struct file___inode *file;
};

SECTION("iter/task_file")
int on_file(struct task_file *context)
{
    struct task_struct___leader *task = context->task;
    struct file___inode *file = context->file;
    if (!task || !file)
        return 0;
    struct socket *socket = bpf_sock_from_file(file);
    if (!socket)
        return 0;
    u16 family = READ(READ(socket->sk)->__sk_common.skc_family);
    if (family != AF_INET && family != AF_INET6)
        return 0;
    struct holder holder = {
        .inode = READ(READ(file->f_inode)->i_ino),
        .pid = READ(task->tgid),
        .fd = context->fd,
    };
    bpf_seq_write(context->meta->seq, &holder, sizeof(holder));
    return 0;
}

/* The helpers that read memory are for programs that may be used under the GPL, which this file may. */
char gpl_licence[] SECTION("license") = "GPL";
