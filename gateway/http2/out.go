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
	owner   owner
	mu      *sync.Mutex // the connection's
	net     net.Conn
	pool    *buffers
	encoder *encoder
	wait    time.Duration // how long a write may wait for a peer that does not read
	gather  gatherer      // nil if the connection cannot take records together

	lent    *[]byte
	buf     []byte
	batch   uint32    // counts buffers, so that who has put something into one knows whether it is still there
	queued  int       // bytes of control frames in buf
	urgent  bool      // buf has something that nobody else will send
	writing bool      // a write is under way
	room    sync.Cond // there is room, or nothing is under way any more
	by      time.Time // when the write under way must be done
	final   bool      // the last words have a time of their own
	err     error
}

// owner is the connection whose sending side it is. All of it is called with the lock held.
type owner interface {
	abandon(err error) // nothing can be written any more
	flood()            // the peer has the gateway say too much
	broken() error     // why nothing more is to be said, nil as long as it is
}

// gatherer is what lies beneath a TLS connection and can take the records of a write together.
type gatherer interface {
	Gather(write func() error) error
}

// start makes o the sending side of a connection.
func (o *out) start(c owner, mu *sync.Mutex, nc net.Conn, e *encoder, wait time.Duration) {
	o.owner, o.mu, o.net, o.pool, o.encoder, o.wait = c, mu, nc, e.pool, e, wait
	o.room.L = mu
	if n, ok := nc.(interface{ NetConn() net.Conn }); ok {
		o.gather, _ = n.NetConn().(gatherer)
	}
}

// need makes room for n bytes, as far as there can be.
func (o *out) need(n int) {
	pool := o.pool
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
	e := o.encoder
	o.need(len(e.block) + frameHead*(1+len(e.block)/maxFrame))
	o.buf = e.frames(o.buf, id, flags)
}

// control appends a control frame. It does not block: a guest that asks for many and takes none ends the connection.
func (o *out) control(p []byte) {
	o.need(len(p))
	o.buf = append(o.buf, p...)
	o.urgent = true
	if o.queued += len(p); o.queued > controlBytes {
		o.owner.flood()
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
	o.writeOnce()
}

// flushTogether is flush, after those who are about to add something have done so.
func (o *out) flushTogether() {
	if o.lettingOthers() {
		o.writeOnce()
	}
}

// lettingOthers lets those who are about to add something do so, and reports whether the caller is to write: there is something, and
// nobody does already.
func (o *out) lettingOthers() bool {
	if o.writing || len(o.buf) == 0 || o.err != nil {
		return false
	}
	o.writing = true
	o.mu.Unlock()
	runtime.Gosched()
	o.mu.Lock()
	return true
}

// writeOnce writes what is there, and leaves what has gathered then to another goroutine. The caller has set writing.
func (o *out) writeOnce() {
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
	if o.lettingOthers() {
		o.writeAll()
	}
}

// flushRest writes until there is nothing. The caller has set writing.
func (o *out) flushRest() {
	o.mu.Lock()
	defer o.mu.Unlock()
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
	o.mu.Unlock()
	if err == nil {
		err = o.send(buf)
	}
	o.pool.put(lent)
	o.mu.Lock()
	if err != nil && o.err == nil {
		o.err = err
		o.owner.abandon(err)
	}
}

// allowTime gives the next write its time, half of Limits.Write at the least.
func (o *out) allowTime() error {
	now := time.Now()
	if o.final || o.by.Sub(now) >= o.wait/2 {
		return nil
	}
	o.by = now.Add(o.wait)
	return o.net.SetWriteDeadline(o.by)
}

// send writes p to the connection, in one system call for several records where it can.
func (o *out) send(p []byte) error {
	if o.gather == nil || len(p) <= maxFrame {
		_, err := o.net.Write(p)
		return err
	}
	return o.gather.Gather(func() error { _, err := o.net.Write(p); return err })
}

// await waits until there is room for a frame, and reports the connection's error if there will be none.
func (o *out) await() error {
	for {
		switch {
		case o.err != nil:
			return o.err
		case o.owner.broken() != nil:
			return o.owner.broken()
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
	o.final = true
	_ = o.net.SetWriteDeadline(time.Now().Add(wait)) // a closed connection needs none
	for o.writing && o.err == nil {
		o.room.Wait()
	}
	o.flush()
	for o.writing && o.err == nil {
		o.room.Wait()
	}
	if o.lent != nil {
		o.pool.put(o.lent)
		o.lent, o.buf = nil, nil
	}
	if o.err == nil {
		o.err = ErrConnEnded
	}
}
