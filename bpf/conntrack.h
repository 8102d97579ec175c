/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the kernel's connection tracking says of a connection, read by the kernel
 * functions of net/netfilter/nf_conntrack_bpf.c (Linux 6.0). Where the kernel has
 * none, the loader puts "nothing" in place of the two functions below.
 */
#ifndef GATEWAY_CONNTRACK_H
#define GATEWAY_CONNTRACK_H

#include "fast_reset.h"

#define TRANSLATION_STAYS_MS (7500U * 1000) /* longer than an idle flow: IDLE_AFTER */
#define TRANSLATION_ENDS_MS (10U * 1000)
#define CONNTRACK_SEEN_REPLY (1UL << 1) /* IPS_SEEN_REPLY */
#define CONNTRACK_ASSURED (1UL << 2) /* IPS_ASSURED, seen in both directions */
#define CONNTRACK_DYING (1UL << 9)   /* IPS_DYING */
#define IP_CT_DIR_ORIGINAL 0
#define IP_CT_DIR_REPLY 1

/* The members that are read, found by name wherever the kernel has them. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

union nf_inet_addr {
	__be32 ip;
};

union nf_conntrack_man_proto {
	__be16 all;
};

struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
};

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} u;
	} dst;
};

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
};

struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2];
	unsigned long status;
};

#pragma clang attribute pop

struct bpf_ct_opts {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple,
					 __u32 size, struct bpf_ct_opts *opts,
					 __u32 opts_size) __ksym;
extern void bpf_ct_release(struct nf_conn *ct) __ksym;
extern int bpf_ct_change_status(struct nf_conn *ct, __u32 status) __ksym;
extern int bpf_ct_change_timeout(struct nf_conn *ct, __u32 milliseconds) __ksym;

/* Under which address and port the upstream knows a bottle's connection. */
struct translation {
	__be32 addr;
	__be16 port;
	__u16 unused;
};

/*
 * Reads the translation of a connection that both sides have spoken on, and has
 * its entry stay for the time given, since conntrack will see nothing of it.
 * Returns 0, or less if there is none.
 */
static __noinline int read_translation(struct __sk_buff *skb, const struct flow_key *key,
				       __be32 saddr, struct translation *out)
{
	struct bpf_sock_tuple tuple = { .ipv4 = {
		.saddr = saddr, .daddr = key->daddr, .sport = key->sport, .dport = key->dport,
	} };
	struct bpf_ct_opts opts = { .netns_id = -1, .l4proto = IPPROTO_TCP };
	struct nf_conn *ct;
	int found = -1;

	ct = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv4), &opts, sizeof(opts));
	if (!ct)
		return -1;
	if ((ct->status & (CONNTRACK_ASSURED | CONNTRACK_DYING)) == CONNTRACK_ASSURED &&
	    ct->tuplehash[IP_CT_DIR_REPLY].tuple.src.u3.ip == key->daddr &&
	    ct->tuplehash[IP_CT_DIR_REPLY].tuple.src.u.all == key->dport) {
		out->addr = ct->tuplehash[IP_CT_DIR_REPLY].tuple.dst.u3.ip;
		out->port = ct->tuplehash[IP_CT_DIR_REPLY].tuple.dst.u.all;
		found = bpf_ct_change_timeout(ct, TRANSLATION_STAYS_MS);
	}
	bpf_ct_release(ct);
	return found;
}

/* Has conntrack forget a connection that is over when the time given has passed. */
static __noinline int release_translation(struct __sk_buff *skb, const struct flow_key *key,
					  __be32 saddr, __u32 milliseconds)
{
	struct bpf_sock_tuple tuple = { .ipv4 = {
		.saddr = saddr, .daddr = key->daddr, .sport = key->sport, .dport = key->dport,
	} };
	struct bpf_ct_opts opts = { .netns_id = -1, .l4proto = IPPROTO_TCP };
	struct nf_conn *ct = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv4), &opts, sizeof(opts));

	if (!ct)
		return -1;
	bpf_ct_change_timeout(ct, milliseconds);
	bpf_ct_release(ct);
	return 0;
}

#endif
