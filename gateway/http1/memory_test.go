package http1

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestIdleMemory holds connections open after one request each and looks at what they take of heap and stacks.
func TestIdleMemory(t *testing.T) {
	const count = 300
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, SessionTicketsDisabled: true}
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	before := inUse()
	for range count {
		near, far := loopbackPair(t)
		wg.Go(func() { s.Serve(ctx, ctx, tls.Server(far, config)) })
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		io.WriteString(client, benchRequest)
		if err := skipResponse(bufio.NewReader(client)); err != nil {
			t.Fatal(err)
		}
		defer near.Close() // the client's TLS state is freed here, so that the server's alone is counted
	}
	each := (inUse() - before) / count
	t.Logf("%d bytes for each of %d idle connections", each, count)
	if each > idleBudget {
		t.Errorf("an idle connection holds %d bytes, want at most %d", each, idleBudget)
	}
}

// loopbackPair returns both ends of a TCP connection.
func loopbackPair(t *testing.T) (near, far net.Conn) {
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

// inUse is what heap and stacks hold after everything that nobody needs is gone. That takes some collections: a stack is halved by each,
// and pools are emptied by the second.
func inUse() int {
	var m runtime.MemStats
	least := math.MaxInt
	for again := 4; again > 0; again-- {
		time.Sleep(10 * time.Millisecond) // for those that are on their way to where they wait
		runtime.GC()
		runtime.ReadMemStats(&m)
		if now := int(m.HeapAlloc + m.StackInuse); now < least-4<<10 {
			least, again = now, 4
		}
	}
	return least
}
