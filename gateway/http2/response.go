package http2

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// response is the [http.ResponseWriter] of one request. It also has Flush, FlushError, AdoptHeader and SetReadDeadline. It is the
// handler's; the connection's lock orders what it sends with what others do.
type response struct {
	st       *stream
	header   http.Header
	status   int      // 0 until WriteHeader
	length   int64    // declared, -1 if it is not
	written  int64    // body bytes taken from the handler
	bodyless bool     // the guest gets no body
	trailer  []string // announced before the head was sent
}

// Header returns the fields that WriteHeader will send. See [http.ResponseWriter].
func (r *response) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

// AdoptHeader makes h the header, in place of the one that Header returned so far. The response owns it, until another
// takes its place, which may be nil.
func (r *response) AdoptHeader(h http.Header) { r.header = h }

// WriteHeader sends an interim response if status is 1xx other than 101, at once (RFC 9110 section 15.2), or else decides on the
// status; its head leaves with the first bytes of the body, at a flush or at the request's end. A second final status is ignored,
// as is one outside 200–999: HTTP/2 has no 101 (RFC 9113 section 8.6).
func (r *response) WriteHeader(status int) {
	switch {
	case r.status != 0 || status < 100 || status > 999 || status == http.StatusSwitchingProtocols:
	case status < 200:
		r.interim(status)
	default:
		r.status = status
		r.decide()
	}
}

// decide settles what status and header say of the body.
func (r *response) decide() {
	for _, v := range r.header["Trailer"] {
		for name := range strings.SplitSeq(v, ",") {
			if key := textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)); httpguts.ValidTrailerHeader(key) {
				r.trailer = append(r.trailer, key)
			}
		}
	}
	if r.status == http.StatusNoContent || r.status == http.StatusNotModified || r.st.request.Method == http.MethodHead {
		r.bodyless = true
		return
	}
	if values := r.header["Content-Length"]; len(values) > 0 {
		n, err := strconv.ParseUint(values[0], 10, 63)
		if len(values) == 1 && err == nil {
			r.length = int64(n)
			return
		}
		delete(r.header, "Content-Length")
	}
}

// interim sends a 1xx response. A 100 is only of use to a guest that waits for it, and sent when the body is read.
func (r *response) interim(status int) {
	if status == http.StatusContinue {
		return
	}
	c := r.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.st.err == nil && c.out.await() == nil {
		c.encoder.head(status, r.header, []string{"Content-Length"}, "")
		c.out.head(r.st.id, 0)
		c.out.flush()
	}
}

// sendContinue sends 100 Continue. mu is held.
func (st *stream) sendContinue() {
	if st.err == nil && st.c.out.await() == nil && !st.headSent {
		st.c.encoder.head(http.StatusContinue, nil, nil, "")
		st.c.out.head(st.id, 0)
		st.c.out.flush()
	}
}

// Write sends body bytes, after WriteHeader(200) if there was none. It blocks while there is no window for them, for as long as
// Limits.Write, or while the guest does not read.
func (r *response) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	switch {
	case r.bodyless && r.st.request.Method != http.MethodHead:
		return 0, http.ErrBodyNotAllowed
	case r.length >= 0 && r.written+int64(len(p)) > r.length:
		return 0, http.ErrContentLength
	}
	r.written += int64(len(p))
	if r.bodyless || len(p) == 0 {
		return len(p), nil
	}
	c := r.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := r.sendHead(); err != nil {
		return 0, err
	}
	return r.st.writeData(p)
}

// sendHead puts the head into the buffer, unless it is there. mu is held.
func (r *response) sendHead() error {
	st := r.st
	o := &st.c.out
	if st.err != nil {
		return st.err
	}
	if st.headSent {
		return nil
	}
	if err := o.await(); err != nil {
		return err
	}
	if st.err != nil {
		return st.err
	}
	st.headSent = true
	st.batch, st.flagAt = o.batch, len(o.buf)+4
	st.c.encoder.head(r.status, r.header, r.trailer, st.c.server.date())
	o.head(st.id, 0)
	if r.bodyless {
		r.endStream()
	}
	return nil
}

// endStream marks the stream's last frame as its last, if it has not left, or sends one that says so. mu is held, and there is room.
func (r *response) endStream() {
	st := r.st
	o := &st.c.out
	st.localClosed = true
	if st.batch == o.batch && o.lent != nil {
		o.buf[st.flagAt] |= flagEndStream
	} else {
		o.need(frameHead)
		o.buf = appendFrame(o.buf, 0, kindData, flagEndStream, st.id)
	}
	if st.remoteClosed {
		st.remove()
	}
}

// Flush is FlushError without its result.
func (r *response) Flush() { _ = r.FlushError() }

// FlushError has everything leave that the handler has sent so far, the head included. It returns the error of the stream or the
// connection, if either has ended.
func (r *response) FlushError() error {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	c := r.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := r.sendHead(); err != nil {
		return err
	}
	c.out.flush()
	return r.st.err
}

// SetReadDeadline is as [http.ResponseController].SetReadDeadline says. One that has passed may be set anew.
func (r *response) SetReadDeadline(t time.Time) error {
	r.st.setReadDeadline(t)
	return nil
}

// finish ends the response after its handler returned. It reports false if what was sent is not a whole one. mu is held.
func (r *response) finish() (whole bool) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if r.length >= 0 && r.written != r.length {
		return false
	}
	st := r.st
	if err := r.sendHead(); err != nil {
		return st.err != nil // then there is nobody to tell
	}
	if st.localClosed {
		return true
	}
	if st.c.out.await() != nil || st.err != nil {
		return true
	}
	if !st.c.encoder.trailers(r.header, r.trailer) {
		r.endStream()
		return true
	}
	st.c.out.head(st.id, flagEndStream)
	st.localClosed = true
	if st.remoteClosed {
		st.remove()
	}
	return true
}

// writeData sends p in frames, as the windows allow. mu is held.
func (st *stream) writeData(p []byte) (taken int, err error) {
	c := st.c
	o := &c.out
	for len(p) > 0 {
		if err := o.await(); err != nil {
			return taken, err
		}
		if st.err != nil {
			return taken, st.err
		}
		n := int(min(int64(len(p)), dataPayload, int64(writeBuffer-len(o.buf)-frameHead), st.send, c.send))
		if n <= 0 {
			if len(o.buf) > 0 && !o.writing {
				o.flush() // so that the guest can open a window
				continue
			}
			if !st.stalls {
				defer st.stallBy(c.lim.Write)()
			}
			c.needReader()
			st.starve()
			continue
		}
		o.need(min(len(p), dataPayload) + frameHead)
		st.batch, st.flagAt = o.batch, len(o.buf)+4
		o.buf = append(appendFrame(o.buf, n, kindData, 0, st.id), p[:n]...)
		st.send -= int64(n)
		c.send -= int64(n)
		c.earn(n)
		taken += n
		p = p[n:]
	}
	return taken, nil
}

// starve waits until something changes for who writes. mu is held.
func (st *stream) starve() {
	if st.send > 0 {
		st.c.starved++
		defer func() { st.c.starved-- }()
	}
	st.wake.Wait()
}

// stallBy gives a write that waits for a window its time, until done is called. mu is held, then too.
func (st *stream) stallBy(wait time.Duration) (done func()) {
	t := time.AfterFunc(wait, st.stall)
	st.stalls = true
	return func() {
		t.Stop()
		st.stalls = false
	}
}

// stall resets a stream on which a write has waited for too long.
func (st *stream) stall() {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.err == nil && st.stalls {
		st.reset(codeInternal)
		st.err = errStalled
		c.out.flush()
	}
}
