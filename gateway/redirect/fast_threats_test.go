package redirect

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// TestFastPathOddOptions sends a judged hello's bytes with each option that has some receivers ignore a segment, or take its
// bytes for another stream's, and with options that cannot be read; and its SYN, which is the relay's.
func TestFastPathOddOptions(t *testing.T) {
	hello := clientHello(t, goodName)
	for _, tc := range []struct {
		name    string
		options []byte
	}{
		{"MD5", append([]byte{19, 18}, make([]byte, 18)...)},
		{"AO", append([]byte{29, 16}, make([]byte, 14)...)},
		{"Fast Open", []byte{34, 2, 1, 1}},
		{"Fast Open's first number", []byte{254, 4, 0xf9, 0x89}},
		{"experiment", []byte{253, 4, 1, 2}},
		{"behind others", []byte{1, 1, 3, 3, 7, 34, 3, 0}},
		{"Multipath TCP", []byte{30, 4, 0x20, 0}},
		{"one that nobody knows", []byte{77, 4, 1, 2}},
		{"of no length", []byte{3, 0, 1, 1}},
		{"of length 1", []byte{3, 1, 1, 1}},
		{"beyond the header", []byte{3, 5, 1, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newFastStage(t, AttachAuto)
			s.pin(goodName)
			c := newRawClient(s)
			c.connect()
			c.sport++
			before := counters(t, s.r, s.l)
			c.send(tcpSegment{seq: c.start - 1, flags: flagSYN, options: tc.options})
			eventually(t, "the SYN to be the relay's", func() bool {
				d := difference(counters(t, s.r, s.l), before)
				return d.Assigned == 1 && d.Forwarded == 0
			})
			c.sport--
			c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, options: tc.options, payload: hello})
			c.refused(FastOption)
			if got := c.left(); len(got) != 0 {
				t.Errorf("%d bytes left", len(got))
			}
		})
	}
}

// TestFastPathOddBeginnings begins connections as no client does.
func TestFastPathOddBeginnings(t *testing.T) {
	hello, evil := clientHello(t, goodName), clientHello(t, "evil.test")
	for _, tc := range []struct {
		name string
		try  func(c *rawClient)
	}{
		{"simultaneous open", func(c *rawClient) {
			c.sport++
			c.dropped(gatewayDropReasonDROP_SYN_FORM, 1, func() { c.send(tcpSegment{seq: 5, ack: 6, flags: flagSYN | flagACK}) })
		}},
		{"SYN and FIN", func(c *rawClient) {
			c.sport++
			c.dropped(gatewayDropReasonDROP_SYN_FORM, 1, func() { c.send(tcpSegment{seq: 5, flags: flagSYN | flagFIN}) })
		}},
		{"SYN and RST", func(c *rawClient) {
			c.sport++
			c.dropped(gatewayDropReasonDROP_SYN_FORM, 1, func() { c.send(tcpSegment{seq: 5, flags: flagSYN | flagRST}) })
		}},
		{"a FIN that the upstream ignores, then another hello", func(c *rawClient) {
			c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, payload: hello, badSum: true})
			c.send(tcpSegment{seq: c.start + uint32(len(hello)), ack: c.ack, flags: flagACK | flagFIN, badSum: true})
			c.data(0, evil)
			c.refused(FastChanged)
		}},
		{"an empty record first", func(c *rawClient) {
			c.data(0, append([]byte{22, 3, 1, 0, 0}, evil...))
			c.refused(FastMalformed)
		}},
		{"a hello of 20 KB", func(c *rawClient) {
			big := append([]byte{22, 3, 1, 0x40, 0x00, 1, 0, 0x4f, 0x00}, make([]byte, 20<<10)...)
			for at := 0; at < len(big); at += 1400 {
				c.data(at, big[at:min(at+1400, len(big))])
			}
			eventually(c.t, "the refusal", func() bool {
				return slices.ContainsFunc(c.events(), func(e FastEvent) bool { return e.Refused && (e.Reason == FastTooLarge || e.Reason == FastMalformed) })
			})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newFastStage(t, AttachAuto)
			s.pin(goodName)
			c := newRawClient(s)
			c.connect()
			tc.try(c)
			if got := c.left(); bytes.Contains(got, []byte("evil.test")) {
				t.Errorf("the evil name is among the %d bytes that left", len(got))
			}
		})
	}
}

