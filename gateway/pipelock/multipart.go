package pipelock

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// maxPartHead bounds the header of one part of a multipart body, in bytes.
const maxPartHead = 64 << 10

// maxPartDepth bounds how deep parts are within parts.
const maxPartDepth = 8

// parts takes a multipart body apart (RFC 2046 section 5.1.1) for the parts that are encoded: the others are scanned as
// part of the body. It reads as the more lenient of servers do: lines may end in LF alone, white space may follow a
// delimiter, and parts the last. Parts that are multipart or messages with a header of their own are taken apart likewise;
// they must not be encoded themselves.
type parts struct {
	body       *takenApart
	in         *bufio.Reader
	delimiters [][]byte // without the line's end, the innermost last
	head       []byte   // of the part that begins, until its empty line
	inHead     bool
	loose      bool      // a delimiter may end the head: it is a message's within a part, or no head but behind the last part
	middle     bool      // the last piece of a line had no end
	part       *unfolded // the part that is being read, if it is encoded
	buf        []byte
}

func newParts(b *takenApart, in io.Reader, boundary string) *parts {
	return &parts{body: b, in: newLookahead(in), delimiters: [][]byte{[]byte("--" + boundary)}}
}

// newMessage is newParts for a body that is a message with a header.
func newMessage(b *takenApart, in io.Reader) *parts {
	return &parts{body: b, in: newLookahead(in), inHead: true, loose: true}
}

// isMessage tells whether what has the type begins with a header of its own (RFC 2046 section 5.2.1, RFC 9112 section 10).
func isMessage(media string) bool {
	switch media {
	case "message/rfc822", "message/global", "message/http", "application/http":
		return true
	}
	return false
}

func (m *parts) pending() int {
	if m.part == nil && !m.inHead {
		return m.in.Buffered()
	}
	return holdBack
}

func (m *parts) whole() bool { return false }

// step reads one line, or some of an encoded part.
func (m *parts) step() error {
	if m.part != nil {
		_, err := m.part.Read(m.buf)
		if !errors.Is(err, io.EOF) {
			return err
		}
		m.part = nil
		return nil
	}
	line, err := m.in.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return err
	}
	whole := !m.middle
	m.middle = err != nil
	switch {
	case m.inHead && !m.loose && whole && m.atDelimiter(line, false):
		return &EncodingError{Encoding: "header of a part", Kind: Malformed, Err: errors.New("a delimiter is in it")}
	case whole && m.atDelimiter(line, true):
	case m.inHead:
		return m.header(line)
	}
	return nil
}

// atDelimiter tells whether a line begins a part, or ends the last. If it does and the caller takes it, a head follows.
func (m *parts) atDelimiter(line []byte, take bool) bool {
	for i := len(m.delimiters) - 1; i >= 0; i-- {
		rest, ok := bytes.CutPrefix(line, m.delimiters[i])
		if !ok {
			continue
		}
		if rest = bytes.TrimRight(rest, " \t\r\n"); len(rest) > 0 && string(rest) != "--" {
			continue
		}
		if take {
			m.delimiters = m.delimiters[:i+1]
			m.beginHead(len(rest) > 0)
		}
		return true
	}
	return false
}

func (m *parts) beginHead(loose bool) { m.inHead, m.loose, m.head = true, loose, m.head[:0] }

// header takes the next line of a part's header, and opens the part behind the last.
func (m *parts) header(line []byte) error {
	if len(m.head)+len(line) > maxPartHead {
		return &EncodingError{Encoding: "header of a part", Kind: Oversized}
	}
	if m.head = append(m.head, line...); len(bytes.Trim(line, "\r\n")) > 0 {
		return nil
	}
	m.inHead = false
	return m.open()
}

