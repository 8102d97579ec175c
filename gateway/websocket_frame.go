package gateway

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Opcodes (RFC 6455 section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

const (
	frameHead      = 14      // bytes of the longest frame head
	maxControl     = 125     // bytes of a control frame's payload (RFC 6455 section 5.5)
	maxFrame       = 4 << 30 // bytes of a data frame's payload; it is streamed, so this bounds time and not memory
	websocketRead  = 4 << 10 // bytes of a connection's read buffer
	finBit         = 0x80
	reservedBits   = 0x70
	compressedBit  = 0x40 // the first of them (RFC 7692 section 6)
	maskBit        = 0x80
	closeGoingAway = 1001 // status code of a close because this side ends (RFC 6455 section 7.4.1)
	closeViolation = 1008 // status code of a close for a reason of policy (RFC 6455 section 7.4.1)
)

// FrameError says that a peer broke the WebSocket protocol, after which nothing of it can be read any more.
type FrameError struct{ Problem string }

// Error returns "read frame: problem".
func (e *FrameError) Error() string { return "read frame: " + e.Problem }

// frameHeader is the head of one frame.
type frameHeader struct {
	op         byte
	fin        bool
	masked     bool
	compressed bool // the message is, of which this is the first frame
	key        [4]byte
	length     int64
}

// readFrameHeader reads and judges one frame head, byte by byte as RFC 6455 section 5.2 lays it out: no reserved bits but the
// one that marks a compressed message, if that was agreed on; a length in its shortest form; control frames short and whole;
// masked exactly if the peer is the one that masks (section 5.1).
func readFrameHeader(r io.Reader, masked, compresses bool) (frameHeader, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return frameHeader{}, err
	}
	h := frameHeader{op: b[0] & 0x0f, fin: b[0]&finBit != 0, masked: b[1]&maskBit != 0, length: int64(b[1] &^ maskBit)}
	reserved := b[0] & reservedBits
	if compresses && (h.op == opText || h.op == opBinary) {
		h.compressed = reserved&compressedBit != 0
		reserved &^= compressedBit
	}
	switch {
	case reserved != 0:
		return h, &FrameError{"a reserved bit is set, but no extension was agreed on"}
	case h.op > opBinary && h.op < opClose || h.op > opPong:
		return h, &FrameError{"the opcode is reserved"}
	case h.masked != masked:
		return h, &FrameError{"masking is not as the peer's side has to do it"}
	case h.op >= opClose && (!h.fin || h.length > maxControl):
		return h, &FrameError{"a control frame is fragmented or too long"}
	}
	if err := readLength(r, &h, b[:]); err != nil {
		return h, unexpected(err)
	}
	if masked {
		if _, err := io.ReadFull(r, h.key[:]); err != nil {
			return h, unexpected(err)
		}
	}
	return h, nil
}

// readLength reads the extended length that h.length announces.
func readLength(r io.Reader, h *frameHeader, b []byte) error {
	least := int64(0)
	switch h.length {
	case 126:
		if _, err := io.ReadFull(r, b[:2]); err != nil {
			return err
		}
		h.length, least = int64(binary.BigEndian.Uint16(b)), 126
	case 127:
		if _, err := io.ReadFull(r, b[:8]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint64(b)
		if n > maxFrame {
			return &FrameError{"a frame is larger than the gateway takes"}
		}
		h.length, least = int64(n), 1<<16
	}
	if h.length < least {
		return &FrameError{"a length is not in its shortest form"}
	}
	return nil
}

// unexpected makes an end within a frame an error of its own.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// messageReader reads one direction of a WebSocket connection, message by message. Control frames may come within a message
// (RFC 6455 section 5.4); each is handed to control as it comes.
type messageReader struct {
	in         io.Reader
	masked     bool // the peer masks: it is the client
	compresses bool // permessage-deflate was agreed on
	control    func(op byte, payload []byte) error

	frame frameHeader // of the current message; length counts down
	pos   int         // in frame.key
	open  bool        // a message has begun and not ended
}

// next waits for the beginning of the next data message and returns the head of its first frame.
func (m *messageReader) next() (frameHeader, error) {
	if m.open {
		return frameHeader{}, errors.New("read message: the one before has not been read")
	}
	if err := m.advance(); err != nil {
		return frameHeader{}, err
	}
	m.open = true
	return m.frame, nil
}

// advance reads up to the head of the next data frame.
func (m *messageReader) advance() error {
	for {
		h, err := readFrameHeader(m.in, m.masked, m.compresses)
		if err != nil {
			return err
		}
		if h.op >= opClose {
			payload := make([]byte, h.length)
			if _, err := io.ReadFull(m.in, payload); err != nil {
				return unexpected(err)
			}
			applyMask(payload, h.key, 0)
			if err := m.control(h.op, payload); err != nil {
				return err
			}
			continue
		}
		if (h.op == opContinuation) != m.open {
			return &FrameError{"a message begins within a message, or goes on without one"}
		}
		m.frame, m.pos = h, 0
		return nil
	}
}

// Read reads the current message's payload, unmasked. At its end it returns [io.EOF].
func (m *messageReader) Read(p []byte) (int, error) {
	for m.frame.length == 0 {
		if m.frame.fin || !m.open {
			m.open = false
			return 0, io.EOF
		}
		if err := m.advance(); err != nil {
			return 0, unexpected(err)
		}
	}
	if int64(len(p)) > m.frame.length {
		p = p[:m.frame.length]
	}
	n, err := m.in.Read(p)
	if m.masked {
		m.pos = applyMask(p[:n], m.frame.key, m.pos)
	}
	m.frame.length -= int64(n)
	return n, unexpected(err)
}

// ended reports whether the current message has no bytes left to come, so that a Read does not wait.
func (m *messageReader) ended() bool { return m.frame.fin && m.frame.length == 0 }

// applyMask masks or unmasks p, whose first byte is at pos of its frame, and returns the position behind it
// (RFC 6455 section 5.3). The zero key changes nothing.
func applyMask(p []byte, key [4]byte, pos int) int {
	if key == [4]byte{} {
		return pos + len(p)
	}
	for len(p) > 0 && pos&3 != 0 {
		p[0] ^= key[pos&3]
		p, pos = p[1:], pos+1
	}
	wide := uint64(binary.LittleEndian.Uint32(key[:]))
	wide |= wide << 32
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^wide)
		p, pos = p[8:], pos+8
	}
	for i := range p {
		p[i] ^= key[(pos+i)&3]
	}
	return pos + len(p)
}

