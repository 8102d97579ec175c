package gateway

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/routes"
)

// keyUpdater is a guest after its handshake that writes records of TLS 1.3 itself, since crypto/tls never asks for new keys.
type keyUpdater struct {
	conn   *net.TCPConn
	suite  uint16
	secret []byte
	seq    uint64
}

// newKeyUpdater shakes hands for host with the bottle of w.
func newKeyUpdater(t *testing.T, w *world, b Bottle, host string) *keyUpdater {
	t.Helper()
	conn := w.sockets.call(t, b.Link, anywhere(443))
	var log strings.Builder
	c := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: bottlePool(t, b), MinVersion: tls.VersionTLS13, KeyLogWriter: &log})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	k := &keyUpdater{conn: conn, suite: c.ConnectionState().CipherSuite}
	if k.suite == tls.TLS_AES_256_GCM_SHA384 {
		t.Fatal("crypto/tls chose a suite that it ranks last")
	}
	_, line, _ := strings.Cut(log.String(), "CLIENT_TRAFFIC_SECRET_0 ")
	line, _, _ = strings.Cut(line, "\n")
	_, secret, _ := strings.Cut(line, " ")
	var err error
	if k.secret, err = hex.DecodeString(secret); err != nil || len(k.secret) != sha256.Size {
		t.Fatalf("the secret of the guest's records: %q, %v", secret, err)
	}
	return k
}

// expand is HKDF-Expand-Label of RFC 8446 section 7.1, with no context.
func (k *keyUpdater) expand(label string, n int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(append(info, byte(len(label))), label...), 0)
	out, err := hkdf.Expand(func() hash.Hash { return sha256.New() }, k.secret, string(info), n)
	if err != nil {
		panic(err) // as short as these are, they always expand
	}
	return out
}

// record returns one record with this content (RFC 8446 section 5.2).
func (k *keyUpdater) record(kind byte, content []byte) []byte {
	var aead cipher.AEAD
	var err error
	if k.suite == tls.TLS_CHACHA20_POLY1305_SHA256 {
		aead, err = chacha20poly1305.New(k.expand("key", chacha20poly1305.KeySize))
	} else {
		block, _ := aes.NewCipher(k.expand("key", 16)) // of a size that it takes
		aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		panic(err) // likewise
	}
	nonce := k.expand("iv", aead.NonceSize())
	for i := range 8 {
		nonce[len(nonce)-1-i] ^= byte(k.seq >> (8 * i))
	}
	k.seq++
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(content)+1+aead.Overhead()))
	return aead.Seal(head, nonce, append(append([]byte(nil), content...), kind), head)
}

// keyUpdate returns a KeyUpdate that asks for one in return, and goes on with new keys.
func (k *keyUpdater) keyUpdate() []byte {
	b := k.record(22, []byte{24, 0, 0, 1, 1})
	k.secret, k.seq = k.expand("traffic upd", len(k.secret)), 0
	return b
}

// data returns a record of application data.
func (k *keyUpdater) data(s string) []byte { return k.record(23, []byte(s)) }

// smallSockets gives the connections of guests little room for what is written to them.
type smallSockets struct{ *loopbackSockets }

// ListenTCP is Sockets.ListenTCP.
func (s smallSockets) ListenTCP(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	l, err := s.loopbackSockets.ListenTCP(ctx, addr)
	return smallListener{l}, err
}

type smallListener struct{ net.Listener }

// Accept is [net.Listener].Accept.
func (l smallListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetWriteBuffer(1) // the kernel's least
	}
	return c, err
}

// drainConn reads what has come and what comes within a moment.
func drainConn(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection has ended: %v", err)
	}
	if err := c.SetReadDeadline(time.Now().Add(testWait)); err != nil {
		t.Fatal(err)
	}
}

