package http2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestEchoes sends bodies of all sizes on many streams at once, reads them back, and gives some up in the middle.
func TestEchoes(t *testing.T) {
	s := serverOf(func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 10_000)
		for {
			n, err := r.Body.Read(buf)
			if _, werr := w.Write(buf[:n]); werr != nil {
				return
			}
			if err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	})
	near, far := loopbackPair(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(context.Background(), context.Background(), tls.Server(far, testConfig()), fullPurse())
	}()
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	cc, err := new(http2.Transport).NewClientConn(client) //nolint:staticcheck // net/http's takes no connection
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			sent := make([]byte, rnd.IntN(1<<(rnd.IntN(11)+10)))
			for j := range sent {
				sent[j] = byte(rnd.Uint32())
			}
			ctx, cancel := context.WithTimeout(context.Background(), 6*testWait)
			defer cancel()
			if i%4 == 3 {
				time.AfterFunc(time.Duration(rnd.IntN(20))*time.Millisecond, cancel)
			}
			r, err := http.NewRequestWithContext(ctx, "POST", "https://a.test/", io.NopCloser(bytes.NewReader(sent)))
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := cc.RoundTrip(r)
			if err == nil {
				var got []byte
				got, err = io.ReadAll(resp.Body)
				resp.Body.Close()
				if err == nil && !bytes.Equal(got, sent) {
					t.Errorf("echo %d: %d bytes came back of %d", i, len(got), len(sent))
				}
			}
			if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
				t.Errorf("echo %d of %d bytes: %v", i, len(sent), err)
			}
		})
	}
	wg.Wait()
	cc.Close()
	<-served
}
