package needle

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const value = `tok+en/"<é>&0123456789`

func contains(forms []string, text string) bool {
	return slices.ContainsFunc(forms, func(f string) bool { return strings.Contains(text, f) })
}

// TestFormsCoverEncodings encodes the value as programs do and looks for it.
func TestFormsCoverEncodings(t *testing.T) {
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	cases := map[string]string{
		"raw":            "x" + value + "y",
		"query":          "a=" + url.QueryEscape(value),
		"path":           "/" + url.PathEscape(value),
		"query, lower":   regexp.MustCompile("%..").ReplaceAllStringFunc(url.QueryEscape(value), strings.ToLower),
		"hex":            hex.EncodeToString([]byte(value)),
		"hex, upper":     strings.ToUpper(hex.EncodeToString([]byte(value))),
		"json":           text(map[string]string{"a": value}),
		"json slashes":   strings.ReplaceAll(text(value), "/", `\/`),
		"html":           "<b>" + html.EscapeString(value),
		"every byte":     "%74%6F%6B%2B%65%6E%2F%22%3C%C3%A9%3E%26%30%31%32%33%34%35%36%37%38%39",
		"unicode":        `\u0074\u006f\u006b\u002b\u0065\u006e\u002f\u0022\u003c\u00c3\u00a9\u003e\u0026\u0030\u0031\u0032\u0033\u0034\u0035\u0036\u0037\u0038\u0039`,
		"base64 in url":  url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("~?~" + value))),
		"base64 in json": strings.ReplaceAll(base64.StdEncoding.EncodeToString([]byte("~?~"+value)), "/", `\/`),
	}
	for before := range 6 {
		for after := range 4 {
			around := strings.Repeat("?", before) + value + strings.Repeat("~", after)
			for name, enc := range map[string]*base64.Encoding{
				"std": base64.StdEncoding, "raw": base64.RawStdEncoding, "url": base64.URLEncoding, "rawurl": base64.RawURLEncoding,
			} {
				cases[fmt.Sprintf("base64 %s %d+%d", name, before, after)] = enc.EncodeToString([]byte(around))
			}
		}
	}
	forms := Forms(value)
	for name, text := range cases {
		if !contains(forms, text) {
			t.Errorf("%s: no form is in %q", name, text)
		}
	}
	if forms[0] != value {
		t.Error("the value is not the first form")
	}
}

func TestFormsLeaveOut(t *testing.T) {
	if got := Forms("1234567"); got != nil {
		t.Errorf("forms of seven bytes: %q", got)
	}
	forms := Forms("12345678")
	if len(forms) == 0 {
		t.Fatal("no forms of eight bytes")
	}
	for i, f := range forms {
		if len(f) < MinLength || slices.Contains(forms[:i], f) {
			t.Errorf("form %q is short or twice", f)
		}
	}
}

type hit struct{ start, end, id int }

func scan(s *Set, b string) (hits []hit, pending int) {
	pending = s.Scan([]byte(b), func(start, end, id int) bool {
		hits = append(hits, hit{start, end, id})
		return true
	})
	return hits, pending
}

// slowScan is the definition of Scan.
func slowScan(values []string, b string) (hits []hit, pending int) {
	pending = len(b)
	forms := make([][]form, len(values))
	for id, v := range values {
		forms[id] = formsOf(v)
	}
	for start := range len(b) {
		for id := range values {
			for _, f := range forms[id] {
				rest := b[start:]
				switch n := f.common(rest); n {
				case len(f.text):
					hits = append(hits, hit{start, start + n, id})
				case len(rest):
					pending = min(pending, start)
				}
			}
		}
	}
	return hits, pending
}

// common returns how many bytes of the form text begins with.
func (f form) common(text string) int {
	for i := range min(len(f.text), len(text)) {
		if same := f.text[i] == text[i] || f.loose != "" && f.loose[i] != 0 && strings.EqualFold(f.text[i:i+1], text[i:i+1]); !same {
			return i
		}
	}
	return min(len(f.text), len(text))
}

// mixed changes the case of letters at random.
func mixed(rng *rand.Rand, s string) string {
	b := []byte(s)
	for i, c := range b {
		if small := c | 0x20; 'a' <= small && small <= 'z' && rng.IntN(2) == 0 {
			b[i] ^= 0x20
		}
	}
	return string(b)
}

// TestDigitsInEitherCase: hexadecimal digits may be in any mixture of cases, and nothing else.
func TestDigitsInEitherCase(t *testing.T) {
	const value = "tok+en/J<é>~Zz"
	set := NewSet([]string{value})
	rng := rand.New(rand.NewPCG(7, 7))
	digits := func(s string) string { // of escapes
		return regexp.MustCompile(`(%|\\u00)[0-9a-fA-F]{2}`).ReplaceAllStringFunc(s, func(e string) string { return e[:len(e)-2] + mixed(rng, e[len(e)-2:]) })
	}
	for range 20 {
		for name, text := range map[string]string{
			"hex":          mixed(rng, hex.EncodeToString([]byte(value))),
			"query":        digits(url.QueryEscape(value)),
			"path":         digits(url.PathEscape(value)),
			"every byte":   digits(eachByte(value, "%")),
			"unicode":      digits(eachByte(value, `\u00`)),
			"base64 query": digits(url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(value)))),
		} {
			text = "ab" + text + "ab"
			if hits, _ := scan(set, text); len(hits) != 1 {
				t.Fatalf("%s: %d times in %q", name, len(hits), text)
			}
			compare(t, []string{value}, text)
			for cut := range len(text) {
				compare(t, []string{value}, text[:cut])
			}
		}
	}
	for _, text := range []string{strings.ToUpper(value), mixed(rng, base64.StdEncoding.EncodeToString([]byte(value)))} {
		if hits, _ := scan(set, text); len(hits) != 0 {
			t.Errorf("%q is found", text)
		}
	}
}

