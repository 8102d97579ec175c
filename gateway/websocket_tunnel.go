package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/pipelock"
)

// tunnel is a WebSocket connection whose upstream has agreed to it. It has two goroutines, one for each direction, which wait most of
// the time. The runtime halves their stacks, down to 4 KB, while less than a quarter of one is in use, with some 800 bytes of its own
// among that: so what comes before the waiting and after it is in functions of their own.
type tunnel struct {
	x     *exchange
	ctx   context.Context // ends both sides at once
	guest guestEnd
	up    io.ReadWriteCloser

	toGuest, toUp   frameWriter
	outward, inward messagePump
	down            atomic.Int64 // bytes of messages towards the guest
	readBy          time.Time    // the guest's read deadline, as alive set it

	stops  [2]func() bool // of what waits for the end of a context
	ends   chan error     // what was wrong with how each direction has ended
	inOver chan struct{}  // the inward one has
}

// begin has all but the outward direction under way, between guest, of which in gives what it says, and the upstream. The caller runs that
// direction, and hands what it returns to end.
func (t *tunnel) begin(guest guestEnd, in io.Reader) {
	t.guest = guest
	t.toGuest.out, t.toUp.out, t.toUp.masked = guest, t.up, true
	t.pumps(in)
	t.ends, t.inOver = make(chan error, 2), make(chan struct{})
	t.stops[0] = context.AfterFunc(t.ctx, func() { t.guest.Close(); t.up.Close() })
	t.stops[1] = context.AfterFunc(t.x.s.closing, t.goAway)
	go t.carryInward()
}

// pumps makes the two directions: what the guest says is scanned, what the upstream says is masked.
func (t *tunnel) pumps(fromGuest io.Reader) {
	x := t.x
	t.outward = messagePump{
		in:  messageReader{in: fromGuest, masked: true, compresses: x.deflate != nil, control: t.controlOut},
		out: &t.toUp, pool: x.s.engine.pieces, count: &x.sent, before: t.alive,
	}
	if x.verdict.Scan {
		messages := x.scanner().Messages(x.host, x.deflate != nil && !x.deflate.clientAlone)
		t.outward.filter = func(r io.Reader, compressed bool) (io.Reader, bool, error) {
			return &scannedMessage{x, messages.Next(r, compressed)}, true, nil
		}
	}
	t.inward = messagePump{
		in:  messageReader{in: t.up, compresses: x.deflate != nil, control: t.controlIn},
		out: &t.toGuest, pool: x.s.engine.pieces, count: &t.down,
	}
	if x.masker != nil {
		t.inward.filter = x.inflateAndMask()
	}
	t.outward.patient, _ = fromGuest.(interface{ Await() })
	t.inward.patient, _ = t.up.(interface{ Await() })
}

// carryInward is the goroutine of the inward direction.
func (t *tunnel) carryInward() { t.endInward(t.inward.run()) }

// endInward ends what the upstream's silence ends, err being why it says no more.
//
//go:noinline
func (t *tunnel) endInward(err error) {
	t.ends <- t.fault(err)
	if !t.toGuest.isClosed() || t.bothClosed() {
		t.guest.Close()
	} else {
		_ = t.guest.SetReadDeadline(time.Now().Add(websocketClosing)) // its answer to the close may still come
	}
	close(t.inOver)
}

// end waits until both directions have ended, the outward one having done so by err, and notes what was wrong with
// how the first one did. It reports false for a stream that broke off, which is to be reset.
//
//go:noinline
func (t *tunnel) end(err error) (whole bool) {
	x := t.x
	t.ends <- t.fault(err) // before anything is closed, which would end the other direction with an error of its own
	x.refusedMessage(err, &t.toGuest)
	if t.bothClosed() {
		t.guest.Close()
	}
	if !t.toUp.isClosed() {
		t.up.Close()
	}
	closing := time.AfterFunc(websocketClosing, func() { t.up.Close() })
	defer closing.Stop()
	first := <-t.ends
	<-t.inOver
	x.rec.BytesDown += t.down.Load()
	if d := x.cutOff(); d != nil {
		x.note(d)
	} else if first != nil {
		x.rec.Error = first.Error()
	}
	return x.stream == nil || t.toGuest.isClosed() || first == nil
}

// close closes both sides, as far as they are there, after which nothing of the exchange touches the guest's.
func (t *tunnel) close() {
	for _, stop := range t.stops {
		if stop != nil {
			stop()
		}
	}
	if t.guest != nil {
		t.guest.Close()
		t.guest.end()
	}
	t.up.Close()
}

// bothClosed reports whether close frames went both ways, after which nothing follows (RFC 6455 section 7.1.1).
func (t *tunnel) bothClosed() bool { return t.toGuest.isClosed() && t.toUp.isClosed() }

// fault returns what was wrong with the end err of a direction: nil for an end of the stream between messages, and for any once
// close frames went both ways, since a side that has its close frame may leave in whatever way it likes, such as by a reset.
func (t *tunnel) fault(err error) error {
	if errors.Is(err, io.EOF) || t.bothClosed() {
		return nil
	}
	return err
}

// alive gives the guest time for its next frame, unless the connection is closing and its deadline set.
func (t *tunnel) alive() error {
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
func (t *tunnel) goAway() {
	reason := append(binary.BigEndian.AppendUint16(nil, closeGoingAway), "gatewayd stops"...)
	_ = t.toUp.control(opClose, reason)
	if t.toGuest.control(opClose, reason) == nil {
		_ = t.guest.SetReadDeadline(time.Now().Add(websocketClosing)) // the read fails as well
	}
}

// controlOut sends the guest's control frames on, scanned like its messages.
func (t *tunnel) controlOut(op byte, payload []byte) error {
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
func (t *tunnel) controlIn(op byte, payload []byte) error {
	if t.x.masker != nil {
		payload = []byte(t.x.masker.String(string(payload)))
	}
	return t.passed(t.toGuest.control(op, payload))
}

// passed ends a direction when a control frame that was passed on, which err tells, closed the second of the two.
func (t *tunnel) passed(err error) error {
	if err == nil && t.bothClosed() {
		return io.EOF
	}
	return err
}
