/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The shorter way of a flow whose SYN the stack has let through: translated here, as
 * conntrack has decided, and redirected to the uplink and back, past netfilter and
 * routing.
 *
 * Every packet of the bottle has come through the judge before, and every packet
 * to it goes through capture_egress after. What cannot go this way (a frame too
 * large for the uplink, to which the stack answers with ICMP) goes to the stack
 * with the mark, and nothing leaves untranslated: conntrack, which has not seen
 * what went before, calls it invalid, and the table drops that.
 */
#ifndef GATEWAY_FAST_LANE_H
#define GATEWAY_FAST_LANE_H

#include "conntrack.h"

#define LANE_TTL (REPLY_TTL - 1) /* one hop, as if it had been routed */
#define LANE_RETRY_NS (100ULL * 1000 * 1000)
#define LANE_RECHECK_NS (10ULL * 1000 * 1000 * 1000)
#define LANE_CLOSING_NS (8ULL * 1000 * 1000 * 1000) /* less than TRANSLATION_ENDS_MS */
#define FROM_TTL_OFFSET (ETH_HLEN + offsetof(struct iphdr, ttl))
#define TCP_CHECK_OFFSET (TRANSPORT_OFFSET + offsetof(struct tcphdr, check))
#define RST_WITHIN (1U << 22) /* of what the bottle expects next */

enum lane_verdict {
	LANE_STACK, /* the zero value: marked, to the stack */
	LANE_REDIRECT,
	LANE_LOST, /* the translation that the flow had is gone */
	LANE_OVER,
};

/* The IPv4 header from ttl on. */
struct ip_tail {
	__u8 ttl;
	__u8 protocol;
	__sum16 check;
	__be32 saddr;
	__be32 daddr;
} __attribute__((packed, aligned(4)));

static __always_inline __u32 sum_of(__be32 address)
{
	return (address & 0xffff) + (address >> 16);
}

/* Replaces ttl and one address in a header checksum (RFC 1624, equation 3). */
static __always_inline __sum16 sum_again(const struct ip_tail *t, __u8 ttl, __be32 from, __be32 to)
{
	__u32 sum = (__u16)~t->check;

	sum += (__u16)~(*(const __u16 *)&t->ttl);
	sum += bpf_htons((__u16)ttl << 8 | t->protocol);
	sum += sum_of(~from) + sum_of(to);
	return fold(sum);
}

static __always_inline struct lane *the_lane(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&lanes, &zero);
}

static __always_inline void reverse_of(const struct flow_key *key, const struct flow *f,
				       struct reverse_key *k)
{
	k->ifindex = f->uplink;
	k->remote = key->daddr;
	k->local = f->out_addr;
	k->remote_port = key->dport;
	k->local_port = f->out_port;
}

/* Takes a flow out of the lane for good: nothing that comes to the uplink is its. */
static __always_inline void leave_lane(const struct flow_key *key, struct flow *f)
{
	struct reverse_key k;

	if (!f->out_port)
		return;
	reverse_of(key, f, &k);
	bpf_map_delete_elem(&reverses, &k);
	f->out_port = 0;
	f->lane = 0;
}

/* Tells whether the address is one of the uplink's. */
static __always_inline bool is_uplinks(const struct lane *lane, __be32 addr)
{
	bool found = false;

#pragma unroll
	for (int i = 0; i < UPLINK_ADDRESSES; i++)
		found |= lane->addrs[i] == addr;
	return found && addr;
}

/*
 * Finds where packets of a flow go from the uplink, whose address addr is. Returns
 * false where the route is by another interface, or takes no packets of size bytes.
 */
static __always_inline bool find_hop(struct __sk_buff *skb, const struct flow_key *key,
				     const struct lane *lane, __be32 addr, __u32 size,
				     __be32 *next_hop)
{
	struct bpf_fib_lookup fib = {
		.family = 2 /* AF_INET */, .l4_protocol = IPPROTO_TCP, .tot_len = size,
		.sport = key->sport, .dport = key->dport,
		.ifindex = lane->uplink, .ipv4_src = addr, .ipv4_dst = key->daddr,
	};
	long ret = bpf_fib_lookup(skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_OUTPUT);

	*next_hop = fib.ipv4_dst;
	return (ret == BPF_FIB_LKUP_RET_SUCCESS || ret == BPF_FIB_LKUP_RET_NO_NEIGH) &&
	       fib.ifindex == lane->uplink && fib.family == 2;
}

/*
 * Brings a flow into the lane, or looks again whether it may be there: conntrack
 * knows it, under an address of the uplink, and the route to it is by the uplink.
 */
