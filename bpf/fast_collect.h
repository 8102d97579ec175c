/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Collecting fast-path flows that are over. An entry is marked first and deleted
 * a whole interval later, so that no program still holds it when its memory is
 * given to another flow.
 */
#ifndef GATEWAY_FAST_COLLECT_H
#define GATEWAY_FAST_COLLECT_H

#include "fast_flow.h"

#define SECOND_NS (1000ULL * 1000 * 1000)
#define DELETE_AFTER (SECOND_NS / 2)	 /* from the mark to the deletion */
#define CLOSED_AFTER SECOND_NS	 /* after both FINs, or a RST */
#define REFUSED_AFTER (10 * SECOND_NS)	 /* of silence */
#define HELLO_AFTER (20 * SECOND_NS)	 /* for the hello, from the SYN */
#define GUARDED_AFTER (120 * SECOND_NS)	 /* of silence in the handshake */
#define HALF_CLOSED_AFTER (240 * SECOND_NS)
#define IDLE_AFTER (7440 * SECOND_NS) /* RFC 5382 REQ-5 */

/* Tells why a flow is over, or REASON_NONE. */
static __always_inline enum flow_reason over(const struct flow *f, __u64 now)
{
	__u64 began = f->began, seen = f->seen, silent = now > seen ? now - seen : 0;

	if (f->state == FLOW_VERIFIED && !granted(f))
		return REASON_REVOKED;
	if (f->fin_up && f->fin_down && silent >= CLOSED_AFTER)
		return REASON_CLOSED;
	if (f->reset && silent >= CLOSED_AFTER)
		return REASON_RESET;
	if (f->state == FLOW_UNVERIFIED)
		return now > began && now - began >= HELLO_AFTER ? REASON_HELLO_TIMEOUT : REASON_NONE;
	if ((f->fin_up || f->fin_down) && silent >= HALF_CLOSED_AFTER)
		return REASON_IDLE;
	if (f->guarded && silent >= GUARDED_AFTER)
		return REASON_IDLE;
	return silent >= IDLE_AFTER ? REASON_IDLE : REASON_NONE;
}

/* Looks at one flow. One that cannot be reported now is looked at again. */
static long collect_flow(void *map, const struct flow_key *at, struct flow *f, void *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	struct flow_key key = *at;
	__u32 ifindex = key.ifindex;
	enum flow_reason why;
	struct usage *u;

	(void)map;
	(void)ctx;
	if (!lock_flow(f))
		return 0;
	switch (f->state) {
	case FLOW_UNVERIFIED:
	case FLOW_VERIFIED:
		why = over(f, now);
		if (why)
			end_flow(&key, f, why);
		break;
	case FLOW_REFUSED:
		if (f->reason && !report(&key, f, EVENT_REFUSED, f->reason))
			break;
		f->reason = REASON_NONE;
		if (now > f->seen && now - f->seen >= REFUSED_AFTER)
			end_flow(&key, f, REASON_NONE);
		break;
	default:
		if (now <= f->seen || now - f->seen < DELETE_AFTER ||
		    bpf_map_delete_elem(&flows, &key))
			break;
		u = bpf_map_lookup_elem(&usages, &ifindex);
		if (u)
			__sync_fetch_and_add(&u->flows, -1);
		return 0; /* locked for ever: the memory is the map's */
	}
	unlock_flow(f);
	return 0;
}

#endif
