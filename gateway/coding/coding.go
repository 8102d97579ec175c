// Package coding undoes the content codings of HTTP (RFC 9110 section 8.4.1, RFC 7932, RFC 9659): of responses, in which an
// injected credential is masked, and of requests, in which leaks are looked for. It reads nothing before it is read from,
// and keeps no more than a decoder's window.
package coding

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Bounds of decoders, in bytes.
const (
	// zstdWindow is the largest window that a decoder of the zstd coding must support, and the largest that this one does
	// (RFC 9659 section 3).
	zstdWindow = 8 << 20
	// zstdContent is the largest content that a zstd frame may announce.
	zstdContent = 4 << 30
	// snappyBlock is the largest block of the snappy framing format.
	snappyBlock = 64 << 10
)

// ErrTooLarge says that a body asks for more memory than any decoder has to have.
var ErrTooLarge = errors.New("it needs too large a window")

// Snappy is snappy's framing format, in which gRPC messages may be compressed. It is no coding of HTTP.
const Snappy = "snappy"

// Known reports whether name, in lower case, is a content coding that can be undone.
func Known(name string) bool {
	switch name {
	case "gzip", "x-gzip", "deflate", "br", "zstd":
		return true
	}
	return false
}

// Open returns a reader of src without the coding name, in lower case: one that is Known, or Snappy; any other is an error.
// It reads nothing yet; what is malformed fails where it is read, and memory beyond bounds with ErrTooLarge. An empty src may
// be taken for one without content. If src is an io.ByteReader no more is read of it than the coded data have. Close frees
// memory, and does not close src.
func Open(name string, src io.Reader) (io.ReadCloser, error) {
	if !Known(name) && name != Snappy {
		return nil, fmt.Errorf("has the content coding %s", strconv.Quote(name))
	}
	return &reader{open: func() (io.ReadCloser, error) { return open(name, src) }}, nil
}

// OpenLenient is Open for what servers send: an empty body has no coding, whatever its header says, and deflate may come
// without the two bytes of zlib that RFC 9110 section 8.4.1.2 asks for.
func OpenLenient(name string, src io.Reader) (io.ReadCloser, error) {
	if !Known(name) {
		return nil, fmt.Errorf("has the content coding %s", strconv.Quote(name))
	}
	return &reader{open: func() (io.ReadCloser, error) {
		b := bufio.NewReaderSize(src, 512)
		head, err := b.Peek(2)
		switch {
		case len(head) == 0 && errors.Is(err, io.EOF):
			return io.NopCloser(b), nil
		case len(head) < 2 && !errors.Is(err, io.EOF):
			return nil, err
		case name == "deflate" && !isZlib(head):
			return flate.NewReader(b), nil
		}
		return open(name, b)
	}}, nil
}

// isZlib tells whether a stream with this head is in the zlib format (RFC 1950 section 2.2).
func isZlib(head []byte) bool {
	return len(head) >= 2 && head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0
}

func open(name string, src io.Reader) (io.ReadCloser, error) {
	switch name {
	case "br":
		return io.NopCloser(brotli.NewReader(src)), nil
	case "deflate":
		return zlib.NewReader(src)
	case Snappy:
		return io.NopCloser(s2.NewReader(src, s2.ReaderMaxBlockSize(snappyBlock), s2.ReaderAllocBlock(snappyBlock))), nil
	case "zstd":
		d, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderMaxMemory(zstdContent))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return gzip.NewReader(src)
}

// reader opens its decoder at the first read, since that waits for the first bytes.
type reader struct {
	open    func() (io.ReadCloser, error)
	decoder io.ReadCloser
	err     error
}

// Read is [io.Reader].Read.
func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.decoder == nil {
		var err error
		if r.decoder, err = r.open(); err != nil {
			r.decoder = nil
			return 0, r.fail(err)
		}
	}
	n, err := r.decoder.Read(p)
	if err != nil {
		return n, r.fail(err)
	}
	return n, nil
}

// fail keeps why nothing more is to be read, and frees the decoder.
func (r *reader) fail(err error) error {
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	r.err = err
	r.free()
	return err
}

func (r *reader) free() {
	if r.decoder != nil {
		_ = r.decoder.Close() // frees memory; what it could report was read already
		r.decoder = nil
	}
}

// Close is [io.Closer].Close.
func (r *reader) Close() error {
	if r.err == nil {
		r.err = io.ErrClosedPipe
	}
	r.free()
	return nil
}
