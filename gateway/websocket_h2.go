package gateway

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// protocolField is the key under which package http2 gives the pseudo-header field of RFC 8441 section 4.
const protocolField = ":protocol"

// connect judges an extended CONNECT (RFC 8441), and makes one that asks for a WebSocket the handshake of HTTP/1.1 that asks
// for the same, so that all that follows judges and sends it as such. Its upstream is always asked in HTTP/1.1.
func (x *exchange) connect() *denial {
	protocols, ok := x.r.Header[protocolField]
	if !ok {
		return nil
	}
	switch {
	case x.r.Method != http.MethodConnect:
		return x.notConnected(http.StatusBadRequest, "Only CONNECT has a :protocol (RFC 8441 section 4).")
	case len(protocols) != 1 || protocols[0] != "websocket":
		return x.notConnected(http.StatusNotImplemented, "The only protocol that a stream can carry is WebSocket.")
	case x.r.TLS == nil: // so package http2 says that :scheme is another
		return x.notConnected(http.StatusBadRequest, "The :scheme of a WebSocket here is https (RFC 8441 section 5).")
	case x.r.ContentLength != -1:
		return x.notConnected(http.StatusBadRequest, "The stream of a WebSocket stays open, and its length is not known.")
	}
	r := x.r.WithContext(x.r.Context()) // a shallow copy, of what is the server's
	x.stream = r.Body
	r.Method, r.Body, r.ContentLength, r.Trailer = http.MethodGet, http.NoBody, 0, nil
	var key [16]byte
	rand.Read(key[:]) // it never fails
	delete(r.Header, protocolField)
	r.Header["Connection"] = []string{"Upgrade"}
	r.Header["Upgrade"] = []string{"websocket"}
	r.Header["Sec-Websocket-Key"] = []string{base64.StdEncoding.EncodeToString(key[:])} // there is none on a stream (section 5)
	x.r, x.method, x.rec.Method = r, http.MethodGet, http.MethodGet
	return nil
}

// notConnected is the denial of an extended CONNECT.
func (x *exchange) notConnected(status int, why string) *denial {
	return &denial{status: status, reason: ReasonUpgradeRefused, detail: why}
}

// openStream answers an extended CONNECT whose upstream has agreed, and returns the stream.
func (x *exchange) openStream(h http.Header) (guestEnd, io.Reader, error) {
	h.Del("Sec-Websocket-Accept")
	x.w.WriteHeader(http.StatusOK)
	if err := x.w.FlushError(); err != nil {
		return nil, nil, fmt.Errorf("open stream: %w", err)
	}
	s := &guestStream{x: x, body: x.stream, control: http.NewResponseController(x.w)}
	return s, bufio.NewReaderSize(s, websocketRead), nil
}

// guestStream is a stream of HTTP/2 on which a guest speaks WebSocket. Its writes are bounded by the stream's window, as others are.
type guestStream struct {
	x       *exchange
	body    io.ReadCloser
	control *http.ResponseController

	mu   sync.RWMutex // held for writing by end alone, and not while the stream is used
	over bool         // the handler returns, after which its response may not be touched
}

// Read is [io.Reader].Read.
func (s *guestStream) Read(p []byte) (int, error) { return s.body.Read(p) }

// Write is [io.Writer].Write.
func (s *guestStream) Write(p []byte) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.over {
		return 0, io.ErrClosedPipe
	}
	n, err := s.x.w.ResponseWriter.Write(p)
	if err != nil {
		return n, err
	}
	return n, s.x.w.FlushError()
}

// SetReadDeadline is [net.Conn].SetReadDeadline. One that has passed is for good.
func (s *guestStream) SetReadDeadline(t time.Time) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.over {
		return io.ErrClosedPipe
	}
	return s.control.SetReadDeadline(t)
}

// Close ends reading. What was written is ended by the handler's return.
func (s *guestStream) Close() error { return s.body.Close() }

// end makes the stream unusable, before the handler returns.
func (s *guestStream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}
