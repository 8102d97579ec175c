/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Reading a ClientHello (RFC 8446 section 4.1.2) out of the bytes kept of a
 * stream. It is parsed once it is whole. Every walk is a bpf_loop over a static
 * callback whose state is in the map value, so that the verifier looks at each
 * callback about once; the context on the stack holds pointers only.
 *
 * The rules are those of the parser in gateway/tls, or stricter: one record, and
 * no other, holds the hello.
 */
#ifndef GATEWAY_FAST_HELLO_H
#define GATEWAY_FAST_HELLO_H

#include "fast_state.h"

#define RECORD_HEADER 5
#define RECORD_CCS 20
#define RECORD_ALERT 21
#define RECORD_HANDSHAKE 22
#define RECORD_DATA 23
#define TYPE_CLIENT_HELLO 1
#define HELLO_LEAST 45 /* header, version, random, and five empty vectors */
#define RANDOM_END (RECORD_HEADER + 4 + 2 + 32)

#define EXT_SERVER_NAME 0
#define EXT_ALPN 16
#define EXT_PRE_SHARED_KEY 41
#define EXT_EARLY_DATA 42
#define EXT_SUPPORTED_VERSIONS 43

#define COPY_CHUNK 512
#define COPY_CHUNKS (HELLO_CAPACITY / COPY_CHUNK + 1)
#define MATCH_CHUNK 64
#define MATCH_CHUNKS (HELLO_CAPACITY / MATCH_CHUNK + 1)
#define HELLO_STEPS 512 /* extensions and ALPN entries, together */

struct walk {
	struct __sk_buff *skb;
	struct hello *h;
};

/* Copies the next chunk of the frame behind what is kept. */
static long copy_chunk(__u32 index, struct walk *w)
{
	struct hello *h = w->h;
	__u32 at = h->at, n = h->left;

	(void)index;
	if (!n)
		return 1;
	if (n > COPY_CHUNK)
		n = COPY_CHUNK;
	OPAQUE(at);
	if (at >= HELLO_CAPACITY) {
		h->failed = REASON_TOO_LARGE;
		return 1;
	}
	/* In this form also Linux 6.1 sees that n is 1 or more. */
	n -= 1;
	OPAQUE(n);
	if (n > COPY_CHUNK - 1) {
		h->failed = REASON_INTERNAL;
		return 1;
	}
	n += 1;
	if (bpf_skb_load_bytes(w->skb, h->from, h->bytes + at, n)) {
		h->failed = REASON_INTERNAL;
		return 1;
	}
	h->at = at + n;
	h->from += n;
	h->left -= n;
	return h->left == 0;
}

/* Keeps n bytes of the frame at offset from, behind the kept ones. */
static __always_inline enum flow_reason keep(struct walk *w, __u32 kept, __u32 from, __u32 n)
{
	struct hello *h = w->h;

	h->at = kept;
	h->from = from;
	h->left = n;
	h->failed = REASON_NONE;
	bpf_loop(COPY_CHUNKS, copy_chunk, w, 0);
	if (h->failed)
		return h->failed;
	return h->left ? REASON_INTERNAL : REASON_NONE;
}

/* Compares the next chunk of the frame with what is kept. */
static long match_chunk(__u32 index, struct walk *w)
{
	__u64 there[MATCH_CHUNK / 8] = {};
	struct hello *h = w->h;
	__u32 at = h->at, n = h->left;
	__u64 differs = 0;

	(void)index;
	if (!n)
		return 1;
	if (n > MATCH_CHUNK)
		n = MATCH_CHUNK;
	OPAQUE(at);
	if (at >= HELLO_CAPACITY) {
		h->failed = REASON_INTERNAL;
		return 1;
	}
	n -= 1;
	OPAQUE(n);
	if (n > MATCH_CHUNK - 1) {
		h->failed = REASON_INTERNAL;
		return 1;
	}
	n += 1;
	if (bpf_skb_load_bytes(w->skb, h->from, there, n)) {
		h->failed = REASON_INTERNAL;
		return 1;
	}
#pragma unroll
	for (__u32 i = 0; i < MATCH_CHUNK / 8; i++) {
		__u64 x = there[i] ^ *(__u64 *)(h->bytes + at + 8 * i);

		if (n < 8 * i + 8)
			x = n <= 8 * i ? 0 : x & ((1ULL << (8 * (n - 8 * i))) - 1);
		differs |= x;
	}
	if (differs) {
		h->failed = REASON_CHANGED;
		return 1;
	}
	h->at = at + n;
	h->from += n;
	h->left -= n;
	return h->left == 0;
}

