package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

// BenchmarkExchange measures a request of 1 KB of response from a guest to an origin and back, over TLS on both sides, on
// connections that are kept: passed on as it is, scanned, and with a credential. Guest and origin are in the same process
// and part of the figures.
func BenchmarkExchange(b *testing.B) {
	content := []byte(strings.Repeat("a line of an answer that nobody has to hide\n", 24))[:1<<10]
	handler := func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = []string{"application/json"}
		w.Header()["Content-Length"] = []string{strconv.Itoa(len(content))}
		w.Write(content)
	}
	for _, kind := range []struct {
		name   string
		change func(*routes.Route)
	}{
		{"scanned", nil},
		{"injected", func(r *routes.Route) { withAuth(b)(r); r.TLSPassthrough = true }},
		{"scanned and injected", withAuth(b)},
	} {
		b.Run(kind.name, func(b *testing.B) {
			s := newStage(b, kind.change, handler, authRoute(b, "home.test", 443))
			conn, in := s.raw(b, "api.test", s.port)
			raw := fmt.Sprintf("GET /v1/items/42?fields=name HTTP/1.1\r\nHost: api.test:%d\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\nX-Request-Id: 4f1c2d3e\r\n\r\n", s.port)
			b.ReportAllocs()
			before := usedTime(b)
			for b.Loop() {
				io.WriteString(conn, raw)
				if err := skipResponse(in); err != nil {
					b.Fatal(err)
				}
				conn.SetDeadline(time.Time{})
			}
			b.ReportMetric(float64(usedTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// usedTime is what this process has used of the processor.
func usedTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// skipResponse reads a response with a Content-Length.
func skipResponse(in *bufio.Reader) error {
	length := 0
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			_, err := in.Discard(length)
			return err
		}
		if n, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
			length, _ = strconv.Atoi(strings.TrimSpace(n))
		}
	}
}
