/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#ifndef GATEWAY_ARP_H
#define GATEWAY_ARP_H

#include "ethernet.h"

#define ARP_HTYPE_ETHERNET 1 /* RFC 826, "ar$hrd" */
#define ARP_OP_REQUEST 1     /* RFC 826, "ar$op" */

/* An ARP packet for IPv4 over Ethernet; linux/if_arp.h needs libc headers. */
struct arp_ipv4 {
	__be16 htype;
	__be16 ptype;
	__u8 hlen;
	__u8 plen;
	__be16 op;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender_ip;
	__u8 target_mac[ETH_ALEN];
	__be32 target_ip;
} __attribute__((packed));

/*
 * Judges an ARP packet. The host has a permanent neighbour entry for the
 * bottle and asks nothing, so a bottle has nothing to answer and only one
 * thing to ask: who is the gateway.
 */
static __always_inline enum drop_reason check_arp(struct __sk_buff *skb,
						  const struct bottle *b)
{
	struct arp_ipv4 arp;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)))
		return DROP_ARP_SHORT;
	if (arp.htype != bpf_htons(ARP_HTYPE_ETHERNET) ||
	    arp.ptype != bpf_htons(ETH_P_IP) || arp.hlen != ETH_ALEN ||
	    arp.plen != sizeof(arp.sender_ip))
		return DROP_ARP_FORM;
	if (!same_mac(arp.sender_mac, b->guest_mac) || arp.sender_ip != b->guest)
		return DROP_ARP_SPOOF;
	if (arp.op != bpf_htons(ARP_OP_REQUEST) || arp.target_ip != b->gateway)
		return DROP_ARP_FORM;
	return DROP_NONE;
}

#endif