func sortHits(hs []hit) []hit {
	slices.SortFunc(hs, func(a, b hit) int {
		if a.start != b.start {
			return a.start - b.start
		}
		if a.end != b.end {
			return a.end - b.end
		}
		return a.id - b.id
	})
	return hs
}

func compare(t *testing.T, values []string, text string) {
	t.Helper()
	set := NewSet(values)
	got, gotPending := scan(set, text)
	want, wantPending := slowScan(values, text)
	if set.Has([]byte(text)) != (len(want) > 0) {
		t.Fatalf("values %q in %q: Has says %t", values, text, len(want) == 0)
	}
	if !slices.Equal(sortHits(got), sortHits(want)) || gotPending != wantPending {
		t.Fatalf("values %q in %q: %v pending %d, want %v pending %d", values, text, got, gotPending, want, wantPending)
	}
}

func TestScan(t *testing.T) {
	values := []string{"abcdefgh", "abcdefghij", "aaaaaaaaaa", "bcdefghijk"}
	for _, text := range []string{
		"", "a", "abcdefg", "abcdefgh", "xabcdefghijkx", "aaaaaaaaa", "aaaaaaaaaaaaa", "abcdefghabcdefghij", "zzzzzzzabcdefg",
		"YWJjZGVmZ2g", "xYWJjZGVmZ2hp", "6162636465666768", "%61%62%63%64%65%66%67%68", "abcdefgHabcdefgh",
	} {
		compare(t, values, text)
	}
	compare(t, nil, "abcdefgh")
	compare(t, []string{"short"}, "short short")
	if pending := (*Set)(nil).Scan([]byte("abc"), nil); pending != 3 {
		t.Errorf("nil set: pending %d", pending)
	}
	if set := NewSet(values); !set.Has([]byte("xxabcdefghxx")) || set.Has([]byte("xxabcdefgxx")) || set.Has([]byte("abc")) || (*Set)(nil).Has([]byte("abcdefgh")) {
		t.Error("Has is not what Scan finds")
	}
	hits := 0
	NewSet(values).Scan([]byte("abcdefgh abcdefgh"), func(int, int, int) bool { hits++; return false })
	if hits != 1 {
		t.Errorf("%d hits after a stop", hits)
	}
}

// FuzzScan compares Scan with its definition.
func FuzzScan(f *testing.F) {
	f.Add("abcdefgh", "12345678", "xxabcdefgh123456781")
	f.Add("aaaaaaaa", "aaaaaaaab", "aaaaaaaaaaaaaaaab")
	f.Add("\x00\xff\x00\xff\x00\xff\x00\xff", "%%%%%%%%", "%25%25%25%25%25%25%25%25")
	f.Fuzz(func(t *testing.T, a, b, text string) {
		if len(a) > 40 || len(b) > 40 || len(text) > 400 {
			return
		}
		all := a + text + b
		rng := rand.New(rand.NewPCG(uint64(len(all)), 1))
		for _, f := range formsOf(a) {
			form := f.text
			if f.loose != "" && rng.IntN(2) == 0 {
				form = mixed(rng, form)
			}
			all += form[:len(form)-1] + form
		}
		compare(t, []string{a, b}, all)
		compare(t, []string{a, b}, text)
	})
}

// FuzzStream cuts a stream into pieces and checks that every occurrence is
// found, that what is let go is the stream, and that what is held is bounded.
func FuzzStream(f *testing.F) {
	f.Add("abcdefgh", "zzabcdefghzzabcdefabcdefgh", uint64(1))
	f.Add("aaaaaaaa", "aaaaaaaaaaaaaaaaaaaaaaaaaaab", uint64(2))
	f.Fuzz(func(t *testing.T, value, text string, seed uint64) {
		if len(value) > 40 || len(text) > 400 {
			return
		}
		text += value + text
		set := NewSet([]string{value})
		wantHits, _ := scan(set, text)
		rng := rand.New(rand.NewPCG(seed, 1))
		stream := NewStream(set)
		found := make(map[hit]bool)
		var out []byte
		base := 0 // offset of the window in the text
		for rest := text; rest != ""; {
			n := 1 + rng.IntN(min(len(rest), 12))
			push, piece := stream.Push, []byte(rest[:n])
			if rng.IntN(2) == 0 {
				push = stream.PushOver
			}
			w := push(piece, func(start, end, id int) bool {
				h := hit{base + start, base + end, id}
				if !found[h] && len(out)-h.start >= leastHeld {
					t.Fatalf("let go of %d bytes of the occurrence %v before it was found", len(out)-h.start, h)
				}
				found[h] = true
				return true
			})
			out = append(out, w.Bytes[w.From:w.To]...)
			held, pending := len(w.Bytes)-w.To, len(w.Bytes)-w.Next
			if pending > set.Longest() || held > 0 && pending < leastHeld {
				t.Fatalf("holds %d of %d bytes", held, pending)
			}
			base += w.Next
			rest = rest[n:]
			clear(piece) // nothing of it is needed any more
		}
		out = append(out, stream.Rest()...)
		if string(out) != text {
			t.Fatalf("let go of %q, want %q", out, text)
		}
		for _, h := range wantHits {
			if !found[h] {
				t.Fatalf("missed %v in %q", h, text)
			}
		}
		if len(found) != len(wantHits) {
			t.Fatalf("found %v, want %v", found, wantHits)
		}
	})
}

