package gateway

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	gwtls "gatewayd/gateway/tls"
)

// batchPair returns the sending side of a TLS connection, as a bottle's is, and the client's end.
func batchPair(t *testing.T) (*writeBatch, *tls.Conn) {
	t.Helper()
	roots := newTestRoots(t)
	config := &tls.Config{Certificates: []tls.Certificate{roots.leaf(t, time.Now().Add(time.Hour), "api.test")}}
	served, over := make(chan *tls.Conn, 1), make(chan struct{})
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) {
		wire, err := gwtls.NewWire(c, new(gwtls.WireBuffers), true, nil, nil, nil)
		if err != nil {
			t.Error(err)
			return
		}
		served <- tls.Server(wire, config)
		<-over
	})
	t.Cleanup(func() { close(over) })
	near, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		t.Fatal(err)
	}
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // no name is at stake here
	t.Cleanup(func() { client.Close() })
	conn := <-served
	done := make(chan error, 1)
	go func() { done <- conn.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return newWriteBatch(conn, newBytePool(deliveryBuffer)), client
}

// TestWriteBatchIsAStream writes pieces of all sizes, some larger than a buffer, and reads them as they were.
func TestWriteBatchIsAStream(t *testing.T) {
	b, client := batchPair(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	sent := make([]byte, 3<<20)
	for i := range sent {
		sent[i] = byte(rnd.Uint32())
	}
	go func() {
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1<<rnd.IntN(18)+rnd.IntN(100))
			if _, err := b.Write(rest[:n]); err != nil {
				t.Error(err)
				break
			}
			rest = rest[n:]
		}
		b.close()
		b.conn.Close()
	}()
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read %d of %d bytes, equal: %v, %v", len(got), len(sent), bytes.HasPrefix(sent, got), err)
	}
	if b.mu.Lock(); b.lent != nil || b.writing {
		t.Error("a buffer is held with nothing in it")
	}
	b.mu.Unlock()
	if _, err := b.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing after the end gives %v", err)
	}
}

// TestWriteBatchEndsForWhoDoesNotRead closes the side of a guest that takes nothing more: neither that nor the write waits on.
func TestWriteBatchEndsForWhoDoesNotRead(t *testing.T) {
	b, _ := batchPair(t)
	ended := make(chan error, 1)
	var written atomic.Int64
	go func() {
		piece := make([]byte, deliveryBuffer)
		for {
			if _, err := b.Write(piece); err != nil {
				ended <- err
				return
			}
			written.Add(1)
		}
	}()
	for before := int64(-1); written.Load() != before; time.Sleep(200 * time.Millisecond) { // until the sockets hold all that they can
		before = written.Load()
	}
	closed := make(chan struct{})
	go func() { b.close(); close(closed) }()
	for range 2 {
		select {
		case err := <-ended:
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the write ended with %v", err)
			}
		case <-closed:
			closed = nil
		case <-time.After(testWait):
			t.Fatal("a write or its end waits for the guest")
		}
	}
}

// TestWriteBatchTellsOfErrors has the connection end below.
func TestWriteBatchTellsOfErrors(t *testing.T) {
	b, client := batchPair(t)
	b.conn.NetConn().Close()
	end := time.Now().Add(testWait)
	for {
		if _, err := b.Write([]byte("x")); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("writing on a closed connection goes on")
		}
	}
	b.close()
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the client read something")
	}
}
