package gateway

import (
	"errors"
	"io"
	"sync/atomic"
)

// messageFilter returns a reader of one message, r, that scans or masks it. same says that it reads as many bytes as r,
// compressed if r was.
type messageFilter func(r io.Reader, compressed bool) (filtered io.Reader, same bool, err error)

// messagePump carries the messages of one side to the other.
type messagePump struct {
	in     messageReader
	out    *frameWriter
	before func() error  // called before waiting for each message, if not nil
	filter messageFilter // nil if messages are neither scanned nor masked
	pool   *bytePool
	count  *atomic.Int64

	patient interface{ Await() } // in.in, if it can be waited for
}

// run carries messages until the side that sends them ends. Where that can be, it waits for each with little on the stack.
func (d *messagePump) run() error {
	for {
		if err := d.await(); err != nil {
			return err
		}
		if err := d.next(); err != nil {
			return err
		}
	}
}

// await waits for the next message, if that can be done with less on the stack than next would have there.
func (d *messagePump) await() error {
	if d.before != nil {
		if err := d.before(); err != nil {
			return err
		}
	}
	if d.patient != nil {
		d.patient.Await()
	}
	return nil
}

// next carries the next message.
//
//go:noinline
func (d *messagePump) next() error {
	head, err := d.in.next()
	if err != nil {
		return err
	}
	return d.message(head)
}

// message carries one message. One that came in a single frame leaves in a single frame of the same length: scanning and
// masking change none. A fragmented one, and one that is decompressed on its way, leaves in fragments of the gateway's own
// (RFC 6455 section 5.4).
func (d *messagePump) message(head frameHeader) error {
	var src io.Reader = &d.in
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