// TestKeyUpdateFlood has a guest ask for new keys again and again. With nothing between, its connection ends after a few; between the
// bytes of a head it ends too, though its guest takes none of the answers, so that they cannot be written.
func TestKeyUpdateFlood(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Sockets = smallSockets{o.Sockets.(*loopbackSockets)} })
	w.g.engine.h1.Limits = http1.Limits{Head: 500 * time.Millisecond, Write: 500 * time.Millisecond}
	b := testBottle(t, routes.Route{Host: "icept.test"})
	w.apply(t, b)
	t.Run("asked for properly", func(t *testing.T) {
		k := newKeyUpdater(t, w, b, "icept.test")
		for _, r := range [][]byte{k.keyUpdate(), k.data("TRACE / HTTP/1.1\r\n"), k.keyUpdate(), k.data("Host: icept.test\r\n\r\n")} {
			if _, err := k.conn.Write(r); err != nil {
				t.Fatal(err)
			}
		}
		w.records.wait(t, func(r Record) bool { return r.Type == RecordRequest && r.Reason == ReasonMethodRefused })
	})
	t.Run("long after the last answer", func(t *testing.T) {
		k := newKeyUpdater(t, w, b, "icept.test")
		for _, pause := range []time.Duration{0, 700 * time.Millisecond} { // longer than a write may take
			time.Sleep(pause)
			drainConn(t, k.conn)
			if _, err := k.conn.Write(append(k.keyUpdate(), k.data("TRACE / HTTP/1.1\r\nHost: icept.test\r\n\r\n")...)); err != nil {
				t.Fatal(err)
			}
			if n, err := io.ReadAtLeast(k.conn, make([]byte, 4096), 200); err != nil {
				t.Fatalf("after %s: %d bytes in answer, %v", pause, n, err)
			}
		}
	})
	t.Run("and nothing else", func(t *testing.T) {
		const many = 100 // more than crypto/tls takes
		k := newKeyUpdater(t, w, b, "icept.test")
		var flood []byte
		for range many {
			flood = append(flood, k.keyUpdate()...)
		}
		if _, err := k.conn.Write(flood); err != nil {
			t.Fatal(err)
		}
		w.records.wait(t, func(r Record) bool {
			return r.Type == RecordFlow && r.Src == addrPortOf(k.conn.LocalAddr()) && r.DurationMS < 400
		})
	})
	t.Run("within a head, and nothing read", func(t *testing.T) {
		k := newKeyUpdater(t, w, b, "icept.test")
		if err := errors.Join(k.conn.SetReadBuffer(8<<10), k.conn.SetDeadline(time.Time{})); err != nil { // it does not give up
			t.Fatal(err)
		}
		var flood sync.WaitGroup
		defer flood.Wait()
		defer k.conn.Close()
		flood.Go(func() {
			for text := "GET /"; ; text = "x" {
				batch := k.data(text)
				for range 10 {
					batch = append(batch, k.keyUpdate()...)
				}
				if _, err := k.conn.Write(batch); err != nil {
					return
				}
			}
		})
		w.records.flowOf(t, k.conn)
	})
}

// TestHandshakesAreBounded holds the places for hellos and handshakes of one bottle: who finds none in time is refused, the other
// bottle notices nothing, and a guest that says no more than its hello leaves its place.
func TestHandshakesAreBounded(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Deadlines.Hello, o.Deadlines.Handshake = 200*time.Millisecond, 200*time.Millisecond
		o.Budget.Hellos, o.Budget.Handshakes = 3, 2
	})
	b, other := testBottle(t, routes.Route{Host: "icept.test"}), namedBottle(t, "other", 2, routes.Route{Host: "icept.test"})
	w.apply(t, b, other)
	shake := func(b Bottle) (net.Conn, error) {
		c := w.sockets.call(t, b.Link, anywhere(443))
		return c, tls.Client(c, &tls.Config{ServerName: "icept.test", RootCAs: bottlePool(t, b)}).Handshake()
	}
	meter := w.bottle("dev").meter
	for _, c := range []struct {
		places slots
		want   routes.Reason
	}{{meter.hellos, ReasonHelloBudget}, {meter.handshakes, ReasonHandshakes}} {
		waitFor(t, func() bool { return len(c.places) == 0 })
		for c.places.try() {
		}
		conn, err := shake(b)
		if !isReset(err) {
			t.Errorf("%s: %v; want a RST", c.want, err)
		}
		if r := w.records.flowOf(t, conn); r.Reason != c.want || r.Decision != routes.Deny {
			t.Errorf("record %+v; want %s", r, c.want)
		}
		if _, err := shake(other); err != nil {
			t.Errorf("%s: the other bottle: %v", c.want, err)
		}
		for range cap(c.places) {
			c.places.give()
		}
		if _, err := shake(b); err != nil {
			t.Errorf("%s: with places: %v", c.want, err)
		}
	}
	conn := w.sockets.call(t, b.Link, anywhere(443))
	if _, err := conn.Write(clientHello(t, "icept.test")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return len(meter.handshakes) == 1 })
	if r := w.records.flowOf(t, conn); r.Reason != ReasonHandshakeTime || r.Decision != routes.Deny {
		t.Errorf("record %+v; want a handshake that took too long", r)
	}
	waitFor(t, func() bool { return len(meter.handshakes) == 0 && len(meter.hellos) == 0 })
}

// timedConn remembers its write deadline.
type timedConn struct {
	net.Conn
	writeBy time.Time
}

// SetWriteDeadline is [net.Conn].SetWriteDeadline.
func (c *timedConn) SetWriteDeadline(t time.Time) error {
	c.writeBy = t
	return nil
}

// TestTakenOverConnectionsHaveADeadline: a WebSocket's connection has a write deadline before anything is written, for the same
// reason.
func TestTakenOverConnectionsHaveADeadline(t *testing.T) {
	near, _ := net.Pipe()
	up, _ := net.Pipe()
	conn := &timedConn{Conn: near}
	x := &exchange{s: &session{engine: newWorld(t, nil).g.engine, closing: t.Context()}}
	ws := &tunnel{x: x, ctx: t.Context(), up: up}
	if !ws.take(conn, nil) {
		t.Fatal(x.rec.Error)
	}
	defer func() { ws.close(); <-ws.inOver }()
	if left := time.Until(conn.writeBy); left <= 0 || left > websocketWrite {
		t.Errorf("%v are left", left)
	}
}
