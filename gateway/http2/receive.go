package http2

import (
	"encoding/binary"
	"fmt"
	"net/http"

	"golang.org/x/net/http/httpguts"
)

// frame takes a frame that is whole. p is its payload, valid until the reader goes on.
func (c *conn) frame(f frame, p []byte) error {
	if !c.greeted {
		if f.kind != kindSettings || f.has(flagAck) {
			return connError{codeProtocol, "the first frame is not SETTINGS"}
		}
		c.greeted = true
	}
	if c.head.stream != 0 && (f.kind != kindContinuation || f.stream != c.head.stream) {
		return connError{codeProtocol, "another frame within a head"}
	}
	c.pay(f)
	switch f.kind {
	case kindData:
		return c.paddedData(f, p)
	case kindHeaders:
		return c.headers(f, p)
	case kindContinuation:
		if c.head.stream == 0 {
			return connError{codeProtocol, "CONTINUATION of no head"}
		}
		return c.headPart(f, p)
	case kindPriority:
		return priority(f, p)
	case kindReset:
		return c.reset(f, p)
	case kindSettings:
		return c.settings(f, p)
	case kindPush:
		return connError{codeProtocol, "a client cannot push"}
	case kindPing:
		return c.ping(f, p)
	case kindGoAway:
		return c.goneAway(f, p)
	case kindWindow:
		return c.window(f, p)
	case kindPriorityUpdate:
		return priorityUpdate(f, p)
	}
	return nil // RFC 9113 section 5.5: frames of unknown types are ignored
}

// pay charges a frame of the guest's. A request has a record and a budget of its own.
func (c *conn) pay(f frame) {
	switch {
	case f.kind == kindHeaders, f.kind == kindData && f.length == 0 && f.has(flagEndStream):
	case f.kind == kindReset:
		c.owe(c.account.Reset())
	case !c.fare(f):
		c.owe(c.account.Frame())
	}
}

// fare pays for a frame with bytes of bodies that were moved, either way, and reports whether they were enough.
func (c *conn) fare(f frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.kind == kindData {
		c.earn(f.length)
	}
	if c.credit < frameFare {
		return false
	}
	c.credit -= frameFare
	return true
}

// earn notes that n bytes of bodies were moved. mu is held.
func (c *conn) earn(n int) { c.credit = min(c.credit+n, maxCreditBytes) }

// headers takes HEADERS.
func (c *conn) headers(f frame, p []byte) error {
	if f.stream == 0 || f.stream%2 == 0 {
		return connError{codeProtocol, "HEADERS on a stream that a client cannot open"}
	}
	p, err := unpad(f, p)
	if err != nil {
		return err
	}
	c.head.begin(f, c.lim)
	if f.has(flagPriority) {
		if len(p) < 5 {
			return connError{codeFrameSize, "HEADERS without its priority"}
		}
		c.head.self = binary.BigEndian.Uint32(p)&^(1<<31) == f.stream
		p = p[5:]
	}
	return c.headPart(f, p)
}

// headPart takes what one frame has of a head.
func (c *conn) headPart(f frame, p []byte) error {
	if err := c.head.write(p); err != nil || !f.has(flagEndHeaders) {
		return err
	}
	defer c.head.forget()
	if err := c.head.end(); err != nil {
		return err
	}
	return c.headDone()
}

// headDone takes a head that is whole: that of a new stream, or trailers.
func (c *conn) headDone() error {
	h := &c.head
	id := h.first.stream
	malformed := func(why string) error { return streamError{id, codeProtocol, why} }
	c.mu.Lock()
	defer c.mu.Unlock()
	if st := c.streams[id]; st != nil {
		return c.trailers(st)
	}
	if id <= c.maxID {
		if c.isLate(id) {
			return nil
		}
		return connError{codeStreamClosed, "HEADERS on a stream that is closed"}
	}
	if c.leaving {
		return nil // the guest was told that it is not served (RFC 9113 section 6.8)
	}
	c.maxID = id
	open := !h.first.has(flagEndStream)
	switch {
	case h.bad != "":
		return malformed(h.bad)
	case h.self:
		return malformed("a stream depends on itself")
	case len(c.streams) >= c.lim.Streams || len(c.active) >= handlersEach*c.lim.Streams:
		return streamError{id, codeRefusedStream, "more streams than may be open"}
	case h.tooLarge:
		return c.refuse(id, open, http.StatusRequestHeaderFieldsTooLarge, "The head is larger or has more fields than the gateway takes.")
	}
	var r http.Request
	scheme, bad := makeRequest(&r, h.fields, open)
	if bad != "" {
		return malformed(bad)
	}
	if err := checkFields(r.Header); err != nil {
		return c.refuse(id, open, http.StatusBadRequest, err.Error())
	}
	if scheme == "https" {
		r.TLS = c.tlsState()
	}
	c.open(id, &r, open)
	return nil
}

