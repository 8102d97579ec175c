package tls

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// recordHandshake is the content type of a handshake record (RFC 8446 §5.1).
	recordHandshake = 22
	// recordHeaderSize is content type, version and length (RFC 8446 §5.1).
	recordHeaderSize = 5
	// maxRecordSize is the most plaintext that one record may hold (RFC 8446 §5.1).
	maxRecordSize = 1 << 14
	// maxRecords bounds the records of one hello. No client is known to use more than one; a hello of 4 KB in records of one
	// byte still passes.
	maxRecords = 4096
	// firstRead is the size of the first buffer: a hello with a post-quantum key share fits.
	firstRead = 2048
	// maxIdleReads is how many reads in a row may give nothing, as in io.ErrNoProgress.
	maxIdleReads = 100
)

// Peek reads from r until the first ClientHello is whole, refused or lost, whatever its split over reads and records. It
// takes at most 64 KB of handshake in at most 4,096 records, and gives up at the first byte that shows that no usable hello
// will come; an empty record, or another record between the hello's, is Malformed (RFC 8446 §5.1).
//
// read holds every byte taken from r, in order and whatever err is, and may go past the hello: a caller that goes on with the
// connection sends these first, or hands them to Replay. The caller owns the slice. h is the zero Hello when err is not nil;
// err is always a *HelloError. Peek blocks as r does, so set a deadline on r.
func Peek(r io.Reader) (h Hello, read []byte, err error) {
	var d deframer
	read = make([]byte, 0, firstRead)
	idle := 0
	for {
		whole, ferr := d.feed(read)
		if ferr != nil {
			return Hello{}, read, ferr
		}
		if whole {
			h, err = ParseHello(d.message)
			return h, read, err
		}
		if len(read) == cap(read) {
			read = slices.Grow(read, cap(read))
		}
		n, rerr := r.Read(read[len(read):cap(read)])
		read = read[:len(read)+n]
		if n > 0 {
			idle = 0
			continue // the bytes count first; the error comes again
		}
		if idle++; rerr == nil && idle >= maxIdleReads {
			rerr = io.ErrNoProgress
		}
		if rerr != nil {
			return Hello{}, read, readError(rerr, len(read))
		}
	}
}

// readError says how the stream ended after n bytes.
func readError(err error, n int) *HelloError {
	kind := Closed
	var ne net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() {
		kind = Timeout
	}
	return &HelloError{Kind: kind, Err: fmt.Errorf("after %d bytes: %w", n, err)}
}

// deframer takes the handshake message out of its records (RFC 8446 §5.1), resumable at any byte.
type deframer struct {
	next    int    // where in the stream the next record header begins
	records int    // whole records so far
	message []byte // handshake bytes so far
}

// feed looks at stream, which is what earlier calls saw and more, and tells whether the message is whole.
func (d *deframer) feed(stream []byte) (whole bool, err error) {
	for {
		header := stream[min(d.next, len(stream)):]
		if err := d.checkHeader(header); err != nil {
			return false, err
		}
		if len(header) < recordHeaderSize {
			return false, nil
		}
		size := int(header[3])<<8 | int(header[4])
		body := header[recordHeaderSize:]
		if len(body) < size {
			return false, d.checkPartial(body)
		}
		d.records++
		d.message = append(d.message, body[:size]...)
		d.next += recordHeaderSize + size
		if err := checkMessage(d.message); err != nil {
			return false, err
		}
		if done, err := d.whole(); done || err != nil {
			return done, err
		}
	}
}

// checkHeader judges as much of a record header as is there.
func (d *deframer) checkHeader(header []byte) error {
	first := d.next == 0
	if len(header) > 0 && header[0] != recordHandshake {
		if first {
			return helloErrorf(NotTLS, "first byte is 0x%02x, not a handshake record", header[0])
		}
		return helloErrorf(Malformed, "record of type %d inside the hello", header[0])
	}
	if len(header) > 1 && header[1] != 3 {
		if first {
			return helloErrorf(NotTLS, "record version 0x%02x", header[1])
		}
		return helloErrorf(Malformed, "record version 0x%02x inside the hello", header[1])
	}
	if len(header) < recordHeaderSize {
		return nil
	}
	if d.records >= maxRecords {
		return helloErrorf(TooLarge, "more than %d records", maxRecords)
	}
	size := int(header[3])<<8 | int(header[4])
	if size == 0 || size > maxRecordSize {
		return helloErrorf(Malformed, "record of %d bytes", size)
	}
	return nil
}

// checkPartial judges the handshake header when part of it lies in a record that is not whole yet, so that a stream that will
// never be a hello ends at once. It looks at four bytes at most, however often a slow sender makes it run.
func (d *deframer) checkPartial(body []byte) error {
	if len(d.message) >= helloHeaderSize {
		return nil
	}
	head := append(make([]byte, 0, helloHeaderSize), d.message...)
	return checkMessage(append(head, body[:min(len(body), helloHeaderSize-len(head))]...))
}

// checkMessage judges the handshake header as far as it is there.
func checkMessage(m []byte) error {
	if len(m) > 0 && m[0] != typeClientHello {
		return helloErrorf(Malformed, "handshake message of type %d, not a ClientHello", m[0])
	}
	if len(m) < helloHeaderSize {
		return nil
	}
	size := helloSize(m)
	if size > maxHelloSize {
		return helloErrorf(TooLarge, "message of %d bytes, at most %d", size, maxHelloSize)
	}
	if size < minHelloSize {
		return helloErrorf(Malformed, "message of %d bytes is too short for a ClientHello", size)
	}
	return nil
}

// whole tells whether the message is complete. Bytes behind it in its last record are refused: a server would take them for
// the start of the next message (RFC 8446 §5.1: a hello before a key change ends its record).
func (d *deframer) whole() (bool, error) {
	if len(d.message) < helloHeaderSize {
		return false, nil
	}
	size := helloSize(d.message)
	if len(d.message) > size {
		return false, helloErrorf(Malformed, "%d bytes behind the hello in its record", len(d.message)-size)
	}
	return len(d.message) == size, nil
}

// helloSize reads the length out of a handshake header, header included.
func helloSize(m []byte) int {
	return helloHeaderSize + int(m[1])<<16 + int(m[2])<<8 + int(m[3])
}

// Replay returns c as a connection whose Read first gives the bytes of read and then those of c. It owns read from then on,
// and drops it when it is used up. All other methods are those of c; CloseWrite and NetConn reach through to c.
func Replay(c net.Conn, read []byte) net.Conn {
	p := &replay{Conn: c, read: read}
	p.pending.Store(len(read) > 0)
	return p
}

// replay is what Replay returns.
type replay struct {
	net.Conn
	pending atomic.Bool // read is not empty
	mu      sync.Mutex  // guards read
	read    []byte
}

// Read gives the bytes read ahead first. They are there whatever deadline is set.
func (p *replay) Read(b []byte) (int, error) {
	if p.pending.Load() && len(b) > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := copy(b, p.read); n > 0 {
			if p.read = p.read[n:]; len(p.read) == 0 {
				p.read = nil
				p.pending.Store(false)
			}
			return n, nil
		}
	}
	return p.Conn.Read(b)
}

// CloseWrite half-closes the connection beneath, or says that it cannot.
func (p *replay) CloseWrite() error {
	if c, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return fmt.Errorf("close write side of %T: %w", p.Conn, errors.ErrUnsupported)
}

// NetConn returns the connection beneath. Bytes read ahead and not yet given are lost to who reads from it.
func (p *replay) NetConn() net.Conn { return p.Conn }
