package gateway

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
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

// tunnel carries a WebSocket connection whose upstream has agreed to it, until either side ends it. It reports false if the
// guest's side is to be cut off.
func (x *exchange) tunnel(resp *http.Response) (whole bool) {
	defer resp.Body.Close()
	if d := x.refusedTunnel(resp); d != nil {
		return x.fail(d)
	}
	up := resp.Body.(io.ReadWriteCloser)
	guest, in, err := x.openGuest(resp)
	if err != nil {
		x.rec.Error = err.Error()
		return false
	}
	defer guest.end()
	defer guest.Close()
	closed, err := x.pump(guest, in, up)
	if d := x.cutOff(); d != nil {
		x.note(d)
	} else if err != nil {
		x.rec.Error = err.Error()
	}
	return x.stream == nil || closed || err == nil // a stream that broke off is reset
}

// refusedTunnel is the denial of a handshake whose answer is not as it has to be, or nil. It and openGuest are functions of their own so
// that their frames are not on the stack of every WebSocket, which the runtime halves only while less than a quarter of it is in
// use.
//
//go:noinline
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

// openGuest answers the guest's handshake as the upstream did, and returns its side and what it says.
//
//go:noinline
func (x *exchange) openGuest(resp *http.Response) (guestEnd, io.Reader, error) {
	h := x.w.Header()
	copyResponseHeader(h, resp.Header)
	if x.masker != nil {
		x.masker.Header(h)
	}
	if x.stream != nil {
		return x.openStream(h)
	}
	return x.takeOver(h)
}

// guestEnd is the guest's side of a WebSocket connection. Each write is bounded in time.
type guestEnd interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
	end() // nothing touches it any more
}

// takeOver answers a handshake whose upstream has agreed, and returns the guest's connection and what was read from it.
func (x *exchange) takeOver(h http.Header) (guestEnd, io.Reader, error) {
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	x.w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over connection: %w", err)
	}
	rest, err := buffered.Peek(buffered.Reader.Buffered())
	if err != nil {
		return nil, nil, fmt.Errorf("take over connection: %w", err)
	}
	in := x.s.engine.h1.Patient(conn)
	if len(rest) > 0 {
		in = io.MultiReader(bytes.NewReader(bytes.Clone(rest)), in)
	}
	guest := &guestConn{Conn: conn}
	return guest, in, guest.inTime() // TLS itself may write before the first message does
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

// messageFilter returns a reader of one message, r, that scans or masks it. same says that it reads as many bytes as r,
// compressed if r was.
type messageFilter func(r io.Reader, compressed bool) (filtered io.Reader, same bool, err error)

// messagePump carries the messages of one side to the other.
type messagePump struct {
	in     *messageReader
	out    *frameWriter
	filter messageFilter // nil if messages are neither scanned nor masked
	pool   *bytePool
	count  *atomic.Int64
}

// pump runs both directions until they have ended, and returns whether the guest was sent a close frame, and why the first
// one did; nil if by a close frame or an end of the stream between messages.
func (x *exchange) pump(guest guestEnd, fromGuest io.Reader, up io.ReadWriteCloser) (closed bool, first error) {
	stop := context.AfterFunc(x.r.Context(), func() { guest.Close(); up.Close() })
	defer stop()
	var down atomic.Int64
	t := &tunnelEnds{x: x, guest: guest, toGuest: &frameWriter{out: guest}, toUp: &frameWriter{out: up, masked: true}}
	last := context.AfterFunc(x.s.closing, t.goAway)
	defer last()
	outward, inward := x.pumps(t, fromGuest, up, &down)
	ends, over := make(chan error, 2), make(chan struct{})
	go func() {
		ends <- t.fault(inward.run(nil))
		if !t.toGuest.isClosed() || t.bothClosed() {
			guest.Close()
		} else {
			_ = guest.SetReadDeadline(time.Now().Add(websocketClosing)) // its answer to the close may still come
		}
		close(over)
	}()
	err := outward.run(t.alive)
	ends <- t.fault(err) // before anything is closed, which would end the other direction with an error of its own
	x.refusedMessage(err, t.toGuest)
	if t.bothClosed() {
		guest.Close()
	}
	if !t.toUp.isClosed() {
		up.Close()
	}
	closing := time.AfterFunc(websocketClosing, func() { up.Close() })
	defer closing.Stop()
	first = <-ends
	<-over
	x.rec.BytesDown += down.Load()
	return t.toGuest.isClosed(), first
}

