package tls

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// wireBuffer holds four records of the greatest length (RFC 8446 section 5.2, RFC 5246 section 6.2.3), so that a bulk
// transfer takes one system call for several records: 64 KB are four.
const wireBuffer = 4 * (recordHeaderSize + 16<<10 + 2<<10)

// WireBuffers lends the buffers of any number of [Wire]. The zero value is ready for use.
type WireBuffers struct{ pool sync.Pool }

func (b *WireBuffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, wireBuffer)
	return &p
}

// Wire is a TCP connection beneath a [crypto/tls.Conn]. It reads from the socket in large pieces but gives each Read bytes of
// one record alone, so that crypto/tls holds none of the next: what came beyond the last record that was asked for can be
// seen by Quiet. It has a buffer only while there is something in it; waiting for a peer takes none. Read is for one goroutine
// at a time, and so is Gather; everything else is as with [net.TCPConn].
type Wire struct {
	net.Conn
	tcp     *net.TCPConn
	raw     syscall.RawConn
	buffers *WireBuffers
	plain   bool          // there are no records: a Read gives whatever is there
	in, out *atomic.Int64 // count bytes, nil if nobody asks

	buf  *[]byte
	r, w int // what is buffered is (*buf)[r:w]
	left int // of the record that begins at or before r
	err  error

	take    func(fd uintptr) bool // made once, as are those below
	probe   func(fd uintptr)
	put     func(fd uintptr) bool
	putOnce func(fd uintptr)
	ask     func(fd uintptr) bool
	say     func() error // what Ask has not called yet

	gather   sync.Mutex
	gathered *[]byte // not nil while Gather runs: what was written meanwhile, of a lent buffer
	sending  []byte  // what send has not written yet
	tried    bool    // to write it
	errSend  error
}

// NewWire returns conn as a Wire. first is what was read from it already; the Wire owns it. records says that the bytes are
// TLS records. in and out, if not nil, count the bytes that go through, those of first included. It fails only on a closed
// connection.
func NewWire(conn *net.TCPConn, buffers *WireBuffers, records bool, first []byte, in, out *atomic.Int64) (*Wire, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	w := &Wire{Conn: conn, tcp: conn, raw: raw, buffers: buffers, plain: !records, in: in, out: out}
	w.take = w.fromSocket
	w.probe = func(fd uintptr) { w.fromSocket(fd) }
	w.put = w.toSocket
	w.putOnce = func(fd uintptr) { w.toSocket(fd) }
	w.ask = w.askSocket
	if len(first) > 0 {
		w.buf, w.w = &first, len(first)
		w.count(in, len(first))
	}
	return w, nil
}

// count adds n to a counter.
func (w *Wire) count(c *atomic.Int64, n int) {
	if c != nil {
		c.Add(int64(n))
	}
}

// Read reads bytes of one record. See [net.Conn].
func (w *Wire) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for w.left == 0 || w.r == w.w {
		if w.r < w.w && w.header() {
			break
		}
		if err := w.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, (*w.buf)[w.r:min(w.w, w.r+w.left)])
	w.r += n
	w.left -= n
	w.release()
	return n, nil
}

// header begins a record if its header is there, and reports whether there are bytes to give.
func (w *Wire) header() bool {
	switch {
	case w.left > 0:
	case w.plain:
		w.left = w.w - w.r
	case w.w-w.r >= recordHeaderSize:
		w.left = recordHeaderSize + int(binary.BigEndian.Uint16((*w.buf)[w.r+3:]))
	}
	return w.left > 0
}

// fill reads once from the socket, behind what is buffered. It blocks as a Read of the connection would.
func (w *Wire) fill() error {
	w.makeRoom()
	if err := w.raw.Read(w.take); err != nil {
		return err
	}
	return w.err
}

