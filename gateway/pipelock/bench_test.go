package pipelock

import (
	"bytes"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// cpu returns the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCorpus scans what agents send as the gateway does: known values, escapes, forms and what is encoded.
func BenchmarkCorpus(b *testing.B) {
	s := formScanner(b)
	all := corpus(b)
	for _, name := range []string{"model, own source", "source as it is", "lock files", "other lock files", "minified", "conversations", "base64 images", "images", "git pack", "own source, base64"} {
		body, header := bytes.Join(all[name].bodies, []byte("\n")), all[name].header
		for len(body) < 1<<20 {
			body = append(body, body...)
		}
		body = body[:min(len(body), 4<<20)]
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			s, h := s.withoutTokens(), http.Header{"Content-Type": header["Content-Type"]}
			begin := cpu(b)
			for b.Loop() {
				r, err := s.RequestBody(other, h, bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(body))*float64(b.N)/1e6/(cpu(b)-begin).Seconds(), "MB/cpu-s")
		})
	}
}

// BenchmarkSmallBody scans a request of the size that most are of, which comes as a server hands it over: with its end.
func BenchmarkSmallBody(b *testing.B) {
	s := formScanner(b).withoutTokens()
	all := corpus(b)
	for _, name := range []string{"model, own source", "conversations", "minified"} {
		body := bytes.Join(all[name].bodies, []byte("\n"))[:10<<10]
		h := http.Header{"Content-Type": all[name].header["Content-Type"]}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			begin := cpu(b)
			for b.Loop() {
				r, err := s.RequestBody(other, h, &withEnd{body})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu(b)-begin).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// withEnd reads a body, at once if there is room.
type withEnd struct{ rest []byte }

func (w *withEnd) Read(p []byte) (n int, err error) {
	n = copy(p, w.rest)
	if w.rest = w.rest[n:]; len(w.rest) == 0 {
		err = io.EOF
	}
	return n, err
}

// BenchmarkHead scans heads that hold nothing.
func BenchmarkHead(b *testing.B) {
	s := formScanner(b)
	for _, c := range []struct {
		name, target string
		fields       http.Header
	}{
		{"shortest", "/1k", http.Header{"User-Agent": {"wrk"}}},
		{"300 bytes", "/v1/responses?stream=true", http.Header{
			"User-Agent": {"agent/1.2.3 (Linux 6.1; x86_64)"}, "Accept": {"text/event-stream"}, "Content-Type": {"application/json"},
			"Content-Length": {"10240"}, "Accept-Encoding": {"gzip, br"}, "Session-Id": {"0198c3a2-7d41-7c55-9a3b-5f0e6d7c8b9a"},
			"Originator": {"agent"}, "Version": {"1.2.3"}, "Authorization": {"Bearer placeholder-for-the-gateway"},
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			begin := cpu(b)
			for b.Loop() {
				if found := s.Request(other, c.target, c.fields, []string{"Authorization"}); len(found) > 0 {
					b.Fatalf("%+v", found)
				}
			}
			b.ReportMetric(float64((cpu(b)-begin).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
		})
	}
}