static __noinline int enter_lane(struct __sk_buff *skb, const struct segment *s, struct flow *f,
				 const struct lane *lane)
{
	struct reverse r = { .key = s->key };
	struct translation t = {};
	struct reverse_key k;
	__be32 next_hop;

	f->checked = bpf_ktime_get_coarse_ns();
	if (read_translation(skb, &s->key, s->saddr, &t) || !t.port || !is_uplinks(lane, t.addr))
		return f->out_port ? LANE_LOST : LANE_STACK;
	if (f->out_port &&
	    (f->out_port != t.port || f->out_addr != t.addr || f->uplink != lane->uplink))
		return LANE_LOST;
	if (!find_hop(skb, &s->key, lane, t.addr, 0, &next_hop))
		return LANE_STACK;
	f->uplink = lane->uplink;
	f->out_addr = t.addr;
	f->next_hop = next_hop;
	if (!f->out_port) {
		f->out_port = t.port;
		reverse_of(&s->key, f, &k);
		/* What conntrack says counts: an entry that is there is of a flow that is over. */
		if (bpf_map_update_elem(&reverses, &k, &r, BPF_ANY)) {
			f->out_port = 0;
			return LANE_STACK;
		}
	}
	f->lane = lane->generation;
	return LANE_REDIRECT;
}

/*
 * Gives a large frame a head of its own, as forwarding does (skb_cow in ip_forward).
 * What a TCP of this host sends is a clone of what it keeps to send again, and a
 * receiver on this host joins no segments behind a clone (skb_try_coalesce). A frame
 * that is no clone stays as it is, and so does one for which there is no memory.
 */
static __always_inline void unshare(struct __sk_buff *skb)
{
	if (skb->gso_segs > 1)
		bpf_skb_change_head(skb, 0, 0);
}

/* Writes the flow's translation into a frame of the bottle. */
static __always_inline int translate_up(struct __sk_buff *skb, const struct segment *s,
					const struct flow *f)
{
	__be16 port = f->out_port;
	__be32 addr = f->out_addr;
	struct ip_tail t;

	if (!port || bpf_skb_load_bytes(skb, FROM_TTL_OFFSET, &t, sizeof(t)))
		return -1; /* no port: another CPU has taken the flow out of the lane meanwhile */
	unshare(skb);
	t.check = sum_again(&t, LANE_TTL, s->saddr, addr);
	t.ttl = LANE_TTL;
	t.saddr = addr;
	if (bpf_l4_csum_replace(skb, TCP_CHECK_OFFSET, s->saddr, addr, BPF_F_PSEUDO_HDR | 4) ||
	    bpf_l4_csum_replace(skb, TCP_CHECK_OFFSET, s->key.sport, port, 2) ||
	    bpf_skb_store_bytes(skb, FROM_TTL_OFFSET, &t, sizeof(t), 0) ||
	    bpf_skb_store_bytes(skb, TRANSPORT_OFFSET, &port, sizeof(port), 0))
		return -1;
	return 0;
}

/* Sends a frame of a flow that is in the lane on its way. 0: drop it. */
static __noinline int redirect_up(struct __sk_buff *skb, const struct segment *s,
					const struct flow *f)
{
	struct bpf_redir_neigh next = { .nh_family = 2, .ipv4_nh = f->next_hop };

	if (translate_up(skb, s, f))
		return 0;
	return bpf_redirect_neigh(f->uplink, &next, sizeof(next), 0) == TC_ACT_REDIRECT;
}

/*
 * Notes the end of a connection in the lane: after both FINs or a RST its entries
 * have some seconds for what is still on its way.
 */
static __noinline int close_lane(struct __sk_buff *skb, const struct flow_key *key,
				 struct flow *f, __be32 saddr)
{
	struct reverse_key k;
	struct reverse *r;

	if (f->closing || !f->out_port)
		return 0;
	f->closing = bpf_ktime_get_coarse_ns();
	release_translation(skb, key, saddr, TRANSLATION_ENDS_MS); /* stragglers' time */
	reverse_of(key, f, &k);
	r = bpf_map_lookup_elem(&reverses, &k);
	if (r)
		r->until = f->closing + LANE_CLOSING_NS;
	return 0;
}

/* Says which way a segment goes that may. */
static __always_inline enum lane_verdict choose_lane(struct __sk_buff *skb,
						     const struct segment *s, struct flow *f)
{
	struct lane *lane = the_lane();
	__u32 length = 0;

	if (f->closing && f->seen - f->closing > LANE_CLOSING_NS)
		return LANE_OVER;
	if (!lane || !lane->uplink)
		return LANE_STACK;
	if (bpf_check_mtu(skb, lane->uplink, &length, 0, BPF_MTU_CHK_SEGS))
		return LANE_STACK;
	if (f->lane != lane->generation || f->seen - f->checked > LANE_RECHECK_NS) {
		int verdict = LANE_STACK;

		/* Once closing, conntrack's time is not to be set again. */
		if (!f->closing && (f->out_port || f->seen - f->checked > LANE_RETRY_NS))
			verdict = enter_lane(skb, s, f, lane);
		if (verdict != LANE_REDIRECT && !(f->closing && f->lane == lane->generation))
			return verdict;
	}
	if (f->reset || (f->fin_up && f->fin_down))
		close_lane(skb, &s->key, f, s->saddr);
	return LANE_REDIRECT;
}

#endif
