package pipelock

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"

	"gatewayd/gateway/coding"
)

// A message's head, and its flags (gRPC over HTTP/2, "Length-Prefixed-Message"; gRPC-Web; Connect, "Enveloped-Message").
const (
	messageHead       = 5
	messageCompressed = 0x01
	messageEnd        = 0x02 // Connect
	messageTrailers   = 0x80 // gRPC-Web
)

// framing is how a body is divided into messages.
type framing struct {
	name, coding string // what errors call it, and the coding of compressed messages, "" for none
	flags        byte   // that a message may have
	fields       bool   // they are protocol buffers
}

// messageFraming returns the framing of a body of messages; nil for other bodies.
func messageFraming(media string, h http.Header) (*framing, error) {
	kind, subtype, _ := strings.Cut(media, "+")
	var f *framing
	for _, protocol := range []struct {
		name, field string
		flags       byte
		is          bool
	}{
		{"grpc", "Grpc-Encoding", messageCompressed | messageTrailers, kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc-web")},
		{"connect", "Connect-Content-Encoding", messageCompressed | messageEnd, kind == "application/connect"},
	} {
		encoding := strings.Join(h[protocol.field], ",")
		coding := codingName(encoding)
		if coding != "" && (!protocol.is || messageOpener(coding) == nil) { // if not, nobody says of what
			return nil, &EncodingError{Encoding: protocol.name + " " + encoding, Kind: Unknown}
		}
		if protocol.is {
			f = &framing{protocol.name, coding, protocol.flags, subtype == "" || subtype == "proto"}
		}
	}
	return f, nil
}

// messageOpener returns the opener of a compression of messages.
func messageOpener(name string) opener {
	if name == coding.Snappy {
		return func(r byteReader) (io.ReadCloser, error) { return coding.Open(name, r) }
	}
	return contentOpener(name)
}

// messages takes a body of gRPC's or Connect's messages apart: those that are compressed are decompressed, and the fields of
// protocol buffers looked at each as a text. The body is scanned as it is besides.
type messages struct {
	framing
	body   *takenApart
	in     *bufio.Reader
	within *fields // nil if the messages are no protocol buffers

	left int64     // bytes of the message that are not read
	part *unfolded // it, if it is compressed
	buf  []byte
}

func newMessages(b *takenApart, in io.Reader, media string, f framing) (*messages, error) {
	if strings.HasPrefix(media, "application/grpc-web-text") { // gRPC-Web: the whole in base64
		u, err := b.source.growth.unfold(in, media, openBase64, b.plain.part(backslashes))
		if err != nil {
			return nil, err
		}
		in, b.coded = u, true
	}
	m := &messages{framing: f, body: b, in: newLookahead(in), buf: make([]byte, readSize)}
	if f.fields && b.plain.s.formats != nil {
		m.within = newFields(b.plain)
	}
	return m, nil
}

func (m *messages) pending() int {
	n := m.in.Buffered()
	if m.part != nil {
		return n + holdBack
	}
	if m.within != nil {
		n += m.within.pending()
	}
	return n
}

func (m *messages) whole() bool {
	return !m.body.coded && m.part == nil && m.left == 0 && m.in.Buffered() == 0
}

// step reads a message's head, or some of its bytes.
func (m *messages) step() error {
	if m.part == nil && m.left == 0 {
		return m.begin()
	}
	var n int
	var err error
	if m.part != nil {
		n, err = m.part.Read(m.buf)
	} else {
		n, err = m.in.Read(m.buf[:min(int64(len(m.buf)), m.left)])
		if m.left -= int64(n); m.left == 0 {
			err = io.EOF
		}
	}
	if m.within != nil {
		if leak := m.within.push(m.buf[:n]); leak != nil {
			return leak
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	m.left, m.part = 0, nil // also where the body ends within
	if m.within != nil {
		if leak := m.within.end(); leak != nil {
			return leak
		}
	}
	return nil
}

// begin reads a message's head.
func (m *messages) begin() error {
	var head [messageHead]byte
	if _, err := io.ReadFull(m.in, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return io.EOF // a head that is cut off is none
		}
		return err
	}
	m.left = int64(binary.BigEndian.Uint32(head[1:]))
	switch flag := head[0]; {
	case flag&^m.flags != 0:
		return &EncodingError{Encoding: m.name + " message", Kind: Malformed, Err: errors.New("its flags are reserved")}
	case flag&messageCompressed == 0:
		m.begins(m.left)
		return nil
	case m.coding == "":
		return &EncodingError{Encoding: m.name + " message", Kind: Malformed, Err: errors.New("it is compressed, and no header says how")}
	}
	m.begins(unknown)
	u, err := m.body.source.growth.unfold(&section{m}, m.name+" "+m.coding, messageOpener(m.coding), m.body.plain.part(backslashes))
	m.part = u
	return err
}

// begins begins a message that says so many bytes.
func (m *messages) begins(size int64) {
	if m.within != nil {
		m.within.begin(size)
	}
}

// section reads the message that is left.
type section struct{ m *messages }

// Read is [io.Reader].Read.
func (s *section) Read(p []byte) (int, error) {
	if s.m.left == 0 {
		return 0, io.EOF
	}
	n, err := s.m.in.Read(p[:min(int64(len(p)), s.m.left)])
	s.m.left -= int64(n)
	return n, err
}

// ReadByte is [io.ByteReader].ReadByte.
func (s *section) ReadByte() (byte, error) {
	if s.m.left == 0 {
		return 0, io.EOF
	}
	c, err := s.m.in.ReadByte()
	if err == nil {
		s.m.left--
	}
	return c, err
}
