/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The maps of every link, and the types of what they hold. All are written by
 * the Go side and pinned; the programs write only struct link_stats.
 */
#ifndef GATEWAY_STATE_H
#define GATEWAY_STATE_H

#include "constants.h"

/* Hides a number from the compiler, so that a check of it is not moved or lost. */
#define OPAQUE(n) asm volatile("" : "+r"(n))

/* One capture link's constants. Multi-byte members are in network order. */
struct bottle {
	__be32 guest;	/* the only source address */
	__be32 gateway; /* the host's address on the link */
	__be16 intercept_port;
	__be16 dns_port;
	__u8 guest_mac[6];
	__u8 link_mac[6];
	__u8 state; /* enum bottle_state */
	__u8 fast; /* not 0: pinned destinations take the fast path */
	__u8 peer; /* not 0: the far end is a veth's in another namespace, and nothing queues before it */
	__u8 unused;
};

/*
 * What was counted on one link by one CPU. The members *_until and window* are
 * no counters but the state of the paces, kept here because they are per link
 * and CPU as well.
 */
struct link_stats {
	__u64 rx_packets; /* from the bottle, dropped ones included */
	__u64 rx_bytes;
	__u64 tx_packets; /* to the bottle */
	__u64 tx_bytes;
	__u64 assigned; /* frames given to a socket of the gateway */
	__u64 arp;	/* ARP requests passed to the host */
	__u64 refused;	/* answered with ICMP port unreachable */
	__u64 refusals_until;
	__u64 dns_until;
	__u64 flows_until;
	__u64 window; /* the frame window that is being counted ... */
	__u64 window_frames;
	__u64 forwarded; /* frames of fast-path flows that were passed */
	__u64 redirected; /* of these, past netfilter and routing */
	__u64 drops[DROP_REASONS];
};

/* The network namespace that the pins belong to (SO_NETNS_COOKIE). */
struct instance {
	__u64 netns_cookie;
	/* Index of the interface on which forwarding was switched on, or 0. */
	__u32 forwarding;
	__u32 unused;
};

/* Keyed by ifindex. A link that is not here is a stranger's: drop. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_BOTTLES);
	__type(key, __u32);
	__type(value, struct bottle);
} bottles SEC(".maps");

/* Keyed by ifindex; key 0 counts what links without an entry send. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_BOTTLES + 1);
	__type(key, __u32);
	__type(value, struct link_stats);
} stats SEC(".maps");

/* Read by the Go side alone, when it decides whether pins may be adopted. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct instance);
} instances SEC(".maps");

#endif
