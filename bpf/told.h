/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the resolver told each bottle. No program reads it: it is the Go side's
 * memory beyond its own life, and ends with the machine's as the clock does that
 * it counts by.
 */
#ifndef GATEWAY_TOLD_H
#define GATEWAY_TOLD_H

#include "constants.h"

/* A name at an address, of whatever decision. */
struct told_key {
	__u32 ifindex;
	__be32 addr;
	__u16 name_len;
	__u16 unused;
	__u8 name[NAME_SIZE];
};

/* The value is when it ends: CLOCK_MONOTONIC, nanoseconds. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_TOLD);
	__type(key, struct told_key);
	__type(value, __u64);
} told SEC(".maps");

#endif
