/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The life of a fast-path flow: from the SYN to what is collected. */
#ifndef GATEWAY_FAST_FLOW_H
#define GATEWAY_FAST_FLOW_H

#include "assign.h"
#include "counters.h"
#include "fast_judge.h"
#include "fast_lane.h"

#define TTL_OFFSET (ETH_HLEN + offsetof(struct iphdr, ttl))
#define IP_CHECK_OFFSET (ETH_HLEN + offsetof(struct iphdr, check))

/* What the fast path says of a segment. */
enum fast_verdict {
	FAST_NOT_OURS, /* the zero value: to the gateway's sockets */
	FAST_DROP,
	FAST_FORWARD,
	FAST_REDIRECT, /* the helper that redirects has been called */
	FAST_RESET, /* it is a RST to the upstream by now; forward it, count a drop */
	FAST_RESET_REDIRECT,
};

static __always_inline void fill_segment(struct segment *s, struct __sk_buff *skb,
					 const struct packet *p, const struct tcphdr *tcp)
{
	s->key.ifindex = skb->ifindex;
	s->key.daddr = p->ip.daddr;
	s->key.sport = tcp->source;
	s->key.dport = tcp->dest;
	s->saddr = p->ip.saddr;
	s->seq = bpf_ntohl(tcp->seq);
	s->ack = bpf_ntohl(tcp->ack_seq);
	s->header = tcp->doff * 4;
	s->from = TRANSPORT_OFFSET + s->header;
	s->len = p->payload - s->header;
	s->flags = ((const __u8 *)tcp)[13];
}

/* Counts len bytes of payload; two CPUs can have segments of one flow at once. */
static __always_inline void count(const struct __sk_buff *skb, __u64 *packets, __u64 *bytes,
				  __u32 len)
{
	__sync_fetch_and_add(packets, skb->gso_segs > 1 ? skb->gso_segs : 1);
	__sync_fetch_and_add(bytes, len);
}

static __always_inline void count_up(struct __sk_buff *skb, const struct segment *s, struct flow *f)
{
	f->seen = bpf_ktime_get_coarse_ns();
	count(skb, &f->up_packets, &f->up_bytes, s->len);
	if (s->flags & TCP_ACK)
		f->expects = s->ack;
	if (s->flags & TCP_FIN)
		f->fin_up = 1;
	if (s->flags & TCP_RST)
		f->reset = 1;
}

/*
 * Makes what is forwarded look alike in its TTL, so that no bottle can choose
 * which hop its packets reach.
 */
static __always_inline int set_ttl(struct __sk_buff *skb, const struct iphdr *ip)
{
	__be16 old = *(const __be16 *)&ip->ttl, new = old;
	__u8 ttl = REPLY_TTL;

	if (ip->ttl == ttl)
		return 0;
	*(__u8 *)&new = ttl; /* protocol follows in the same 16 bits */
	if (bpf_l3_csum_replace(skb, IP_CHECK_OFFSET, old, new, 2))
		return -1;
	return bpf_skb_store_bytes(skb, TTL_OFFSET, &ttl, sizeof(ttl), 0);
}

/*
 * Reports a flow that is over, under the reason given unless it was refused, and
 * marks it. Returns false, and nothing is done, when there is no room for the
 * report. The caller holds the flow's lock.
 */
static __always_inline bool end_flow(const struct flow_key *key, struct flow *f,
				     enum flow_reason why)
{
	if (f->state != FLOW_REFUSED) {
		if (!report(key, f, EVENT_ENDED, why))
			return false;
	} else if (f->reason && !report(key, f, EVENT_REFUSED, f->reason)) {
		return false;
	}
	f->state = FLOW_ENDED;
	f->seen = bpf_ktime_get_ns();
	forget_hello(key, f);
	leave_lane(key, f);
	return true;
}

/* Ends a flow in refusal and resets both sides. The caller holds the flow's lock. */
static __noinline int refuse(struct __sk_buff *skb, const struct segment *s, struct flow *f,
			     enum flow_reason why)
{
	__u32 next = f->start + f->kept;
	bool redirected;

