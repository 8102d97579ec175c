package gateway

import (
	"bufio"
	"compress/flate"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// zstdWindow is the largest window that a decoder of the zstd coding must support, and the largest that this one does
// (RFC 9659 section 3).
const zstdWindow = 8 << 20

// decodable reports whether decode knows a content coding, in lower case (RFC 9110 section 8.4.1, RFC 7932, RFC 9659).
func decodable(coding string) bool {
	switch coding {
	case "gzip", "x-gzip", "deflate", "br", "zstd":
		return true
	}
	return false
}

// decode returns a reader of r's content without its one coding. It reads nothing yet; a body that is malformed fails where
// it is read. Nothing is collected: what a small body expands to is bounded by what the guest reads of it.
func decode(coding string, r io.Reader) (io.Reader, error) {
	if !decodable(coding) {
		return nil, fmt.Errorf("has the content coding %s", strconv.Quote(coding))
	}
	return &decoder{coding: coding, src: r}, nil
}

// decoder opens its decompressor at the first read, since that waits for the first bytes.
type decoder struct {
	coding string
	src    io.Reader
	open   io.Reader
	err    error
}

// Read is [io.Reader].Read.
func (d *decoder) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	if d.open == nil {
		d.open, d.err = openDecoder(d.coding, d.src)
		if d.err != nil {
			return 0, d.err
		}
	}
	n, err := d.open.Read(p)
	if err != nil {
		d.err = err
		d.close()
	}
	return n, err
}

// close frees what the decompressor holds.
func (d *decoder) close() {
	if z, ok := d.open.(*zstd.Decoder); ok {
		z.Close()
	}
}

// openDecoder returns the decompressor of a coding that decodable knows.
func openDecoder(coding string, src io.Reader) (io.Reader, error) {
	switch coding {
	case "br":
		return brotli.NewReader(src), nil
	case "zstd":
		return zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	case "deflate":
		return openDeflate(src)
	}
	z, err := gzip.NewReader(src)
	if err == io.EOF { //nolint:errorlint // an empty body is an empty body
		return src, nil
	}
	return z, err
}

// openDeflate opens the coding that RFC 9110 section 8.4.1.2 defines as zlib, and that some servers send without zlib's two
// bytes.
func openDeflate(src io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(src, 512)
	head, err := b.Peek(2)
	if len(head) < 2 {
		if err == io.EOF && len(head) == 0 { //nolint:errorlint // as above
			return b, nil
		}
		return nil, io.ErrUnexpectedEOF
	}
	if head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 { // RFC 1950 section 2.2
		return zlib.NewReader(b)
	}
	return flate.NewReader(b), nil
}

// limitEncodings takes every coding out of Accept-Encoding that decode does not know. Without the field a server may choose
// any coding (RFC 9110 section 12.5.3), so one that allows none is set.
func limitEncodings(h http.Header) {
	var kept []string
	for _, v := range h["Accept-Encoding"] {
		for element := range strings.SplitSeq(v, ",") {
			element = strings.TrimSpace(element)
			coding, _, _ := strings.Cut(element, ";")
			if coding = strings.ToLower(strings.TrimSpace(coding)); decodable(coding) || coding == "identity" {
				kept = append(kept, element)
			}
		}
	}
	if len(kept) == 0 {
		kept = []string{"identity"}
	}
	h["Accept-Encoding"] = []string{strings.Join(kept, ", ")}
}
