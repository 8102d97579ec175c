package http1

import (
	"net"
	"net/http"
	"strconv"
	"sync"
)

// undeclaredBody is how much of a body without Content-Length is kept to see whether it ends, in which case it is sent with
// one, and its head with it in one write.
const undeclaredBody = 2 << 10

// bodyMode says how a response's body is sent.
type bodyMode uint8

const (
	modeUndecided bodyMode = iota // nothing but undeclared bytes so far
	modeNone                      // the status has no body
	modeDiscard                   // HEAD: the handler may write, the guest gets nothing
	modeLength                    // Content-Length
	modeChunked
	modeClose   // the end of the connection ends the body: HTTP/1.0
	modeUpgrade // 101: the connection becomes another protocol's
)

// response is the [http.ResponseWriter] of one request. It also has Flush, FlushError and Handover. It is the handler's
// goroutine's, but for the interim 100 Continue, which the body's reader sends; mu orders the two on the connection.
type response struct {
	owner *connection
	body  *body // the request's, nil if there is none
	conn  net.Conn
	lim   *Limits
	pool  *buffers
	// awaits reports whether the guest still waits for 100 Continue, nil if it never did. After a final response nobody
	// knows whether it sends the body, so the connection ends (RFC 9110 section 10.1.1).
	awaits func() bool

	method     string
	minor      int  // of the guest's version
	keep       bool // the connection can take another request
	header     http.Header
	status     int // 0 until WriteHeader
	mode       bodyMode
	length     int64 // declared, in modeLength
	written    int64 // body bytes taken from the handler
	pending    []byte
	trailer    []string // announced by the handler before its head was sent
	handed     bool     // the connection was handed over
	interimOff bool     // a final head was serialised: no 1xx any more

	mu   sync.Mutex
	lent *[]byte
	out  []byte // serialised and not yet written
	err  error  // the first failed write
}

// Header returns the fields that WriteHeader will send. See [http.ResponseWriter].
func (r *response) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

// AdoptHeader makes h the header, in place of the one that Header returned so far. The response owns it to its end, or, if it
// announces the body's length, until WriteHeader returns.
func (r *response) AdoptHeader(h http.Header) { r.header = h }

// WriteHeader sends an interim response if status is 1xx other than 101, at once (RFC 9110 section 15.2), or else decides
// on the status; its head leaves with the first bytes of the body, at a flush or at the request's end. A second final status
// is ignored, as is one outside 100–999.
func (r *response) WriteHeader(status int) {
	switch {
	case r.status != 0 || r.handed || status < 100 || status > 999:
	case status < 200 && status != http.StatusSwitchingProtocols:
		r.interim(status)
	default:
		r.status = status
		r.decide()
	}
}

// interim sends a 1xx response. A 100 needs no fields and is only of use to a guest that waits for it.
func (r *response) interim(status int) {
	if r.minor == 0 || status == http.StatusContinue {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.need()
	r.out = appendStatusLine(r.out, status)
	r.out = appendFields(r.out, r.header, func(key string) bool { return key == "Content-Length" || framesConnection(key) })
	r.out = append(r.out, "\r\n"...)
	_ = r.send() // kept in r.err
}

// sendContinue sends "100 Continue", unless the final response has begun. It may be called from any goroutine.
func (r *response) sendContinue() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.interimOff || r.err != nil {
		return r.err
	}
	r.need()
	r.out = append(r.out, "HTTP/1.1 100 Continue\r\n\r\n"...)
	return r.send()
}

// decide chooses the mode as far as the status and the header tell (RFC 9112 section 6.3).
func (r *response) decide() {
	r.trailer = announced(r.header)
	switch {
	case r.status == http.StatusSwitchingProtocols:
		r.commit(modeUpgrade)
	case r.method == http.MethodHead:
		r.commit(modeDiscard)
	case r.status == http.StatusNoContent || r.status == http.StatusNotModified:
		r.commit(modeNone)
	default:
		values := r.header["Content-Length"]
		n, ok := int64(0), false
		if len(values) == 1 {
			n, ok = parseLength(values[0])
		}
		if ok {
			r.length = n
			r.commit(modeLength)
		}
	}
}

// stream chooses the mode of a body whose length nobody knows.
func (r *response) stream() {
	if r.minor == 0 {
		r.keep = false
		r.commit(modeClose)
		return
	}
	r.commit(modeChunked)
}