	if (f->state != FLOW_REFUSED) {
		struct destination_key d = { .ifindex = s->key.ifindex,
					     .daddr = s->key.daddr, .dport = s->key.dport };

		if (f->state == FLOW_VERIFIED && !f->guarded)
			next = s->seq; /* the bytes before were passed */
		f->state = FLOW_REFUSED;
		f->reason = why;
		f->seen = bpf_ktime_get_coarse_ns();
		/* The honest retry goes to the relay. */
		if (why != REASON_REVOKED && why != REASON_LOST)
			bpf_map_delete_elem(&destinations, &d);
		if (report(&s->key, f, EVENT_REFUSED, why))
			f->reason = REASON_NONE; /* else the collector reports it */
	} else if (!f->guarded) {
		next = s->seq;
	}
	if (write_resets(skb, s, next))
		return FAST_DROP;
	if (!f->out_port || why == REASON_LOST) {
		leave_lane(&s->key, f);
		return FAST_RESET;
	}
	redirected = redirect_up(skb, s, f);
	close_lane(skb, &s->key, f, s->saddr);
	leave_lane(&s->key, f);
	return redirected ? FAST_RESET_REDIRECT : FAST_DROP;
}

/* Fills in a flow's entry; everything of an earlier one is forgotten. */
static __always_inline void begin_flow(struct flow *f, const struct segment *s)
{
	__u32 *id = (__u32 *)f->id;

	f->began = f->seen = bpf_ktime_get_coarse_ns();
	f->up_packets = f->up_bytes = f->down_packets = f->down_bytes = 0;
	f->epoch = 0;
	f->grant = 0;
	f->start = s->seq + 1;
	f->kept = f->record = 0;
	f->phase = PHASE_HELLO;
	f->guarded = 1;
	f->fin_up = f->fin_down = f->reset = f->reason = f->unused = 0;
	f->lane = f->out_port = f->unused2 = 0;
	f->checked = f->closing = 0;
	f->opened = f->sent = f->expects = 0;
#pragma unroll
	for (int i = 0; i < 4; i++)
		id[i] = bpf_get_prandom_u32();
	f->state = FLOW_UNVERIFIED;
}

/* Takes room for a hello out of the bottle's budget, for a flow that has none. */
static __always_inline bool make_hello(struct flow *f, struct usage *u)
{
	__u32 slot = 0;

	if (__sync_fetch_and_add(&u->hellos, 1) >= MAX_BOTTLE_HELLOS || !(slot = take_slot())) {
		__sync_fetch_and_add(&u->hellos, -1);
		return false;
	}
	f->slot = slot;
	return true;
}

/* Makes a new entry. Returns false when a budget is used up. */
static __always_inline bool add_flow(const struct segment *s, struct usage *u)
{
	struct flow *f;
	__u32 zero = 0;

	f = bpf_map_lookup_elem(&scratch, &zero);
	if (!f || !make_hello(f, u))
		return false;
	f->busy = 0;
	begin_flow(f, s);
	f->up_packets = 1;
	if (__sync_fetch_and_add(&u->flows, 1) < MAX_BOTTLE_FLOWS &&
	    !bpf_map_update_elem(&flows, &s->key, f, BPF_NOEXIST))
		return true;
	__sync_fetch_and_add(&u->flows, -1);
	forget_hello(&s->key, f);
	return false;
}

/*
 * A SYN where an entry is. The same SYN again may pass, as long as no byte has. Any
 * other is of a new connection, and the relay's: the upstream may still have the
 * old one, and must not be sent two streams of which one is judged by the other's
 * numbers. The entry stays for a while (fast_collect.h), and what the upstream has
 * answered to earlier SYNs has arrived before the next flow begins here.
 */
static __noinline int meet_flow(struct __sk_buff *skb, const struct segment *s, struct flow *f,
				bool pinned)
{
	int verdict = FAST_DROP;

	if (!lock_flow(f))
		return FAST_DROP;
	if (pinned && f->state == FLOW_UNVERIFIED && !f->kept && !f->fin_up && !f->reset &&
	    f->start == s->seq + 1) {
		f->up_packets++;
		f->checked = 0; /* conntrack, which sees it, will give its entry little time */
		verdict = FAST_FORWARD;
	} else if (f->state == FLOW_ENDED || end_flow(&s->key, f, REASON_REPLACED)) {
		/* Else the relay's peer would be the uplink's address, under the old port. */
		release_translation(skb, &s->key, s->saddr, 0);
		verdict = FAST_NOT_OURS;
	}
	unlock_flow(f);
	return verdict;
}

