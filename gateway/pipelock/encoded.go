package pipelock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
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
	// maxWindow bounds a zstd window; RFC 8878 section 3.1.1.1.2 asks decoders
	// for 8 MB.
	maxWindow = 8 << 20
	// maxRatio bounds how many bytes one byte may stand for, once freeRatio
	// bytes were decoded.
	maxRatio  = 100
	freeRatio = 8 << 20
	// maxDecoded bounds what one body may decode to.
	maxDecoded = 4 << 30
)

// EncodingKind says what is wrong with an encoded body.
type EncodingKind uint8

// The kinds of EncodingError.
const (
	// Unknown: the coding is none that can be undone, or there are several.
	Unknown EncodingKind = iota
	// Malformed: the body is not what its coding says, or goes on behind it.
	Malformed
	// Oversized: the body decodes to out of all proportion.
	Oversized
)

// EncodingError reports a body whose Content-Encoding keeps it from being
// scanned. Such a body must not be sent.
type EncodingError struct {
	// Encoding is the header's value, as it was given.
	Encoding string
	Kind     EncodingKind
	// Err is the decoder's error, or nil.
	Err error
}

// Error says what is wrong and what would do.
func (e *EncodingError) Error() string {
	switch e.Kind {
	case Malformed:
		return fmt.Sprintf("decode body: it is no valid %s: %v", strings.ToLower(e.Encoding), e.Err)
	case Oversized:
		return fmt.Sprintf("decode body: it is %s that grows beyond all proportion", strings.ToLower(e.Encoding))
	default:
		return fmt.Sprintf("decode body: content encoding %.40q cannot be scanned; send it without, or as gzip, deflate, br or zstd alone", e.Encoding)
	}
}

// Unwrap returns the decoder's error.
func (e *EncodingError) Unwrap() error { return e.Err }

// EncodedBody is Body for a body with a Content-Encoding (RFC 9110 section
// 8.4): gzip, deflate (the zlib format only), br or zstd, in any case. r's
// bytes are returned as they are; they are scanned as they are and decoded,
// and the last 256 KB are held back until all is known to be clean. An empty
// encoding and "identity" make it Body. Any other, or several, is an
// *EncodingError of kind Unknown.
func (s *Scanner) EncodedBody(host, encoding string, r io.Reader) (*BodyReader, error) {
	return s.encodedBody(host, encoding, backslashes, r)
}

// RequestBody is EncodedBody for the body of a request with the header h, which says how the body is encoded and how its
// text is written: a form's fields are looked at decoded. Compressed gRPC messages are an *EncodingError of kind Unknown.
func (s *Scanner) RequestBody(host string, h http.Header, r io.Reader) (*BodyReader, error) {
	for _, coding := range h["Grpc-Encoding"] {
		if !strings.EqualFold(coding, "identity") {
			return nil, &EncodingError{Encoding: "grpc " + coding, Kind: Unknown}
		}
	}
	written := backslashes
	if media, _, _ := strings.Cut(h.Get("Content-Type"), ";"); strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") {
		written = percents
	}
	return s.encodedBody(host, strings.Join(h["Content-Encoding"], ","), written, r)
}

func (s *Scanner) encodedBody(host, encoding string, written escapes, r io.Reader) (*BodyReader, error) {
	var open func(io.Reader) (io.ReadCloser, error)
	switch strings.ToLower(strings.Trim(encoding, " \t")) {
	case "", "identity":
		return s.body(s.stream(host, "body", written), r), nil
	case "gzip", "x-gzip":
		open = func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }
	case "deflate":
		open = zlib.NewReader
	case "br":
		open = func(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(brotli.NewReader(r)), nil }
	case "zstd":
		open = openZstd
	default:
		return nil, &EncodingError{Encoding: encoding, Kind: Unknown}
	}
	e := &encoded{
		encoding: encoding,
		open:     open,
		plain:    s.stream(host, "body", written),
		source:   source{r: r, coded: s.exact().Stream(host, "body")},
	}
	return &BodyReader{r: r, fill: e.fill, stream: e.plain}, nil
}

func openZstd(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxDecoded))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

