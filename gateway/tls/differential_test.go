package tls

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// goSees returns what crypto/tls takes out of a stream: the ClientHelloInfo that a server would choose a certificate by, or nil
// when it refuses the stream before that.
func goSees(stream []byte) *tls.ClientHelloInfo {
	var seen *tls.ClientHelloInfo
	cfg := &tls.Config{GetConfigForClient: func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
		seen = chi
		return nil, errors.New("seen")
	}}
	_ = tls.Server(&deafConn{r: bytes.NewReader(stream)}, cfg).Handshake()
	return seen
}

// deafConn reads a fixed stream and swallows what is written.
type deafConn struct {
	net.Conn
	r io.Reader
}

func (c *deafConn) Read(b []byte) (int, error)       { return c.r.Read(b) }
func (c *deafConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *deafConn) Close() error                     { return nil }
func (c *deafConn) SetDeadline(time.Time) error      { return nil }
func (c *deafConn) SetReadDeadline(time.Time) error  { return nil }
func (c *deafConn) SetWriteDeadline(time.Time) error { return nil }
func (c *deafConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *deafConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }

// checkAgainstGo fails when Peek and crypto/tls both accept a stream and differ about what it asks for, or when Peek finds no
// name in a hello where crypto/tls finds one.
func checkAgainstGo(t *testing.T, stream []byte) {
	t.Helper()
	h, read, err := Peek(bytes.NewReader(stream))
	if !bytes.HasPrefix(stream, read) {
		t.Fatalf("read back %x of %x", read, stream)
	}
	chi := goSees(stream)
	if chi == nil {
		return
	}
	var he *HelloError
	switch {
	case err == nil && (h.ServerName != chi.ServerName || !slices.Equal(h.ALPN, chi.SupportedProtos)):
		t.Fatalf("got %+v, crypto/tls sees %q %q", h, chi.ServerName, chi.SupportedProtos)
	case errors.As(err, &he) && he.Kind == NoName && chi.ServerName != "":
		t.Fatalf("no name found, crypto/tls sees %q", chi.ServerName)
	}
}

func TestPeekAgainstGo(t *testing.T) {
	for file, flight := range recorded(t) {
		if chi := goSees(flight); chi == nil || chi.ServerName != wantName(file) {
			t.Fatalf("%s: crypto/tls sees %+v: the comparison is void", file, chi)
		}
		checkAgainstGo(t, flight)
		// Every byte of the hello changed in three ways.
		for i := range min(len(flight), recordHeaderSize+len(message(flight))) {
			for _, v := range []byte{0, flight[i] ^ 1, 0xff} {
				b := bytes.Clone(flight)
				b[i] = v
				checkAgainstGo(t, b)
			}
		}
	}
	for _, m := range [][]byte{
		hello{exts: [][]byte{sni("a.example.test", "b.example.test")}}.bytes(),
		hello{exts: [][]byte{sni("a.example.test"), sni("b.example.test")}}.bytes(),
		hello{exts: [][]byte{ext(0, []byte{0, 8, 1, 0, 1, 'a', 0, 0, 1, 'b'})}}.bytes(),
		hello{exts: [][]byte{ext(0, []byte{0, 8, 0, 0, 1, 'a', 1, 0, 1, 'b'})}}.bytes(),
		hello{exts: [][]byte{sni("a.example.test.")}}.bytes(),
		hello{exts: [][]byte{sni("A.example\x00.test")}}.bytes(),
		hello{exts: [][]byte{ext(23, nil)}}.bytes(),
	} {
		for _, size := range []int{1, 7, len(m)} {
			checkAgainstGo(t, records(m, size))
		}
	}
}

func FuzzPeek(f *testing.F) {
	for _, flight := range recorded(f) {
		f.Add(flight)
		f.Add(records(message(flight), 100))
	}
	f.Add(record(hello{exts: [][]byte{sni("a.example.test", "b.example.test")}}.bytes()))
	f.Fuzz(func(t *testing.T, stream []byte) {
		checkAgainstGo(t, stream)
		h, _, err := Peek(bytes.NewReader(stream))
		if err == nil && (h.ServerName == "" || h.Size < minHelloSize || h.Size > maxHelloSize) {
			t.Fatalf("got %+v", h)
		}
		slow, _, slowErr := Peek(oneByte{bytes.NewReader(stream)})
		if (err == nil) != (slowErr == nil) || slow.ServerName != h.ServerName {
			t.Fatalf("segmentation matters: %v, %v", err, slowErr)
		}
	})
}

// oneByte gives one byte at a time.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:min(1, len(b))]) }

func FuzzParseHello(f *testing.F) {
	for _, flight := range recorded(f) {
		f.Add(message(flight))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, err := ParseHello(msg)
		if err != nil {
			if _, ok := err.(*HelloError); !ok || h.ServerName != "" {
				t.Fatalf("got %+v, %T", h, err)
			}
			return
		}
		// The same message through records gives the same.
		again, _, err := Peek(bytes.NewReader(records(msg, 1000)))
		if err != nil || again.ServerName != h.ServerName {
			t.Fatalf("through records: %q, %v; want %q", again.ServerName, err, h.ServerName)
		}
	})
}

func BenchmarkPeek(b *testing.B) {
	flight := recorded(b)["rustls-mlkem"]
	b.ReportAllocs()
	r := bytes.NewReader(nil)
	for b.Loop() {
		r.Reset(flight)
		if _, _, err := Peek(r); err != nil {
			b.Fatal(err)
		}
	}
}
