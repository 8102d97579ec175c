/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The fast path's maps. The Go side writes pins, destinations, grants, names and
 * usage's existence; flows, hellos and events are the programs' own, and the Go
 * side only reads them.
 */
#ifndef GATEWAY_FAST_STATE_H
#define GATEWAY_FAST_STATE_H

#include "state.h"

/* A connection as the bottle sees it; its address is the link's constant. */
struct flow_key {
	__u32 ifindex;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
};

/*
 * The name that the flow was judged by is the one of its grant, in names: what
 * each packet touches is to be small.
 */
struct flow {
	__u64 seen; /* CLOCK_MONOTONIC, nanoseconds, in steps of a tick */
	__u64 up_packets; /* segments; what a sender left unsegmented counts as many */
	__u64 up_bytes;	  /* of TCP payload */
	__u64 down_packets;
	__u64 down_bytes;
	__u64 epoch;  /* of the grant, when the hello was judged */
	__u32 grant;  /* number of the permission, 0 before the verdict */
	__u32 expects; /* what the guest acknowledged last */
	__u8 state;   /* enum flow_state */
	__u8 phase;   /* enum flow_phase */
	__u8 guarded; /* bytes below kept may still be sent again */
	__u8 fin_up;
	__u8 fin_down;
	__u8 reset;
	__u8 reason; /* enum flow_reason */
	__u8 unused;
	__u64 checked; /* when conntrack was asked last */
	__u64 closing; /* when its end was seen, 0 before */
	__u32 lane;   /* generation of the lane that it is in, 0 for none */
	__u32 uplink; /* ifindex; this and the next three are set with out_port */
	__be32 next_hop;
	__be32 out_addr; /* what the upstream knows the guest by */
	__be16 out_port; /* 0: the flow has no entry in reverses */
	__u16 unused2;
	__u32 busy;   /* not 0 while a CPU judges */
	__u32 start;  /* sequence number of the guest's first byte */
	__u32 kept;   /* bytes from there that are kept and were passed */
	__u32 record; /* offset of the record that is being looked at */
	__u32 slot;   /* of hellos, 0 when nothing is kept */
	__u32 opened; /* not 0: the upstream has answered the SYN that start is of */
	__u32 sent;   /* number behind the last that the upstream sent, while guarded */
	__u64 began;
	__u8 id[16]; /* random */
};

/* An address and port that a bottle may open connections to without a proxy. */
struct destination_key {
	__u32 ifindex;
	__be32 daddr;
	__be16 dport;
	__u16 unused;
};

struct destination {
	__u64 expires; /* CLOCK_MONOTONIC, nanoseconds */
};

/*
 * A name at an address. The length is part of the key, since "a" and "a\\0"
 * would be one name without it.
 */
struct pin_key {
	__u32 ifindex;
	__be32 daddr;
	__be16 dport;
	__u16 name_len;
	__u8 name[NAME_SIZE];
};

struct pin {
	__u64 expires;
	__u64 epoch;
	__u32 grant;
	__u32 unused;
};

/* What of a flow's stream is kept, and the state of whoever walks over it. */
struct hello {
	__u64 seen[16]; /* extension types met, by their low ten bits */
	__u32 at;	/* next byte to look at, or to write */
	__u32 end;	/* of the extensions, or of what is compared */
	__u32 list_end; /* of the ALPN list that is being walked, else 0 */
	__u32 from;	/* offset in the frame */
	__u32 left;
	__u32 failed; /* enum flow_reason */
	__u32 name_at;
	__u32 name_len;
	struct pin_key key;
	__u8 bytes[HELLO_CAPACITY + HELLO_SLACK];
};

/*
 * Where flows are redirected to. No uplink: nowhere, they are forwarded. Whatever
 * changes gives it the next generation, and each flow's next packet asks anew.
 */
struct lane {
	__u32 uplink; /* ifindex */
	__u32 generation; /* never 0 */
	__be32 addrs[UPLINK_ADDRESSES];
	__u64 routes; /* digest; compared by the Go side alone */
};

/* What comes to the uplink for a flow in the lane. */
struct reverse_key {
	__u32 ifindex;
	__be32 remote;
	__be32 local;
	__be16 remote_port;
	__be16 local_port;
};

struct reverse {
	struct flow_key key;
	__u32 unused;
	__u64 until; /* CLOCK_MONOTONIC, 0 while the connection is open */
};

/* What a permission is for. */
struct name {
	__u64 epoch; /* that it had when it was given; it is withdrawn by another */
	__u32 len;
	__u8 name[NAME_SIZE];
	__u32 unused;
};

/* How much of its budgets a bottle uses. */
struct usage {
	__u64 flows;
	__u64 hellos;
};

struct event {
	struct flow_key key;
	__u8 kind; /* enum event_kind */
	__u8 reason; /* enum flow_reason */
	__u16 unused;
	struct flow flow;
	struct name name;
};

