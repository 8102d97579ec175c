// Package scanner holds the search for tokens against others that do the same work, on the same text in the same run. It is
// a module of its own so that the program does not depend on them.
package scanner

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	aho "github.com/petar-dambovaliev/aho-corasick"
	"github.com/zricethezav/gitleaks/v8/detect"

	"gatewayd/gateway/formats"
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

func BenchmarkSource(b *testing.B) {
	text := source(b)
	set, err := formats.Default()
	if err != nil {
		b.Fatal(err)
	}
	peer, err := detect.NewDetectorDefaultConfig()
	if err != nil {
		b.Fatal(err)
	}
	var keywords []string
	for k := range peer.Config.Keywords {
		keywords = append(keywords, k)
	}
	builder := aho.NewAhoCorasickBuilder(aho.Opts{AsciiCaseInsensitive: true, MatchKind: aho.StandardMatch, DFA: true})
	automaton := builder.Build(keywords)
	run(b, "this", text, func(s string) { set.Scan([]byte(s), formats.Policy{}, func(formats.Finding) {}) })
	run(b, "keywords alone, petar-dambovaliev", text, func(s string) {
		for it := automaton.IterOverlapping(s); it.Next() != nil; {
		}
	})
	run(b, "gitleaks", text[:200<<10], func(s string) { peer.DetectString(s) })
}
