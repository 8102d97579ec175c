package gateway

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

// idleSocketBytes is what a silent WebSocket may hold of heap and stacks, its connection to the server included: 32 KB.
const idleSocketBytes = 33 << 10

// frames of a message, as a guest and a server send it.
var (
	asked    = []byte{opText | finBit, maskBit | 2, 0, 0, 0, 0, 'h', 'i'}
	answered = []byte{opText | finBit, 2, 'h', 'i'}
)

// forgetful is a server that opens a WebSocket on each connection, answers one message, and then holds nothing but the socket.
func forgetful(t *testing.T, w *world) (port uint16) {
	config := &tls.Config{Certificates: []tls.Certificate{w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			if err := answerOnce(tls.Server(c, config)); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return addrPortOf(l.Addr()).Port()
}

// answerOnce is the server's side of one WebSocket. It says early in the write that opens it.
func answerOnce(c net.Conn, early ...byte) error {
	in := bufio.NewReader(c)
	r, err := http.ReadRequest(in)
	if err != nil {
		return err
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + websocketGUID))
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nServer: forgetful\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-Websocket-Accept: %s\r\n\r\n%s",
		base64.StdEncoding.EncodeToString(sum[:]), early)
	got := make([]byte, len(asked))
	if _, err := io.ReadFull(in, got); err != nil || got[0] != asked[0] {
		return fmt.Errorf("got %x: %w", got, err)
	}
	_, err = c.Write(answered)
	return err
}

// handshakeOf is what a guest opens a WebSocket with.
func handshakeOf(port uint16) string {
	return fmt.Sprintf("GET /v1/talk HTTP/1.1\r\nHost: api.test:%d\r\nUser-Agent: test/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-Websocket-Version: 13\r\nSec-Websocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", port)
}

// TestWebSocketEarlyBytes has both sides say something in the write that opens the WebSocket: the server a message, the guest a part of
// one, or all of it. Neither may wait for bytes that have come already.
func TestWebSocketEarlyBytes(t *testing.T) {
	for early := range len(asked) + 1 {
		w := newWorld(t, nil)
		w.names.set("api.test", "127.0.0.1")
		config := &tls.Config{Certificates: []tls.Certificate{w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")}}
		port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) {
			conn := tls.Server(c, config)
			if err := answerOnce(conn, answered...); err != nil {
				t.Error(err)
			}
			_, _ = conn.Read(make([]byte, 1)) // until the guest is at its end
		})
		b := testBottle(t, routes.Route{Host: "api.test", Port: port, Auth: authRoute(t, "api.test", port).Auth})
		w.apply(t, b)
		near := w.sockets.call(t, b.Link, anywhere(port))
		_ = near.SetDeadline(time.Now().Add(testWait))
		client := tls.Client(near, &tls.Config{RootCAs: bottlePool(t, b), ServerName: "api.test"})
		io.WriteString(client, handshakeOf(port)+string(asked[:early]))
		in := bufio.NewReader(client)
		if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %+v, %v", resp, err)
		}
		got := make([]byte, len(answered))
		if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, answered) {
			t.Fatalf("with %d bytes early: at first %q, %v", early, got, err)
		}
		client.Write(asked[early:])
		if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, answered) {
			t.Fatalf("with %d bytes early: then %q, %v", early, got, err)
		}
		near.Close()
		w.apply(t)
	}
}

// TestIdleWebSocketCosts looks at what WebSockets hold, with their connections to the server, that are silent after one message there and
// back.
func TestIdleWebSocketCosts(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes memory of its own")
	}
	w := newWorld(t, nil)
	w.names.set("api.test", "127.0.0.1")
	port := forgetful(t, w)
	b := testBottle(t, routes.Route{Host: "api.test", Port: port, Auth: authRoute(t, "api.test", port).Auth})
	w.apply(t, b)
	defer w.apply(t) // ends the connections to the server
	trust := bottlePool(t, b)
	open := func() net.Conn {
		near := w.sockets.call(t, b.Link, anywhere(port))
		client := tls.Client(near, &tls.Config{RootCAs: trust, ServerName: "api.test"})
		io.WriteString(client, handshakeOf(port))
		in := bufio.NewReader(client)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %+v, %v", resp, err)
		}
		got := make([]byte, len(answered))
		client.Write(asked)
		if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, answered) {
			t.Fatalf("got %q, %v", got, err)
		}
		return near // what the client has of TLS goes here, so that the gateway's side alone is counted
	}
	first := open()
	defer first.Close()
	const count = 200
	before := inUse()
	for range count {
		near := open()
		defer near.Close()
	}
	each := (inUse() - before) / count
	t.Logf("%d bytes for each of %d silent WebSockets", each, count)
	if each > idleSocketBytes {
		t.Errorf("a silent WebSocket holds %d bytes, want at most %d", each, idleSocketBytes)
	}
}
