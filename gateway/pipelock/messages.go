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

// Flags of a message's head (gRPC over HTTP/2, "Length-Prefixed-Message"; gRPC-Web).
const (
	messageHead       = 5
	messageCompressed = 0x01
	messageTrailers   = 0x80
)

// messageCoding returns the coding of the compressed messages in a body of gRPC messages, "" for none; nil for other bodies.
func messageCoding(media string, h http.Header) (*string, error) {
	encoding := strings.Join(h["Grpc-Encoding"], ",")
	name := codingName(encoding)
	if name != "" && messageOpener(name) == nil {
		return nil, &EncodingError{Encoding: "grpc " + encoding, Kind: Unknown}
	}
	if media == "application/grpc" || strings.HasPrefix(media, "application/grpc+") || strings.HasPrefix(media, "application/grpc-web") {
		return &name, nil
	}
	if name != "" {
		return nil, &EncodingError{Encoding: "grpc " + encoding, Kind: Unknown} // of what, nobody says
	}
	return nil, nil
}

// messageOpener returns the opener of a compression of messages.
func messageOpener(name string) opener {
	if name == coding.Snappy {
		return func(r byteReader) (io.ReadCloser, error) { return coding.Open(name, r) }
	}
	return contentOpener(name)
}

// messages takes a body of gRPC messages apart: those that are compressed are decompressed, and the fields of protocol
// buffers looked at each as a text, up to the first holdBack bytes of a message. The body is scanned as it is besides, which
// finds what is in a longer one.
type messages struct {
	body   *takenApart
	in     *bufio.Reader
	coding string
	fields bool // the messages are protocol buffers

	left    int64     // bytes of the message that are not read
	message []byte    // what it says, if its fields are to be looked at
	long    bool      // it says more than that
	part    *unfolded // it, if it is compressed
	buf     []byte
}

func newMessages(b *takenApart, in io.Reader, media, name string) (*messages, error) {
	if strings.HasPrefix(media, "application/grpc-web-text") { // gRPC-Web: the whole in base64
		u, err := b.source.growth.unfold(in, media, openBase64, b.plain.part(backslashes))
		if err != nil {
			return nil, err
		}
		in, b.coded = u, true
	}
	_, subtype, _ := strings.Cut(media, "+")
	return &messages{
		body: b, in: newLookahead(in), coding: name, buf: make([]byte, readSize),
		fields: subtype == "" || subtype == "proto",
	}, nil
}

func (m *messages) pending() int {
	n := m.in.Buffered()
	if m.part != nil {
		return n + holdBack
	}
	if m.fields && !m.long {
		n += len(m.message)
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
	m.collect(m.buf[:n])
	if !errors.Is(err, io.EOF) {
		return err
	}
	if m.part == nil && m.left > 0 { // the body ends within
		m.left = 0
	}
	m.part = nil
	return m.look()
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
	m.message, m.long = m.message[:0], false
	m.left = int64(binary.BigEndian.Uint32(head[1:]))
	switch flag := head[0]; {
	case flag&^(messageCompressed|messageTrailers) != 0:
		return &EncodingError{Encoding: "gRPC message", Kind: Malformed, Err: errors.New("its flags are reserved")}
	case flag&messageCompressed == 0:
		return nil
	case m.coding == "":
		return &EncodingError{Encoding: "gRPC message", Kind: Malformed, Err: errors.New("it is compressed, and no grpc-encoding says how")}
	}
	u, err := m.body.source.growth.unfold(&section{m}, "grpc "+m.coding, messageOpener(m.coding), m.body.plain.part(backslashes))
	m.part = u
	return err
}

// collect keeps what a message says, as long as it is short enough for its fields to be looked at.
func (m *messages) collect(p []byte) {
	if !m.fields || m.long {
		return
	}
	if len(m.message)+len(p) > holdBack {
		m.message, m.long = nil, true
		return
	}
	m.message = append(m.message, p...)
}

// look scans the fields of a message that is whole.
func (m *messages) look() error {
	if !m.fields || m.long {
		return nil
	}
	if leak := m.body.plain.lookAtFields(m.message); leak != nil {
		return leak
	}
	m.message = m.message[:0]
	return nil
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
