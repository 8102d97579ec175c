package pipelock

import (
	"io"

	"gatewayd/gateway/coding"
)

// Messages scans the messages of one direction of a WebSocket connection. Each is a text of its own; a known token is found
// over the border of two as well, since a program that sends a text in pieces may cut it anywhere. A form is not: what two
// messages make together nobody wrote, and a message's end is the end of a text. It belongs to one goroutine.
type Messages struct {
	stream   *Stream
	exact    *Scanner
	inflater *coding.Inflater
	growth   growth
}

// Messages returns a new scan of messages on their way to host, a canonical name. takeover says that compressed messages may
// refer to those before (RFC 7692 section 7.1.1).
func (s *Scanner) Messages(host string, takeover bool) *Messages {
	m := &Messages{stream: s.Stream(host, "websocket message"), exact: s.exact(), inflater: coding.NewInflater(takeover)}
	m.stream.goesOn = true
	return m
}

// Next returns a reader of the next message's payload, r, on its way. One that is compressed with permessage-deflate is
// decompressed for the scan, and returned as it is: what is held back of it meanwhile, 256 KB at most, leaves with its end.
// The message before must have been read to its end. The reader's errors are those of RequestBody's, and after one of the
// scan's own no other message may follow.
func (m *Messages) Next(r io.Reader, compressed bool) *BodyReader {
	if !compressed {
		return plainBody(m.stream, r)
	}
	b := &takenApart{source: source{r: r, stream: m.exact.Stream(m.stream.host, m.stream.place), growth: &m.growth}, plain: m.stream, coded: true}
	u, err := m.growth.unfold(&b.source, "permessage-deflate", func(r byteReader) (io.ReadCloser, error) {
		return io.NopCloser(m.inflater), m.inflater.Begin(r)
	}, m.stream)
	if err != nil {
		return &BodyReader{r: r, err: err, stream: m.stream}
	}
	b.content = &drain{in: u}
	return &BodyReader{r: r, from: b, stream: m.stream}
}