// trailers takes the second head of a stream. mu is held.
func (c *conn) trailers(st *stream) error {
	h := &c.head
	malformed := func(why string) error { return streamError{st.id, codeProtocol, why} }
	if st.remoteClosed {
		return streamError{st.id, codeStreamClosed, "HEADERS after the end of the stream"}
	}
	switch {
	case h.bad != "":
		return malformed(h.bad)
	case h.tooLarge:
		return malformed("trailers that are too large")
	case h.self:
		return malformed("a stream depends on itself")
	case !h.first.has(flagEndStream):
		return malformed("trailers that do not end the stream")
	}
	for _, f := range h.fields {
		key := canonicalName(f.Name)
		if f.Name[0] == ':' || !httpguts.ValidTrailerHeader(key) {
			return malformed("a trailer that may be none")
		}
		if _, announced := st.request.Trailer[key]; announced { // others are dropped
			if st.trailer == nil {
				st.trailer = http.Header{}
			}
			st.trailer[key] = append(st.trailer[key], f.Value)
		}
	}
	return st.remoteEnd()
}

// priority takes PRIORITY, whose advice is not followed (RFC 9113 section 5.3.2).
func priority(f frame, p []byte) error {
	switch {
	case f.stream == 0:
		return connError{codeProtocol, "PRIORITY of no stream"}
	case len(p) != 5:
		return connError{codeFrameSize, "PRIORITY of another length than 5"}
	case binary.BigEndian.Uint32(p)&^(1<<31) == f.stream:
		return streamError{f.stream, codeProtocol, "a stream depends on itself"}
	}
	return nil
}

// priorityUpdate takes PRIORITY_UPDATE, likewise (RFC 9218 section 7.1).
func priorityUpdate(f frame, p []byte) error {
	switch {
	case f.stream != 0:
		return connError{codeProtocol, "PRIORITY_UPDATE on a stream"}
	case len(p) < 4:
		return connError{codeFrameSize, "PRIORITY_UPDATE shorter than 4"}
	case binary.BigEndian.Uint32(p)&^(1<<31) == 0:
		return connError{codeProtocol, "PRIORITY_UPDATE of no stream"}
	}
	return nil
}

