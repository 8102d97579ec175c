package formats

import (
	"encoding/base64"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchSize is how much each benchmark scans at a time, in bytes.
const benchSize = 4 << 20

// repeat returns text over and over, up to benchSize bytes.
func repeat(text string) []byte {
	return []byte(strings.Repeat(text, benchSize/len(text)+1)[:benchSize])
}

// shapes returns what the speed of a scan is measured on.
func shapes(b testing.TB) map[string][]byte {
	b.Helper()
	rnd := rand.New(rand.NewPCG(5, 6))
	random := make([]byte, benchSize)
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	var source []byte
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(goroot)), "src", "net", "http")
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		source = append(source, text...)
	}
	var lock, secrets, near strings.Builder
	for lock.Len() < benchSize {
		sum := make([]byte, 64)
		for i := range sum {
			sum[i] = byte(rnd.Uint32())
		}
		lock.WriteString(`    "node_modules/api-token": { "version": "1.2.3", "resolved": "https://packages.test/a.tgz", "integrity": "sha512-` + base64.StdEncoding.EncodeToString(sum) + "\" },\n")
	}
	letters := func(n int) string {
		s := make([]byte, n)
		for i := range s {
			s[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rnd.IntN(36)]
		}
		return string(s)
	}
	for secrets.Len() < benchSize {
		secrets.WriteString([]string{"key", "token", "secret", "adafruit", "stripe"}[rnd.IntN(5)] + " = '" + letters(32) + "'\n")
		near.WriteString([]string{"key", "token", "secret", "auth"}[rnd.IntN(4)] + " = '" + letters(140) + "{")
	}
	all := strings.Join([]string{"adafruit", "adobe", "airtable", "api", "asana", "atlassian", "auth", "key", "token", "secret", "ghp_", "sk_live", "xoxb-", "eyJ"}, " ")
	return map[string][]byte{
		"prose":          repeat("The quick brown fox jumps over the lazy dog, and nobody minds; that is how it goes. "),
		"source":         repeat(string(source)),
		"lock file":      []byte(lock.String()),
		"base64":         []byte(base64.StdEncoding.EncodeToString(random)),
		"bytes":          random,
		"hostile: words": repeat(all + " "),
		"hostile: kw = ": []byte(secrets.String()),
		"hostile: =":     repeat("key=api=token=auth="),
		"hostile: near":  []byte(near.String()),
		"hostile: hex":   repeat("adafruit_key: api_token= 0123456789abcdef secret := ABCDEF "),
	}
}

// inChunks scans a text as the gateway does: in pieces of 16 KB.
func inChunks(s *Set, text []byte, found func(Finding)) {
	st := s.NewStream(s.Policy(nil, false))
	for len(text) > 0 {
		n := min(len(text), 16<<10)
		st.Push(text[:n], found)
		text = text[n:]
	}
	st.End(found)
}

// cpu returns the processor time that this process has used: rates on a machine that others use measure the others.
func cpu(b testing.TB) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perCPU reports how many of n bytes each second of processor time was good for.
func perCPU(b *testing.B, n int, since time.Duration) {
	b.ReportMetric(float64(n)*float64(b.N)/1e6/(cpu(b)-since).Seconds(), "MB/cpu-s")
}

func BenchmarkStream(b *testing.B) {
	s := defaultSet(b)
	for name, text := range shapes(b) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			n := 0
			inChunks(s, text, func(Finding) {})
			begin := cpu(b)
			for b.Loop() {
				n = 0
				inChunks(s, text, func(Finding) { n++ })
			}
			perCPU(b, len(text), begin)
			b.ReportMetric(float64(n), "findings")
		})
	}
}

func BenchmarkKeywords(b *testing.B) {
	s := defaultSet(b)
	for name, text := range shapes(b) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			total := 0
			begin := cpu(b)
			for b.Loop() {
				total = s.CountLiterals(text)
			}
			perCPU(b, len(text), begin)
			b.ReportMetric(float64(total)/float64(len(text)>>20), "hits/MB")
		})
	}
}

func BenchmarkSmall(b *testing.B) {
	s := defaultSet(b)
	text := shapes(b)["source"][:10<<10]
	b.SetBytes(int64(len(text)))
	begin := cpu(b)
	for b.Loop() {
		inChunks(s, text, func(Finding) {})
	}
	perCPU(b, len(text), begin)
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := Default(); err != nil {
			b.Fatal(err)
		}
	}
}
