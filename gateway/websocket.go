package gateway

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/inject"
	"gatewayd/gateway/pipelock"
)

const (
	// websocketIdle ends a WebSocket connection on which the guest has been silent for this long. There is no bound on how
	// long one may last.
	websocketIdle = 2 * time.Hour
	// websocketWrite ends one whose guest does not read.
	websocketWrite = 5 * time.Minute
	// websocketClosing is how long the second direction may go on after the first has ended.
	websocketClosing = 10 * time.Second
	// websocketGUID is what RFC 6455 section 1.3 appends to a key.
	websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// tunnel has a WebSocket, whose upstream has agreed to it, go on until either side ends it: at once on a stream of HTTP/2, else when the
// handler has returned. It reports false if the guest's side is to be cut off.
func (x *exchange) tunnel(resp *http.Response) (whole bool) {
	if d := x.refusedTunnel(resp); d != nil {
		_ = resp.Body.Close() // the exchange is over either way
		return x.fail(d)
	}
	t := &tunnel{x: x, ctx: x.r.Context(), up: resp.Body.(io.ReadWriteCloser)}
	h := x.w.Header()
	copyResponseHeader(h, resp.Header)
	if x.masker != nil {
		x.masker.Header(h)
	}
	if x.stream == nil {
		return t.handOver(h)
	}
	defer t.close()
	guest, in, err := x.openStream(h)
	if err != nil {
		x.rec.Error = err.Error()
		return false
	}
	t.begin(guest, in)
	return t.end(t.outward.run())
}

// refusedTunnel is the denial of a handshake whose answer is not as it has to be, or nil.
func (x *exchange) refusedTunnel(resp *http.Response) *denial {
	d := &denial{status: http.StatusBadGateway, reason: ReasonUpstreamExchange}
	if _, ok := resp.Body.(io.ReadWriteCloser); !ok {
		d.detail = "The upgraded connection cannot be written to."
		return d
	}
	if d.err = x.checkHandshake(resp); d.err != nil {
		d.detail = fmt.Sprintf("The WebSocket handshake of %s is not valid: %v.", x.host, d.err)
		return d
	}
	if d.err = inject.StripHopByHop(resp.Header, nil); d.err != nil {
		d.detail = fmt.Sprintf("The response of %s has a Connection field that cannot be followed.", x.host)
		return d
	}
	return nil
}

// handover is the writer of a response whose connection can go on as another protocol's, see package http1.
type handover interface {
	Handover(next func(conn net.Conn, rest []byte)) error
}

// handOver answers the guest's handshake over HTTP/1.1, and has its connection go on when the handler has returned.
func (t *tunnel) handOver(h http.Header) (whole bool) {
	x := t.x
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	x.w.WriteHeader(http.StatusSwitchingProtocols)
	err := errors.ErrUnsupported
	if w, ok := x.w.ResponseWriter.(handover); ok {
		err = w.Handover(func(conn net.Conn, rest []byte) {
			defer t.over()
			if t.take(conn, rest) {
				t.end(t.outward.run())
			}
		})
	}
	if err != nil {
		_ = t.up.Close() // the exchange is over either way
		x.rec.Error = fmt.Sprintf("take over connection: %v", err)
		return false
	}
	x.lean()
	return true
}

// take begins to carry messages on the guest's connection, of which rest was read already, or notes why it cannot.
//
//go:noinline
func (t *tunnel) take(conn net.Conn, rest []byte) bool {
	guest := &guestConn{Conn: conn}
	if err := guest.inTime(); err != nil { // TLS itself may write before the first message does
		t.x.rec.Error = fmt.Sprintf("take over connection: %v", err)
		return false
	}
	t.begin(guest, t.x.s.engine.h1.Patient(conn, rest))
	return true
}

// over ends an exchange whose connection went on after the handler. A panic below is a defect: it ends this connection and nothing else.
func (t *tunnel) over() {
	if p := recover(); p != nil {
		t.x.s.defect(t.x, p)
	}
	t.close()
	t.x.handed = false
	t.x.end()
}

// guestEnd is the guest's side of a WebSocket connection. Each write is bounded in time.
type guestEnd interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
	end() // nothing touches it any more
}

// guestConn is a connection of a guest's that has become a WebSocket's.
type guestConn struct {
	net.Conn
	writeBy time.Time // the write deadline that is set
}

// Write is [io.Writer].Write, for one goroutine at a time.
func (c *guestConn) Write(p []byte) (int, error) {
	if err := c.inTime(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// inTime gives what is written next its time.
func (c *guestConn) inTime() error {
	by, due := http1.Deadline(c.writeBy, websocketWrite)
	if !due {
		return nil
	}
	c.writeBy = by
	return c.SetWriteDeadline(by)
}

// end does nothing: a closed connection can be touched.
func (*guestConn) end() {}

// checkHandshake makes sure that the upstream speaks WebSocket as it was asked to (RFC 6455 section 4.1).
func (x *exchange) checkHandshake(resp *http.Response) error {
	sum := sha1.Sum([]byte(x.r.Header.Get("Sec-Websocket-Key") + websocketGUID))
	switch {
	case !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket"):
		return errors.New("it upgrades to another protocol")
	case resp.Header.Get("Sec-Websocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]):
		return errors.New("Sec-WebSocket-Accept is not that of the key")
	}
	var err error
	x.deflate, err = agreedDeflate(resp.Header, x.offers)
	return err
}

// scannedMessage notes, at a message's end, what was found in it and let go.
type scannedMessage struct {
	x    *exchange
	body *pipelock.BodyReader
}

// Read is [io.Reader].Read.
func (m *scannedMessage) Read(p []byte) (int, error) {
	n, err := m.body.Read(p)
	if err != nil {
		m.x.worst(m.body.Warnings())
	}
	return n, err
}

// refusedMessage notes a message of the guest that may not go on, and tells it.
func (x *exchange) refusedMessage(err error, toGuest *frameWriter) {
	var leak *pipelock.LeakError
	if errors.As(err, &leak) {
		x.leak.CompareAndSwap(nil, &leak.Finding)
		x.closeFor("leak refused", toGuest)
		return
	}
	var encoding *pipelock.EncodingError
	if errors.As(err, &encoding) {
		x.broken.CompareAndSwap(nil, &err)
		x.closeFor("message that cannot be scanned", toGuest)
	}
}

// closeFor tells the guest why its connection ends, if that can be said between frames.
func (x *exchange) closeFor(why string, to *frameWriter) {
	reason := "gatewayd: " + why + ", request " + x.rec.ID
	payload := append(binary.BigEndian.AppendUint16(nil, closeViolation), reason...)
	_ = to.control(opClose, payload[:min(len(payload), maxControl)]) // within a frame, or to a guest that left, there is no way to say it
}
