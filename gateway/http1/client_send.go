package http1

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// appendRequestHead appends the head of req (RFC 9112 sections 3 and 5).
func appendRequestHead(b []byte, req *Request) []byte {
	b = append(append(b, req.Method...), ' ')
	b = append(append(b, req.Target...), " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", req.Host)
	b = appendFields(b, req.Header, framesRequest)
	switch {
	case req.Body != nil && req.Length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for key := range req.Trailer {
			b = appendField(b, "Trailer", key)
		}
	case req.Body != nil || expectsBody(req.Method):
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, max(req.Length, 0), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// framesRequest reports whether a field is written by what the request says, and never from its header.
func framesRequest(key string) bool {
	switch key {
	case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
		return true
	}
	return false
}

// expectsBody reports whether a request with this method and no body says so (RFC 9110 section 8.6).
func expectsBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// sending is a request's body on its way, and what the two goroutines of the exchange tell each other of it.
type sending struct {
	over chan struct{} // closed when nothing more is sent
	err  error         // why the body was not sent whole; for whoever saw over closed

	expects bool
	once    sync.Once
	proceed chan bool // whether to send a body whose guest waits for 100 Continue
}

// newSending returns the sending of a body. expects says that it waits for 100 Continue.
func newSending(expects bool) *sending {
	return &sending{over: make(chan struct{}), expects: expects, proceed: make(chan bool, 1)}
}

// answer lets a body that waits for it go, or not.
func (s *sending) answer(send bool) {
	if s.expects {
		s.once.Do(func() { s.proceed <- send })
	}
}

// settled waits a moment for the body to be sent whole, if wait says so, and reports whether it was.
func (s *sending) settled(wait bool) bool {
	select {
	case <-s.over:
		return s.err == nil
	default:
	}
	if !wait {
		return false
	}
	t := time.NewTimer(settle)
	defer t.Stop()
	select {
	case <-s.over:
		return s.err == nil
	case <-t.C:
		return false
	}
}

// errNotSent is why a body stayed where it was: the server answered without it.
var errNotSent = errors.New("the server answered before the body was sent")

// send sends head, which is in lent, and the body. It runs beside the receiving of the response. What goes wrong with the body
// ends the connection; what goes wrong with the connection is for the receiving side to tell, which may have a response.
func (c *ClientConn) send(req *Request, lent *[]byte, head []byte, s *sending) {
	defer c.client.writes.put(lent)
	defer close(s.over)
	if s.expects || len(head) > len(*lent)/2 {
		if s.err = c.write(head); s.err != nil {
			return
		}
		head = nil
	}
	if s.expects && !s.wait(c.client.lim.Continue) {
		s.err = errNotSent
		return
	}
	w := &bodyWriter{c: c, buf: *lent, head: head, chunked: req.Length < 0, left: req.Length, trailer: req.Trailer}
	if len(head) > 0 && !req.Near {
		t := time.AfterFunc(headDelay, w.flushHead)
		defer w.forgetHead(t)
	}
	if s.err = w.copy(req.Body); s.err != nil {
		if w.broken {
			c.Close()
		}
		return
	}
	s.err = c.awaitHead()
}

// wait waits for 100 Continue, but not for long, and reports whether the body is to be sent.
func (s *sending) wait(patience time.Duration) bool {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case send := <-s.proceed:
		return send
	case <-t.C:
		return true
	}
}

// chunkRoom is what a chunk of this package's size takes besides its data: four digits and two line ends.
const chunkRoom = 4 + 2 + 2

// headDelay is how long a head may wait for the first bytes of its body, so that both leave together.
const headDelay = 5 * time.Millisecond

// lastChunk ends a chunked body, but for its trailers.
const lastChunk = "0\r\n"

// bodyWriter writes a request's body, the first piece together with its head if it comes soon.
type bodyWriter struct {
	c       *ClientConn
	buf     []byte
	chunked bool
	left    int64 // if not chunked
	trailer http.Header
	broken  bool // it was the body that failed

	mu   sync.Mutex
	head []byte // is at the beginning of buf, and empty once it was sent
	data int    // where in buf the body's bytes are
	err  error  // what sending the head alone failed with
}

// flushHead sends the head if it still waits.
func (w *bodyWriter) flushHead() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.head) > 0 {
		w.err = w.c.write(w.head)
		w.head = nil
	}
}

// copy writes the whole body. The last bytes leave when it is known that they are the last: a body that fails at its end must
// not look whole.
func (w *bodyWriter) copy(body io.Reader) error {
	for {
		room := w.room()
		n, err := readSome(body, room)
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			w.broken = true
			return fmt.Errorf("read request body: %w", err)
		}
		if !w.chunked {
			w.left -= int64(n)
			if !ended && w.left == 0 {
				ended, err = atEnd(body)
			}
			if err != nil && !ended || w.left < 0 || ended && w.left > 0 {
				w.broken = true
				return errors.Join(errors.New("read request body: it has another length than was announced"), err)
			}
		}
		if err := w.flush(n, ended); err != nil || ended {
			return err
		}
	}
}

// readSome reads until there is a byte, the end or an error.
func readSome(body io.Reader, p []byte) (n int, err error) {
	for range maxEmptyReads {
		if n, err = body.Read(p); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// maxEmptyReads is how often a body may return nothing before it is taken for stuck.
const maxEmptyReads = 100

// atEnd reports whether a body of which all announced bytes were read has ended.
func atEnd(body io.Reader) (ended bool, err error) {
	var more [1]byte
	n, err := readSome(body, more[:])
	if n > 0 {
		return false, io.ErrShortWrite
	}
	return errors.Is(err, io.EOF), err
}

// forgetHead ends the time of a head that was not sent. The buffer is not used any more.
func (w *bodyWriter) forgetHead(t *time.Timer) {
	t.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.head = nil
}

// room is where the next piece of the body is read to.
func (w *bodyWriter) room() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.data = len(w.head)
	if w.chunked {
		w.data += chunkRoom - 2
		return w.buf[w.data : len(w.buf)-2]
	}
	return w.buf[w.data:]
}

// flush writes the piece of n bytes that was read to room, with its head before and, if it was the last, the end behind it.
func (w *bodyWriter) flush(n int, last bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	out := w.buf[w.data-len(w.head) : w.data+n] // the head, if it is still there, ends where the data begins
	if w.chunked {
		out = w.chunk(n)
	}
	w.head = nil
	if w.chunked && last {
		out = append(out, lastChunk...)
		for key, values := range w.trailer {
			for _, v := range values {
				out = appendField(out, key, v)
			}
		}
		out = append(out, "\r\n"...)
	}
	if len(out) == 0 {
		return nil
	}
	return w.c.write(out)
}

// chunk puts the size before, and the line end behind, the n bytes in room, and moves the head up to them.
func (w *bodyWriter) chunk(n int) []byte {
	if n == 0 {
		return w.head
	}
	var digits [8]byte
	line := append(strconv.AppendInt(digits[:0], int64(n), 16), "\r\n"...)
	at := w.data - len(line)
	from := at - len(w.head)
	copy(w.buf[from:at], w.head)
	copy(w.buf[at:w.data], line)
	copy(w.buf[w.data+n:], "\r\n")
	return w.buf[from : w.data+n+2]
}
