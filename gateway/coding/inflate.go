package coding

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
)

// inflateWindow is how far back DEFLATE refers, in bytes (RFC 1951 section 2). Peers may agree on less; more than they
// agreed on does no harm.
const inflateWindow = 32 << 10

// messageTail is what a sender takes off the end of a message (RFC 7692 section 7.2.1), and an empty last block, so that
// the decoder knows the end for one.
const messageTail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

// Inflater undoes permessage-deflate (RFC 7692 section 7.2.2) in one direction of a connection, message by message. Between
// messages it keeps the last 32 KB and the decoder, if there is context takeover, and nothing otherwise. It belongs to one
// goroutine.
type Inflater struct {
	takeover bool
	window   []byte
	decoder  io.ReadCloser
	src      tailed
	err      error
}

// NewInflater returns an Inflater. takeover says that messages may refer to those before.
func NewInflater(takeover bool) *Inflater { return &Inflater{takeover: takeover, err: io.EOF} }

// A ByteReader is what decoders can read from without taking more than is theirs.
type ByteReader interface {
	io.Reader
	io.ByteReader
}

// Begin makes r, the payload of one message, what Read undoes next. The message before must have been read to its end.
func (f *Inflater) Begin(r ByteReader) error {
	if !errors.Is(f.err, io.EOF) {
		return fmt.Errorf("inflate message: the one before was not read: %w", f.err)
	}
	f.src, f.err = tailed{r: r, tail: messageTail}, nil
	dict := f.window[max(0, len(f.window)-inflateWindow):]
	if f.decoder == nil {
		f.decoder = flate.NewReaderDict(&f.src, dict)
		return nil
	}
	f.err = f.decoder.(flate.Resetter).Reset(&f.src, dict)
	return f.err
}

// Read is [io.Reader].Read: io.EOF ends the message. A message that is malformed, or that goes on behind a last block, which
// some receivers would read and others not, is an error, then and ever after.
func (f *Inflater) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.decoder.Read(p)
	if f.takeover {
		f.remember(p[:n])
	}
	if err == nil {
		return n, nil
	}
	if f.err = err; errors.Is(err, io.EOF) {
		if len(f.src.tail) > 0 {
			f.err = errors.New("inflate message: it goes on behind its last block")
		} else if !f.takeover {
			f.decoder = nil
		}
	}
	return n, f.err
}

// remember keeps what later messages may refer to.
func (f *Inflater) remember(p []byte) {
	if len(f.window)+len(p) > 2*inflateWindow {
		f.window = append(f.window[:0], f.window[max(0, len(f.window)-inflateWindow):]...)
	}
	f.window = append(f.window, p[max(0, len(p)-inflateWindow):]...)
}

// tailed reads a message and the tail behind it.
type tailed struct {
	r    ByteReader
	tail string
}

// Read is [io.Reader].Read.
func (t *tailed) Read(p []byte) (int, error) {
	if t.r != nil {
		n, err := t.r.Read(p)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		if t.r = nil; n > 0 {
			return n, nil
		}
	}
	if t.tail == "" {
		return 0, io.EOF
	}
	n := copy(p, t.tail)
	t.tail = t.tail[n:]
	return n, nil
}

// ReadByte is [io.ByteReader].ReadByte.
func (t *tailed) ReadByte() (byte, error) {
	if t.r != nil {
		c, err := t.r.ReadByte()
		if !errors.Is(err, io.EOF) {
			return c, err
		}
		t.r = nil
	}
	if t.tail == "" {
		return 0, io.EOF
	}
	c := t.tail[0]
	t.tail = t.tail[1:]
	return c, nil
}
