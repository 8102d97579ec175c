// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The datapath of a capture link.
 *
 * capture_ingress sees every frame that a bottle sends, and lets exactly three
 * kinds reach the host's stack: an ARP request for the gateway, a packet that it
 * has assigned to a socket of the gateway, and a segment of a fast-path flow,
 * which it has marked. Segments of such a flow can also go to the uplink by
 * themselves (fast_lane.h). Everything else is dropped under its own reason; a
 * helper that fails is a drop.
 *
 * UAPI headers only: but for connection tracking (conntrack.h) the programs read
 * no kernel structure, so that one object loads on every kernel from 6.1 on and
 * needs no vmlinux.h.
 */
#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "arp.h"
#include "assign.h"
#include "counters.h"
#include "ethernet.h"
#include "checksum.h"
#include "fast_answer.h"
#include "fast_collect.h"
#include "fast_flow.h"
#include "ipv4.h"
#include "reply.h"
#include "state.h"
#include "told.h"

#define QUIC_PORT 443

/* What is to be done with a frame that has no reason to be dropped. */
enum action {
	ACTION_DROP, /* the zero value */
	ACTION_PASS_ARP,
	ACTION_PASS_ASSIGNED,
	ACTION_REFUSE, /* send it back: it is an ICMP error by now */
	ACTION_FORWARD,
	ACTION_RESET, /* forward it: a RST by now, in place of what was dropped */
	ACTION_REDIRECT,
	ACTION_RESET_REDIRECT,
};

/*
 * Enums of which the programs use only the numbers: a pointer keeps each in the
 * type information. No loader loads a section of this name.
 */
SEC("enums") const enum mark *const mark_type = 0;
SEC("enums") const enum bottle_state *const bottle_state_type = 0;
SEC("enums") const enum limits *const limits_type = 0;
SEC("enums") const enum drop_reason *const drop_reason_type = 0;
SEC("enums") const enum flow_state *const flow_state_type = 0;
SEC("enums") const enum flow_phase *const flow_phase_type = 0;
SEC("enums") const enum flow_reason *const flow_reason_type = 0;
SEC("enums") const enum event_kind *const event_kind_type = 0;
SEC("enums") const struct event *const event_type = 0;

/*
 * Judges a TCP packet: the fast path's, if it is of such a flow or begins one,
 * else a socket's of the gateway.
 */
static __always_inline enum drop_reason handle_tcp(struct __sk_buff *skb,
						   const struct bottle *b,
						   struct link_stats *stats,
						   const struct packet *p,
						   enum action *action)
{
	int place = sum_place(skb);
	enum drop_reason why;
	struct segment s;
	struct tcphdr tcp;

	if (place == SUM_ELSEWHERE)
		return DROP_SUM_PLACE;
	if (bpf_skb_load_bytes(skb, TRANSPORT_OFFSET, &tcp, sizeof(tcp)))
		return DROP_TCP_LENGTH;
	if (tcp.doff * 4 < sizeof(tcp) || tcp.doff * 4 > p->payload)
		return DROP_TCP_LENGTH;
	fill_segment(&s, skb, p, &tcp);
	s.partial = place == SUM_LEFT;
	if (tcp.syn && !take(&stats->flows_until, FLOW_INTERVAL_NS, FLOW_BURST))
		return DROP_FLOW_PACE;
	switch (fast_path(skb, b, &s, &p->ip, &why)) {
	case FAST_FORWARD:
		*action = ACTION_FORWARD;
		return DROP_NONE;
	case FAST_REDIRECT:
		*action = ACTION_REDIRECT;
		return DROP_NONE;
	case FAST_RESET:
		*action = ACTION_RESET;
		return why;
	case FAST_RESET_REDIRECT:
		*action = ACTION_RESET_REDIRECT;
		return why;
	case FAST_DROP:
		return why;
	case FAST_NOT_OURS:
		break;
	}
	*action = ACTION_PASS_ASSIGNED;
	return assign_tcp(skb, b, p, &tcp);
}

static __always_inline enum drop_reason handle_udp(struct __sk_buff *skb,
						   const struct bottle *b,
						   struct link_stats *s,
						   const struct ethhdr *eth,
						   const struct packet *p,
						   enum action *action)
{
	struct udphdr udp;

	if (bpf_skb_load_bytes(skb, TRANSPORT_OFFSET, &udp, sizeof(udp)))
		return DROP_UDP_LENGTH;
	if (bpf_ntohs(udp.len) < sizeof(udp) || bpf_ntohs(udp.len) > p->payload)
		return DROP_UDP_LENGTH;
	if (udp.dest == bpf_htons(DNS_PORT)) {
		if (!take(&s->dns_until, DNS_INTERVAL_NS, DNS_BURST))
			return DROP_DNS_PACE;
		*action = ACTION_PASS_ASSIGNED;
		return assign_resolver(skb, b, &udp);
	}
	if (udp.dest != bpf_htons(QUIC_PORT))
		return DROP_UDP;
	if (!take_refusal(s))
		return DROP_QUIC_PACE;
	*action = ACTION_REFUSE;
	return write_port_unreachable(skb, eth, p, &udp);
}

