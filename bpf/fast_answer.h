/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What comes to the uplink for a flow in the lane: translated back, and handed to
 * its bottle.
 */
#ifndef GATEWAY_FAST_ANSWER_H
#define GATEWAY_FAST_ANSWER_H

#include "counters.h"
#include "fast_flow.h"

#define OPTION_MSS 2 /* RFC 9293 section 3.2 */

/* A segment at the uplink, and whose it is. */
struct answer {
	struct reverse_key to;
	struct iphdr ip;
	struct tcphdr tcp;
};

/* Reads what of a frame at the uplink says whose it is. */
static __always_inline bool read_answer(struct __sk_buff *skb, struct answer *a)
{
	struct iphdr *ip = &a->ip;
	struct tcphdr *tcp = &a->tcp;

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present || skb->pkt_type != 0 /* PACKET_HOST */ ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, ip, sizeof(*ip)))
		return false;
	if (ip->version != 4 || ip->ihl * 4 != sizeof(*ip) || ip->protocol != IPPROTO_TCP ||
	    (ip->frag_off & ~bpf_htons(IPV4_DONT_FRAGMENT)) || ip->ttl <= 1 ||
	    bpf_ntohs(ip->tot_len) < sizeof(*ip) + sizeof(*tcp) ||
	    bpf_ntohs(ip->tot_len) + ETH_HLEN > skb->len ||
	    bpf_skb_load_bytes(skb, TRANSPORT_OFFSET, tcp, sizeof(*tcp)))
		return false;
	a->to.ifindex = skb->ifindex;
	a->to.remote = ip->saddr;
	a->to.local = ip->daddr;
	a->to.remote_port = tcp->source;
	a->to.local_port = tcp->dest;
	return true;
}

/* How large a segment the upstream says it takes, if that is the first thing it says. */
static __always_inline __u32 segment_size(struct __sk_buff *skb, const struct tcphdr *tcp)
{
	struct {
		__u8 kind, size;
		__be16 value;
	} option;

	if (tcp->doff * 4 < sizeof(*tcp) + sizeof(option) ||
	    bpf_skb_load_bytes(skb, TRANSPORT_OFFSET + sizeof(*tcp), &option, sizeof(option)) ||
	    option.kind != OPTION_MSS || option.size != sizeof(option))
		return 0;
	return bpf_ntohs(option.value);
}

/*
 * Finds the link that a guest is on, by the route to it. Returns false where it is
 * no bottle's.
 */
static __always_inline bool find_link(struct __sk_buff *skb, const struct answer *a, __be32 guest,
				      __u32 *ifindex)
{
	struct bpf_fib_lookup fib = {
		.family = 2 /* AF_INET */, .l4_protocol = IPPROTO_TCP,
		.ifindex = skb->ifindex, .ipv4_src = a->to.remote, .ipv4_dst = guest,
	};
	long ret = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	const struct bottle *b;

	if (ret != BPF_FIB_LKUP_RET_SUCCESS && ret != BPF_FIB_LKUP_RET_NO_NEIGH)
		return false;
	*ifindex = fib.ifindex;
	b = bpf_map_lookup_elem(&bottles, ifindex);
	return b && b->guest == guest;
}

/*
 * Brings a flow into the lane by the upstream's answer to its SYN. Whose that is,
 * conntrack knows: the SYN has been through the stack. It will see nothing more of
 * the connection, so that it is told here that both sides have spoken.
 *
 * Returns 0 with the flow's key, or less, and then the answer is the stack's, which
 * also lowers the segment size in it to what the way back takes, if it must.
 */