// commit serialises the head for the mode. The fields are taken from the header as it is now.
func (r *response) commit(mode bodyMode) {
	r.mode = mode
	if hasToken(r.header["Connection"], "close") || r.awaits != nil && r.awaits() || r.owner.closing.told.Err() != nil {
		r.keep = false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.interimOff = true
	r.need()
	r.out = appendHead(r.out, r)
}

// Write sends body bytes, after WriteHeader(200) if there was none. It returns [http.ErrBodyNotAllowed],
// [http.ErrContentLength] or [http.ErrHijacked] for a handler's mistake, or the connection's error. It blocks while the
// guest does not read, at most Limits.Write for each record.
func (r *response) Write(p []byte) (int, error) {
	if r.handed {
		return 0, http.ErrHijacked
	}
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if r.mode == modeUndecided {
		if len(r.pending)+len(p) <= undeclaredBody {
			r.pending = append(r.pending, p...)
			return len(p), nil
		}
		r.stream()
		if err := r.emitPending(); err != nil {
			return 0, err
		}
	}
	return r.emit(p)
}

// emitPending sends what was kept.
func (r *response) emitPending() error {
	p := r.pending
	r.pending = nil
	if len(p) == 0 {
		return nil
	}
	_, err := r.emit(p)
	return err
}

// emit frames p for the mode that was chosen.
func (r *response) emit(p []byte) (int, error) {
	switch r.mode {
	case modeNone, modeUpgrade:
		return 0, http.ErrBodyNotAllowed
	case modeDiscard:
		r.written += int64(len(p))
		return len(p), nil
	case modeLength:
		if r.written+int64(len(p)) > r.length {
			return 0, http.ErrContentLength
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	r.written += int64(len(p))
	if r.mode != modeChunked {
		r.push("", p, "")
		return len(p), r.err
	}
	r.push(strconv.FormatInt(int64(len(p)), 16)+"\r\n", p, "\r\n")
	return len(p), r.err
}

// push appends a piece of the body to the buffer, between what frames it. If there is no room for all of that, it is written with what
// is in the buffer, in one system call where the connection can. r.mu is held.
func (r *response) push(before string, p []byte, behind string) {
	r.need()
	if len(r.out)+len(before)+len(p)+len(behind) < writeBuffer {
		r.out = append(append(append(r.out, before...), p...), behind...)
		return
	}
	if !r.inTime() {
		return
	}
	r.err = gather(r.conn, func() error {
		r.out = append(r.out, before...)
		if err := r.pour(p); err != nil {
			return err
		}
		r.out = append(r.out, behind...)
		return write(r.conn, r.out)
	})
	r.out = r.out[:0]
}

// pour appends p to the buffer and writes whenever that is full. What would fill it again is written as it is. r.mu is held.
func (r *response) pour(p []byte) error {
	if len(r.out) > 0 {
		n := min(len(p), max(writeBuffer-len(r.out), 0))
		r.out, p = append(r.out, p[:n]...), p[n:]
		if len(r.out) < writeBuffer {
			return nil
		}
		if err := write(r.conn, r.out); err != nil {
			return err
		}
	}
	whole := len(p) - len(p)%writeBuffer
	r.out = append(r.out[:0], p[whole:]...)
	if whole == 0 {
		return nil
	}
	return write(r.conn, p[:whole])
}

// need makes sure that there is a buffer. r.mu is held.
func (r *response) need() {
	if r.lent == nil {
		r.lent = r.pool.get()
		r.out = (*r.lent)[:0]
	}
}

// send writes the buffer to the connection. r.mu is held.
func (r *response) send() error {
	if len(r.out) > 0 && r.inTime() {
		r.err = writeAll(r.conn, r.out)
	}
	r.out = r.out[:0]
	return r.err
}

// inTime gives the next write its time, and reports whether there is to be one: none has failed. r.mu is held.
func (r *response) inTime() bool {
	if r.err != nil {
		return false
	}
	by, due := Deadline(r.owner.writeBy, r.lim.Write)
	if due {
		r.owner.writeBy = by
		r.err = r.conn.SetWriteDeadline(by)
	}
	return r.err == nil
}

// release gives the buffer back. r.mu is held, and the buffer is empty or of no more use.
func (r *response) release() {
	r.pool.put(r.lent)
	r.lent, r.out = nil, nil
}

// Flush is FlushError without its result.
func (r *response) Flush() { _ = r.FlushError() }

// FlushError writes everything that the handler has sent so far to the connection, the head included. A body of unknown
// length becomes chunked with it. It returns the connection's error.
func (r *response) FlushError() error {
	if r.handed {
		return http.ErrHijacked
	}
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if r.mode == modeUndecided {
		r.stream()
		if err := r.emitPending(); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.send()
	r.release()
	return err
}

// finish ends the response after its handler returned and writes what is left. It reports whether the connection can take
// another request.
func (r *response) finish() (keep bool) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if r.mode == modeUndecided {
		r.endUndeclared()
	}
	if r.mode == modeLength && r.written != r.length || r.mode == modeUpgrade {
		r.keep = false // the guest must not take what follows for a part of this body
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mode == modeChunked {
		r.need()
		r.out = append(appendTrailer(append(r.out, "0\r\n"...), r.header, r.trailer), "\r\n"...)
	}
	err := r.send()
	r.release()
	return r.keep && err == nil
}

// endUndeclared ends a body that is wholly pending: with its length, or chunked if trailers follow.
func (r *response) endUndeclared() {
	if r.minor == 1 && (len(r.trailer) > 0 || hasTrailerPrefix(r.header)) {
		r.stream()
	} else {
		r.length = int64(len(r.pending))
		r.commit(modeLength)
	}
	_ = r.emitPending() // finish sees r.err
}

// abort drops what was not written: the connection is to be closed so that the guest sees an incomplete response.
func (r *response) abort() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.interimOff = true
	r.release()
}