static __always_inline enum drop_reason handle_ipv4(struct __sk_buff *skb,
						    const struct bottle *b,
						    struct link_stats *s,
						    const struct ethhdr *eth,
						    enum action *action)
{
	struct packet p;
	enum drop_reason why = load_ipv4(skb, b, &p);

	if (why != DROP_NONE)
		return why;
	switch (p.ip.protocol) {
	case IPPROTO_TCP:
		return handle_tcp(skb, b, s, &p, action);
	case IPPROTO_UDP:
		return handle_udp(skb, b, s, eth, &p, action);
	case IPPROTO_ICMP:
		return DROP_ICMP;
	}
	return DROP_PROTOCOL;
}

/*
 * Judges one frame; *action counts only if the result is DROP_NONE, or if it is
 * one of the two with RESET.
 */
static __always_inline enum drop_reason judge(struct __sk_buff *skb, struct link_stats *s,
					      enum action *action)
{
	__u32 ifindex = skb->ifindex;
	const struct bottle *b = bpf_map_lookup_elem(&bottles, &ifindex);
	enum drop_reason why;
	struct ethhdr eth;

	if (!b)
		return DROP_NO_BOTTLE;
	if (b->state != BOTTLE_OPEN)
		return DROP_SHUT;
	if (own_headers(skb) || bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return DROP_RUNT;
	why = check_frame(skb, &eth);
	if (why == DROP_NONE)
		why = check_macs(&eth, b);
	if (why != DROP_NONE)
		return why;
	if (eth.h_proto == bpf_htons(ETH_P_ARP)) {
		*action = ACTION_PASS_ARP;
		return check_arp(skb, b);
	}
	return handle_ipv4(skb, b, s, &eth, action);
}

SEC("tc")
int capture_ingress(struct __sk_buff *skb)
{
	struct link_stats *s = stats_of(skb->ifindex);
	enum action action = ACTION_DROP;
	enum drop_reason why;

	if (!s)
		return TC_ACT_SHOT;
	s->rx_packets++;
	s->rx_bytes += skb->len;

	/* Nothing that came from outside may look like a mark of ours. */
	skb->mark = 0;
	why = take_frame(s) ? judge(skb, s, &action) : DROP_FRAME_PACE;
	if (why != DROP_NONE) {
		count_drop(s, why);
		if (action != ACTION_RESET && action != ACTION_RESET_REDIRECT)
			return TC_ACT_SHOT;
	}
	switch (action) {
	case ACTION_REFUSE:
		s->refused++;
		return bpf_redirect(skb->ifindex, 0);
	case ACTION_PASS_ASSIGNED:
		s->assigned++;
		skb->mark = MARK_INTERCEPT;
		break;
	case ACTION_PASS_ARP:
		s->arp++;
		break;
	case ACTION_REDIRECT:
	case ACTION_RESET_REDIRECT:
		s->forwarded++;
		s->redirected++;
		skb->mark = MARK_FORWARD;
		return TC_ACT_REDIRECT;
	case ACTION_FORWARD:
	case ACTION_RESET:
		s->forwarded++;
		skb->mark = MARK_FORWARD;
		break;
	default:
		return TC_ACT_SHOT;
	}
	return TC_ACT_OK;
}

/*
 * Counts what goes to the bottle, and cuts fast-path flows that are over. For
 * the rest, TC_ACT_UNSPEC leaves the decision to whoever comes next.
 */
SEC("tc")
int capture_egress(struct __sk_buff *skb)
{
	return count_down(skb, skb->ifindex, fast_down(skb)) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/*
 * At the uplink: takes what answers a flow in the lane, and nothing else.
 */
SEC("tc")
int uplink_ingress(struct __sk_buff *skb)
{
	return answer_down(skb);
}

/* Run by the Go side, once a second: goes over all flows. */
SEC("syscall")
int collect_flows(void *unused)
{
	(void)unused;
	return bpf_for_each_map_elem(&flows, collect_flow, NULL, 0);
}

/*
 * Keeps packets of a bottle from every listening socket but the gateway's own.
 *
 * The programs above assign a socket, but the stack can leave it: a SYN that
 * meets TIME_WAIT, or a half-open connection whose listener has closed, is
 * looked up again by its own destination (tcp_v4_rcv), and would find whatever
 * service of the host listens on that port at all addresses.
 */
SEC("sk_lookup")
int guard_listeners(struct bpf_sk_lookup *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	const struct bottle *b = bpf_map_lookup_elem(&bottles, &ifindex);
	__be16 port = bpf_htons(ctx->local_port);

	if (!b)
		return SK_PASS;
	if (ctx->family == 2 /* AF_INET */ && ctx->local_ip4 == b->gateway &&
	    (port == b->intercept_port || port == b->dns_port))
		return SK_PASS;
	return SK_DROP;
}

/* The helpers used need no GPL, but those of tracing and conntrack do. */
char LICENSE[] SEC("license") = "GPL";
