package pipelock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"gatewayd/gateway/needle"
)

var formHeader = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBody(t *testing.T) {
	s := scanner()
	clean := strings.Repeat("some text, dummy-4f9a-of- and more\n", 5000)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole":  func(r io.Reader) io.Reader { return r },
		"bytes":  iotest.OneByteReader,
		"halves": iotest.HalfReader,
		"eof":    iotest.DataErrReader,
	} {
		got, err := io.ReadAll(s.Body(other, wrap(strings.NewReader(clean))))
		if err != nil || string(got) != clean {
			t.Errorf("%s: clean body: %v, %d bytes", name, err, len(got))
		}
		got, err = io.ReadAll(s.Body(home, wrap(strings.NewReader(clean+dummy))))
		if err != nil || string(got) != clean+dummy {
			t.Errorf("%s: at home: %v, %d bytes", name, err, len(got))
		}
		for enc, token := range encodings(dummy) {
			got, err := io.ReadAll(s.Body(other, wrap(strings.NewReader(clean+token+clean))))
			var leak *LeakError
			if !errors.As(err, &leak) || leak.Finding.Rule != "dummy of "+home || leak.Finding.Place != "body" || leak.Finding.Excerpt == "" {
				t.Fatalf("%s, %s: %v", name, enc, err)
			}
			// Before the token begins three bytes of it may go, and an
			// encoding's first characters belong to what is before.
			if most := len(clean) + len(token) - len(dummy) + 4; len(got) > most || !strings.HasPrefix(clean+token, string(got)) {
				t.Errorf("%s, %s: %d bytes went, at most %d may", name, enc, len(got), most)
			}
		}
	}
	if err := iotest.TestReader(s.Body(other, strings.NewReader("ends in dummy-4f9a")), []byte("ends in dummy-4f9a")); err != nil {
		t.Error(err)
	}
	broken := errors.New("broken")
	if _, err := io.ReadAll(s.Body(other, iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if got, err := io.ReadAll((*Scanner)(nil).Body(other, strings.NewReader(dummy))); err != nil || string(got) != dummy {
		t.Errorf("nil scanner: %q, %v", got, err)
	}
}

func TestLeakIsFinal(t *testing.T) {
	b := scanner().Body(other, strings.NewReader(dummy+strings.Repeat("x", 100)))
	var leak *LeakError
	for range 3 {
		if n, err := b.Read(make([]byte, 8)); n != 0 || !errors.As(err, &leak) {
			t.Fatalf("%d, %v", n, err)
		}
	}
	st := scanner().Stream(other, "websocket message")
	for _, p := range []string{dummy, "", "clean"} {
		if out, err := st.Push([]byte(p)); out != nil || !errors.As(err, &leak) || leak.Finding.Place != "websocket message" {
			t.Fatalf("%q, %v", out, err)
		}
	}
	if out, err := st.Rest(); out != nil || err == nil {
		t.Fatalf("%q, %v", out, err)
	}
}

func TestStreamBeginsAnew(t *testing.T) {
	st := scanner().Stream(other, "message")
	for range 3 { // a token cut over two messages is two messages
		for _, p := range []string{dummy[:10]} {
			out, err := st.Push([]byte(p))
			got := string(out)
			rest, errRest := st.Rest()
			if got += string(rest); err != nil || errRest != nil || got != p {
				t.Fatalf("%q, %v %v", got, err, errRest)
			}
		}
	}
}

// TestBodyIsLive reads a message before the next is written.
func TestBodyIsLive(t *testing.T) {
	pr, pw := io.Pipe()
	defer pr.Close()
	b := scanner().Body(other, pr)
	buf := make([]byte, 64)
	for _, message := range []string{"hello", "d", "du", "dum", "\x00\x00\x00\x00\x05inner"} {
		go func() { _, _ = io.WriteString(pw, message) }()
		if _, err := io.ReadFull(b, buf[:len(message)]); err != nil || string(buf[:len(message)]) != message {
			t.Fatalf("%q, %v", buf[:len(message)], err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := pw.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Close did not close the body: %v", err)
	}
}

// pieces reads text in pieces of random size.
type pieces struct {
	rest string
	rng  *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.rest == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), 1+p.rng.IntN(20))], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// escapedBytes writes about every nth byte of a text as the kind of body lets it be written, in digits of any case.
func escapedBytes(rng *rand.Rand, text string, form bool, nth int) string {
	var b strings.Builder
	for i := range len(text) {
		digits := []byte(fmt.Sprintf("%02x", text[i]))
		for d := range digits {
			if rng.IntN(2) == 0 {
				digits = append(digits[:d], bytes.ToUpper(digits[d:])...)
			}
		}
		switch {
		case rng.IntN(nth) != 0:
			b.WriteByte(text[i])
		case form:
			fmt.Fprintf(&b, "%%%s", digits)
		default:
			fmt.Fprintf(&b, `\u00%s`, digits)
		}
	}
	return b.String()
}

// TestOneEscapeHidesNothing escapes each byte of a token alone, in each form that it has, cut at every offset.
func TestOneEscapeHidesNothing(t *testing.T) {
	for _, h := range []http.Header{asJSON, formHeader} {
		for _, form := range needle.Forms(dummy) {
			if len(form) >= 3*len(dummy) {
				continue // each of its bytes is an escape already
			}
			for i := range len(form) {
				escape := fmt.Sprintf(`\u%04X`, form[i])
				if h.Get("Content-Type") == formHeader.Get("Content-Type") {
					escape = fmt.Sprintf("%%%02x", form[i])
				}
				text := "a=" + form[:i] + escape + form[i+1:] + "&b=c"
				for cut := 0; cut < len(text); cut += 1 + i%2 {
					r, err := scanner().RequestBody(other, h, io.MultiReader(strings.NewReader(text[:cut]), strings.NewReader(text[cut:])))
					if err != nil {
						t.Fatal(err)
					}
					out, err := io.ReadAll(r)
					var leak *LeakError
					if !errors.As(err, &leak) || leak.Finding.Rule != "dummy of "+home || len(out) > len("a=")+len(escape)+leastHeld {
						t.Fatalf("%q cut at %d: %q went, %v", text, cut, out, err)
					}
				}
			}
		}
	}
}

// FuzzBody checks that a body ends cleanly if and only if no form of a token is in it, as it is written or with its escapes
// undone, whatever the pieces it comes in, and that of a token no more than three bytes get through.
func FuzzBody(f *testing.F) {
	f.Add("before ", " after", uint64(1), false)
	f.Add("dummy-4f9a-of-bottle-de", "v", uint64(2), true)
	f.Add("dummy-4f9a-of-bottle-", "%", uint64(3), false)
	f.Add("\\u0064ummy", "", uint64(4), true)
	f.Fuzz(func(t *testing.T, before, after string, seed uint64, form bool) {
		rng := rand.New(rand.NewPCG(seed, 3))
		forms := append(needle.Forms(dummy), "", dummy[1:])
		text := before + escapedBytes(rng, forms[rng.IntN(len(forms))], form, 1+rng.IntN(20)) + after
		h, how := asJSON, backslashes
		if form {
			h, how = formHeader, percents
		}
		v := view{escapes: how}
		said := string(v.decode([]byte(text)))
		first, end := firstToken(text)
		if seen, behind := firstToken(said); seen >= 0 && (first < 0 || v.origin(int64(behind)) < int64(end)) {
			first = int(v.origin(int64(seen)))
		}
		r, err := scanner().RequestBody(other, h, &pieces{text, rng})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		var leak *LeakError
		if errors.As(err, &leak) != (first >= 0) {
			t.Fatalf("%q: %v", text, err)
		}
		if err == nil && string(got) != text || !strings.HasPrefix(text, string(got)) {
			t.Fatalf("%q: %q went", text, got)
		}
		// Three bytes of the text may go, each of which may be an escape, and an escape that is cut with them.
		if v = (view{escapes: how}); first >= 0 && len(got) > first+3 && len(v.decode(got[first:])) > 3 {
			t.Fatalf("%q: %q went, a token begins at %d", text, got, first)
		}
	})
}

// firstToken returns where in text the token is that is complete first; -1 if there is none.
func firstToken(text string) (start, end int) {
	start, end = -1, len(text)+1
	needle.NewSet([]string{dummy, secret}).Scan([]byte(text), func(s, e, _ int) bool {
		if e < end {
			start, end = s, e
		}
		return true
	})
	return start, end
}

// noise is text that does not compress.
func noise(n int) string { return seededNoise(n, 1) }

func seededNoise(n int, seed uint64) string {
	rng := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(' ' + rng.IntN(95))
	}
	return string(b)
}