// reset takes RST_STREAM.
func (c *conn) reset(f frame, p []byte) error {
	if len(p) != 4 {
		return connError{codeFrameSize, "RST_STREAM of another length than 4"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isIdle(f.stream) {
		return connError{codeProtocol, "RST_STREAM of a stream that was never opened"}
	}
	if st := c.streams[f.stream]; st != nil {
		st.break_(ErrStreamReset)
	}
	return nil
}

// isIdle reports whether nothing has come of a stream yet (RFC 9113 section 5.1). What comes of one after GOAWAY was dropped. mu is
// held.
func (c *conn) isIdle(id uint32) bool { return id == 0 || id%2 == 0 || id > c.maxID && !c.leaving }

// settings takes SETTINGS.
func (c *conn) settings(f frame, p []byte) error {
	if err := checkSettings(f, p); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.has(flagAck) {
		if c.acked {
			return connError{codeProtocol, "an acknowledgement of nothing"}
		}
		c.acked = true
		return nil
	}
	for i := 0; i < len(p); i += 6 {
		id := binary.BigEndian.Uint16(p[i:])
		for before := 0; before < i; before += 6 {
			if binary.BigEndian.Uint16(p[before:]) == id {
				return connError{codeProtocol, "a setting is repeated"}
			}
		}
		if err := c.setting(id, binary.BigEndian.Uint32(p[i+2:])); err != nil {
			return err
		}
	}
	c.out.control(appendFrame(nil, 0, kindSettings, flagAck, 0))
	return c.err
}

// setting takes one setting (RFC 9113 section 6.5.2). mu is held.
func (c *conn) setting(id uint16, value uint32) error {
	switch id {
	case settingPush, settingConnect, settingPriorities:
		if value > 1 {
			return connError{codeProtocol, "a setting that is neither 0 nor 1"}
		}
	case settingWindow:
		if value > maxWindow {
			return connError{codeFlowControl, "an initial window beyond 2^31-1"}
		}
		more := int64(value) - c.sendStream
		c.sendStream = int64(value)
		for _, st := range c.streams {
			if st.send += more; st.send > maxWindow {
				return connError{codeFlowControl, "a window beyond 2^31-1"}
			}
			st.wake.Broadcast()
		}
	case settingFrame:
		if value < maxFrame || value >= 1<<24 {
			return connError{codeProtocol, "a frame size out of bounds"}
		}
	}
	return nil
}

// ping answers PING.
func (c *conn) ping(f frame, p []byte) error {
	if err := checkPing(f, p); err != nil || f.has(flagAck) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var b [frameHead + 8]byte
	c.out.control(append(appendFrame(b[:0], 8, kindPing, flagAck, 0), p...))
	return c.err
}

// goneAway takes GOAWAY: the guest opens no further stream.
func (c *conn) goneAway(f frame, p []byte) error {
	if err := checkGoAway(f, p); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave()
	return nil
}

// window takes WINDOW_UPDATE (RFC 9113 section 6.9).
func (c *conn) window(f frame, p []byte) error {
	if len(p) != 4 {
		return connError{codeFrameSize, "WINDOW_UPDATE of another length than 4"}
	}
	n := int64(binary.BigEndian.Uint32(p) &^ (1 << 31))
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream == 0 {
		switch c.send += n; {
		case n == 0:
			return connError{codeProtocol, "WINDOW_UPDATE of nothing"}
		case c.send > maxWindow:
			return connError{codeFlowControl, "a window beyond 2^31-1"}
		case c.starved > 0:
			for _, st := range c.streams {
				st.wake.Broadcast()
			}
		}
		return nil
	}
	if c.isIdle(f.stream) {
		return connError{codeProtocol, "WINDOW_UPDATE of a stream that was never opened"}
	}
	st := c.streams[f.stream]
	switch {
	case n == 0:
		return streamError{f.stream, codeProtocol, "WINDOW_UPDATE of nothing"}
	case st == nil:
		return nil
	}
	if st.send += n; st.send > maxWindow {
		return streamError{f.stream, codeFlowControl, fmt.Sprintf("a window of %d", st.send)}
	}
	st.wake.Broadcast()
	return nil
}

// checkPing refuses a PING that either side would break the protocol by (RFC 9113 section 6.7).
func checkPing(f frame, p []byte) error {
	switch {
	case len(p) != 8:
		return connError{codeFrameSize, "PING of another length than 8"}
	case f.stream != 0:
		return connError{codeProtocol, "PING of a stream"}
	}
	return nil
}

// checkGoAway refuses a GOAWAY that either side would break the protocol by (RFC 9113 section 6.8).
func checkGoAway(f frame, p []byte) error {
	switch {
	case f.stream != 0:
		return connError{codeProtocol, "GOAWAY of a stream"}
	case len(p) < 8:
		return connError{codeFrameSize, "GOAWAY shorter than 8"}
	}
	return nil
}

// checkSettings refuses SETTINGS that either side would break the protocol by (RFC 9113 section 6.5), and more than anybody needs.
func checkSettings(f frame, p []byte) error {
	switch {
	case f.stream != 0:
		return connError{codeProtocol, "SETTINGS of a stream"}
	case f.has(flagAck) && len(p) > 0, len(p)%6 != 0:
		return connError{codeFrameSize, "SETTINGS of a length that it cannot have"}
	case len(p) > 6*maxSettings:
		return connError{codeProtocol, "too many settings"}
	}
	return nil
}