// frameWriter writes one direction of a WebSocket connection. Frames may come from several goroutines; those of one message
// come from one.
type frameWriter struct {
	masked bool // this side masks: it is the client

	mu     sync.Mutex
	out    io.Writer
	key    [4]byte // of the frame that is open
	pos    int
	left   int64 // payload bytes that the open frame still needs
	closed bool  // a close frame was written
}

// begin appends the head of a frame with length bytes of payload to b.
func (w *frameWriter) begin(b []byte, op byte, fin bool, length int64) []byte {
	if fin {
		op |= finBit
	}
	mask := byte(0)
	w.key = [4]byte{}
	if w.masked {
		mask = maskBit
		rand.Read(w.key[:]) // not to be foreseen by the guest (section 5.3); it never fails
	}
	switch {
	case length < 126:
		b = append(b, op, mask|byte(length))
	case length < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, op, mask|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, op, mask|127), uint64(length))
	}
	if w.masked {
		b = append(b, w.key[:]...)
	}
	w.pos, w.left = 0, length
	return b
}

// control writes a control frame. Within an open frame it waits for nobody and fails.
func (w *frameWriter) control(op byte, payload []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left > 0 {
		return errors.New("write control frame: another frame is not whole")
	}
	if w.closed {
		return nil // nothing follows a close (RFC 6455 section 5.5.1)
	}
	w.closed = op == opClose
	b := w.begin(make([]byte, 0, frameHead+maxControl), op, true, int64(len(payload)))
	head := len(b)
	b = append(b, payload...)
	applyMask(b[head:], w.key, 0)
	w.left = 0
	_, err := w.out.Write(b)
	return err
}

// write writes payload, which it changes and which begins frameHead bytes into buf, in front of it the head of a frame with
// length bytes if there is one. It is one write to the connection.
func (w *frameWriter) write(buf []byte, payload int, head *frameHeader) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	from := frameHead
	if head != nil {
		if w.closed {
			return fmt.Errorf("write frame: %w", io.ErrClosedPipe)
		}
		var space [frameHead]byte
		op := head.op
		if head.compressed {
			op |= compressedBit
		}
		b := w.begin(space[:0], op, head.fin, head.length)
		from -= len(b)
		copy(buf[from:], b)
	}
	p := buf[frameHead : frameHead+payload]
	if int64(len(p)) > w.left {
		return errors.New("write frame: more bytes than its head announced")
	}
	w.pos = applyMask(p, w.key, w.pos)
	w.left -= int64(len(p))
	_, err := w.out.Write(buf[from : frameHead+payload])
	return err
}

// complete makes sure that the open frame has all the bytes that its head announced.
func (w *frameWriter) complete() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left != 0 {
		return errors.New("write frame: fewer bytes than its head announced")
	}
	return nil
}

// isClosed reports whether a close frame was written.
func (w *frameWriter) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}