func TestStreamHoldsOnlyBeginnings(t *testing.T) {
	stream := NewStream(NewSet([]string{"secret-token"}))
	push := func(p string) string {
		w := stream.Push([]byte(p), func(int, int, int) bool { return true })
		return string(w.Bytes[w.From:w.To])
	}
	for _, c := range []struct{ in, out string }{
		{"data: hello\n\n", "data: hello\n\n"},
		{"ends in sec", "ends in sec"}, // three bytes are not held
		{"ret-to", ""},                 // but remembered
		{"day\n", "ret-today\n"},
		{"secr", ""},
		{"x", "secrx"},
	} {
		if got := push(c.in); got != c.out {
			t.Errorf("after %q: %q, want %q", c.in, got, c.out)
		}
	}
}

func corpus() (values []string, text []byte) {
	rng := rand.New(rand.NewPCG(3, 3))
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	random := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[rng.IntN(len(letters))]
		}
		return string(b)
	}
	for range 8 {
		values = append(values, "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."+random(1200)+"."+random(43))
	}
	words := strings.Fields(`data: {"id": "resp", "object": "chunk", "choices": [{"delta": {"content": " the quick brown fox \n"}}], "usage": null} func (s *Set) return err != nil`)
	for len(text) < 1<<20 {
		text = append(append(text, words[rng.IntN(len(words))]...), ' ')
	}
	return values, text
}

func benchmarkScan(b *testing.B, values []string, text []byte) {
	set := NewSet(values)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		set.Scan(text, func(int, int, int) bool { return true })
	}
}

func BenchmarkScanText(b *testing.B) {
	values, text := corpus()
	for _, n := range []int{1, 8} {
		b.Run(fmt.Sprintf("secrets=%d", n), func(b *testing.B) { benchmarkScan(b, values[:n], text) })
	}
}

func BenchmarkScanBase64(b *testing.B) {
	values, text := corpus()
	encoded := []byte(base64.StdEncoding.EncodeToString(text))
	benchmarkScan(b, values, encoded)
}

// BenchmarkScanHostile scans nothing but the heads of needles.
func BenchmarkScanHostile(b *testing.B) {
	values, _ := corpus()
	benchmarkScan(b, values, []byte(strings.Repeat(values[0][:40], 1<<20/40)))
}

func BenchmarkNewSet(b *testing.B) {
	values, _ := corpus()
	for b.Loop() {
		NewSet(values[:1])
	}
}

// TestFlush lets everything go and still finds what comes in two halves.
func TestFlush(t *testing.T) {
	const value = "needle-of-some-length"
	for cut := 1; cut < len(value); cut++ {
		s := NewStream(NewSet([]string{value}))
		var out []byte
		found := 0
		push := func(text string) {
			w := s.Push([]byte(text), func(int, int, int) bool { found++; return true })
			out = append(out, w.Bytes[w.From:w.To]...)
			out = append(out, s.Flush()...)
			if len(s.Flush()) != 0 {
				t.Fatal("what was let go was let go again")
			}
		}
		for _, part := range []string{"before " + value[:cut], value[cut:], " after", value[:cut]} {
			push(part)
		}
		if want := "before " + value + " after" + value[:cut]; found != 1 || string(out) != want {
			t.Errorf("cut at %d: found %d times, let go %q", cut, found, out)
		}
	}
}

// TestStreamUsesOtherNeedles: from the next bytes on, with what began before if that may begin one of the first needles.
func TestStreamUsesOtherNeedles(t *testing.T) {
	s := NewStream(NewSet([]string{"needle-one"}))
	var got []string
	push := func(text string) string {
		w := s.Push([]byte(text), func(start, end, id int) bool {
			got = append(got, text[max(0, len(text)-(end-start)):])
			return true
		})
		return string(w.Bytes[w.From:w.To])
	}
	if free := push("a needle-"); free != "a " {
		t.Errorf("let go of %q", free)
	}
	s.Use(NewSet([]string{"needle-two", "another-one"}))
	if free := push("two another-one."); free != "needle-two another-one." || len(got) != 2 {
		t.Errorf("let go of %q, found %q", free, got)
	}
}
