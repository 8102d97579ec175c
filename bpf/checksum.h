/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A frame may leave its checksum to the kernel (VIRTIO_NET_HDR_F_NEEDS_CSUM, or
 * CHECKSUM_PARTIAL of a namespace), and says where it is to be written. That
 * happens on the way out, after the program has looked: a place of the guest's
 * choice would change the name, the sequence number or the port of what was
 * judged. So the place must be that of TCP's checksum, counted from TCP's header.
 *
 * No helper tells the place. The Go side finds the members of struct sk_buff in
 * the kernel's type information.
 */
#ifndef GATEWAY_CHECKSUM_H
#define GATEWAY_CHECKSUM_H

#include "state.h"

#define SUM_PARTIAL 3 /* CHECKSUM_PARTIAL of linux/skbuff.h */
#define SUM_BITS 3
#define SKB_MOST 1023 /* no member is beyond */
#define SKB_WINDOW 64 /* bytes in which all members are, ip_summed first */

/* Offsets in struct sk_buff, in bytes; of ip_summed the byte and the bit. */
struct skb_layout {
	__u16 known; /* 0: the others are not */
	__u16 summed;
	__u16 summed_bit;
	__u16 csum_start;
	__u16 csum_offset;
	__u16 network_header;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct skb_layout);
} layouts SEC(".maps");

/* The two bytes of the window where a member is, which the caller has made sure of. */
static __always_inline __u16 member(const __u8 *window, __u32 at)
{
	OPAQUE(at);
	return *(const __u16 *)(window + (at & (SKB_WINDOW - 2)));
}

/* Where the kernel will write a frame's checksum. */
enum sum_place {
	SUM_WHOLE, /* nowhere: it is there */
	SUM_LEFT,  /* into TCP's, where the sum of the pseudo header is by now */
	SUM_ELSEWHERE,
};

/*
 * Tells where the kernel would write the checksum of a TCP segment. Where the
 * layout is not known there is no fast path, and nobody else lets the packet go on
 * as it is.
 */
static __noinline int sum_place(struct __sk_buff *skb)
{
	__u8 window[SKB_WINDOW] __attribute__((aligned(8)));
	__u16 summed, start, offset, network;
	struct skb_layout *l;
	__u32 zero = 0, from;

	l = bpf_map_lookup_elem(&layouts, &zero);
	if (!l)
		return SUM_ELSEWHERE;
	if (!l->known)
		return SUM_WHOLE;
	from = l->summed & SKB_MOST & ~1;
	start = l->csum_start - from;
	offset = l->csum_offset - from;
	network = l->network_header - from;
	if (start > SKB_WINDOW - 2 || offset > SKB_WINDOW - 2 || network > SKB_WINDOW - 2 ||
	    bpf_probe_read_kernel(window, sizeof(window), (void *)skb + from))
		return SUM_ELSEWHERE;
	summed = member(window, 0) >> (l->summed & 1 ? 8 : 0);
	if (((summed >> (l->summed_bit & 7)) & SUM_BITS) != SUM_PARTIAL)
		return SUM_WHOLE;
	start = member(window, start);
	offset = member(window, offset);
	network = member(window, network);
	return start == (__u16)(network + sizeof(struct iphdr)) &&
	       offset == offsetof(struct tcphdr, check) ? SUM_LEFT : SUM_ELSEWHERE;
}

#endif
