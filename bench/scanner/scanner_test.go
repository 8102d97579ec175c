// Package scanner holds the search for tokens against others that do the same work, on the same text in the same run. It is
// a module of its own so that the program does not depend on them.
package scanner

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	bobu "github.com/BobuSumisu/aho-corasick"
	"github.com/cloudflare/ahocorasick"
	petar "github.com/petar-dambovaliev/aho-corasick"
	"github.com/zricethezav/gitleaks/v8/detect"

	"gatewayd/gateway/formats"
	"gatewayd/gateway/pipelock"
)

// source is Go's net/http: text as agents send it.
func source(b *testing.B) string {
	b.Helper()
	names, err := filepath.Glob(filepath.Join(runtime.GOROOT(), "src", "net", "http", "*.go"))
	if err != nil {
		b.Fatal(err)
	}
	var all strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// run measures scan by the processor time that it takes.
func run(b *testing.B, name, text string, scan func(string)) {
	b.Run(name, func(b *testing.B) {
		scan(text[:1<<10])
		b.SetBytes(int64(len(text)))
		begin := cpu(b)
		for b.Loop() {
			scan(text)
		}
		b.ReportMetric(float64(len(text))*float64(b.N)/1e6/(cpu(b)-begin).Seconds(), "MB/cpu-s")
	})
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// toolOutput is what the load "h1-upload" of make bench sends over and over: it has eight times as many literals as Go's own
// source.
const toolOutput = `{"type":"function_call_output","call_id":"call_5f1e","output":"func (s *Set) tokenOf(key string) (apiKey, error) {\n\treturn s.lookup(\"auth_token\", key) // as the caller says\n}\n"},`

// texts returns what is scanned.
func texts(b *testing.B) map[string]string {
	code := source(b)
	request, err := json.Marshal(map[string]any{"model": "m", "prompt_cache_key": "0198c3a2-7d41-7c55-9a3b-5f0e6d7c8b9a", "input": code})
	if err != nil {
		b.Fatal(err)
	}
	source := rand.NewChaCha8([32]byte{1})
	random := make([]byte, len(code)*3/4)
	_, _ = source.Read(random) // it never fails
	rnd := rand.New(source)
	const prose = "The quick brown fox jumps over the lazy dog, and nobody minds, which is how it goes with foxes; "
	all := map[string]string{
		"source":        code,
		"model request": string(request),
		"prose":         strings.Repeat(prose, len(code)/len(prose)),
		"JSON":          strings.Repeat(`{"id":12345,"name":"a thing","tags":["red","round"],"size":{"width":1.5,"height":2}},`, len(code)/85),
		"base64":        base64.StdEncoding.EncodeToString(random),
		"tool output":   strings.Repeat(toolOutput, len(code)/len(toolOutput)),
	}
	lines := map[string]func() string{
		"lock file": func() string {
			sum := make([]byte, 64)
			_, _ = source.Read(sum)
			return `"node_modules/a": { "version": "1.2.3", "resolved": "https://packages.test/a.tgz", "integrity": "sha512-` + base64.StdEncoding.EncodeToString(sum) + "\" },\n"
		},
		"hostile, keywords":    func() string { return "adafruit adobe api asana auth key token secret ghp_ sk_live xoxb- eyJ " },
		"hostile, kw = random": func() string { return keyword(rnd) + " = '" + letters(rnd, 32) + "'\n" },
		"hostile, one by one":  func() string { return "key=api=token=auth=" },
		"hostile, near misses": func() string { return keyword(rnd) + " = '" + letters(rnd, 140) + "{" },
		"hostile, overlapping": func() string { return "gh" + "p_gh" + "p_gl" + "pat-gl" + "pat-sk_" + "live_sk_" + "live_" },
	}
	for _, name := range slices.Sorted(maps.Keys(lines)) { // so that each run has the same
		var b strings.Builder
		for b.Len() < 1<<20 {
			b.WriteString(lines[name]())
		}
		all[name] = b.String()
	}
	return all
}

func keyword(rnd *rand.Rand) string {
	return []string{"key", "token", "secret", "adafruit", "stripe"}[rnd.IntN(5)]
}

func letters(rnd *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rnd.IntN(36)]
	}
	return string(b)
}