/* Compares n bytes of the frame at offset from with those kept at offset at. */
static __always_inline enum flow_reason match(struct walk *w, __u32 at, __u32 from, __u32 n)
{
	struct hello *h = w->h;

	h->at = at;
	h->from = from;
	h->left = n;
	h->failed = REASON_NONE;
	bpf_loop(MATCH_CHUNKS, match_chunk, w, 0);
	if (h->failed)
		return h->failed;
	return h->left ? REASON_INTERNAL : REASON_NONE;
}

/* The byte at an offset, which the caller has compared with what is kept. */
static __always_inline __u32 byte_at(const struct hello *h, __u32 at)
{
	OPAQUE(at);
	return h->bytes[at & (HELLO_CAPACITY - 1)];
}

static __always_inline __u32 short_at(const struct hello *h, __u32 at)
{
	OPAQUE(at);
	at &= HELLO_CAPACITY - 1;
	return (__u32)h->bytes[at] << 8 | h->bytes[at + 1];
}

static __always_inline long fail(struct hello *h, enum flow_reason why)
{
	h->failed = why;
	return 1;
}

/* RFC 6066 section 3, but exactly one entry. */
static __always_inline long read_name(struct hello *h, __u32 at, __u32 size)
{
	__u32 n;

	if (size < 6 || short_at(h, at) + 2 != size || byte_at(h, at + 2) != 0)
		return fail(h, REASON_MALFORMED);
	n = short_at(h, at + 3);
	if (n + 5 != size)
		return fail(h, REASON_MALFORMED);
	if (n > 253)
		return fail(h, REASON_NAME);
	h->name_at = at + 5;
	h->name_len = n;
	return 0;
}

/* Reads one extension, or one entry of the ALPN list (RFC 7301 section 3.1). */
static long read_extension(__u32 index, struct walk *w)
{
	struct hello *h = w->h;
	__u32 at = h->at, end = h->end, type, size, bit;
	__u64 *seen;

	(void)index;
	if (h->list_end) {
		size = byte_at(h, at);
		if (!size || at + 1 + size > h->list_end)
			return fail(h, REASON_MALFORMED);
		h->at = at + 1 + size;
		if (h->at == h->list_end)
			h->list_end = 0;
		return 0;
	}
	if (at == end)
		return 1;
	if (at + 4 > end)
		return fail(h, REASON_MALFORMED);
	type = short_at(h, at);
	size = short_at(h, at + 2);
	at += 4;
	if (at + size > end)
		return fail(h, REASON_MALFORMED);
	bit = type & 1023;
	seen = &h->seen[bit >> 6];
	if (*seen & (1ULL << (bit & 63)))
		return fail(h, REASON_MALFORMED);
	*seen |= 1ULL << (bit & 63);
	h->at = at + size;
	switch (type) {
	case EXT_SERVER_NAME:
		return read_name(h, at, size);
	case EXT_ALPN:
		if (size < 3 || short_at(h, at) + 2 != size)
			return fail(h, REASON_MALFORMED);
		h->list_end = at + size;
		h->at = at + 2;
		return 0;
	case EXT_PRE_SHARED_KEY:
		return at + size != end ? fail(h, REASON_MALFORMED) : 0;
	case EXT_EARLY_DATA:
		return fail(h, REASON_EARLY_DATA);
	case EXT_SUPPORTED_VERSIONS:
		if (size < 3 || byte_at(h, at) + 1 != size || size % 2 == 0)
			return fail(h, REASON_MALFORMED);
		return 0;
	}
	return 0;
}