/* Tells whether the gateway listens: without it, nothing new begins. */
static __always_inline bool attended(struct __sk_buff *skb, const struct bottle *b)
{
	struct bpf_sock_tuple tuple = {
		.ipv4 = { .saddr = b->guest, .daddr = b->gateway, .dport = b->intercept_port },
	};
	struct bpf_sock *sk, *full;
	bool there;

	sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), THIS_NETNS, 0);
	if (!sk)
		return false;
	full = bpf_sk_fullsock(sk);
	there = full && full->state == BPF_TCP_LISTEN && full->src_ip4 == b->gateway &&
		full->mark == MARK_SOCKET;
	bpf_sk_release(sk);
	return there;
}

/*
 * Tells whether a socket still has the connection's addresses and ports, be it in
 * TIME_WAIT: the stack would find it before it forwards, and drop (ip_forward).
 */
static __always_inline bool has_socket(struct __sk_buff *skb, const struct segment *s)
{
	struct bpf_sock_tuple tuple = { .ipv4 = {
		.saddr = s->saddr, .daddr = s->key.daddr, .sport = s->key.sport, .dport = s->key.dport,
	} };
	struct bpf_sock *sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), THIS_NETNS, 0);
	bool has;

	if (!sk)
		return false;
	has = sk->state != BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	return has;
}

static __noinline int fast_syn(struct __sk_buff *skb, const struct bottle *b,
			       const struct segment *s, struct flow *f, enum drop_reason *why)
{
	struct destination_key k = { .ifindex = s->key.ifindex,
				     .daddr = s->key.daddr, .dport = s->key.dport };
	__u32 ifindex = s->key.ifindex;
	struct destination *d = bpf_map_lookup_elem(&destinations, &k);
	struct usage *u = bpf_map_lookup_elem(&usages, &ifindex);
	bool pinned = b->fast && d && u && d->expires > bpf_ktime_get_coarse_ns();

	if (!u || (!pinned && !f))
		return FAST_NOT_OURS;
	*why = DROP_SYN_FORM;
	if ((s->flags & (TCP_ACK | TCP_RST | TCP_FIN | TCP_URG)) || s->len)
		return FAST_DROP;
	*why = DROP_NO_LISTENER;
	if (!attended(skb, b))
		return FAST_DROP;
	/* Options that change what a stream is are for the host's own TCP. */
	pinned = pinned && !odd_options(skb, s);
	*why = DROP_EVENTS_FULL;
	if (f)
		return meet_flow(skb, s, f, pinned);
	if (!pinned || has_socket(skb, s) || !add_flow(s, u))
		return FAST_NOT_OURS;
	/* What conntrack still has of an earlier connection has another port, or none. */
	release_translation(skb, &s->key, s->saddr, 0);
	return FAST_FORWARD;
}

/*
 * Tells whether a segment acknowledges what the upstream has sent on the connection
 * that is judged, and nothing else. A server that keeps no state of a SYN takes the
 * number of the first segment with its cookie for the stream's beginning, and the
 * cookie for a number further on is as far on (RFC 4987 section 3.6).
 */
static __always_inline bool answers(const struct flow *f, const struct segment *s)
{
	return f->opened && (s->flags & TCP_ACK) && f->sent - s->ack < FAR_AHEAD;
}

/* A segment of a flow whose stream is still looked at, or that is to be refused. */
static __always_inline enum fast_verdict fast_judged(struct __sk_buff *skb,
						     const struct segment *s, struct flow *f,
						     enum drop_reason *drop)
{
	int verdict = FAST_FORWARD, why = REASON_NONE;