/*
 * This one and reverses have all their memory from the beginning, 28 and 12 MB: to
 * take it when a flow begins and give it back after its end costs some ten times
 * as much as the rest of the entry does, and more is never needed.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/*
 * Buffers, by slot; slot 0 is nobody's. A flow takes one at its SYN, and what an
 * earlier one left in it is never read: only what is below kept is.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_HELLOS + 1);
	__type(key, __u32);
	__type(value, struct hello);
} hellos SEC(".maps");

/*
 * A bit for each slot that no flow has, from slot 1 on. The Go side sets them once.
 * (No queue: Linux 6.1 has none for the program that collects.)
 */
struct slot_set {
	__u64 free[MAX_HELLOS / 64];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct slot_set);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PINS);
	__type(key, struct destination_key);
	__type(value, struct destination);
} destinations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PINS);
	__type(key, struct pin_key);
	__type(value, struct pin);
} pins SEC(".maps");

/* The epoch of each permission. A flow whose epoch is another is cut. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_GRANTS);
	__type(key, __u32);
	__type(value, __u64);
} grants SEC(".maps");

/*
 * The name of each permission, by its number. The Go side writes it before any pin
 * has the number, and keeps it for as long as a flow has.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_GRANTS);
	__type(key, __u32);
	__type(value, struct name);
} names SEC(".maps");

/* Keyed by ifindex. A link without an entry has no fast path. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_BOTTLES);
	__type(key, __u32);
	__type(value, struct usage);
} usages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENT_BYTES);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOWS);
	__type(key, struct reverse_key);
	__type(value, struct reverse);
} reverses SEC(".maps");

/* Written by the Go side. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lane);
} lanes SEC(".maps");

/* Where a new flow is put together: it is too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} scratch SEC(".maps");

/* Reports a flow. Returns false, and nothing was reported, when there is no room. */
static __always_inline bool report(const struct flow_key *key, const struct flow *f,
				   enum event_kind kind, enum flow_reason reason)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	__u32 grant = f->grant;
	const struct name *n;

	if (!e)
		return false;
	e->key = *key;
	e->kind = kind;
	e->reason = reason;
	e->unused = 0;
	e->flow = *f;
	e->name.len = 0;
	n = bpf_map_lookup_elem(&names, &grant);
	if (n && n->epoch == f->epoch)
		e->name = *n;
	bpf_ringbuf_submit(e, 0);
	return true;
}

static __always_inline struct slot_set *the_slots(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&slots, &zero);
}

/* The number of the one bit that is set. */
static __always_inline __u32 bit_number(__u64 bit)
{
	__u32 n = 0;

	if (bit >> 32)
		n = 32;
	if (bit >> n >> 16)
		n += 16;
	if (bit >> n >> 8)
		n += 8;
	if (bit >> n >> 4)
		n += 4;
	if (bit >> n >> 2)
		n += 2;
	return n + (bit >> n >> 1 ? 1 : 0);
}

/*
 * Takes a free slot, 0 for none. Who loses a bit to another CPU tries the next
 * word, so that there is no loop without an end.
 */
static __noinline __u32 take_slot(void)
{
	__u32 words = MAX_HELLOS / 64, first = bpf_get_smp_processor_id() * 5;
	struct slot_set *s = the_slots();

	if (!s)
		return 0;
	for (__u32 i = 0; i < MAX_HELLOS / 64; i++) {
		__u32 word = (first + i) & (words - 1);
		__u64 free, bit;

		OPAQUE(word);
		word &= words - 1;
		free = s->free[word];
		bit = free & -free;
		if (bit && __sync_fetch_and_and(&s->free[word], ~bit) & bit)
			return word * 64 + bit_number(bit) + 1;
	}
	return 0;
}

static __always_inline void give_slot(__u32 slot)
{
	struct slot_set *s = the_slots();
	__u32 word = (slot - 1) / 64;

	OPAQUE(word);
	word &= MAX_HELLOS / 64 - 1;
	if (s)
		__sync_fetch_and_or(&s->free[word], 1ULL << ((slot - 1) & 63));
}

/*
 * Lets go of what was kept of a flow's stream. The caller holds the flow's lock:
 * nobody reads what is given to another flow now.
 */
static __always_inline void forget_hello(const struct flow_key *key, struct flow *f)
{
	__u32 ifindex = key->ifindex, slot = f->slot;
	struct usage *u;

	if (!slot)
		return;
	f->slot = 0;
	give_slot(slot);
	u = bpf_map_lookup_elem(&usages, &ifindex);
	if (u)
		__sync_fetch_and_add(&u->hellos, -1);
}

/* Tells whether the flow's permission is the one it was judged by. */
static __always_inline bool granted(const struct flow *f)
{
	__u32 grant = f->grant;
	__u64 *epoch = bpf_map_lookup_elem(&grants, &grant);

	return grant && epoch && *epoch == f->epoch;
}

/* One CPU at a time judges a flow; another that comes meanwhile drops. */
static __always_inline bool lock_flow(struct flow *f)
{
	return __sync_val_compare_and_swap(&f->busy, 0, 1) == 0;
}

static __always_inline void unlock_flow(struct flow *f)
{
	__sync_lock_test_and_set(&f->busy, 0);
}

#endif