// makeRoom makes room behind what is buffered, which is less than a buffer holds.
func (w *Wire) makeRoom() {
	if w.buf != nil && w.r > 0 {
		w.w = copy(*w.buf, (*w.buf)[w.r:w.w])
		w.r = 0
	}
	if w.buf != nil && w.w == len(*w.buf) { // only what was read ahead is that small: the buffers hold any header
		grown := w.buffers.get()
		w.w = copy(*grown, (*w.buf)[:w.w])
		w.buf = grown
	}
}

// fromSocket is one try to read. It reports false if the socket has nothing yet, and then holds no buffer for nothing.
func (w *Wire) fromSocket(fd uintptr) bool {
	if w.buf == nil {
		w.buf, w.r, w.w = w.buffers.get(), 0, 0
	}
	n, err := transfer(syscall.SYS_READ, fd, (*w.buf)[w.w:])
	switch {
	case err == syscall.EAGAIN:
		w.release()
		return false
	case err != 0:
		w.err = w.failed("read", err)
	case n == 0:
		w.err = io.EOF
	default:
		w.err = nil
		w.w += n
		w.count(w.in, n)
		return true
	}
	w.release()
	return true
}

// transfer reads or writes once on a socket that does not block. The call ends by itself, in the time that the kernel takes to
// move the bytes, so the scheduler is not told of it: that would cost more than most of these calls do, and where CPUs are
// contended the thread would lose its place meanwhile.
func transfer(call, fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, err := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if err != syscall.EINTR {
			return int(n), err
		}
	}
}

// failed is the error of a call on the socket.
func (w *Wire) failed(call string, err syscall.Errno) error {
	return &net.OpError{Op: call, Net: "tcp", Source: w.LocalAddr(), Addr: w.RemoteAddr(), Err: os.NewSyscallError(call, err)}
}

// release gives the buffer back if nothing is in it.
func (w *Wire) release() {
	if w.buf == nil || w.r != w.w {
		return
	}
	if len(*w.buf) == wireBuffer {
		w.buffers.pool.Put(w.buf)
	}
	w.buf, w.r, w.w = nil, 0, 0
}

// Await blocks until there is something to read, as a Read does, and holds no buffer meanwhile. The error is what a Read would
// have returned.
func (w *Wire) Await() error {
	if w.r < w.w {
		return nil
	}
	if err := w.raw.Read(w.take); err != nil { // there is no buffer now, as fill may have: less is on the stack while it waits
		return err
	}
	return w.err
}

// Whole reports whether the next record is buffered as a whole, so that reading it does not block.
func (w *Wire) Whole() bool {
	have := w.w - w.r
	switch {
	case have == 0 || w.left > have:
		return false
	case w.plain || w.left > 0:
		return true
	}
	return have >= recordHeaderSize && have >= recordHeaderSize+int(binary.BigEndian.Uint16((*w.buf)[w.r+3:]))
}

// Buffered returns how many bytes have come that were not read.
func (w *Wire) Buffered() int { return w.w - w.r }

// Ready is Whole, but takes what has come meanwhile into account. It does not block. It must not be called while a Read is under
// way. What goes wrong is for the next Read to tell.
func (w *Wire) Ready() bool {
	if w.Whole() {
		return true
	}
	w.makeRoom()
	return w.raw.Control(w.probe) == nil && w.Whole()
}

// AwaitWhole blocks until the next record is buffered as a whole, or is longer than the buffer. The error is what a Read would have
// returned.
func (w *Wire) AwaitWhole() error {
	for !w.Whole() && w.w-w.r < wireBuffer {
		if err := w.fill(); err != nil {
			return err
		}
	}
	return nil
}

// Quiet reports whether the peer has said nothing, not even that it is at its end, beyond what was read. It does not block.
// It must not be called while a Read is under way.
func (w *Wire) Quiet() bool {
	if w.r != w.w || w.left > 0 {
		return false
	}
	w.err = nil
	if err := w.raw.Control(w.probe); err != nil {
		return false
	}
	return w.err == nil && w.r == w.w
}

