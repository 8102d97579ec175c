package pipelock

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
)

// readSize is how much is asked of a body at a time, in bytes.
const readSize = 16 << 10

// BodyReader reads a body and scans it on the way. It belongs to one
// goroutine, except that Close may be called from another.
type BodyReader struct {
	r     io.Reader
	from  filler // nil if there is nothing but err
	ready []byte
	err   error

	stream *Stream // that scans what the body says
}

// filler is where a BodyReader has its bytes from.
type filler interface {
	// fill returns the next bytes that can be let go. They are valid until the next call.
	fill() (ready []byte, err error)
	// done is called when nothing is ready and nothing will be, perhaps several times.
	done()
}

// Warnings returns what was found so far and let go, eight findings at most.
func (b *BodyReader) Warnings() []Finding { return b.stream.Warnings() }

// Read returns bytes that are clean, as soon as there are any. Its errors are
// those of the body, a *LeakError, or for encoded bodies an *EncodingError;
// after one of the latter two whoever sends the body must not let it look
// complete. It blocks as the body does.
func (b *BodyReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(b.ready) == 0 {
		if b.err != nil {
			if b.from != nil {
				b.from.done()
			}
			return 0, b.err
		}
		b.ready, b.err = b.from.fill()
	}
	n := copy(p, b.ready)
	b.ready = b.ready[n:]
	return n, nil
}

// Close closes the body, if it can be closed.
func (b *BodyReader) Close() error {
	if c, ok := b.r.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Body returns a reader of r's bytes on their way to host, a canonical name.
func (s *Scanner) Body(host string, r io.Reader) *BodyReader {
	return plainBody(s.Stream(host, "body"), r)
}

// buffer has room for what is read of a body at a time, and for an escape that was carried over to it.
type buffer [readSize + 64]byte

// buffers holds those that are not in use.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

// plain is a body that is nothing but text.
type plain struct {
	BodyReader
	buf *buffer // nil when it is done
}

// plainBody returns a reader of a body that is nothing but text.
func plainBody(stream *Stream, r io.Reader) *BodyReader {
	p := &plain{BodyReader: BodyReader{r: r, stream: stream}, buf: buffers.Get().(*buffer)}
	p.from = p
	return &p.BodyReader
}

// fill is [filler].fill.
func (p *plain) fill() ([]byte, error) {
	n, err := p.r.Read(p.buf[:readSize])
	next := p.stream.Push
	if errors.Is(err, io.EOF) {
		next = p.stream.last
	}
	ready, leak := next(p.buf[:n])
	if leak != nil {
		return nil, leak
	}
	return ready, err
}

// done is [filler].done.
func (p *plain) done() {
	if p.buf != nil {
		buffers.Put(p.buf)
		p.buf = nil
	}
}

// EncodedBody is Body for a body with a Content-Encoding (RFC 9110 section
// 8.4): gzip, deflate (the zlib format only), br or zstd, in any case. r's
// bytes are returned as they are; they are scanned as they are and decoded,
// and the last 256 KB are held back until all is known to be clean. An empty
// encoding and "identity" make it Body. Any other, or several, is an
// *EncodingError of kind Unknown.
func (s *Scanner) EncodedBody(host, encoding string, r io.Reader) (*BodyReader, error) {
	return s.RequestBody(host, http.Header{"Content-Encoding": {encoding}}, r)
}

// RequestBody is EncodedBody for the body of a request with the header h, whose Content-Type says what the body is made of:
//
//   - a form's fields are looked at decoded;
//   - the parts of a multipart body are, and of parts that are multipart themselves, if they have a transfer or content
//     encoding, and so are messages within it that have a header;
//   - messages of gRPC and Connect are, if they are compressed, and the fields of protocol buffers each as a text. A
//     Grpc-Encoding or Connect-Content-Encoding that cannot be undone is an *EncodingError of kind Unknown.
//
// Several Content-Types, and multipart without a boundary that can be read, are an *EncodingError of kind Malformed.
// Whatever the type, the body is scanned as it is too.
func (s *Scanner) RequestBody(host string, h http.Header, r io.Reader) (*BodyReader, error) {
	if s == nil {
		s = &Scanner{}
	}
	media, params, err := mediaType(h["Content-Type"])
	if err != nil {
		return nil, err
	}
	written := backslashes
	if media == "application/x-www-form-urlencoded" {
		written = percents
	}
	encoding := strings.Join(h["Content-Encoding"], ",")
	messages, err := messageFraming(media, h)
	if err != nil {
		return nil, err
	}
	coding := codingName(encoding)
	parts, protobuf := strings.HasPrefix(media, "multipart/") || isMessage(media), isProtobuf(media) && s.formats != nil
	if coding == "" && messages == nil && !parts && !protobuf {
		return plainBody(s.stream(host, "body", written), r), nil
	}
	b := &takenApart{source: source{r: r, growth: &growth{}}}
	b.plain = s.stream(host, "body", written)
	var in io.Reader = &b.source
	if coding != "" {
		b.source.stream = s.exact().stream(host, "body", written)
		u, err := b.source.growth.unfold(in, encoding, contentOpener(coding), b.plain)
		if err != nil {
			return nil, err
		}
		in, b.coded = u, true
	} else {
		b.source.stream = b.plain
	}
	switch {
	case messages != nil:
		if b.content, err = newMessages(b, in, media, *messages); err != nil {
			return nil, err
		}
	case isMessage(media):
		b.content = newMessage(b, in)
	case parts:
		b.content = newParts(b, in, params["boundary"])
	case protobuf:
		b.content = newOneMessage(b, in)
	default:
		b.content = &drain{in: in}
	}
	return &BodyReader{r: r, from: b, stream: b.plain}, nil
}

// mediaType returns the type in lower case, and the parameters as far as they can be read. What a server could take apart in
// another way is an *EncodingError: several types, and multipart whose boundary cannot be read.
func mediaType(contentType []string) (string, map[string]string, error) {
	if len(contentType) > 1 {
		return "", nil, &EncodingError{Encoding: "Content-Type", Kind: Malformed, Err: errors.New("there are several: send one")}
	}
	text := strings.Join(contentType, "")
	if !strings.Contains(text, ";") {
		text = strings.ToLower(strings.TrimSpace(text))
		if !strings.HasPrefix(text, "multipart/") {
			return text, nil, nil
		}
	}
	media, params, err := mime.ParseMediaType(text)
	if err != nil && media == "" {
		media, _, _ = strings.Cut(text, ";")
	}
	media = strings.ToLower(strings.TrimSpace(media))
	if strings.HasPrefix(media, "multipart/") && params["boundary"] == "" {
		return "", nil, &EncodingError{Encoding: "multipart type", Kind: Malformed, Err: errors.Join(errors.New("its boundary cannot be read"), err)}
	}
	return media, params, nil
}

// codingName returns the name of the one coding of a body in lower case, "" if it has none.
func codingName(encoding string) string {
	name := strings.ToLower(strings.Trim(encoding, " \t"))
	if name == "identity" {
		return ""
	}
	return name
}
