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

static __always_inline long read_member(struct __sk_buff *skb, void *to, __u32 size, __u32 at)
{
	return bpf_probe_read_kernel(to, size, (void *)skb + (at & SKB_MOST));
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
	struct skb_layout *l;
	__u32 zero = 0;
	__u8 summed;
	__u16 start, offset, network;

	l = bpf_map_lookup_elem(&layouts, &zero);
	if (!l)
		return SUM_ELSEWHERE;
	if (!l->known)
		return SUM_WHOLE;
	if (read_member(skb, &summed, sizeof(summed), l->summed))
		return SUM_ELSEWHERE;
	if (((summed >> (l->summed_bit & 7)) & SUM_BITS) != SUM_PARTIAL)
		return SUM_WHOLE;
	if (read_member(skb, &start, sizeof(start), l->csum_start) ||
	    read_member(skb, &offset, sizeof(offset), l->csum_offset) ||
	    read_member(skb, &network, sizeof(network), l->network_header))
		return SUM_ELSEWHERE;
	return start == (__u16)(network + sizeof(struct iphdr)) &&
	       offset == offsetof(struct tcphdr, check) ? SUM_LEFT : SUM_ELSEWHERE;
}

#endif