// open undoes the encodings that the part's header names.
func (m *parts) open() error {
	media, params, err := mediaType(partFields(m.head, "content-type"))
	if err != nil {
		return err
	}
	var in io.Reader = &partReader{m: m}
	for _, field := range []struct {
		name   string
		opener func(string) opener
	}{{"content-transfer-encoding", transferOpener}, {"content-encoding", contentOpener}} {
		encoding := strings.Join(partFields(m.head, field.name), ",")
		name := codingName(encoding)
		switch name {
		case "", "7bit", "8bit", "binary":
			continue
		}
		u, err := m.body.source.growth.unfold(in, encoding, field.opener(name), nil)
		if err != nil {
			return err
		}
		m.part, in = u, u
	}
	if strings.HasPrefix(media, "multipart/") || isMessage(media) {
		return m.openNested(media, params["boundary"])
	}
	if m.part == nil {
		return nil
	}
	m.part.stream = m.body.plain.part(backslashes)
	if m.buf == nil {
		m.buf = make([]byte, readSize)
	}
	return nil
}

// openNested goes into a part that has parts or a header.
func (m *parts) openNested(media, boundary string) error {
	switch {
	case m.part != nil || len(m.delimiters) > maxPartDepth:
		return &EncodingError{Encoding: "nested " + media, Kind: Unknown}
	case isMessage(media):
		m.beginHead(true)
	default:
		m.delimiters = append(m.delimiters, []byte("--"+boundary))
	}
	return nil
}

// partFields returns the values of a field of a part's header: those of encodings without comments and parameters.
func partFields(head []byte, name string) (values []string) {
	unfolded := strings.NewReplacer("\r\n ", " ", "\r\n\t", " ", "\n ", " ", "\n\t", " ").Replace(string(head))
	for line := range strings.Lines(unfolded) {
		key, value, ok := strings.Cut(line, ":")
		if !ok || !strings.EqualFold(strings.TrimSpace(key), name) {
			continue
		}
		if name != "content-type" {
			value, _, _ = strings.Cut(withoutComments(value), ";")
		}
		values = append(values, strings.TrimSpace(value))
	}
	return values
}

// withoutComments returns value without what is in parentheses (RFC 5322 section 3.2.2), if each has its other.
func withoutComments(value string) string {
	for {
		before, rest, ok := strings.Cut(value, "(")
		_, after, ok2 := strings.Cut(rest, ")")
		if !ok || !ok2 {
			return value
		}
		value = before + after
	}
}

// partReader reads one part's content, which ends where a delimiter begins a line. The line's end before it belongs to the
// delimiter.
type partReader struct {
	m      *parts
	store  []byte
	line   []byte // unread, of store
	end    []byte // a line's end that may belong to a delimiter
	middle bool   // the last piece of a line had no end
	ended  bool
}

// more makes sure that something is unread, or returns io.EOF at the part's end.
func (p *partReader) more() error {
	for len(p.line) == 0 {
		if p.ended {
			return io.EOF
		}
		line, err := p.m.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if p.ended = errors.Is(err, io.EOF); !p.ended || len(line)+len(p.end) == 0 {
				return err
			}
		}
		if !p.middle && p.m.atDelimiter(line, true) {
			p.ended = true
			return io.EOF
		}
		p.middle = errors.Is(err, bufio.ErrBufferFull)
		p.give(line)
	}
	return nil
}

// give makes what came before and the line unread, but for its end.
func (p *partReader) give(line []byte) {
	text := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	end := line[len(text):]
	p.store = append(append(p.store[:0], p.end...), text...)
	p.end = append(p.end[:0], end...)
	if p.ended {
		p.store = append(p.store, p.end...)
	}
	p.line = p.store
}

// Read is [io.Reader].Read.
func (p *partReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := p.more(); err != nil {
		return 0, err
	}
	n := copy(b, p.line)
	p.line = p.line[n:]
	return n, nil
}

// ReadByte is [io.ByteReader].ReadByte.
func (p *partReader) ReadByte() (byte, error) {
	if err := p.more(); err != nil {
		return 0, err
	}
	c := p.line[0]
	p.line = p.line[1:]
	return c, nil
}
