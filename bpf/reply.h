/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#ifndef GATEWAY_REPLY_H
#define GATEWAY_REPLY_H

#include "ipv4.h"

#define ICMP_TYPE_UNREACHABLE 3 /* RFC 792 */
#define ICMP_CODE_PORT 3
#define TOS_INTERNETWORK_CONTROL 0xc0 /* what the kernel's own icmp_send uses */
#define REPLY_TTL 64

/* linux/icmp.h needs libc headers. */
struct icmp_unreachable {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 unused;
};

/* RFC 792: the offending packet's IP header and 64 bits of what follows. */
struct port_unreachable {
	struct iphdr ip;
	struct icmp_unreachable icmp;
	struct iphdr old_ip;
	struct udphdr old_udp;
};

static __always_inline __sum16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The Internet checksum (RFC 1071) of size bytes, a multiple of 4. */
#define CHECKSUM(from, size) fold(bpf_csum_diff(NULL, 0, (__be32 *)(from), size, 0))

/*
 * Turns the UDP datagram in skb into an ICMP port unreachable for it, from the
 * address that the bottle called. The caller redirects skb back to its link.
 *
 * If the frame came with an unfinished checksum (a tap with vnet header, or a
 * veth), the kernel still takes it for such a frame, and the receiver on the
 * other side of the same virtual link does not verify it.
 */
static __always_inline enum drop_reason write_port_unreachable(struct __sk_buff *skb,
							       const struct ethhdr *eth,
							       const struct packet *p,
							       const struct udphdr *udp)
{
	struct port_unreachable r = {
		.ip = {
			.version = 4,
			.ihl = sizeof(r.ip) / 4,
			.tos = TOS_INTERNETWORK_CONTROL,
			.tot_len = bpf_htons(sizeof(r)),
			.frag_off = bpf_htons(IPV4_DONT_FRAGMENT),
			.ttl = REPLY_TTL,
			.protocol = IPPROTO_ICMP,
			.saddr = p->ip.daddr,
			.daddr = p->ip.saddr,
		},
		.icmp = { .type = ICMP_TYPE_UNREACHABLE, .code = ICMP_CODE_PORT },
		.old_ip = p->ip,
		.old_udp = *udp,
	};
	struct ethhdr back = { .h_proto = eth->h_proto };

	__builtin_memcpy(back.h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(back.h_source, eth->h_dest, ETH_ALEN);
	r.ip.check = CHECKSUM(&r.ip, sizeof(r.ip));
	r.icmp.checksum = CHECKSUM(&r.icmp, sizeof(r) - sizeof(r.ip));

	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(r), 0) ||
	    bpf_skb_store_bytes(skb, 0, &back, sizeof(back), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &r, sizeof(r), 0))
		return DROP_REPLY_FAILED;
	return DROP_NONE;
}

#endif
