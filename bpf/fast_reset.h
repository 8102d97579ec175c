/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Ending a TCP connection that is forwarded: RST to both sides. With one to the
 * bottle alone the upstream would keep its socket, and conntrack its entry.
 */
#ifndef GATEWAY_FAST_RESET_H
#define GATEWAY_FAST_RESET_H

#include "fast_state.h"
#include "ipv4.h"
#include "reply.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_URG 0x20

/* A TCP segment of the bottle, in host order but for the key. */
struct segment {
	struct flow_key key;
	__be32 saddr;
	__u32 seq;
	__u32 ack;
	__u32 from; /* offset of the payload in the frame */
	__u32 len;  /* of the payload */
	__u8 flags;
	__u8 partial; /* the checksum is left to the kernel */
	__u8 header; /* length of the TCP header */
};

struct reset_frame {
	struct iphdr ip;
	struct tcphdr tcp;
};

struct pseudo_header { /* RFC 9293 section 3.1 */
	__be32 saddr;
	__be32 daddr;
	__u8 zero;
	__u8 protocol;
	__be16 length;
};

static __always_inline __u16 pseudo_sum(__be32 saddr, __be32 daddr, __u32 length)
{
	struct pseudo_header h = {
		.saddr = saddr, .daddr = daddr,
		.protocol = IPPROTO_TCP, .length = bpf_htons(length),
	};

	return ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&h, sizeof(h), 0));
}

/*
 * Fills in both checksums. Of a frame whose checksum was left to the device
 * (CHECKSUM_PARTIAL) the kernel will finish it also now that it is another
 * frame, and expects the pseudo header's sum in its place.
 */
static __always_inline void seal_reset(struct reset_frame *r, bool partial)
{
	__u16 pseudo = pseudo_sum(r->ip.saddr, r->ip.daddr, sizeof(r->tcp));

	r->ip.check = 0;
	r->ip.check = CHECKSUM(&r->ip, sizeof(r->ip));
	r->tcp.check = 0;
	if (partial)
		r->tcp.check = pseudo;
	else
		r->tcp.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&r->tcp,
						  sizeof(r->tcp), pseudo));
}

/*
 * Sends a RST to the bottle, and turns skb into the RST that the bottle might
 * have sent to the upstream, whose next byte expected is number next. The caller
 * passes skb on.
 */
static __noinline int write_resets(struct __sk_buff *skb, const struct segment *s, __u32 next)
{
	struct reset_frame r = {
		.ip = {
			.version = 4, .ihl = sizeof(r.ip) / 4,
			.tot_len = bpf_htons(sizeof(r)),
			.frag_off = bpf_htons(IPV4_DONT_FRAGMENT),
			.ttl = REPLY_TTL, .protocol = IPPROTO_TCP,
			.saddr = s->key.daddr, .daddr = s->saddr,
		},
		.tcp = { .doff = sizeof(r.tcp) / 4, .rst = 1, .ack = 1,
			 .source = s->key.dport, .dest = s->key.sport },
	};
	struct ethhdr eth, back;

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return -1;
	back = eth;
	__builtin_memcpy(back.h_dest, eth.h_source, ETH_ALEN);
	__builtin_memcpy(back.h_source, eth.h_dest, ETH_ALEN);
	r.tcp.seq = bpf_htonl(s->ack);
	r.tcp.ack_seq = bpf_htonl(s->seq + s->len + !!(s->flags & TCP_FIN));
	seal_reset(&r, s->partial);
	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(r), 0) ||
	    bpf_skb_store_bytes(skb, 0, &back, sizeof(back), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &r, sizeof(r), 0) ||
	    bpf_clone_redirect(skb, skb->ifindex, 0))
		return -1;

	r.ip.saddr = s->saddr;
	r.ip.daddr = s->key.daddr;
	r.tcp.source = s->key.sport;
	r.tcp.dest = s->key.dport;
	r.tcp.seq = bpf_htonl(next);
	r.tcp.ack_seq = bpf_htonl(s->ack);
	seal_reset(&r, s->partial);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &r, sizeof(r), 0))
		return -1;
	return 0;
}

#endif
