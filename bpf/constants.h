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
	/* The packet is of a fast-path flow and may be forwarded. */
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
	DROP_RUNT,	     /* no whole Ethernet header, or no memory to keep the headers apart */
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
	DROP_SUM_PLACE,	     /* TCP whose checksum is to be written elsewhere */
	DROP_TCP_LENGTH,     /* TCP header cut off or of impossible length */
	DROP_UDP_LENGTH,     /* UDP header cut off or of impossible length */
	DROP_UDP,	     /* a port that is neither DNS nor QUIC */
	DROP_QUIC_PACE,	     /* more refusals due than the pace allows */
	DROP_REPLY_FAILED,   /* a helper refused while a refusal was written */
	DROP_FOREIGN_SOCKET, /* the flow is a socket's that is not the gateway's */
	DROP_NO_LISTENER,    /* the gateway does not listen for TCP */
	DROP_NO_RESOLVER,    /* the gateway does not listen for DNS */
	DROP_ASSIGN_FAILED,  /* the kernel would not give the frame to the socket */
	DROP_FRAME_PACE,     /* more frames than the pace allows */
	DROP_DNS_PACE,	     /* more DNS datagrams than the pace allows */
	DROP_FLOW_PACE,	     /* more SYNs than the pace allows */
	DROP_SYN_FORM,	     /* a fast-path SYN with data or odd flags, or a segment without ACK */
	DROP_FLOW_BUSY,	     /* another CPU is judging the same flow */
	DROP_FLOW_ORDER,     /* not in order, or behind a RST, and the hello is not judged yet */
	DROP_FLOW_REFUSED,   /* its fast-path flow is refused; both sides were reset */
	DROP_FLOW_REVOKED,   /* to the bottle, of a fast-path flow that is over */
	DROP_EVENTS_FULL,    /* a SYN ends a flow that could not be reported */
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
	/* DNS datagrams of one bottle on one CPU. */
	DNS_INTERVAL_NS = 4 * 1000 * 1000,
	DNS_BURST = 512,
	/* SYNs of one bottle on one CPU. */
	FLOW_INTERVAL_NS = 40 * 1000,
	FLOW_BURST = 8192,
	/* Frames of one bottle on one CPU in a window of 2^28 ns (0.27 s). */
	FRAME_WINDOW_SHIFT = 28,
	FRAMES_PER_WINDOW = 512 * 1024,
	/* Fast-path flows, of all bottles and of one; closed ones count for some seconds. */
	MAX_FLOWS = 131072,
	MAX_BOTTLE_FLOWS = 65536,
	/* Flows whose hello is still kept, of all bottles and of one: 17.3 KB each. */
	MAX_HELLOS = 1024,
	MAX_BOTTLE_HELLOS = 256, /* a quarter: no three bottles leave none for the others */
	/* Addresses of the uplink that translated flows may leave by. */
	UPLINK_ADDRESSES = 8,
	/* Pins: names at addresses, and addresses. */
	MAX_PINS = 65536,
	/* Names at addresses that are remembered, of all bottles and of one. */
	MAX_TOLD = 131072,
	MAX_BOTTLE_TOLD = 8192,
	/* Permissions that pins and flows refer to. Number 0 is none. */
	MAX_GRANTS = 16384,
	/* Bytes of a stream that are kept until it is judged and delivered. */
	HELLO_CAPACITY = 16384,
	/* What may be read beyond, so that every access has room. */
	HELLO_SLACK = 512,
	/* Longest name (RFC 1035, presentation form) rounded up. */
	NAME_SIZE = 256,
	EVENT_BYTES = 8 * 1024 * 1024, /* of some 400 for each flow that ends */
};

/* Where a fast-path flow stands. Only FLOW_VERIFIED carries application data. */
enum flow_state {
	FLOW_NONE,
	FLOW_UNVERIFIED, /* its ClientHello is not judged yet */
	FLOW_VERIFIED,
	FLOW_REFUSED, /* reset, kept for a while so that stragglers are reset too */
	FLOW_ENDED,   /* reported, and as good as not there */
};

/* What of the guest's stream is being looked at. */
enum flow_phase {
	PHASE_HELLO,	   /* the ClientHello is not whole */
	PHASE_AFTER,	   /* what follows it decides if there will be another */
	PHASE_SECOND,	   /* the ClientHello after a HelloRetryRequest */
	PHASE_AFTER_SECOND, /* there must be no third */
	PHASE_DONE,
};

/* Why a fast-path flow was refused, or ended. */
enum flow_reason {
	REASON_NONE,
	REASON_NOT_TLS,	    /* the first bytes are no handshake record */
	REASON_MALFORMED,   /* a ClientHello that breaks the protocol, or is split over records */
	REASON_TOO_LARGE,   /* beyond HELLO_CAPACITY */
	REASON_NO_NAME,	    /* no server_name */
	REASON_NAME,	    /* a name that is not pinned to this address for this bottle */
	REASON_EARLY_DATA,  /* offers early data, behind which a second hello could hide */
	REASON_CHANGED,	    /* other bytes where a judged hello was */
	REASON_URGENT,	    /* URG before the hello was delivered */
	REASON_OPTION,	    /* a TCP option that is not plain: see fast_judge.h */
	REASON_REVOKED,	    /* the permission was withdrawn */
	REASON_INTERNAL,    /* state that should be there is not */
	REASON_CLOSED,	    /* both sides have ended */
	REASON_RESET,	    /* either side sent RST */
	REASON_IDLE,	    /* nothing for a long time */
	REASON_HELLO_TIMEOUT, /* no whole ClientHello in time */
	REASON_REPLACED,    /* a new connection has the same addresses and ports */
	REASON_LOST,	    /* conntrack has forgotten under which port it leaves */
	REASONS,
};

/* What an event reports. */
enum event_kind {
	EVENT_NONE,
	EVENT_REFUSED,
	EVENT_ENDED,
};

#endif
