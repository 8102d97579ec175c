package http2

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// testWait is how long a test waits for something that ought to happen at once.
const testWait = 10 * time.Second

// purse is an [Account] with so many frames and resets in it, and counts. Beyond, each takes wait.
type purse struct{ frames, resets, left, refused, flooded, wait atomic.Int64 }

// fullPurse never gets empty.
func fullPurse() *purse {
	p := new(purse)
	p.frames.Store(1 << 40)
	p.resets.Store(1 << 40)
	p.wait.Store(int64(time.Hour))
	return p
}

func (p *purse) take(from *atomic.Int64) time.Duration {
	if from.Add(-1) >= 0 {
		return 0
	}
	return time.Duration(p.wait.Load())
}

func (p *purse) Frame() time.Duration { return p.take(&p.frames) }
func (p *purse) Reset() time.Duration { return p.take(&p.resets) }
func (p *purse) Left()                { p.left.Add(1) }
func (p *purse) Refused()             { p.refused.Add(1) }
func (p *purse) Flooded()             { p.flooded.Add(1) }

// testConfig is that of a TLS server for tests.
var testConfig = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}, SessionTicketsDisabled: true,
	}
})

// loopbackPair returns both ends of a TCP connection.
func loopbackPair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp4", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// waiting is a connection that gives one TLS record at a time and can be waited for, as what the gateway has beneath TLS. A deadline
// loses nothing of a record that has come in part.
type waiting struct {
	net.Conn
	part   bytes.Buffer // of the next one
	record bytes.Buffer // what is left of one
}

// Read gives bytes of one record.
func (w *waiting) Read(p []byte) (int, error) {
	if w.record.Len() == 0 {
		for missing := w.missing(); missing > 0; missing = w.missing() {
			if _, err := io.CopyN(&w.part, w.Conn, missing); err != nil {
				return 0, err
			}
		}
		w.record, w.part = w.part, w.record
	}
	return w.record.Read(p)
}

// missing is how much is known to be missing of the next record.
func (w *waiting) missing() int64 {
	if have := w.part.Len(); have >= 5 {
		return int64(5 + int(binary.BigEndian.Uint16(w.part.Bytes()[3:])) - have)
	}
	return int64(5 - w.part.Len())
}

// Await blocks until something is there to be read, and leaves it there.
func (w *waiting) Await() error {
	if w.record.Len() > 0 {
		return nil
	}
	raw, err := w.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		_, _, failed = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		return failed != syscall.EAGAIN
	})
	return errors.Join(err, failed)
}

// Whole never knows.
func (*waiting) Whole() bool { return false }

// CloseWrite ends the sending side.
func (w *waiting) CloseWrite() error { return w.Conn.(*net.TCPConn).CloseWrite() }

// peer is a client that speaks in frames with a Server.
type peer struct {
	*http2.Framer
	t      testing.TB
	conn   *tls.Conn
	enc    *hpack.Encoder
	block  bytes.Buffer
	purse  *purse
	served chan struct{} // closed when Serve returned
	drain  context.CancelFunc
	cut    context.CancelFunc // ends the server
}

// newPeer connects one with s, and says the preface and these settings.
func newPeer(t testing.TB, s *Server, settings ...http2.Setting) *peer {
	t.Helper()
	near, far := loopbackPair(t)
	p := &peer{t: t, purse: fullPurse(), served: make(chan struct{}), conn: tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})}
	ctx, cancel := context.WithCancel(context.Background())
	closing, drain := context.WithCancel(ctx)
	p.drain, p.cut = drain, cancel
	go func() {
		defer close(p.served)
		s.Serve(ctx, closing, tls.Server(&waiting{Conn: far}, testConfig()), p.purse)
	}()
	t.Cleanup(func() {
		cancel()
		near.Close()
		<-p.served
	})
	if err := near.SetDeadline(time.Now().Add(testWait)); err != nil {
		t.Fatal(err)
	}
	p.Framer = http2.NewFramer(p.conn, p.conn)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.enc = hpack.NewEncoder(&p.block)
	p.must(io.WriteString(p.conn, http2.ClientPreface))
	p.must(0, p.WriteSettings(settings...))
	return p
}

// must fails the test on an error.
func (p *peer) must(_ int, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// fields encodes a head.
func (p *peer) fields(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.must(0, p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return p.block.Bytes()
}

// ask sends the head of a request.
func (p *peer) ask(id uint32, method, path string, end bool, fields ...string) {
	p.t.Helper()
	block := p.fields(append([]string{":method", method, ":scheme", "https", ":authority", "a.test", ":path", path}, fields...)...)
	p.must(0, p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: end}))
}

// next returns the next frame that is one of T, and drops those before.
func next[T http2.Frame](p *peer) (f T) {
	p.t.Helper()
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			p.t.Fatalf("no %T: %v", f, err)
		}
		if f, ok := frame.(T); ok {
			return f
		}
	}
}

// answer is what became of a stream.
type answer struct {
	status  string
	body    []byte
	trailer []hpack.HeaderField
	reset   bool
	code    http2.ErrCode
}

// answers reads until so many streams are at their end.
func (p *peer) answers(n int) map[uint32]*answer {
	p.t.Helper()
	all := map[uint32]*answer{}
	for ended := 0; ended < n; {
		frame, err := p.ReadFrame()
		if err != nil {
			p.t.Fatalf("%d of %d streams have ended: %v", ended, n, err)
		}
		id := frame.Header().StreamID
		if all[id] == nil {
			all[id] = new(answer)
		}
		a := all[id]
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			if a.status == "" {
				a.status = f.PseudoValue("status")
			} else {
				a.trailer = f.Fields
			}
			if f.StreamEnded() {
				ended++
			}
		case *http2.DataFrame:
			a.body = append(a.body, f.Data()...)
			if f.StreamEnded() {
				ended++
			}
		case *http2.RSTStreamFrame:
			a.reset, a.code = true, f.ErrCode
			ended++
		}
	}
	return all
}

// ping makes sure that the server has taken everything before, and returns the frames that came until it said so.
func (p *peer) ping() (before []http2.FrameHeader) {
	p.t.Helper()
	p.must(0, p.WritePing(false, [8]byte{7}))
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			p.t.Fatal(err)
		}
		if f, ok := frame.(*http2.PingFrame); ok && f.IsAck() && f.Data == [8]byte{7} {
			return before
		}
		before = append(before, frame.Header())
	}
}

// serverOf returns a server of a handler.
func serverOf(h http.HandlerFunc) *Server { return &Server{Handler: h} }
