package http1

import (
	"bytes"
	"net/http"
)

// excessChunk bounds what chunk lines may cost over the data that they carry: beyond 16 bytes a chunk and twice its data.
// Without it a body of one-byte chunks, each with an extension, would cost the gateway a hundredfold of its content.
const excessChunk = 8 << 10

// maxChunkDigits keeps a chunk size below 2^60.
const maxChunkDigits = 15

// chunkSource is where a chunked body's lines and data come from.
type chunkSource interface {
	// line returns one line without its CRLF, at most limit bytes long. It is valid until the next call.
	line(limit int) ([]byte, error)
	// data reads at most len(p) bytes.
	data(p []byte) (int, error)
}

// chunkReader decodes the chunked transfer coding (RFC 9112 section 7.1), strictly: sizes are 1–15 hexadecimal digits and
// nothing else, line ends are CRLF, and extensions are bounded and dropped.
type chunkReader struct {
	src     chunkSource
	lim     *Limits
	left    int64 // data bytes left of the current chunk
	inside  bool  // the CRLF behind the current chunk's data is still to come
	excess  int64
	ended   bool
	trailer http.Header // set at the end, nil if there was none
	// dropsTrailer says that a field that no trailer may hold is dropped instead of refused (RFC 9110 section 6.5.1).
	dropsTrailer bool
}

// read decodes at most len(p) bytes. At the end of the body, after its trailer section, it returns ended = true, with n
// possibly more than 0 only in the calls before.
func (c *chunkReader) read(p []byte) (n int, err error) {
	for !c.ended && c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if c.ended || len(p) == 0 {
		return 0, nil
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err = c.src.data(p)
	c.left -= int64(n)
	return n, err
}

// next reads the end of the last chunk and the beginning of the next, or the trailer section.
func (c *chunkReader) next() error {
	if c.inside {
		end, err := c.src.line(2)
		if err != nil {
			return err
		}
		if len(end) != 0 {
			return refuse(ReasonChunk, "a chunk's data is longer than its size")
		}
		c.inside = false
	}
	line, err := c.src.line(c.lim.ChunkLine)
	if err != nil {
		return err
	}
	size, bad := parseChunkLine(line)
	if bad != nil {
		return bad
	}
	c.excess = max(c.excess+int64(len(line))+2-16-2*size, 0)
	if c.excess > excessChunk {
		return refuse(ReasonChunk, "the chunks are too small for their lines")
	}
	if size == 0 {
		return c.readTrailer()
	}
	c.left, c.inside = size, true
	return nil
}

// parseChunkLine parses "chunk-size [ chunk-ext ]" without its line end.
func parseChunkLine(line []byte) (size int64, err *ProtocolError) {
	digits := line
	if i := bytes.IndexByte(line, ';'); i >= 0 {
		digits = line[:i]
		for _, c := range line[i:] {
			if c < ' ' && c != '\t' || c >= 0x7f {
				return 0, refuse(ReasonChunk, "a chunk extension holds a control byte")
			}
		}
	}
	if len(digits) == 0 || len(digits) > maxChunkDigits {
		return 0, refuse(ReasonChunk, "a chunk size is not 1–15 hexadecimal digits (RFC 9112 section 7.1)")
	}
	for _, c := range digits {
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, refuse(ReasonChunk, "a chunk size holds a byte that is no hexadecimal digit")
		}
		size = size<<4 | int64(c)
	}
	return size, nil
}

// readTrailer reads the trailer section and ends the body (RFC 9112 section 7.1.2).
func (c *chunkReader) readTrailer() error {
	text, lines := []byte(nil), 0
	for {
		line, err := c.src.line(c.lim.TrailerBytes - len(text))
		if err != nil {
			return err
		}
		text = append(append(text, line...), "\r\n"...)
		if len(line) == 0 {
			break
		}
		if lines++; lines > c.lim.TrailerFields || len(text) >= c.lim.TrailerBytes {
			return refuse(ReasonTrailer, "the trailer section is larger than the gateway takes")
		}
	}
	if lines == 0 {
		c.ended = true
		return nil
	}
	trailer, bad := new(fields).parse(string(text), lines)
	if bad != nil {
		return refuse(ReasonTrailer, bad.Detail)
	}
	for key := range trailer {
		switch {
		case trailerAllowed(key):
		case c.dropsTrailer:
			delete(trailer, key)
		default:
			return refuse(ReasonTrailer, "the trailer section holds a field that no trailer may hold (RFC 9110 section 6.5.1)")
		}
	}
	c.trailer, c.ended = trailer, true
	return nil
}
