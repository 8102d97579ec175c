/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Numbers that the programs and the Go side share. Their home is here; bpf2go
 * writes the Go constants from the type information of the object.
 */
#ifndef GATEWAY_CONSTANTS_H
#define GATEWAY_CONSTANTS_H

/*
 * Bits of skb->mark. A frame from a bottle has its mark cleared before
 * anything else is done with it, so that whoever meets one of these bits later
 * (a routing rule, the nftables table) knows that the program set it.
 */
enum mark {
	MARK_MASK = 0x0f000000,
	/* The packet was assigned to one of the gateway's sockets. */
	MARK_INTERCEPT = 0x01000000,
	/* The packet may be forwarded; no program sets it at present. */
	MARK_FORWARD = 0x02000000,
	/*
	 * SO_MARK of the gateway's own sockets. A frame is assigned only to a
	 * socket that carries it. It differs from MARK_INTERCEPT, since that
	 * would send the gateway's replies through the local route as well.
	 */
	MARK_SOCKET = 0x04000000,
};

/*
 * Why a frame was dropped. DROP_NONE is no drop; DROP_REASONS is how many
 * there are. The order is the order of the checks, and new reasons go where
 * the check is: the numbers are no interface, the labels in Go are.
 */
enum drop_reason {
	DROP_NONE,
	DROP_NO_BOTTLE,	     /* the link has no entry in the table of bottles */
	DROP_SHUT,	     /* the link has an entry, but is not open */
	DROP_VLAN,	     /* one IEEE 802.1Q or 802.1ad tag */
	DROP_QINQ,	     /* a tag behind a tag */
	DROP_RUNT,	     /* no whole Ethernet header */
	DROP_LLC,	     /* IEEE 802.3 length field instead of an EtherType */
	DROP_IPV6,	     /* EtherType IPv6 */
	DROP_ETHERTYPE,	     /* any other EtherType, or not the kernel's idea of it */
	DROP_SOURCE_MAC,     /* not the bottle's address */
	DROP_DESTINATION_MAC, /* not the link's address */
	DROP_ARP_SHORT,	     /* no whole ARP packet */
	DROP_ARP_FORM,	     /* not a request of the bottle for the gateway */
	DROP_ARP_SPOOF,	     /* sender fields that are not the bottle's */
	DROP_IP_SHORT,	     /* no whole IPv4 header */
	DROP_IP_VERSION,     /* version field is not 4 */
	DROP_IP_OPTIONS,     /* header length is not 20 bytes */
	DROP_IP_LENGTH,	     /* total length beyond the frame or below a header */
	DROP_FRAGMENT,	     /* a fragment, or the reserved bit */
	DROP_SOURCE_IP,	     /* not the bottle's address */
	DROP_DESTINATION_IP, /* 0/8, 127/8, multicast, reserved or broadcast */
	DROP_ICMP,
	DROP_PROTOCOL,	     /* neither TCP, UDP nor ICMP */
	DROP_TCP_LENGTH,     /* TCP header cut off or of impossible length */
	DROP_UDP_LENGTH,     /* UDP header cut off or of impossible length */
	DROP_UDP,	     /* a port that is neither DNS nor QUIC */
	DROP_QUIC_PACE,	     /* more refusals due than the pace allows */
	DROP_REPLY_FAILED,   /* a helper refused while a refusal was written */
	DROP_FOREIGN_SOCKET, /* the flow is a socket's that is not the gateway's */
	DROP_NO_LISTENER,    /* the gateway does not listen for TCP */
	DROP_NO_RESOLVER,    /* the gateway does not listen for DNS */
	DROP_ASSIGN_FAILED,  /* the kernel would not give the frame to the socket */
	DROP_REASONS,
};

/* Whether a bottle's entry lets anything through. The zero value does not. */
enum bottle_state {
	BOTTLE_SHUT,
	BOTTLE_OPEN,
};

enum limits {
	/* Capture links in one instance. */
	MAX_BOTTLES = 4096,
	/* QUIC refusals of one bottle on one CPU: one per interval ... */
	REFUSAL_INTERVAL_NS = 5 * 1000 * 1000,
	/* ... after a burst of this many. */
	REFUSAL_BURST = 64,
};

#endif