/*
 * Reads what comes before the extensions of the hello whose record begins at
 * offset record and ends at end. Leaves h->at at the first extension.
 */
static __always_inline enum flow_reason read_head(struct hello *h, __u32 record, __u32 end)
{
	__u32 at = record + RANDOM_END, n;

	if (byte_at(h, record + RECORD_HEADER + 4) != 3)
		return REASON_MALFORMED;
	n = byte_at(h, at);
	if (n > 32)
		return REASON_MALFORMED;
	at += 1 + n;
	if (at + 2 > end)
		return REASON_MALFORMED;
	n = short_at(h, at);
	if (!n || n % 2 || at + 2 + n >= end)
		return REASON_MALFORMED;
	at += 2 + n;
	n = byte_at(h, at);
	if (!n || at + 1 + n > end)
		return REASON_MALFORMED;
	at += 1 + n;
	if (at == end)
		return REASON_NO_NAME;
	if (at + 2 > end || at + 2 + short_at(h, at) != end)
		return REASON_MALFORMED;
	h->at = at + 2;
	return REASON_NONE;
}

/* Reads the whole hello, and leaves its name in h->key. */
static __always_inline enum flow_reason read_hello(struct walk *w, __u32 record, __u32 end)
{
	struct hello *h = w->h;
	enum flow_reason why = read_head(h, record, end);
	__u32 from, n;

	if (why)
		return why;
	__builtin_memset(h->seen, 0, sizeof(h->seen));
	h->end = end;
	h->list_end = 0;
	h->name_len = 0;
	h->failed = REASON_NONE;
	bpf_loop(HELLO_STEPS, read_extension, w, 0);
	if (h->failed)
		return h->failed;
	if (h->at != h->end || h->list_end)
		return REASON_MALFORMED;
	n = h->name_len;
	if (!n)
		return REASON_NO_NAME;
	from = h->name_at;
	OPAQUE(from);
	from &= HELLO_CAPACITY - 1;
	h->key.name_len = n;
#pragma unroll
	for (__u32 i = 0; i < NAME_SIZE / 8; i++) {
		__u64 x = *(__u64 *)(h->bytes + from + 8 * i);

		if (n < 8 * i + 8)
			x = n <= 8 * i ? 0 : x & ((1ULL << (8 * (n - 8 * i))) - 1);
		*(__u64 *)(h->key.name + 8 * i) = x;
	}
	return REASON_NONE;
}

/*
 * Looks at the header of the record that begins at offset record, of which kept
 * bytes from the stream's start are there. Sets *end to the hello's end when it
 * is whole, else to 0. Whatever shows early that there will be no good hello is
 * told at once.
 */
static __always_inline enum flow_reason frame_hello(const struct hello *h, __u32 record,
						    __u32 kept, __u32 *end)
{
	__u32 have = kept - record, size;

	*end = 0;
	if (have < 1)
		return REASON_NONE;
	if (byte_at(h, record) != RECORD_HANDSHAKE)
		return REASON_NOT_TLS;
	if (have < 2)
		return REASON_NONE;
	if (byte_at(h, record + 1) != 3)
		return REASON_NOT_TLS;
	if (have < RECORD_HEADER)
		return REASON_NONE;
	size = short_at(h, record + 3);
	if (size < HELLO_LEAST)
		return REASON_MALFORMED;
	if (record + RECORD_HEADER + size > HELLO_CAPACITY)
		return REASON_TOO_LARGE;
	if (have < RECORD_HEADER + 1)
		return REASON_NONE;
	if (byte_at(h, record + RECORD_HEADER) != TYPE_CLIENT_HELLO)
		return REASON_MALFORMED;
	if (have < RECORD_HEADER + 4)
		return REASON_NONE;
	if (byte_at(h, record + RECORD_HEADER + 1) != 0 ||
	    short_at(h, record + RECORD_HEADER + 2) + 4 != size)
		return REASON_MALFORMED;
	if (have >= RECORD_HEADER + size)
		*end = record + RECORD_HEADER + size;
	return REASON_NONE;
}

#endif
