/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#ifndef GATEWAY_COUNTERS_H
#define GATEWAY_COUNTERS_H

#include "state.h"

/*
 * Returns the counters of a link, those of key 0 for a link without any, or
 * NULL. The values are per CPU, so plain additions do.
 */
static __always_inline struct link_stats *stats_of(__u32 ifindex)
{
	struct link_stats *s = bpf_map_lookup_elem(&stats, &ifindex);
	__u32 stranger = 0;

	return s ? s : bpf_map_lookup_elem(&stats, &stranger);
}

static __always_inline void count_drop(struct link_stats *s, enum drop_reason why)
{
	/* The comparison is for the verifier; why is always below. */
	if ((__u32)why < DROP_REASONS)
		s->drops[why]++;
}

/*
 * Takes one refusal from the link's budget (the generic cell rate algorithm
 * with one time stamp of state). Returns false when there is none left.
 */
static __always_inline bool take_refusal(struct link_stats *s)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 until = s->refusals_until > now ? s->refusals_until : now;

	if (until - now >= (__u64)REFUSAL_BURST * REFUSAL_INTERVAL_NS)
		return false;
	s->refusals_until = until + REFUSAL_INTERVAL_NS;
	return true;
}

#endif
