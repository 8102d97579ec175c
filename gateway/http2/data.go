package http2

// dataReader is the DATA frame that is under way: its payload is given on in the pieces in which it comes.
type dataReader struct {
	left int     // bytes that are to come
	st   *stream // nil if nobody takes them
	end  bool    // they end the stream
}

// paddedData takes a DATA frame whose padding's length is known only with the rest of it.
func (c *conn) paddedData(f frame, p []byte) error {
	content, err := unpad(f, p)
	if err != nil {
		return err
	}
	if err := c.openData(f, len(content)); err != nil || len(content) == 0 {
		c.data.left = 0 // it is all here
		return err
	}
	return c.piece(content)
}

// beginData takes the head of a DATA frame without padding.
func (c *conn) beginData(f frame) error {
	c.pay(f)
	return c.openData(f, f.length)
}

// openData takes the head of a DATA frame that has so much content (RFC 9113 section 6.1).
func (c *conn) openData(f frame, content int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isIdle(f.stream) {
		return connError{codeProtocol, "DATA on a stream that was never opened"}
	}
	if f.length > c.receive {
		return connError{codeFlowControl, "DATA beyond the window of the connection"}
	}
	c.receive -= f.length
	c.data = dataReader{left: content, end: f.has(flagEndStream)}
	st := c.streams[f.stream]
	if st == nil || st.remoteClosed {
		c.giveBack(f.length)
		if c.isLate(f.stream) || c.leaving && f.stream > c.maxID {
			return nil
		}
		return streamError{f.stream, codeStreamClosed, "DATA on a stream that is closed"}
	}
	if f.length > st.receive {
		c.giveBack(f.length)
		return streamError{f.stream, codeFlowControl, "DATA beyond the window of the stream"}
	}
	st.receive -= f.length
	if st.declared >= 0 && st.got+int64(content) > st.declared {
		c.giveBack(f.length)
		st.bodyErr = errLength
		return streamError{f.stream, codeProtocol, "more DATA than content-length"}
	}
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
func (c *conn) piece(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &c.data
	d.left -= len(p)
	if d.st == nil {
		return nil // given back already
	}
	if d.st.bodyClosed || d.st.err != nil {
		c.giveBack(len(p))
	} else {
		d.st.body.push(p, &c.server.bodies)
		d.st.arrived.Broadcast()
	}
	if d.left > 0 {
		return nil
	}
	st := d.st
	d.st = nil
	if d.end && st.err == nil {
		return st.remoteEnd()
	}
	return nil
}

// giveBack returns n bytes of the connection's window to the guest, some time. mu is held.
func (c *conn) giveBack(n int) {
	if c.consumed += n; c.consumed >= c.lim.ConnWindow/4 {
		c.out.control(appendNumber(nil, kindWindow, 0, uint32(c.consumed)))
		c.receive += c.consumed
		c.consumed = 0
	}
}

// giveBack returns n bytes of the stream's window to the guest, some time, if it may send more. mu is held.
func (st *stream) giveBack(n int) {
	if st.remoteClosed || st.err != nil {
		return
	}
	if st.consumed += n; st.consumed >= st.c.lim.StreamWindow/4 {
		st.c.out.control(appendNumber(nil, kindWindow, st.id, uint32(st.consumed)))
		st.receive += st.consumed
		st.consumed = 0
	}
}
