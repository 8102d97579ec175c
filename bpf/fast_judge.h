/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Judging what a bottle sends on a fast-path flow until its ClientHello is known
 * to be good, and known to have arrived.
 *
 * Having judged a hello once is not enough: one that the upstream never accepts
 * (a bad checksum, a stale time stamp, a frame too large for the path) can be
 * followed by another at the same sequence number. So the bytes are kept, and
 * until the upstream has acknowledged them all, whatever begins before their end
 * must be byte for byte the same.
 */
#ifndef GATEWAY_FAST_JUDGE_H
#define GATEWAY_FAST_JUDGE_H

#include "ethernet.h"
#include "fast_hello.h"
#include "fast_reset.h"

#define OPTION_END 0
#define OPTION_NOP 1
/*
 * Segment size, window scale, SACK permitted, SACK and time stamps (RFC 9293 section
 * 3.2, RFC 7323, RFC 2018) leave a stream what it is. Others do not, for receivers
 * that know them: signatures (RFC 2385, RFC 5925), Fast Open (RFC 7413), Multipath
 * TCP, which maps sequence numbers to places in another stream (RFC 8684).
 */
#define OPTIONS_PLAIN (1U << 2 | 1U << 3 | 1U << 4 | 1U << 5 | 1U << 8)
#define OPTIONS_MOST 40
#define OPTIONS_MASK 63 /* a power of two that is no less, less one */
#define OPTIONS_ROOM 72 /* one byte beyond the mask, in words of 8 */
#define PLAIN_HEADER 20
#define STAMP_HEADER 32 /* with nothing but time stamps behind two NOPs, as most stacks write it */
#define STAMP_BEGINS 0x0101080a
#define FAR_AHEAD (1U << 30) /* beyond any window (RFC 7323 section 2.3) */
#define FOLLOWERS 4 /* records looked at behind a hello, for one segment */

/* What judging a segment comes to. */
struct judgement {
	enum flow_reason refuse; /* not REASON_NONE: reset both sides */
	enum drop_reason drop;	 /* else, not DROP_NONE: drop, and nothing else */
};

/* A walk over TCP options; kept in the stack's own words, few and bounded. */
struct options {
	__u8 o[OPTIONS_ROOM];
	__u32 at;
	__u32 end;
	__u32 odd;
};

/* Looks at one option. */
static long look_at_option(__u32 index, struct options *w)
{
	__u32 at = w->at, kind, size;

	(void)index;
	if (at >= w->end)
		return 1;
	OPAQUE(at);
	at &= OPTIONS_MASK;
	kind = w->o[at];
	size = w->o[at + 1];
	if (kind == OPTION_END)
		return 1;
	if (kind == OPTION_NOP) {
		w->at = at + 1;
		return 0;
	}
	if (kind > 8 || !(OPTIONS_PLAIN >> kind & 1) || size < 2 || at + size > w->end) {
		w->odd = 1;
		return 1;
	}
	w->at = at + size;
	return 0;
}

/* Tells whether there are options that are not plain, or cannot be read. */
static __noinline int odd_options(struct __sk_buff *skb, const struct segment *s)
{
	__u32 n = s->header - PLAIN_HEADER;
	struct options w = {};

	if (!n)
		return false;
	n -= 1;
	OPAQUE(n);
	if (n > OPTIONS_MOST - 1)
		return true;
	n += 1;
	if (own_bytes(skb, s->from) || bpf_skb_load_bytes(skb, TRANSPORT_OFFSET + PLAIN_HEADER, w.o, n))
		return true;
	if (n == STAMP_HEADER - PLAIN_HEADER && *(__be32 *)w.o == bpf_htonl(STAMP_BEGINS))
		return false;
	w.end = n;
	bpf_loop(OPTIONS_MOST + 1, look_at_option, &w, 0);
	return w.odd;
}

/* Tells whether the name in h->key may be called at this address, and by which permission. */
static __always_inline enum flow_reason allow_name(struct hello *h, struct flow *f,
						   const struct flow_key *key)
{
	struct pin *pin;
	__u64 *epoch;
	__u32 grant;

	h->key.ifindex = key->ifindex;
	h->key.daddr = key->daddr;
	h->key.dport = key->dport;
	pin = bpf_map_lookup_elem(&pins, &h->key);
	if (!pin || pin->expires <= bpf_ktime_get_coarse_ns())
		return REASON_NAME;
	grant = pin->grant;
	epoch = bpf_map_lookup_elem(&grants, &grant);
	if (!grant || !epoch || *epoch != pin->epoch)
		return REASON_NAME;
	/* The second hello must name what the first did (RFC 8446 section 4.1.2). */
	if (f->phase == PHASE_SECOND && (f->grant != grant || f->epoch != pin->epoch))
		return REASON_CHANGED;
	f->grant = grant;
	f->epoch = pin->epoch;
	return REASON_NONE;
}

/* Judges the hello whose record begins at f->record, if it is whole by now. */
static __noinline int judge_hello(struct walk *w, struct flow *f, const struct flow_key *key,
				  __u32 kept)
{
	struct hello *h = w->h;
	__u32 record = f->record, end;
	enum flow_reason why = frame_hello(h, record, kept, &end);

	if (why || !end)
		return why;
	why = read_hello(w, record, end);
	if (why)
		return why;
	why = allow_name(h, f, key);
	if (why)
		return why;
	f->record = end;
	f->state = FLOW_VERIFIED;
	f->phase = f->phase == PHASE_SECOND ? PHASE_AFTER_SECOND : PHASE_AFTER;
	return REASON_NONE;
}

