package http1

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What one client sends in the benchmarks: the head of an API client of today.
const benchRequest = "GET /v1/items/42?fields=name HTTP/1.1\r\nHost: api.example.test\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n" +
	"Accept-Encoding: gzip, br\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\nX-Request-Id: 4f1c2d3e\r\nContent-Type: application/json\r\n\r\n"

// engines serves a listener by this package and by net/http, so that one run compares them.
var engines = []struct {
	name  string
	serve func(l net.Listener, h http.Handler) (stop func())
}{
	{"http1", func(l net.Listener, h http.Handler) func() {
		s := &Server{Handler: h}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { s.Serve(ctx, ctx, c) })
			}
		})
		return func() { cancel(); l.Close(); wg.Wait() }
	}},
	{"net/http", func(l net.Listener, h http.Handler) func() {
		s := &http.Server{Handler: h}
		go s.Serve(l)
		return func() { s.Close() }
	}},
}

// benchServe runs one client for each CPU, which does nothing but send raw and read the response.
func benchServe(b *testing.B, raw string, h http.Handler) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer e.serve(l, h)()
			b.ReportAllocs()
			before := processorTime(b)
			defer func() { b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op") }()
			b.RunParallel(func(pb *testing.PB) {
				c, err := net.Dial("tcp4", l.Addr().String())
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				in := bufio.NewReaderSize(c, 64<<10)
				for pb.Next() {
					io.WriteString(c, raw)
					if err := skipResponse(in); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// processorTime is what this process has used of the processor, client and server together. Unlike the time on the wall it
// says little about what else the machine does.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// skipResponse reads a response with a Content-Length, at no cost worth measuring.
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

func BenchmarkGet1KB(b *testing.B) {
	content := make([]byte, 1<<10)
	benchServe(b, benchRequest, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = []string{"application/octet-stream"}
		w.Header()["Content-Length"] = []string{"1024"}
		w.Write(content)
	}))
}

func BenchmarkPost16KB(b *testing.B) {
	raw := strings.Replace(strings.Replace(benchRequest, "GET", "POST", 1), "\r\n\r\n", "\r\nContent-Length: 16384\r\n\r\n", 1) + strings.Repeat("x", 16<<10)
	pool := sync.Pool{New: func() any { return new([32 << 10]byte) }}
	benchServe(b, raw, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := pool.Get().(*[32 << 10]byte)
		defer pool.Put(buf)
		for {
			if _, err := r.Body.Read(buf[:]); err != nil {
				break
			}
		}
		w.Header()["Content-Length"] = []string{"2"}
		io.WriteString(w, "ok")
	}))
}

func BenchmarkGet1MB(b *testing.B) {
	content := make([]byte, 32<<10)
	b.SetBytes(1 << 20)
	benchServe(b, benchRequest, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Length"] = []string{strconv.Itoa(1 << 20)}
		for range 32 {
			w.Write(content)
		}
	}))
}

func BenchmarkParseHead(b *testing.B) {
	lim := Limits{}.withDefaults()
	b.ReportAllocs()
	for b.Loop() {
		if err := new(head).parse(benchRequest, &lim); err != nil {
			b.Fatal(err)
		}
	}
}