	*drop = DROP_FLOW_BUSY;
	if (!lock_flow(f))
		return FAST_DROP;
	if (f->state == FLOW_ENDED) { /* meanwhile */
		unlock_flow(f);
		return FAST_DROP;
	}
	*drop = DROP_NONE;
	if (f->state == FLOW_REFUSED)
		why = f->reason ?: REASON_INTERNAL;
	else if (f->state == FLOW_VERIFIED && !granted(f))
		why = REASON_REVOKED;
	else if (f->guarded && (s->flags & TCP_URG))
		why = REASON_URGENT;
	else if (f->guarded && odd_options(skb, s))
		why = REASON_OPTION;
	else if (f->guarded && !(s->flags & TCP_RST) && !answers(f, s))
		*drop = DROP_FLOW_ORDER;
	else if (f->guarded && s->len)
		why = judge_payload(skb, s, f, drop);
	if (why) {
		*drop = DROP_FLOW_REFUSED;
		verdict = refuse(skb, s, f, why);
	} else if (*drop != DROP_NONE) {
		verdict = FAST_DROP;
	} else {
		count_up(skb, s, f);
		if (s->flags & TCP_RST)
			forget_hello(&s->key, f); /* and nothing more with payload passes */
	}
	unlock_flow(f);
	return verdict;
}

/* Refuses a flow in the lane whose translation is gone. */
static __always_inline enum fast_verdict refuse_lost(struct __sk_buff *skb,
						     const struct segment *s, struct flow *f,
						     enum drop_reason *drop)
{
	int verdict = FAST_DROP;

	*drop = DROP_FLOW_BUSY;
	if (!lock_flow(f))
		return FAST_DROP;
	if (f->state == FLOW_VERIFIED || f->state == FLOW_UNVERIFIED) {
		*drop = DROP_FLOW_REFUSED;
		verdict = refuse(skb, s, f, REASON_LOST);
	}
	unlock_flow(f);
	return verdict;
}

/* Sends a segment on by the lane that its flow is in. */
static __always_inline enum fast_verdict send_on(struct __sk_buff *skb, const struct segment *s,
						 struct flow *f, const struct iphdr *ip,
						 enum drop_reason *why)
{
	enum lane_verdict lane = LANE_STACK;

	if (f && !(s->flags & TCP_SYN) &&
	    (f->state == FLOW_VERIFIED || (f->state == FLOW_UNVERIFIED && f->out_port)))
		lane = choose_lane(skb, s, f);
	switch (lane) {
	case LANE_STACK:
		*why = DROP_REPLY_FAILED;
		return set_ttl(skb, ip) ? FAST_DROP : FAST_FORWARD;
	case LANE_REDIRECT:
		*why = DROP_REPLY_FAILED;
		return redirect_up(skb, s, f) ? FAST_REDIRECT : FAST_DROP;
	case LANE_LOST:
		return refuse_lost(skb, s, f, why);
	case LANE_OVER:
		break;
	}
	*why = DROP_FLOW_REVOKED;
	return FAST_DROP;
}

/*
 * Says what becomes of a segment from the bottle. FAST_NOT_OURS: there is no such
 * flow and there will be none. With FAST_DROP and FAST_RESET, *why is the reason.
 */
static __always_inline enum fast_verdict fast_path(struct __sk_buff *skb, const struct bottle *b,
						   const struct segment *s,
						   const struct iphdr *ip, enum drop_reason *why)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &s->key);
	enum fast_verdict verdict;

	if (s->flags & TCP_SYN) {
		verdict = fast_syn(skb, b, s, f, why);
	} else {
		if (!f || f->state == FLOW_NONE || f->state == FLOW_ENDED)
			return FAST_NOT_OURS;
		*why = DROP_SYN_FORM;
		if (s->len && (!(s->flags & TCP_ACK) || (s->flags & TCP_RST)))
			return FAST_DROP;
		if (f->state == FLOW_REFUSED && (s->flags & TCP_RST)) {
			verdict = FAST_FORWARD; /* may it close what our RST did not */
		} else if (f->guarded || f->state == FLOW_REFUSED || !granted(f)) {
			verdict = fast_judged(skb, s, f, why);
		} else {
			count_up(skb, s, f);
			verdict = FAST_FORWARD;
		}
	}
	return verdict == FAST_FORWARD ? send_on(skb, s, f, ip, why) : verdict;
}

/*
 * Tells whether an acknowledgement means that the upstream will take nothing more
 * in place of what is kept. It covers all of that; and either what follows it
 * needs no judging any more, or it covers the bottle's FIN as well, behind which
 * there is nothing: no other number comes after bytes that pass in order only.
 */
