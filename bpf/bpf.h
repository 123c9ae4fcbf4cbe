/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What a BPF program may call, by number (include/uapi/linux/bpf.h, bpf-helpers(7)), and how it is told to the loader.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* A map as BTF describes it: the numbers are lengths of arrays that are never made. */
#define UINT(name, value) int(*name)[value]
#define TYPE(name, value) __typeof__(value) *name

#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_LRU_HASH 9
#define BPF_MAP_TYPE_RINGBUF 27

#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_FORCE_WAKEUP 2
#define BPF_RB_AVAIL_DATA 0

/* For __builtin_preserve_field_info and __builtin_preserve_type_info. */
#define FIELD_BYTE_OFFSET 0
#define FIELD_EXISTS 2
#define TYPE_SIZE 1

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*bpf_get_current_uid_gid)(void) = (void *)15;
static long (*bpf_get_current_comm)(void *to, u32 bytes) = (void *)16;
static u64 (*bpf_get_current_task)(void) = (void *)35;
static u64 (*bpf_get_current_cgroup_id)(void) = (void *)80;
static long (*bpf_probe_read_user)(void *to, u32 bytes, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, u32 bytes, const void *from) = (void *)113;
static long (*bpf_probe_read_user_str)(void *to, u32 bytes, const void *from) = (void *)114;
static long (*bpf_probe_read_kernel_str)(void *to, u32 bytes, const void *from) = (void *)115;
static u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*bpf_seq_write)(void *to, const void *data, u32 bytes) = (void *)127;
static long (*bpf_ringbuf_output)(void *map, void *data, u64 bytes, u64 flags) = (void *)130;
static u64 (*bpf_ringbuf_query)(void *map, u64 what) = (void *)134;
/* Since Linux 5.11. */
static void *(*bpf_sock_from_file)(void *file) = (void *)162;

/* Reads a field of a structure of the kernel; 0 where it cannot be read. */
#define READ(field)                                                            \
    ({                                                                         \
        __typeof__(field) value_;                                              \
        bpf_probe_read_kernel(&value_, sizeof(value_), &(field));              \
        value_;                                                                \
    })

/* Keeps the compiler from forgetting a bound that the verifier wants to see. */
#define OPAQUE(value) __asm__ volatile("" : "+r"(value))