// encoded decodes a body as fast as it is asked for, scans both forms, and
// gives out the coded one behind that.
type encoded struct {
	encoding string
	open     func(io.Reader) (io.ReadCloser, error)
	decoder  io.ReadCloser
	plain    *Stream
	source   source
	decoded  int64
	scratch  []byte
	ended    bool
}

// fill decodes until more than holdBack bytes of the body are behind, or all
// of it, and returns those that are clean.
func (e *encoded) fill() ([]byte, error) {
	for !e.ended && len(e.source.held) <= holdBack {
		if err := e.step(); err != nil {
			e.close()
			return nil, err
		}
	}
	if e.ended {
		return e.source.release(len(e.source.held)), io.EOF
	}
	return e.source.release(len(e.source.held) - holdBack), nil
}

// step decodes once and scans the result.
func (e *encoded) step() error {
	if e.decoder == nil {
		if err := e.source.more(); errors.Is(err, io.EOF) {
			e.ended = true // there is no body at all, whatever the header says
			return nil
		} else if err != nil {
			return err
		}
		d, err := e.open(&e.source)
		if err != nil {
			return e.failed(err)
		}
		e.decoder, e.scratch = d, make([]byte, 2*readSize)
	}
	n, err := e.decoder.Read(e.scratch)
	e.decoded += int64(n)
	if n > 0 {
		e.source.silent = 0
	}
	if _, leak := e.plain.Push(e.scratch[:n]); leak != nil {
		return leak
	}
	if e.decoded > freeRatio && e.decoded > maxRatio*e.source.taken || e.decoded > maxDecoded {
		return &EncodingError{Encoding: e.encoding, Kind: Oversized}
	}
	if errors.Is(err, io.EOF) {
		return e.end()
	}
	if err != nil {
		return e.failed(err)
	}
	return nil
}

// end checks that nothing comes behind the encoded data, where it would reach
// the server unread.
func (e *encoded) end() error {
	e.close()
	if _, err := e.source.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("there are bytes behind its end")
		}
		return e.failed(err)
	}
	if _, leak := e.plain.Rest(); leak != nil {
		return leak
	}
	e.ended = true
	return nil
}

// failed tells a decoder's complaint from an error of the body or a leak that
// came through the decoder.
func (e *encoded) failed(err error) error {
	if e.source.err != nil && !errors.Is(e.source.err, io.EOF) && !errors.Is(e.source.err, errSilent) {
		return e.source.err
	}
	if errors.Is(e.source.err, errSilent) || errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return &EncodingError{Encoding: e.encoding, Kind: Oversized}
	}
	return &EncodingError{Encoding: e.encoding, Kind: Malformed, Err: err}
}

func (e *encoded) close() {
	if e.decoder != nil {
		_ = e.decoder.Close() // frees memory; what it could report was read already
		e.decoder = nil
	}
}

// source is the coded body on its way into a decoder: scanned, counted, and
// kept until release. It is an io.ByteReader, so that decoders take no more
// than is theirs.
type source struct {
	r      io.Reader
	coded  *Stream
	buf    []byte
	unread []byte // of buf
	held   []byte
	taken  int64 // in all
	silent int   // since the decoder last gave out anything
	err    error // of r, or a *LeakError
}

// errSilent stops a decoder that takes in more than maxSilent for nothing.
var errSilent = errors.New("decoder gives out nothing")

// more makes sure that something is unread, or says why there is nothing.
func (s *source) more() error {
	if s.buf == nil {
		s.buf = make([]byte, readSize)
	}
	for len(s.unread) == 0 {
		if s.err != nil {
			return s.err
		}
		if s.silent > maxSilent {
			s.err = errSilent
			return s.err
		}
		var n int
		n, s.err = s.r.Read(s.buf)
		s.taken += int64(n)
		s.silent += n
		s.unread = s.buf[:n]
		if _, leak := s.coded.Push(s.unread); leak != nil {
			s.unread, s.err = nil, leak
			return leak
		}
		s.held = append(s.held, s.unread...)
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

// release takes the first n held bytes out.
func (s *source) release(n int) []byte {
	out := bytes.Clone(s.held[:n])
	s.held = append(s.held[:0], s.held[n:]...)
	return out
}