// Ask calls say, which is to ask the peer for something, if the peer has said nothing beyond what was read, as Quiet tells it, and then
// blocks until there is an answer to read, as Await does. asked reports whether say was called; if it was, err is its error, or what a
// Read would have returned. It must not be called while a Read is under way, and say must not close the connection, which waits for
// whoever reads.
//
// The look, what is sent and the wait are one read of the runtime's, which forgets when it begins that the socket was ready: what comes
// after the look ends the wait, however soon.
func (w *Wire) Ask(say func() error) (asked bool, err error) {
	if w.r != w.w || w.left > 0 {
		return false, nil
	}
	w.say = say
	err = w.raw.Read(w.ask)
	asked, w.say = w.say == nil, nil
	if err == nil {
		err = w.err
	}
	return asked, err
}

// askSocket is one try to read an answer. The first asks, if it finds nothing.
func (w *Wire) askSocket(fd uintptr) bool {
	if w.fromSocket(fd) {
		return true
	}
	if say := w.say; say != nil {
		w.say = nil
		w.err = say()
		return w.err != nil
	}
	return false
}

// Write writes p to the socket, or keeps it for the end of a Gather that is under way. See [net.Conn].
func (w *Wire) Write(p []byte) (int, error) {
	w.gather.Lock()
	defer w.gather.Unlock()
	if w.gathered == nil {
		return w.send(p)
	}
	if len(*w.gathered)+len(p) > cap(*w.gathered) {
		if err := w.sendGathered(); err != nil {
			return 0, err
		}
	}
	if len(p) > cap(*w.gathered) {
		return w.send(p)
	}
	*w.gathered = append(*w.gathered, p...)
	return len(p), nil
}

// Gather writes what write does in as few system calls as the buffer allows: crypto/tls makes one for each record otherwise.
// It blocks as Write does. The error is write's, else that of the socket, after which the connection is of no use.
func (w *Wire) Gather(write func() error) error {
	buf := w.buffers.get()
	defer w.buffers.pool.Put(buf)
	kept := (*buf)[:0]
	w.gather.Lock()
	w.gathered = &kept
	w.gather.Unlock()
	err := write()
	w.gather.Lock()
	defer w.gather.Unlock()
	errSend := w.sendGathered()
	w.gathered = nil
	if err != nil {
		return err
	}
	return errSend
}

// sendGathered writes what is kept to the socket. The caller holds the lock.
func (w *Wire) sendGathered() error {
	_, err := w.send(*w.gathered)
	*w.gathered = (*w.gathered)[:0]
	return err
}

// send writes p to the socket. The caller holds the lock. A write deadline bounds the waiting for room alone: one that has passed may be
// that of an earlier write, for crypto/tls answers a KeyUpdate from within a Read (RFC 8446 section 4.6.3).
func (w *Wire) send(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	w.sending, w.tried, w.errSend = p, false, nil
	err := w.raw.Write(w.put)
	if errors.Is(err, os.ErrDeadlineExceeded) && !w.tried {
		if w.raw.Control(w.putOnce) == nil && len(w.sending) == 0 {
			err = nil
		}
	}
	n := len(p) - len(w.sending)
	w.sending = nil
	w.count(w.out, n)
	if w.errSend != nil {
		err = w.errSend
	}
	return n, err
}

// toSocket writes what the socket takes of w.sending. It reports false if there is more, which the socket has no room for.
func (w *Wire) toSocket(fd uintptr) bool {
	w.tried = true
	for len(w.sending) > 0 {
		n, err := transfer(syscall.SYS_WRITE, fd, w.sending)
		switch {
		case err == syscall.EAGAIN:
			return false
		case err != 0:
			w.errSend = w.failed("write", err)
			return true
		}
		w.sending = w.sending[n:]
	}
	return true
}

// CloseWrite ends the sending side of the TCP connection.
func (w *Wire) CloseWrite() error { return w.tcp.CloseWrite() }