static __always_inline bool settles(const struct flow *f, __u32 acked)
{
	if (acked >= FAR_AHEAD)
		return false;
	if (f->phase == PHASE_DONE)
		return acked >= f->kept;
	return f->fin_up && acked == f->kept + 1;
}

/*
 * Notes what the upstream says of a flow that is guarded, len bytes of payload with
 * it. Its answer to the flow's SYN opens the flow. What is kept goes when the
 * upstream settles the matter, or when it resets the connection; then payload from
 * the bottle is dropped, since the judge has nothing to compare it with.
 */
static __noinline int note_answer(const struct flow_key *key, struct flow *f,
				  const struct tcphdr *tcp, __u32 len)
{
	__u32 ack = bpf_ntohl(tcp->ack_seq), end = bpf_ntohl(tcp->seq) + tcp->syn + len + tcp->fin;
	bool settled = tcp->ack && settles(f, ack - f->start), reset = tcp->rst && f->reset;

	if (tcp->syn) {
		if (tcp->ack && !tcp->rst && !f->opened && ack == f->start) {
			f->sent = f->expects = end;
			__sync_lock_test_and_set(&f->opened, 1);
		}
		return 0;
	}
	if (f->opened && !tcp->rst && end - f->sent < FAR_AHEAD)
		f->sent = end;
	if (!settled && !reset)
		return 0;
	if (!lock_flow(f))
		return 0; /* the next one will do */
	settled = tcp->ack && settles(f, ack - f->start);
	if (settled && f->state == FLOW_VERIFIED)
		f->guarded = 0;
	if (settled || reset)
		forget_hello(key, f);
	unlock_flow(f);
	return 0;
}

/*
 * Sees a segment to the bottle, whose address is guest. Returns the reason when it
 * is of a fast-path flow that is over; what is of no flow is none of its business.
 */
static __always_inline enum drop_reason see_down(struct __sk_buff *skb, const struct flow_key *key,
						 __be32 guest, const struct iphdr *ip,
						 const struct tcphdr *tcp)
{
	__u32 headers = sizeof(*ip) + tcp->doff * 4, total = bpf_ntohs(ip->tot_len);
	__u32 len = total > headers ? total - headers : 0;
	struct flow *f = bpf_map_lookup_elem(&flows, key);

	if (!f || f->state == FLOW_NONE || f->state == FLOW_ENDED)
		return DROP_NONE;
	if (f->state == FLOW_REFUSED) /* only the RST that refusal sent, and its like */
		return tcp->rst ? DROP_NONE : DROP_FLOW_REVOKED;
	if (f->state == FLOW_VERIFIED && !granted(f))
		return DROP_FLOW_REVOKED;
	f->seen = bpf_ktime_get_coarse_ns();
	count(skb, &f->down_packets, &f->down_bytes, len);
	if (tcp->fin)
		f->fin_down = 1;
	/* Nobody but us has compared it with what is expected, once it is in the lane. */
	if (tcp->rst && (!f->out_port || bpf_ntohl(tcp->seq) - f->expects < RST_WITHIN))
		f->reset = 1;
	if (f->guarded)
		note_answer(key, f, tcp, len);
	if (f->out_port && (f->reset || (f->fin_up && f->fin_down)))
		close_lane(skb, key, f, guest);
	return DROP_NONE;
}

/*
 * Sees a frame that leaves for the bottle. What did not come in by any interface is
 * none of its business, since that is a socket's of the gateway, which may have
 * spoken under the upstream's address before.
 */
static __always_inline enum drop_reason fast_down(struct __sk_buff *skb)
{
	struct flow_key key = { .ifindex = skb->ifindex };
	struct tcphdr tcp;
	struct iphdr ip;

	if (!skb->ingress_ifindex || skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) ||
	    ip.protocol != IPPROTO_TCP || ip.ihl * 4 != sizeof(ip) ||
	    bpf_skb_load_bytes(skb, TRANSPORT_OFFSET, &tcp, sizeof(tcp)))
		return DROP_NONE;
	key.daddr = ip.saddr;
	key.sport = tcp.dest;
	key.dport = tcp.source;
	return see_down(skb, &key, ip.daddr, &ip, &tcp);
}

#endif
