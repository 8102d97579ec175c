package http2

import (
	"encoding/binary"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// maxParts is how many CONTINUATION frames one head may have: four times as many as one of the greatest size needs.
const maxParts = 4 * DefaultResponseHeadBytes / maxFrame

// frame takes a frame that is whole. p is its payload, valid until the reader goes on.
func (c *ClientConn) frame(f frame, p []byte) error {
	if !c.greeted {
		if f.kind != kindSettings || f.has(flagAck) {
			return connError{codeProtocol, "the first frame is not SETTINGS"}
		}
		c.greeted = true
	}
	if c.head.stream != 0 && (f.kind != kindContinuation || f.stream != c.head.stream) {
		return connError{codeProtocol, "another frame within a head"}
	}
	switch f.kind {
	case kindData:
		return c.paddedData(f, p)
	case kindHeaders:
		return c.headers(f, p)
	case kindContinuation:
		if c.parts++; c.head.stream == 0 || c.parts > maxParts {
			return connError{codeProtocol, "CONTINUATION of no head, or of one without end"}
		}
		return c.headPart(f, p)
	case kindPriority:
		return priority(f, p)
	case kindReset:
		return c.reset(f, p)
	case kindSettings:
		return c.settings(f, p)
	case kindPush:
		return connError{codeProtocol, "a push that was switched off"}
	case kindPriorityUpdate:
		return connError{codeProtocol, "PRIORITY_UPDATE of a server"} // RFC 9218 section 7.1
	case kindPing:
		return c.ping(f, p)
	case kindGoAway:
		return c.goneAway(f, p)
	case kindWindow:
		return c.window(f, p)
	}
	return nil // RFC 9113 section 5.5: frames of unknown types are ignored
}

// isIdle reports whether no request has had this id (RFC 9113 section 5.1). mu is held.
func (c *ClientConn) isIdle(id uint32) bool { return id%2 == 0 || id >= c.next }

// headers takes HEADERS.
func (c *ClientConn) headers(f frame, p []byte) error {
	c.mu.Lock()
	idle := c.isIdle(f.stream)
	c.mu.Unlock()
	if idle {
		return connError{codeProtocol, "HEADERS on a stream that was never opened"}
	}
	p, err := unpad(f, p)
	if err != nil {
		return err
	}
	if f.has(flagPriority) {
		if len(p) < 5 {
			return connError{codeFrameSize, "HEADERS without its priority"}
		}
		p = p[5:]
	}
	c.parts = 0
	c.head.begin(f, &c.client.heads)
	return c.headPart(f, p)
}

// headPart takes what one frame has of a head.
func (c *ClientConn) headPart(f frame, p []byte) error {
	if err := c.head.write(p); err != nil || !f.has(flagEndHeaders) {
		return err
	}
	defer c.head.forget()
	if err := c.head.end(); err != nil {
		return err
	}
	return c.headDone()
}

// headDone takes a head that is whole: of a response, or trailers.
func (c *ClientConn) headDone() error {
	h := &c.head
	malformed := func(why string) error { return streamError{h.first.stream, codeProtocol, why} }
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.calls[h.first.stream]
	if st == nil {
		return nil // it was given up
	}
	ends := h.first.has(flagEndStream)
	switch {
	case st.remoteClosed:
		return streamError{st.id, codeStreamClosed, "HEADERS after the end of the stream"}
	case h.bad != "":
		return malformed(h.bad)
	case h.tooLarge:
		return malformed("a head is larger or has more fields than the gateway takes")
	case st.resp != nil:
		return st.trailers(h.fields, ends)
	}
	status, rest, bad := splitStatus(h.fields)
	if bad != "" {
		return malformed(bad)
	}
	if status < 200 {
		if ends || status == http.StatusSwitchingProtocols {
			return malformed("an interim response that is none")
		}
		return st.interim(status, rest, h.size)
	}
	st.resp = makeResponse(status, rest) //nolint:bodyclose // it has none yet
	st.resp.Body = (*responseBody)(st)
	if bodiless := status == http.StatusNoContent || status == http.StatusNotModified; !st.head && !(bodiless && ends) {
		st.declared = st.resp.ContentLength
	}
	st.wake.Broadcast() // who waits for 100 Continue
	c.stirs(st)
	if ends {
		if st.resp.ContentLength < 0 && !st.head {
			st.resp.ContentLength = 0
		}
		return st.remoteEnd()
	}
	return nil
}

// splitStatus takes the status off the other fields (RFC 9113 section 8.3.2). bad says what is wrong with it.
func splitStatus(fields []hpack.HeaderField) (status int, rest []hpack.HeaderField, bad string) {
	if len(fields) == 0 || fields[0].Name != ":status" {
		return 0, nil, "a response has a status first"
	}
	v := fields[0].Value
	if len(v) != 3 || v[0] < '1' || v[0] > '9' || v[1] < '0' || v[1] > '9' || v[2] < '0' || v[2] > '9' {
		return 0, nil, "the status is not three digits"
	}
	if rest = fields[1:]; len(rest) > 0 && rest[0].Name[0] == ':' {
		return 0, nil, "a pseudo-header field besides the status"
	}
	return int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0'), rest, ""
}

// makeResponse returns the response of a head, but for its body. What HTTP/2 says in other ways is left out, and a length that is none.
func makeResponse(status int, fields []hpack.HeaderField) *http.Response {
	r := &http.Response{StatusCode: status, Proto: "HTTP/2.0", ProtoMajor: 2, Header: makeHeader(fields), ContentLength: -1}
	for key := range r.Header {
		if ownField(key) {
			delete(r.Header, key)
		}
	}
	if values, ok := r.Header["Content-Length"]; ok {
		values = slices.Compact(values) // it may be repeated with the same value (RFC 9110 section 8.6)
		n, err := strconv.ParseUint(values[0], 10, 63)
		if len(values) == 1 && err == nil {
			r.ContentLength, r.Header["Content-Length"] = int64(n), values
		} else {
			delete(r.Header, "Content-Length")
		}
	}
	r.Trailer = announcedTrailer(r.Header)
	return r
}

// interim takes a 1xx response. mu is held.
func (st *call) interim(status int, fields []hpack.HeaderField, size int) error {
	st.said++
	if st.saidBytes += size; st.said > st.c.lim.Interim || st.saidBytes > st.c.lim.HeadBytes {
		return streamError{st.id, codeEnhanceYourCalm, "more interim responses than may come"}
	}
	if status == http.StatusContinue {
		st.proceeds = true
		st.wake.Broadcast()
		return nil
	}
	st.interims = append(st.interims, interim{status, makeHeader(fields)})
	st.c.stirs(st)
	return nil
}

// trailers takes the second head of a response. mu is held.
func (st *call) trailers(fields []hpack.HeaderField, ends bool) error {
	if !ends {
		return streamError{st.id, codeProtocol, "trailers that do not end the stream"}
	}
	for _, f := range fields {
		if strings.HasPrefix(f.Name, ":") {
			return streamError{st.id, codeProtocol, "a pseudo-header field among trailers"}
		}
		key := canonicalName(f.Name)
		if !httpguts.ValidTrailerHeader(key) {
			continue
		}
		if st.trailer == nil {
			st.trailer = http.Header{}
		}
		st.trailer[key] = append(st.trailer[key], f.Value)
	}
	return st.remoteEnd()
}

// remoteEnd notes that the server sends nothing more. mu is held.
func (st *call) remoteEnd() error {
	if st.declared >= 0 && st.got != st.declared {
		return streamError{st.id, codeProtocol, "less DATA than content-length"}
	}
	st.remoteClosed = true
	st.c.stirs(st)
	st.removeIfDone()
	return nil
}

// clientData is the DATA frame that is under way.
type clientData struct {
	left int   // bytes that are to come
	st   *call // nil if nobody takes them
	end  bool  // they end the stream
}

// paddedData takes a DATA frame whose padding's length is known only with the rest of it.
func (c *ClientConn) paddedData(f frame, p []byte) error {
	content, err := unpad(f, p)
	if err != nil {
		return err
	}
	if err := c.openData(f, len(content)); err != nil || len(content) == 0 {
		c.data.left = 0 // it is all here
		return err
	}
	return c.settle(c.piece(content))
}

// openData takes the head of a DATA frame that has so much content (RFC 9113 section 6.1).
func (c *ClientConn) openData(f frame, content int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream == 0 || c.isIdle(f.stream) {
		return connError{codeProtocol, "DATA on a stream that was never opened"}
	}
	if f.length > c.receive {
		return connError{codeFlowControl, "DATA beyond the window of the connection"}
	}
	c.receive -= f.length
	c.data = clientData{left: content, end: f.has(flagEndStream)}
	st := c.calls[f.stream]
	refuse := func(why code, text string) error {
		c.giveBack(f.length)
		return streamError{f.stream, why, text}
	}
	switch {
	case st == nil:
		c.giveBack(f.length) // it was given up, or is over
		return nil
	case st.remoteClosed:
		return refuse(codeStreamClosed, "DATA after the end of the stream")
	case st.resp == nil:
		return refuse(codeProtocol, "DATA before the head of a response")
	case st.head && content > 0:
		return refuse(codeProtocol, "DATA of a response that has none")
	case f.length > st.receive:
		return refuse(codeFlowControl, "DATA beyond the window of the stream")
	case st.declared >= 0 && st.got+int64(content) > st.declared:
		return refuse(codeProtocol, "more DATA than content-length")
	}
	st.receive -= f.length
	st.got += int64(content)
	if padding := f.length - content; padding > 0 {
		c.giveBack(padding)
		st.giveBack(padding)
	}
	c.data.st = st
	if content == 0 && c.data.end {
		return st.remoteEnd()
	}
	return nil
}

// piece takes a part of a DATA frame's content.
func (c *ClientConn) piece(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &c.data
	d.left -= len(p)
	st := d.st
	if st == nil {
		return nil // given back already
	}
	if st.closed || st.err != nil {
		c.giveBack(len(p))
	} else {
		st.body.push(p, &c.client.bodies)
		c.stirs(st)
	}
	if d.left > 0 {
		return nil
	}
	d.st = nil
	if d.end && st.err == nil {
		return st.remoteEnd()
	}
	return nil
}

// reset takes RST_STREAM.
func (c *ClientConn) reset(f frame, p []byte) error {
	if len(p) != 4 {
		return connError{codeFrameSize, "RST_STREAM of another length than 4"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream == 0 || c.isIdle(f.stream) {
		return connError{codeProtocol, "RST_STREAM of a stream that was never opened"}
	}
	st := c.calls[f.stream]
	why := code(binary.BigEndian.Uint32(p))
	switch {
	case st == nil:
	case why == codeNo && st.remoteClosed: // its response is whole, and it wants no more of the request (RFC 9113 section 8.1)
		st.deaf = true
		st.remove()
		st.wake.Broadcast()
	case why == codeRefusedStream && st.resp == nil:
		st.unseen = true
		st.break_(errRefused)
	default:
		st.break_(ErrStreamReset)
	}
	return nil
}

// settings takes SETTINGS.
func (c *ClientConn) settings(f frame, p []byte) error {
	if err := checkSettings(f, p); err != nil || f.has(flagAck) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.settled {
		c.settled, c.most = true, manyStreams
	}
	for i := 0; i < len(p); i += 6 {
		if err := c.setting(binary.BigEndian.Uint16(p[i:]), binary.BigEndian.Uint32(p[i+2:])); err != nil {
			return err
		}
	}
	c.out.control(appendFrame(nil, 0, kindSettings, flagAck, 0))
	return c.err
}

// setting takes one setting (RFC 9113 section 6.5.2). Larger frames than all must take are not sent, nor heads with a table. mu is held.
func (c *ClientConn) setting(id uint16, value uint32) error {
	switch id {
	case settingPush:
		if value != 0 {
			return connError{codeProtocol, "a server that would be pushed to"}
		}
	case settingStreams:
		c.most = int(min(value, maxWindow))
	case settingWindow:
		if value > maxWindow {
			return connError{codeFlowControl, "an initial window beyond 2^31-1"}
		}
		more := int64(value) - c.sendStream
		c.sendStream = int64(value)
		for _, st := range c.calls {
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
func (c *ClientConn) ping(f frame, p []byte) error {
	if err := checkPing(f, p); err != nil || f.has(flagAck) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.control(append(appendFrame(nil, 8, kindPing, flagAck, 0), p...))
	return c.err
}

// goneAway takes GOAWAY: the server takes no further request, and has not looked at those beyond the last that it names.
func (c *ClientConn) goneAway(f frame, p []byte) error {
	if err := checkGoAway(f, p); err != nil {
		return err
	}
	last := binary.BigEndian.Uint32(p) &^ (1 << 31)
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, st := range c.calls {
		if id > last {
			st.unseen = st.resp == nil
			st.break_(errRefused)
		}
	}
	c.leave()
	return nil
}

// window takes WINDOW_UPDATE (RFC 9113 section 6.9).
func (c *ClientConn) window(f frame, p []byte) error {
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
			for _, st := range c.calls {
				st.wake.Broadcast()
			}
		}
		return nil
	}
	if c.isIdle(f.stream) {
		return connError{codeProtocol, "WINDOW_UPDATE of a stream that was never opened"}
	}
	st := c.calls[f.stream]
	if st == nil {
		return nil
	}
	if st.send += n; n == 0 || st.send > maxWindow {
		return streamError{st.id, codeFlowControl, "a window of nothing, or beyond 2^31-1"}
	}
	st.wake.Broadcast()
	return nil
}
