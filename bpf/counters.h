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

/* Counts a frame to a bottle, or that it is dropped. Returns whether it goes on. */
static __always_inline bool count_down(const struct __sk_buff *skb, __u32 ifindex,
				       enum drop_reason why)
{
	struct link_stats *s = stats_of(ifindex);

	if (!s)
		return why == DROP_NONE;
	if (why != DROP_NONE) {
		count_drop(s, why);
		return false;
	}
	s->tx_packets++;
	s->tx_bytes += skb->len;
	return true;
}

/*
 * Takes one unit from a budget: the generic cell rate algorithm with one time
 * stamp of state. Returns false when there is none left.
 */
static __always_inline bool take(__u64 *until, __u64 interval, __u64 burst)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 next = *until > now ? *until : now;

	if (next - now >= burst * interval)
		return false;
	*until = next + interval;
	return true;
}

static __always_inline bool take_refusal(struct link_stats *s)
{
	return take(&s->refusals_until, REFUSAL_INTERVAL_NS, REFUSAL_BURST);
}

/* Takes one frame. A fixed window is enough for a bound that is this wide. */
static __always_inline bool take_frame(struct link_stats *s)
{
	__u64 window = bpf_ktime_get_coarse_ns() >> FRAME_WINDOW_SHIFT;

	if (s->window != window) {
		s->window = window;
		s->window_frames = 0;
	}
	return ++s->window_frames <= FRAMES_PER_WINDOW;
}

#endif