/*
 * Looks at the record behind a hello. A server that wants another hello takes it
 * after change_cipher_spec or nothing (RFC 8446 appendix D.4); some take it after
 * a warning, too. Data and every other handshake message end the question, since
 * no early data was offered. A handshake message that is encrypted by now (after
 * change_cipher_spec in TLS 1.2) begins with any byte; one that looks like a
 * hello in its first two bytes is treated as one.
 *
 * Sets *more when there is another record to look at.
 */
static __always_inline enum flow_reason look_behind(struct hello *h, struct flow *f,
						    __u32 kept, bool *more)
{
	__u32 at = f->record, size, type;

	*more = false;
	if (kept < at + RECORD_HEADER)
		return REASON_NONE;
	size = short_at(h, at + 3);
	type = byte_at(h, at);
	if (at + RECORD_HEADER + 2 > HELLO_CAPACITY)
		return REASON_TOO_LARGE;
	switch (type) {
	case RECORD_CCS:
	case RECORD_ALERT:
		if (size != (type == RECORD_CCS ? 1 : 2))
			return REASON_MALFORMED;
		f->record = at + RECORD_HEADER + size;
		*more = true;
		return REASON_NONE;
	case RECORD_DATA:
		f->phase = PHASE_DONE;
		return REASON_NONE;
	case RECORD_HANDSHAKE:
		if (!size)
			return REASON_MALFORMED;
		if (kept < at + RECORD_HEADER + 1)
			return REASON_NONE;
		type = byte_at(h, at + RECORD_HEADER);
		if (!type && size < HELLO_LEAST)
			return REASON_MALFORMED; /* a HelloRequest, which clients do not send */
		if (type != TYPE_CLIENT_HELLO) {
			f->phase = PHASE_DONE;
			return REASON_NONE;
		}
		if (size < 2)
			return REASON_MALFORMED;
		if (kept < at + RECORD_HEADER + 2)
			return REASON_NONE;
		if (byte_at(h, at + RECORD_HEADER + 1)) {
			f->phase = PHASE_DONE;
			return REASON_NONE;
		}
		if (f->phase == PHASE_AFTER_SECOND)
			return REASON_MALFORMED;
		f->phase = PHASE_SECOND;
		return REASON_NONE;
	}
	return REASON_MALFORMED;
}

/* Goes on with the stream, of which kept bytes are there. */
static __always_inline enum flow_reason advance(struct walk *w, struct flow *f,
						const struct flow_key *key, __u32 kept)
{
	enum flow_reason why;
	bool more = true;

	if (f->phase == PHASE_HELLO) {
		why = judge_hello(w, f, key, kept);
		if (why || f->phase == PHASE_HELLO)
			return why;
	}
	/* One round for each record that may follow, and one for a second hello. */
	for (int i = 0; i < FOLLOWERS && more; i++) {
		more = false;
		if (f->phase == PHASE_AFTER || f->phase == PHASE_AFTER_SECOND) {
			why = look_behind(w->h, f, kept, &more);
			if (why)
				return why;
		}
		if (f->phase == PHASE_SECOND) {
			why = judge_hello(w, f, key, kept);
			if (why)
				return why;
			more = f->phase != PHASE_SECOND;
		}
	}
	return more ? REASON_MALFORMED : REASON_NONE;
}

/*
 * Judges a segment with payload of a flow that is not verified, or whose kept
 * bytes the upstream has not acknowledged. The caller holds the flow's lock.
 */
static __noinline int judge_payload(struct __sk_buff *skb, const struct segment *s,
				    struct flow *f, enum drop_reason *drop)
{
	__u32 at = s->seq - f->start, kept = f->kept, n;
	struct walk w = { .skb = skb };
	__u32 slot = f->slot;
	int why;

	*drop = DROP_FLOW_ORDER;
	if (at >= FAR_AHEAD)
		return REASON_NONE; /* before the start, too */
	if (at > kept && f->phase != PHASE_DONE)
		return REASON_NONE;
	*drop = DROP_NONE;
	if (at >= kept && f->phase == PHASE_DONE)
		return REASON_NONE;
	n = s->len < HELLO_CAPACITY ? s->len : HELLO_CAPACITY;
	if (own_bytes(skb, s->from + n)) {
		*drop = DROP_REPLY_FAILED;
		return REASON_NONE;
	}
	if (!slot && f->reset) {
		*drop = DROP_FLOW_ORDER; /* it was on its way when the RST came */
		return REASON_NONE;
	}
	w.h = bpf_map_lookup_elem(&hellos, &slot);
	if (!slot || !w.h)
		return REASON_INTERNAL;
	if (at < kept) {
		n = kept - at;
		if (n > s->len)
			n = s->len;
		why = match(&w, at, s->from, n);
		if (why)
			return why;
		if (f->phase == PHASE_DONE || n == s->len)
			return REASON_NONE;
	} else {
		n = 0;
	}
	/* The segment's bytes from n on are new. */
	n = s->from + n;
	at = s->len - (n - s->from);
	if (at > HELLO_CAPACITY - kept)
		at = HELLO_CAPACITY - kept;
	if (!at)
		return REASON_TOO_LARGE;
	why = keep(&w, kept, n, at);
	if (why)
		return why;
	why = advance(&w, f, &s->key, kept + at);
	if (why)
		return why;
	if (f->phase != PHASE_DONE && n + at < s->from + s->len)
		return REASON_TOO_LARGE; /* bytes that are neither kept nor judged */
	f->kept = kept + at;
	return REASON_NONE;
}

#endif
