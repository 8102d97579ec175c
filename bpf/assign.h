/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Giving a packet to one of the gateway's sockets. A packet without such a
 * socket is dropped, never passed on: the stack would route it.
 *
 * Recipe and behaviour: bpf_sk_assign in net/core/filter.c, skb_steal_sock in
 * include/net/inet_hashtables.h.
 */
#ifndef GATEWAY_ASSIGN_H
#define GATEWAY_ASSIGN_H

#include "ipv4.h"

#define TRANSPORT_OFFSET (ETH_HLEN + sizeof(struct iphdr))
#define DNS_PORT 53

/* The one namespace that the frame is in (linux/bpf.h, bpf_sk_lookup_tcp). */
#define THIS_NETNS BPF_F_CURRENT_NETNS

/* Assigns skb to sk, which stays the caller's to release. */
static __always_inline enum drop_reason assign(struct __sk_buff *skb, struct bpf_sock *sk)
{
	return bpf_sk_assign(skb, sk, 0) ? DROP_ASSIGN_FAILED : DROP_NONE;
}

/*
 * Assigns to the listener at the gateway's address and port. The lookup uses
 * source port 0, which no connection has, so that it can find a listener only.
 * Neither a listener that is bound to all addresses nor one without the
 * gateway's mark will do: it would be some other program's.
 */
static __always_inline enum drop_reason assign_listener(struct __sk_buff *skb,
							const struct bottle *b,
							__be16 port)
{
	struct bpf_sock_tuple tuple = {
		.ipv4 = { .saddr = b->guest, .daddr = b->gateway, .dport = port },
	};
	enum drop_reason why = DROP_NO_LISTENER;
	struct bpf_sock *sk, *full;

	sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), THIS_NETNS, 0);
	if (!sk)
		return DROP_NO_LISTENER;
	full = bpf_sk_fullsock(sk);
	if (full && full->state == BPF_TCP_LISTEN && full->src_ip4 == b->gateway &&
	    full->mark == MARK_SOCKET)
		why = assign(skb, sk);
	bpf_sk_release(sk);
	return why;
}

/*
 * Assigns to the socket that already has the flow. Returns false when there is
 * none, and then *why is untouched.
 *
 * A socket in TIME_WAIT or NEW_SYN_RECV is no full socket and has no mark to
 * look at. Only a flow of the bottle with the gateway leaves such a thing
 * behind; should the stack go from there to a new listener lookup (as for a
 * SYN in TIME_WAIT), the program guard_listeners keeps it to the gateway's.
 */
static __always_inline bool assign_flow(struct __sk_buff *skb, const struct packet *p,
					const struct tcphdr *tcp, enum drop_reason *why)
{
	struct bpf_sock_tuple tuple = {
		.ipv4 = { .saddr = p->ip.saddr, .daddr = p->ip.daddr,
			  .sport = tcp->source, .dport = tcp->dest },
	};
	struct bpf_sock *sk, *full;
	bool found = false;

	sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), THIS_NETNS, 0);
	if (!sk)
		return false;
	if (sk->state != BPF_TCP_LISTEN) {
		found = true;
		full = bpf_sk_fullsock(sk);
		if (full && full->mark != MARK_SOCKET)
			*why = DROP_FOREIGN_SOCKET;
		else
			*why = assign(skb, sk);
	}
	bpf_sk_release(sk);
	return found;
}

/*
 * Gives a TCP packet to an established flow's socket, else to the listener. What
 * flags and options it has is left to the host's stack, which terminates it.
 */
static __always_inline enum drop_reason assign_tcp(struct __sk_buff *skb,
						   const struct bottle *b,
						   const struct packet *p,
						   const struct tcphdr *tcp)
{
	enum drop_reason why;

	if (assign_flow(skb, p, tcp, &why))
		return why;
	if (tcp->dest == bpf_htons(DNS_PORT)) {
		why = assign_listener(skb, b, b->dns_port);
		return why == DROP_NO_LISTENER ? DROP_NO_RESOLVER : why;
	}
	return assign_listener(skb, b, b->intercept_port);
}

/* Gives a DNS datagram to the gateway's resolver. */
static __always_inline enum drop_reason assign_resolver(struct __sk_buff *skb,
							const struct bottle *b,
							const struct udphdr *udp)
{
	struct bpf_sock_tuple tuple = {
		.ipv4 = { .saddr = b->guest, .daddr = b->gateway,
			  .sport = udp->source, .dport = b->dns_port },
	};
	enum drop_reason why = DROP_NO_RESOLVER;
	struct bpf_sock *sk;

	sk = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), THIS_NETNS, 0);
	if (!sk)
		return DROP_NO_RESOLVER;
	if (sk->src_ip4 == b->gateway && sk->mark == MARK_SOCKET)
		why = assign(skb, sk);
	bpf_sk_release(sk);
	return why;
}

#endif
