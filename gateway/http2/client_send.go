package http2

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// request makes a request's head.
func (e *encoder) request(req *Request) {
	e.begin()
	switch req.Method { // RFC 7541 appendix A
	case http.MethodGet:
		e.block = append(e.block, 0x80|2)
	case http.MethodPost:
		e.block = append(e.block, 0x80|3)
	default:
		e.field(methodForm, req.Method)
	}
	if req.Scheme == "https" {
		e.block = append(e.block, 0x80|7)
	} else {
		e.block = append(e.block, 0x80|6)
	}
	e.field(authorityForm, req.Authority)
	e.field(pathForm, req.Path)
	for key, values := range req.Header {
		if !ownField(key) && key != "Host" && key != "Content-Length" && key != "Trailer" {
			e.fields(key, values)
		}
	}
	switch {
	case req.Body != nil && req.Length < 0:
		for key := range req.Trailer {
			e.field(trailerForm, key)
		}
	case req.Body != nil || req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch: // RFC 9110 section 8.6
		e.field(lengthForm, strconv.FormatInt(max(req.Length, 0), 10))
	}
}

var (
	methodForm    = nameForm(":method")
	authorityForm = nameForm(":authority")
	pathForm      = nameForm(":path")
	trailerForm   = nameForm("trailer")
	lengthForm    = nameForm("content-length")
)

// sendBody sends the request's body. expects says that it is to wait for 100 Continue.
func (st *call) sendBody(req *Request, expects bool) {
	if expects && !st.awaitContinue() {
		return
	}
	pool := &st.c.client.sends
	want := pool.large
	if req.Near && req.Length >= 0 {
		want = int(min(req.Length, int64(want)))
	}
	buf := pool.get(want)
	defer pool.put(buf)
	var sent int64
	for {
		n, err := readPiece(req.Body, *buf, req.Length-sent)
		sent += int64(n)
		last := errors.Is(err, io.EOF)
		if last && req.Length >= 0 && sent != req.Length || req.Length >= 0 && sent > req.Length {
			err, last = fmt.Errorf("the request's body is not as long as it was said to be: %w", errLength), false
		}
		if err == nil || last {
			err = st.sendPiece((*buf)[:n], last, req.Trailer)
		}
		if err != nil {
			st.c.mu.Lock()
			if st.err == nil && !st.deaf {
				st.reset(codeCancel, err)
				st.c.out.flush()
			}
			st.c.mu.Unlock()
		}
		if err != nil || last {
			return
		}
	}
}

// readPiece reads once from a body of which left bytes are to come, less than 0 if that is not known. The last of them are not returned
// before it is known that nothing follows, and nothing is wrong with the body.
func readPiece(body io.Reader, buf []byte, left int64) (int, error) {
	n, err := body.Read(buf)
	if err != nil || int64(n) != left || left == 0 {
		return n, err
	}
	var more [1]byte
	for range 100 { // as package io does with readers that make no progress
		if m, err := body.Read(more[:]); err != nil || m > 0 {
			return n + m, err
		}
	}
	return n, io.ErrNoProgress
}

// awaitContinue waits until the body is to be sent, and reports whether it is at all.
func (st *call) awaitContinue() bool {
	c := st.c
	proceed := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		st.proceeds = true
		st.wake.Broadcast()
	}
	t := time.AfterFunc(c.lim.Continue, proceed)
	defer t.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !st.proceeds && st.resp == nil && st.err == nil {
		st.wake.Wait()
	}
	return st.resp == nil && st.err == nil
}

// sendPiece sends a piece of the body, and ends it if it is the last.
func (st *call) sendPiece(p []byte, last bool, trailer http.Header) error {
	c := st.c
	o := &c.out
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := st.writeData(p); err != nil {
		return err
	}
	if last {
		if err := o.await(); err != nil {
			return err
		}
		if st.err != nil {
			return st.err
		}
		st.endRequest(trailer)
	}
	if last && len(c.calls) > 1 {
		o.flushTogether()
	} else {
		o.flush()
	}
	return nil
}

// endRequest ends the request with its trailers, or with a flag on its last frame if that has not left. mu is held, and there is room.
func (st *call) endRequest(trailer http.Header) {
	o := &st.c.out
	st.c.encoder.begin()
	for key, values := range trailer {
		st.c.encoder.fields(key, values)
	}
	switch {
	case len(st.c.encoder.block) > 0:
		o.head(st.id, flagEndStream)
	case st.batch == o.batch && o.lent != nil:
		st.c.encoder.release()
		o.buf[st.flagAt] |= flagEndStream
	default:
		st.c.encoder.release()
		o.need(frameHead)
		o.buf = appendFrame(o.buf, 0, kindData, flagEndStream, st.id)
	}
	st.whole()
}

// writeData puts p into frames, as the windows allow. mu is held.
func (st *call) writeData(p []byte) error {
	c := st.c
	o := &c.out
	for len(p) > 0 {
		if err := o.await(); err != nil {
			return err
		}
		if st.err != nil {
			return st.err
		}
		if st.deaf {
			return errRefused
		}
		n := int(min(int64(len(p)), dataPayload, int64(writeBuffer-len(o.buf)-frameHead), st.send, c.send))
		if n <= 0 {
			if len(o.buf) > 0 && !o.writing {
				o.flush() // so that the server can open a window
				continue
			}
			if !st.stalls {
				defer st.stallBy(c.lim.Head)()
			}
			st.starve()
			continue
		}
		o.need(min(len(p), dataPayload) + frameHead)
		st.batch, st.flagAt = o.batch, len(o.buf)+4
		o.buf = append(appendFrame(o.buf, n, kindData, 0, st.id), p[:n]...)
		st.send -= int64(n)
		c.send -= int64(n)
		p = p[n:]
	}
	return nil
}

// starve waits until something changes for who writes. mu is held.
func (st *call) starve() {
	if st.send > 0 {
		st.c.starved++
		defer func() { st.c.starved-- }()
	}
	st.wake.Wait()
}

// stallBy gives a piece of the body that waits for a window its time, until done is called. mu is held, then too.
func (st *call) stallBy(wait time.Duration) (done func()) {
	t := time.AfterFunc(wait, func() {
		st.c.mu.Lock()
		defer st.c.mu.Unlock()
		if st.err == nil && st.stalls {
			st.reset(codeCancel, ErrWindowShut)
			st.c.out.flush()
		}
	})
	st.stalls = true
	return func() {
		t.Stop()
		st.stalls = false
	}
}
