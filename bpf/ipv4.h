/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#ifndef GATEWAY_IPV4_H
#define GATEWAY_IPV4_H

#include "state.h"

#define IPV4_DONT_FRAGMENT 0x4000 /* RFC 791 section 3.1, Flags, bit 1 */

/* A packet's addresses, and how many bytes follow its IPv4 header. */
struct packet {
	struct iphdr ip;
	__u32 payload;
};

/* True for what RFC 6890 leaves after 0/8, 127/8, 224/4 and 240/4. */
static __always_inline bool is_unicast(__be32 address)
{
	__u8 first = bpf_ntohl(address) >> 24;

	return first != 0 && first != 127 && first < 224;
}

/*
 * Loads the IPv4 header and judges it. The length may be below the frame's,
 * since short frames are padded (IEEE 802.3), but never beyond it. The header
 * checksum, TTL and ECN bits are left to the host's stack, which terminates
 * every packet that passes.
 */
static __always_inline enum drop_reason load_ipv4(struct __sk_buff *skb,
						  const struct bottle *b,
						  struct packet *p)
{
	__u32 length;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &p->ip, sizeof(p->ip)))
		return DROP_IP_SHORT;
	if (p->ip.version != 4)
		return DROP_IP_VERSION;
	if (p->ip.ihl * 4 != sizeof(p->ip))
		return DROP_IP_OPTIONS;
	length = bpf_ntohs(p->ip.tot_len);
	if (length < sizeof(p->ip) || length + ETH_HLEN > skb->len)
		return DROP_IP_LENGTH;
	if (p->ip.frag_off & ~bpf_htons(IPV4_DONT_FRAGMENT))
		return DROP_FRAGMENT;
	if (p->ip.saddr != b->guest)
		return DROP_SOURCE_IP;
	if (!is_unicast(p->ip.daddr))
		return DROP_DESTINATION_IP;
	p->payload = length - sizeof(p->ip);
	return DROP_NONE;
}

#endif
