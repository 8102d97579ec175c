package pipelock

import (
	"errors"
	"io"
	"mime/quotedprintable"
)

// transferOpener returns the opener of a transfer encoding (RFC 2045 section 6) that changes anything.
func transferOpener(name string) opener {
	switch name {
	case "base64":
		return openBase64
	case "quoted-printable":
		return openQuoted
	}
	return nil
}

func openBase64(r byteReader) (io.ReadCloser, error) { return io.NopCloser(&base64Reader{r: r}), nil }

// base64Reader undoes base64, standard and URL-safe, as the most lenient of readers would: it passes over whatever is no
// digit, and goes on behind padding.
type base64Reader struct {
	r    byteReader
	bits uint32
	have int // how many of bits are there
}

// Read is [io.Reader].Read.
func (b *base64Reader) Read(p []byte) (int, error) {
	n := 0
	for n < min(len(p), readSize) {
		c, err := b.r.ReadByte()
		if err != nil {
			return n, err
		}
		v := base64Digit(c)
		switch {
		case c == '=':
			b.have = 0
		case v >= 0:
			b.bits, b.have = b.bits<<6|uint32(v), b.have+6
			if b.have >= 8 {
				b.have -= 8
				p[n] = byte(b.bits >> b.have)
				n++
			}
		}
	}
	return n, nil
}

// base64Digit returns the value of a digit (RFC 4648 sections 4 and 5), or -1.
func base64Digit(c byte) int {
	switch {
	case 'A' <= c && c <= 'Z':
		return int(c - 'A')
	case 'a' <= c && c <= 'z':
		return int(c-'a') + 26
	case '0' <= c && c <= '9':
		return int(c-'0') + 52
	case c == '+', c == '-':
		return 62
	case c == '/', c == '_':
		return 63
	}
	return -1
}

// openQuoted undoes quoted-printable. From where it cannot be read on, it is read as it is.
func openQuoted(r byteReader) (io.ReadCloser, error) {
	return io.NopCloser(&quotedReader{r: quotedprintable.NewReader(r), plain: r}), nil
}

type quotedReader struct {
	r, plain io.Reader
	broken   bool
}

// Read is [io.Reader].Read.
func (q *quotedReader) Read(p []byte) (int, error) {
	n, err := q.r.Read(p)
	if err == nil || q.broken || errors.Is(err, io.EOF) {
		return n, err
	}
	q.r, q.broken = q.plain, true
	return n, nil
}