// pumps returns the two directions of a tunnel: what the guest says is scanned, what the upstream says is masked.
func (x *exchange) pumps(t *tunnelEnds, fromGuest, up io.Reader, down *atomic.Int64) (outward, inward *messagePump) {
	outward = &messagePump{
		in:  &messageReader{in: fromGuest, masked: true, compresses: x.deflate != nil, control: t.controlOut},
		out: t.toUp, pool: x.s.engine.pieces, count: &x.sent,
	}
	if x.verdict.Scan {
		messages := x.scanner().Messages(x.host, x.deflate != nil && !x.deflate.clientAlone)
		outward.filter = func(r io.Reader, compressed bool) (io.Reader, bool, error) {
			return &scannedMessage{x, messages.Next(r, compressed)}, true, nil
		}
	}
	inward = &messagePump{
		in:  &messageReader{in: up, compresses: x.deflate != nil, control: t.controlIn},
		out: t.toGuest, pool: x.s.engine.pieces, count: down,
	}
	if x.masker != nil {
		inward.filter = x.inflateAndMask()
	}
	return outward, inward
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

// tunnelEnds is what the two directions of one WebSocket connection know of each other.
type tunnelEnds struct {
	x       *exchange
	guest   guestEnd
	toGuest *frameWriter
	toUp    *frameWriter
	readBy  time.Time // the guest's read deadline, as alive set it
}

// bothClosed reports whether close frames went both ways, after which nothing follows (RFC 6455 section 7.1.1).
func (t *tunnelEnds) bothClosed() bool { return t.toGuest.isClosed() && t.toUp.isClosed() }

// fault returns what was wrong with the end err of a direction: nil for an end of the stream between messages, and for any once
// close frames went both ways, since a side that has its close frame may leave in whatever way it likes, such as by a reset.
func (t *tunnelEnds) fault(err error) error {
	if errors.Is(err, io.EOF) || t.bothClosed() {
		return nil
	}
	return err
}

// alive gives the guest time for its next frame, unless the connection is closing and its deadline set.
func (t *tunnelEnds) alive() error {
	if t.toGuest.isClosed() {
		return nil
	}
	by, due := http1.Deadline(t.readBy, websocketIdle)
	if !due {
		return nil
	}
	t.readBy = by
	return t.guest.SetReadDeadline(by)
}

// goAway tells both sides that the connection ends, because the gateway does, and gives the guest time to answer. A side that is
// within a frame cannot be told, and goes on until the stop's deadline.
func (t *tunnelEnds) goAway() {
	reason := append(binary.BigEndian.AppendUint16(nil, closeGoingAway), "gatewayd stops"...)
	_ = t.toUp.control(opClose, reason)
	if t.toGuest.control(opClose, reason) == nil {
		_ = t.guest.SetReadDeadline(time.Now().Add(websocketClosing)) // the read fails as well
	}
}

// controlOut sends the guest's control frames on, scanned like its messages.
func (t *tunnelEnds) controlOut(op byte, payload []byte) error {
	if t.x.verdict.Scan {
		if leak := t.x.worst(t.x.scanner().Scan(t.x.host, "websocket control frame", payload)); leak != nil {
			return &pipelock.LeakError{Finding: *leak}
		}
	}
	if err := t.alive(); err != nil {
		return err
	}
	return t.passed(t.toUp.control(op, payload))
}

// controlIn sends the upstream's control frames on, masked like its messages.
func (t *tunnelEnds) controlIn(op byte, payload []byte) error {
	if t.x.masker != nil {
		payload = []byte(t.x.masker.String(string(payload)))
	}
	return t.passed(t.toGuest.control(op, payload))
}

// passed ends a direction when a control frame that was passed on, which err tells, closed the second of the two.
func (t *tunnelEnds) passed(err error) error {
	if err == nil && t.bothClosed() {
		return io.EOF
	}
	return err
}

// closeFor tells the guest why its connection ends, if that can be said between frames.
func (x *exchange) closeFor(why string, to *frameWriter) {
	reason := "gatewayd: " + why + ", request " + x.rec.ID
	payload := append(binary.BigEndian.AppendUint16(nil, closeViolation), reason...)
	_ = to.control(opClose, payload[:min(len(payload), maxControl)]) // within a frame, or to a guest that left, there is no way to say it
}

// isClosed reports whether a close frame was written.
func (w *frameWriter) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// run carries messages until the side that sends them ends. before, if not nil, is called before waiting for each.
func (d *messagePump) run(before func() error) error {
	for {
		if before != nil {
			if err := before(); err != nil {
				return err
			}
		}
		head, err := d.in.next()
		if err != nil {
			return err
		}
		if err := d.message(head); err != nil {
			return err
		}
	}
}

// message carries one message. One that came in a single frame leaves in a single frame of the same length: scanning and
// masking change none. A fragmented one, and one that is decompressed on its way, leaves in fragments of the gateway's own
// (RFC 6455 section 5.4).
func (d *messagePump) message(head frameHeader) error {
	var src io.Reader = d.in
	whole := head.fin
	if d.filter != nil {
		filtered, same, err := d.filter(src, head.compressed)
		if err != nil {
			return err
		}
		src, whole, head.compressed = filtered, whole && same, head.compressed && same
	}
	buf := d.pool.get()
	defer d.pool.put(buf)
	next := &head
	for {
		n, err := d.fill(src, (*buf)[frameHead:])
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return err
		}
		d.count.Add(int64(n))
		if !whole {
			next = &frameHeader{op: head.op, fin: end, length: int64(n), compressed: head.compressed}
			head.op, head.compressed = opContinuation, false
		}
		if err := d.out.write(*buf, n, next); err != nil {
			return err
		}
		if next = nil; end {
			return d.out.complete()
		}
	}
}

// fill reads until p is full, the message has ended, or reading on would wait for the peer. The last returns nil.
func (d *messagePump) fill(src io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = src.Read(p[n:])
		n += m
		if n > 0 && !d.in.ended() {
			break
		}
	}
	return n, err
}

// complete makes sure that the open frame has all the bytes that its head announced.
func (w *frameWriter) complete() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left != 0 {
		return errors.New("write frame: fewer bytes than its head announced")
	}
	return nil
}
