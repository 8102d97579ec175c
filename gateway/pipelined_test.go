package gateway

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// TestPipelinedWhileServed: a second request that comes whole while the first is served, so that nothing comes from the guest when the
// first is answered, is served next, whatever the times of both.
func TestPipelinedWhileServed(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/first" {
			begun <- struct{}{}
			<-finish
		}
		io.WriteString(w, r.URL.Path)
	})
	conn, in := s.raw(t, "api.test", s.port)
	for _, pause := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 300 * time.Millisecond} {
		get := func(path string) string {
			return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: api.test:%d\r\n\r\n", path, s.port)
		}
		if _, err := io.WriteString(conn, get("/first")); err != nil {
			t.Fatal(err)
		}
		<-begun
		if _, err := io.WriteString(conn, get("/second")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pause)
		finish <- struct{}{}
		for _, want := range []string{"/first", "/second"} {
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("with a pause of %s, the answer to %s: %v", pause, want, err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != want {
				t.Fatalf("with a pause of %s: %q, %v; want %q", pause, body, err, want)
			}
		}
	}
}
