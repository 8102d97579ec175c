/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#ifndef GATEWAY_ETHERNET_H
#define GATEWAY_ETHERNET_H

#include "state.h"

#define HEADERS (ETH_HLEN + sizeof(struct iphdr) + sizeof(struct tcphdr))

static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	__u8 differs = 0;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		differs |= a[i] ^ b[i];
	return !differs;
}

static __always_inline bool is_broadcast(const __u8 *a)
{
	__u8 all = 0xff;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		all &= a[i];
	return all == 0xff;
}

static __always_inline bool is_tag_type(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/*
 * Makes a frame's first bytes its own. What a bottle sends out of a file or a pipe is
 * in pages that it can still write to (sendfile, splice), and so is what vhost-net
 * sends without copying (experimental_zcopytx), headers too: what was judged must be
 * what leaves. Returns less than 0 where there is no memory, or the frame has not so
 * many bytes.
 */
static __always_inline long own_bytes(struct __sk_buff *skb, __u32 count)
{
	return bpf_skb_pull_data(skb, count);
}

/* Does so with all headers but TCP's options, which few frames need. */
static __always_inline long own_headers(struct __sk_buff *skb)
{
	if ((void *)(long)skb->data + HEADERS <= (void *)(long)skb->data_end)
		return 0;
	return own_bytes(skb, skb->len < HEADERS ? skb->len : HEADERS);
}

/*
 * Judges the frame's kind: untagged, IPv4 or ARP, and no other.
 *
 * The kernel takes the outermost tag off before a tc program runs
 * (skb_vlan_untag in __netif_receive_skb_core), so that a tagged frame looks
 * like a plain one but for vlan_present. And skb->protocol is the kernel's
 * idea of the frame, which for an 802.3 length field is ETH_P_802_2; what the
 * program has read must be what the stack will act on.
 */
static __always_inline enum drop_reason check_frame(const struct __sk_buff *skb,
						    const struct ethhdr *eth)
{
	__be16 type = eth->h_proto;

	if (skb->vlan_present)
		return is_tag_type(type) ? DROP_QINQ : DROP_VLAN;
	if (is_tag_type(type))
		return DROP_VLAN;
	if (bpf_ntohs(type) < ETH_P_802_3_MIN)
		return DROP_LLC;
	if (skb->protocol != type)
		return DROP_ETHERTYPE;
	if (type == bpf_htons(ETH_P_IPV6))
		return DROP_IPV6;
	if (type != bpf_htons(ETH_P_IP) && type != bpf_htons(ETH_P_ARP))
		return DROP_ETHERTYPE;
	return DROP_NONE;
}

/* Judges the addresses: from the bottle to the link; ARP may be broadcast. */
static __always_inline enum drop_reason check_macs(const struct ethhdr *eth,
						   const struct bottle *b)
{
	if (!same_mac(eth->h_source, b->guest_mac))
		return DROP_SOURCE_MAC;
	if (same_mac(eth->h_dest, b->link_mac))
		return DROP_NONE;
	if (eth->h_proto == bpf_htons(ETH_P_ARP) && is_broadcast(eth->h_dest))
		return DROP_NONE;
	return DROP_DESTINATION_MAC;
}

#endif