func BenchmarkRequest(b *testing.B) {
	s := scanner()
	h := map[string][]string{"User-Agent": {"client/1.0 (Linux; x86_64)"}, "Accept": {"*/*"}, "Content-Type": {"application/json"}, "Cookie": {"session=0123456789abcdef0123456789abcdef"}}
	b.ReportAllocs()
	for b.Loop() {
		if len(s.Request(other, "/v1/responses?stream=true&id=42", h, nil)) != 0 {
			b.Fatal("finding")
		}
	}
}

func BenchmarkBody(b *testing.B) {
	text := []byte(strings.Repeat(`{"role":"user","content":"please look at the function func (s *Set) Scan and say why"},`, 12000))
	random := []byte(noise(len(text)))
	for _, n := range []int{2, 20} {
		var tokens []Token
		for i := range n {
			tokens = append(tokens, Token{Name: fmt.Sprint(i), Value: seededNoise(1000, 9)[i*40 : i*40+40]})
		}
		s := New(tokens)
		for name, body := range map[string][]byte{"json": text, "noise": random} {
			b.Run(fmt.Sprintf("%s/tokens=%d", name, n), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				buf := make([]byte, 32<<10)
				for b.Loop() {
					r := s.Body(other, bytes.NewReader(body[700:]))
					for {
						if _, err := r.Read(buf); err != nil {
							break
						}
					}
				}
			})
		}
	}
}