// BenchmarkKeywords looks for the same literals, in either case, with this and with others' automata.
func BenchmarkKeywords(b *testing.B) {
	set, err := formats.Default()
	if err != nil {
		b.Fatal(err)
	}
	literals := set.Literals()
	builder := petar.NewAhoCorasickBuilder(petar.Opts{AsciiCaseInsensitive: true, MatchKind: petar.StandardMatch, DFA: true})
	dfa := builder.Build(literals)
	trie := bobu.NewTrieBuilder().AddStrings(literals).Build()
	matcher := ahocorasick.NewStringMatcher(literals)
	for name, text := range texts(b) {
		data := []byte(text)
		run(b, name+"/this", text, func(s string) { set.CountLiterals(data[:len(s)]) })
		run(b, name+"/petar-dambovaliev", text, func(s string) {
			for it := dfa.IterOverlapping(s); it.Next() != nil; {
			}
		})
		run(b, name+"/BobuSumisu", text, func(s string) { trie.MatchString(strings.ToLower(s)) })
		run(b, name+"/cloudflare", text, func(s string) { matcher.Match([]byte(strings.ToLower(s))) })
	}
}

// BenchmarkScan scans for all rules, with this and with gitleaks' own detector.
func BenchmarkScan(b *testing.B) {
	set, err := formats.Default()
	if err != nil {
		b.Fatal(err)
	}
	peer, err := detect.NewDetectorDefaultConfig()
	if err != nil {
		b.Fatal(err)
	}
	policy := set.Policy(nil, false)
	for name, text := range texts(b) {
		data := []byte(text)
		run(b, name+"/this", text, func(s string) {
			stream := set.NewStream(policy)
			for rest := data[:len(s)]; len(rest) > 0; {
				n := min(len(rest), 16<<10)
				stream.Push(rest[:n], func(formats.Finding) {})
				rest = rest[n:]
			}
			stream.End(func(formats.Finding) {})
		})
		run(b, name+"/gitleaks", text[:50<<10], func(s string) { peer.DetectString(s) })
	}
}

// requestScanner returns a scanner as a route has it: it knows all rules and some secrets.
func requestScanner(b *testing.B) *pipelock.Scanner {
	b.Helper()
	set, err := formats.Default()
	if err != nil {
		b.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var tokens []pipelock.Token
	for _, name := range []string{"secret one", "secret two", "dummy one", "dummy two"} {
		tokens = append(tokens, pipelock.Token{Name: name, Value: letters(rnd, 40)})
	}
	return pipelock.New(tokens).WithFormats(set, set.Policy(nil, false))
}

// BenchmarkBody scans bodies as the gateway does, 16 KB at a time: for known values as written, with the escapes of JSON
// undone, for all rules, and in base64.
func BenchmarkBody(b *testing.B) {
	s := requestScanner(b)
	for name, text := range texts(b) {
		if strings.HasPrefix(name, "hostile") {
			continue // some are refused
		}
		h := http.Header{}
		switch name {
		case "JSON", "model request", "tool output", "lock file":
			h.Set("Content-Type", "application/json")
		}
		run(b, name, text, func(text string) {
			body, err := s.RequestBody("server.test", h, strings.NewReader(text))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, body); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkRequest scans one small request that holds nothing: its head, and 1 KB of JSON.
func BenchmarkRequest(b *testing.B) {
	s := requestScanner(b)
	head := http.Header{
		"User-Agent": {"agent/1.2.3 (Linux 6.1; x86_64)"}, "Accept": {"text/event-stream"}, "Content-Type": {"application/json"},
		"Content-Length": {"1024"}, "Accept-Encoding": {"gzip, br"}, "Session-Id": {"0198c3a2-7d41-7c55-9a3b-5f0e6d7c8b9a"},
		"Originator": {"agent"}, "Version": {"1.2.3"}, "Authorization": {"Bearer placeholder-for-the-gateway"},
	}
	text := texts(b)["model request"][:1<<10]
	each := func(name string, scan func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			begin := cpu(b)
			for b.Loop() {
				if err := scan(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu(b)-begin).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
		})
	}
	each("head", func() error {
		if found := s.Request("server.test", "/v1/responses", head, []string{"Authorization"}); len(found) > 0 {
			return errFound
		}
		return nil
	})
	each("body", func() error {
		body, err := s.RequestBody("server.test", head, iotest.DataErrReader(strings.NewReader(text)))
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, body)
		return err
	})
}

var errFound = errors.New("something is found in what holds nothing")