static __noinline int open_lane(struct __sk_buff *skb, const struct answer *a, struct flow_key *key)
{
	struct bpf_sock_tuple tuple = { .ipv4 = {
		.saddr = a->to.remote, .daddr = a->to.local,
		.sport = a->to.remote_port, .dport = a->to.local_port,
	} };
	struct bpf_ct_opts opts = { .netns_id = -1, .l4proto = IPPROTO_TCP };
	__u32 size = segment_size(skb, &a->tcp);
	struct lane *lane = the_lane();
	struct reverse r = {};
	struct nf_conn *ct;
	__be32 next_hop;
	struct flow *f;
	int opened = -1;

	if (!size || !lane || lane->uplink != skb->ifindex || !is_uplinks(lane, a->to.local))
		return -1;
	ct = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv4), &opts, sizeof(opts));
	if (!ct)
		return -1;
	if (opts.dir != IP_CT_DIR_REPLY || (ct->status & CONNTRACK_DYING) ||
	    ct->tuplehash[IP_CT_DIR_ORIGINAL].tuple.dst.u3.ip != a->to.remote ||
	    ct->tuplehash[IP_CT_DIR_ORIGINAL].tuple.dst.u.all != a->to.remote_port)
		goto release;
	key->daddr = a->to.remote;
	key->sport = ct->tuplehash[IP_CT_DIR_ORIGINAL].tuple.src.u.all;
	key->dport = a->to.remote_port;
	if (!find_link(skb, a, ct->tuplehash[IP_CT_DIR_ORIGINAL].tuple.src.u3.ip, &key->ifindex))
		goto release;
	f = bpf_map_lookup_elem(&flows, key);
	if (!f || !lock_flow(f))
		goto release;
	if (f->state != FLOW_UNVERIFIED || f->opened || f->out_port || f->fin_up || f->reset ||
	    bpf_ntohl(a->tcp.ack_seq) != f->start ||
	    !find_hop(skb, key, lane, a->to.local, size + sizeof(a->ip) + sizeof(a->tcp), &next_hop))
		goto unlock;
	r.key = *key;
	if (bpf_ct_change_status(ct, ct->status | CONNTRACK_SEEN_REPLY | CONNTRACK_ASSURED) ||
	    bpf_ct_change_timeout(ct, TRANSLATION_STAYS_MS) ||
	    bpf_map_update_elem(&reverses, &a->to, &r, BPF_ANY))
		goto unlock;
	f->checked = bpf_ktime_get_coarse_ns();
	f->uplink = lane->uplink;
	f->out_addr = a->to.local;
	f->next_hop = next_hop;
	f->out_port = a->to.local_port;
	f->lane = lane->generation;
	opened = 0;
unlock:
	unlock_flow(f);
release:
	bpf_ct_release(ct);
	return opened;
}

/*
 * Finds the flow that a segment at the uplink answers. A SYN is nobody's but a flow's
 * whose own it answers.
 */
static __always_inline bool find_flow(struct __sk_buff *skb, const struct answer *a,
				      struct flow_key *key)
{
	const struct reverse *r = bpf_map_lookup_elem(&reverses, &a->to);
	const struct flow *f;

	if (!r)
		return a->tcp.syn && a->tcp.ack && !a->tcp.rst && !open_lane(skb, a, key);
	if (r->until && bpf_ktime_get_coarse_ns() > r->until)
		return false;
	*key = r->key;
	if (key->daddr != a->to.remote || key->dport != a->to.remote_port)
		return false; /* the entry was given to another flow meanwhile */
	if (!a->tcp.syn)
		return true;
	f = bpf_map_lookup_elem(&flows, key);
	return f && a->tcp.ack && bpf_ntohl(a->tcp.ack_seq) == f->start;
}

/* Writes the bottle's side into a frame of the uplink. */
static __always_inline int translate_down(struct __sk_buff *skb, const struct answer *a,
					  const struct bottle *b, __be16 port)
{
	struct ethhdr eth = { .h_proto = bpf_htons(ETH_P_IP) };
	struct ip_tail t;

	__builtin_memcpy(eth.h_dest, b->guest_mac, ETH_ALEN);
	__builtin_memcpy(eth.h_source, b->link_mac, ETH_ALEN);
	__builtin_memcpy(&t, &a->ip.ttl, sizeof(t));
	t.check = sum_again(&t, t.ttl - 1, t.daddr, b->guest);
	t.ttl--;
	t.daddr = b->guest;
	unshare(skb);
	return bpf_l4_csum_replace(skb, TCP_CHECK_OFFSET, a->to.local, b->guest, BPF_F_PSEUDO_HDR | 4) ||
	       bpf_l4_csum_replace(skb, TCP_CHECK_OFFSET, a->to.local_port, port, 2) ||
	       bpf_skb_store_bytes(skb, FROM_TTL_OFFSET, &t, sizeof(t), 0) ||
	       bpf_skb_store_bytes(skb, TRANSPORT_OFFSET + sizeof(__be16), &port, sizeof(port), 0) ||
	       bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0);
}

/*
 * Sends what answers a flow in the lane to its bottle. Every other frame is the
 * stack's, untouched.
 *
 * Where the bottle's end is a veth's in another namespace, the frame goes straight
 * in there, and not through the link: then capture_egress does not see it, and what
 * that does is done here.
 */
static __always_inline int answer_down(struct __sk_buff *skb)
{
	const struct bottle *b;
	struct flow_key key;
	struct answer a;

	if (!read_answer(skb, &a) || !find_flow(skb, &a, &key))
		return TC_ACT_UNSPEC;
	b = bpf_map_lookup_elem(&bottles, &key.ifindex);
	if (!b || b->state != BOTTLE_OPEN)
		return TC_ACT_SHOT;
	if (b->peer && !count_down(skb, key.ifindex, see_down(skb, &key, b->guest, &a.ip, &a.tcp)))
		return TC_ACT_SHOT;
	if (translate_down(skb, &a, b, key.sport))
		return TC_ACT_SHOT;
	if (!b->peer)
		return bpf_redirect(key.ifindex, 0);
	skb->mark = 0; /* as any frame that comes into a namespace */
	return bpf_redirect_peer(key.ifindex, 0);
}

#endif
