package http2

import (
	"net"
	"runtime"
	"sync"
	"time"
)

// out is a connection's sending side: frames of all streams, in the order in which they are to leave. Whoever wants them to leave
// writes them, unless somebody does already, who then takes these along. There is a buffer only while there is something in it.
// All of it is guarded by the connection's lock.
type out struct {
	c      *conn
	gather gatherer // nil if the connection cannot take records together

	lent    *[]byte
	buf     []byte
	batch   uint32    // counts buffers, so that who has put something into one knows whether it is still there
	queued  int       // bytes of control frames in buf
	urgent  bool      // buf has something that nobody else will send
	writing bool      // a write is under way
	room    sync.Cond // there is room, or nothing is under way any more
	by      time.Time // when the write under way must be done
	err     error
}

// gatherer is what lies beneath a TLS connection and can take the records of a write together.
type gatherer interface {
	Gather(write func() error) error
}

// start makes o the sending side of c.
func (o *out) start(c *conn) {
	o.c = c
	o.room.L = &c.mu
	if n, ok := c.net.(interface{ NetConn() net.Conn }); ok {
		o.gather, _ = n.NetConn().(gatherer)
	}
}

// need makes room for n bytes, as far as there can be.
func (o *out) need(n int) {
	pool := &o.c.server.writes
	switch {
	case o.lent == nil:
		o.lent = pool.get(n)
		o.buf = (*o.lent)[:0]
	case len(o.buf)+n > cap(o.buf) && len(*o.lent) == pool.small:
		larger := pool.get(pool.large)
		o.buf = append((*larger)[:0], o.buf...)
		pool.put(o.lent)
		o.lent = larger
	}
}

// head appends the head that the encoder has made.
func (o *out) head(id uint32, flags uint8) {
	e := &o.c.encoder
	o.need(len(e.block) + frameHead*(1+len(e.block)/maxFrame))
	o.buf = e.frames(o.buf, id, flags)
}

// control appends a control frame. It does not block: a guest that asks for many and takes none ends the connection.
func (o *out) control(p []byte) {
	o.need(len(p))
	o.buf = append(o.buf, p...)
	o.urgent = true
	if o.queued += len(p); o.queued > controlBytes {
		o.c.flood()
	}
}

// flushControl lets control frames leave, without waiting for that.
func (o *out) flushControl() {
	if o.urgent && !o.writing && o.err == nil {
		o.writing = true
		go o.flushRest()
	}
}

// flush writes what is there, unless somebody does already. It lets go of the lock meanwhile. What has gathered then is left to
// another goroutine, for the caller has other things to do.
func (o *out) flush() {
	if o.writing || len(o.buf) == 0 || o.err != nil {
		return
	}
	o.writing = true
	o.write()
	if len(o.buf) > 0 && o.err == nil {
		go o.flushRest()
		return
	}
	o.writing = false
	o.room.Broadcast()
}

// flushSoon is flush, after those who are about to add something have done so. It is for a goroutine that has nothing else to do.
func (o *out) flushSoon() {
	if o.writing || len(o.buf) == 0 || o.err != nil {
		return
	}
	o.writing = true
	o.c.mu.Unlock()
	runtime.Gosched()
	o.c.mu.Lock()
	o.writeAll()
}

// flushRest writes until there is nothing. The caller has set writing.
func (o *out) flushRest() {
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	o.writeAll()
}

// writeAll is flushRest with the lock held.
func (o *out) writeAll() {
	for len(o.buf) > 0 && o.err == nil {
		o.write()
	}
	o.writing = false
	o.room.Broadcast()
}

// write writes what is there once, without the lock.
func (o *out) write() {
	lent, buf := o.lent, o.buf
	o.lent, o.buf, o.queued, o.urgent = nil, nil, 0, false
	o.batch++
	o.room.Broadcast()
	err := o.allowTime()
	o.c.mu.Unlock()
	if err == nil {
		err = o.send(buf)
	}
	o.c.server.writes.put(lent)
	o.c.mu.Lock()
	if err != nil && o.err == nil {
		o.err = err
		o.c.abandon(err)
	}
}

// allowTime gives the next write its time, half of Limits.Write at the least.
func (o *out) allowTime() error {
	now := time.Now()
	if o.c.finished || o.by.Sub(now) >= o.c.lim.Write/2 {
		return nil
	}
	o.by = now.Add(o.c.lim.Write)
	return o.c.net.SetWriteDeadline(o.by)
}

// send writes p to the connection, in one system call for several records where it can.
func (o *out) send(p []byte) error {
	if o.gather == nil || len(p) <= maxFrame {
		_, err := o.c.net.Write(p)
		return err
	}
	return o.gather.Gather(func() error { _, err := o.c.net.Write(p); return err })
}

// await waits until there is room for a frame, and reports the connection's error if there will be none.
func (o *out) await() error {
	for {
		switch {
		case o.err != nil:
			return o.err
		case o.c.err != nil:
			return o.c.err
		case len(o.buf) <= writeBuffer-128:
			return nil
		case o.writing:
			o.room.Wait()
		default:
			o.flush()
		}
	}
}

// last lets what is there leave, within wait.
func (o *out) last(wait time.Duration) {
	_ = o.c.net.SetWriteDeadline(time.Now().Add(wait)) // a closed connection needs none
	for o.writing && o.err == nil {
		o.room.Wait()
	}
	o.flush()
	for o.writing && o.err == nil {
		o.room.Wait()
	}
	if o.lent != nil {
		o.c.server.writes.put(o.lent)
		o.lent, o.buf = nil, nil
	}
	if o.err == nil {
		o.err = ErrConnEnded
	}
}