// TestFastPathNamesToTheByte changes each byte of the name in a recorded hello to each other value: nothing but the pinned name
// is let through, upper case, dots, NUL and all else.
func TestFastPathNamesToTheByte(t *testing.T) {
	h := newJudgeHarness(t)
	hello := firstRecord(corpus(t)["curl.bin"])
	name, _ := strict(hello)
	h.allow(name)
	at := bytes.Index(hello, []byte(name))
	runs := 0
	for i := range name {
		for b := range 256 {
			if byte(b) == name[i] {
				continue
			}
			stream := slices.Clone(hello)
			stream[at+i] = byte(b)
			if got, state := h.judge(stream, 1400); got != "" || state != gatewayFlowStateFLOW_REFUSED {
				t.Fatalf("byte %d as %#x: %q, state %d", i, b, got, state)
			}
			runs++
		}
	}
	if got, _ := h.judge(hello, 1400); got != name {
		t.Errorf("the name itself: %q", got)
	}
	t.Logf("%d streams", runs)
}

// TestFastPathOneName adds a second name to a recorded hello in each way: in the list, as a list of its own, of another type.
func TestFastPathOneName(t *testing.T) {
	h := newJudgeHarness(t)
	hello := firstRecord(corpus(t)["curl.bin"])
	name, _ := strict(hello)
	h.allow(name)
	at := bytes.Index(hello, []byte(name)) // behind: extension 0, its length, the list's length, type 0, the name's length
	entry := hello[at-3 : at+len(name)]
	extension := hello[at-9 : at+len(name)]
	other := slices.Clone(entry)
	other[0] = 1 // no host_name
	for what, change := range map[string]func() []byte{
		"twice in the list":        func() []byte { return withName(hello, at, len(name), entry, true) },
		"another type in the list": func() []byte { return withName(hello, at, len(name), other, true) },
		"two extensions":           func() []byte { return withName(hello, at, len(name), extension, false) },
		"no extension": func() []byte {
			b := slices.Delete(slices.Clone(hello), at-9, at+len(name))
			return grown(b, -len(extension))
		},
	} {
		t.Run(what, func(t *testing.T) {
			if got, state := h.judge(change(), 1400); got != "" || state != gatewayFlowStateFLOW_REFUSED {
				t.Errorf("let through as %q, state %d", got, state)
			}
		})
	}
}

// withName inserts bytes behind the name, into its list if they are an entry, and makes all lengths fit.
func withName(hello []byte, at, size int, more []byte, list bool) []byte {
	b := slices.Insert(slices.Clone(hello), at+size, more...)
	if list {
		for _, length := range []int{at - 7, at - 5} {
			binary.BigEndian.PutUint16(b[length:], binary.BigEndian.Uint16(b[length:])+uint16(len(more)))
		}
	}
	return grown(b, len(more))
}

// grown makes the lengths of the record, the message and the extensions fit a hello that has grown behind them.
func grown(b []byte, by int) []byte {
	binary.BigEndian.PutUint16(b[3:], uint16(int(binary.BigEndian.Uint16(b[3:]))+by))
	binary.BigEndian.PutUint16(b[7:], uint16(int(binary.BigEndian.Uint16(b[7:]))+by))
	at := 5 + 4 + 2 + 32
	at += 1 + int(b[at])
	at += 2 + int(binary.BigEndian.Uint16(b[at:]))
	at += 1 + int(b[at])
	binary.BigEndian.PutUint16(b[at:], uint16(int(binary.BigEndian.Uint16(b[at:]))+by))
	return b
}
