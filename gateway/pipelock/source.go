package pipelock

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// What an encoded body may cost, in bytes.
const (
	// holdBack is how much of an encoded body is kept until what it decodes
	// to was scanned. It is more than a block of any encoding holds, so that
	// a server that decodes as it receives is behind the scan; most bodies
	// are shorter and are judged whole.
	holdBack = 256 << 10
	// maxSilent is how much a decoder may take in without giving out anything.
	maxSilent = 1 << 20
	// maxRatio bounds how many bytes one byte may stand for, once freeRatio
	// bytes were decoded.
	maxRatio  = 100
	freeRatio = 8 << 20
)

// byteReader is what decoders read from, so that they take no more than is theirs.
type byteReader interface {
	io.Reader
	io.ByteReader
}

// newLookahead returns a reader that can be parsed: by bytes, and by lines.
func newLookahead(r io.Reader) *bufio.Reader {
	if b, ok := r.(*bufio.Reader); ok {
		return b
	}
	return bufio.NewReaderSize(r, readSize)
}

// content takes a body apart and has everything scanned that it is made of.
type content interface {
	// step reads on, once: it waits for no more than the next byte of what can be looked at. It returns io.EOF at the end.
	step() error
	// pending is how many of the bytes that were read of the body were not looked at in every form. It counts bytes of the
	// body itself and has no meaning where that is encoded as a whole.
	pending() int
	// whole tells whether everything that was read is whole, so that no token can go on in what comes next.
	whole() bool
}

// takenApart is a body that is more than text.
type takenApart struct {
	source  source
	plain   *Stream // of the body, without its content coding
	content content
	coded   bool // the body has a content coding: nothing of it is looked at until that is undone
}

// done is [filler].done.
func (b *takenApart) done() {}

// fill is [filler].fill: it goes on until something can be let go.
func (b *takenApart) fill() ([]byte, error) {
	for {
		err := b.content.step()
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return nil, err
		}
		if end {
			return b.source.rest()
		}
		if b.content.whole() {
			if err := b.source.flush(); err != nil {
				return nil, err
			}
		}
		keep := b.content.pending()
		if b.coded || keep > holdBack {
			keep = holdBack
		}
		if free := b.source.release(keep); len(free) > 0 {
			return free, nil
		}
	}
}

// drain is the content of an encoded body that is nothing but text: reading it scans it.
type drain struct {
	in  io.Reader
	buf []byte
}

func (d *drain) step() error {
	if d.buf == nil {
		d.buf = make([]byte, readSize)
	}
	_, err := d.in.Read(d.buf)
	return err
}

func (d *drain) pending() int { return holdBack }
func (d *drain) whole() bool  { return false }

// source is a body on its way to be taken apart: scanned as it is, counted, and kept until it may be let go.
type source struct {
	r      io.Reader
	stream *Stream
	buf    []byte
	unread []byte // of buf
	held   []byte // what stream let go
	from   int    // in held: what is before was let go here, too
	taken  int64  // bytes in all
	gone   int64  // bytes that were let go
	growth *growth
	err    error // of r, or a *LeakError
}

// growth counts what decoders, all together, took in of a body or of the messages of a connection, and what they made of it.
type growth struct{ taken, decoded int64 }

// add counts n bytes that a decoder gave out, and reports whether that is too much.
func (g *growth) add(n int) bool {
	g.decoded += int64(n)
	return g.decoded > freeRatio && g.decoded > maxRatio*g.taken
}

// more makes sure that something is unread, or says why there is nothing.
func (s *source) more() error {
	if s.buf == nil {
		s.buf = make([]byte, readSize)
	}
	for len(s.unread) == 0 {
		if s.err != nil {
			return s.err
		}
		var n int
		n, s.err = s.r.Read(s.buf)
		s.taken += int64(n)
		s.growth.taken += int64(n)
		s.unread = s.buf[:n]
		free, leak := s.stream.Push(s.unread)
		if leak != nil {
			s.unread, s.err = nil, leak
			return leak
		}
		s.held = append(s.held, free...)
	}
	return nil
}

// Read is [io.Reader].Read.
func (s *source) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.more(); err != nil {
		return 0, err
	}
	n := copy(p, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

// ReadByte is [io.ByteReader].ReadByte.
func (s *source) ReadByte() (byte, error) {
	if err := s.more(); err != nil {
		return 0, err
	}
	c := s.unread[0]
	s.unread = s.unread[1:]
	return c, nil
}

// release takes out what the stream let go, but for the last keep bytes that were read.
func (s *source) release(keep int) []byte {
	n := int(min(int64(len(s.held)-s.from), s.taken-int64(len(s.unread)+keep)-s.gone))
	if n <= 0 {
		return nil
	}
	out := bytes.Clone(s.held[s.from : s.from+n])
	s.gone += int64(n)
	if s.from += n; s.from > len(s.held)/2 {
		s.held, s.from = append(s.held[:0], s.held[s.from:]...), 0
	}
	return out
}

// flush has the stream let go of everything that it was given.
func (s *source) flush() error {
	free, leak := s.stream.Flush()
	s.held = append(s.held, free...)
	return leak
}

// rest ends a body of which nothing is unread, and takes out everything. Its error is io.EOF, or a *LeakError.
func (s *source) rest() ([]byte, error) {
	rest, leak := s.stream.Rest()
	if leak != nil {
		return nil, leak
	}
	return append(s.held[s.from:], rest...), io.EOF
}
