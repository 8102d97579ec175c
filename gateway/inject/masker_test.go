package inject

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"gatewayd/gateway/needle"
)

const real1 = "sk-live-0123456789abcdefXYZ"

func TestMaskerEncodings(t *testing.T) {
	m := NewMasker(NewSecret(real1))
	quoted, err := json.Marshal(map[string]string{"authorization": "Bearer " + real1})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"raw":          "you sent Bearer " + real1 + "!",
		"json":         string(quoted),
		"query":        "a=b&token=" + url.QueryEscape(real1),
		"base64":       base64.StdEncoding.EncodeToString([]byte(real1)),
		"base64 +1":    base64.StdEncoding.EncodeToString([]byte("u" + real1)),
		"base64 +2":    base64.StdEncoding.EncodeToString([]byte("u:" + real1 + "\n")),
		"base64url":    base64.RawURLEncoding.EncodeToString([]byte("user:" + real1)),
		"hex":          hex.EncodeToString([]byte(real1)),
		"twice":        real1 + real1,
		"among others": strings.Repeat("sk-live-", 10) + real1 + "sk-live-0123",
	} {
		got := m.String(text)
		if len(got) != len(text) {
			t.Errorf("%s: length %d, want %d", name, len(got), len(text))
		}
		for _, form := range needle.Forms(real1) {
			if strings.Contains(got, form) {
				t.Errorf("%s: %q still holds %q", name, got, form)
			}
		}
		if !strings.Contains(got, "********") {
			t.Errorf("%s: %q is not masked", name, got)
		}
	}
	want := "you sent Bearer " + strings.Repeat("*", len(real1)) + "!"
	if got := m.String("you sent Bearer " + real1 + "!"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestMaskerLeavesOrdinaryText(t *testing.T) {
	m := NewMasker(NewSecret("user"), NewSecret("1234567"), Secret{}, NewSecret(real1))
	for _, text := range []string{"", "user 1234567", "sk-live-0123456789abcdefXY", "[REDACTED]", "**"} {
		if got := m.String(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	var none *Masker
	if none.String(real1) != real1 || string(none.Stream().Push([]byte(real1))) != real1 {
		t.Error("a nil masker changes something")
	}
}

func TestMaskerHeader(t *testing.T) {
	shared := []string{"x", "token=" + real1 + "; Path=/"}
	h := http.Header{"Set-Cookie": shared, "Location": {"/?t=" + url.QueryEscape(real1)}, "Date": {"today"}}
	NewMasker(NewSecret(real1)).Header(h)
	if h.Get("Location") != "/?t="+strings.Repeat("*", len(real1)) || h["Set-Cookie"][1] != "token="+strings.Repeat("*", len(real1))+"; Path=/" || h.Get("Date") != "today" {
		t.Errorf("%q", h)
	}
	if shared[1] != "token="+real1+"; Path=/" {
		t.Error("wrote over the caller's slice")
	}
}

func TestMaskerReader(t *testing.T) {
	m := NewMasker(NewSecret(real1))
	text := strings.Repeat("data: "+real1+" and sk-live-012345\n\n", 3000)
	for name, r := range map[string]io.Reader{
		"whole":         strings.NewReader(text),
		"byte by byte":  iotest.OneByteReader(strings.NewReader(text)),
		"half":          iotest.HalfReader(strings.NewReader(text)),
		"data with EOF": iotest.DataErrReader(strings.NewReader(text)),
	} {
		got, err := io.ReadAll(m.Reader(r))
		if err != nil || !sameBut(string(got), text, real1) {
			t.Errorf("%s: %v, %d bytes", name, err, len(got))
		}
	}
	broken := errors.New("broken")
	got, err := io.ReadAll(m.Reader(io.MultiReader(strings.NewReader("abc "+real1[:10]), iotest.ErrReader(broken))))
	if !errors.Is(err, broken) || string(got) != "abc " {
		t.Errorf("%q, %v", got, err)
	}
	got, err = io.ReadAll(m.Reader(strings.NewReader("abc " + real1[:10])))
	if err != nil || string(got) != "abc "+real1[:10] {
		t.Errorf("%q, %v", got, err)
	}
	if err := iotest.TestReader(m.Reader(strings.NewReader("ends in "+real1)), []byte("ends in "+strings.Repeat("*", len(real1)))); err != nil {
		t.Error(err)
	}
}

// TestMaskerReadersAreApart reads messages one after the other that end within a secret or right behind one, each with another masker:
// what one held back or hid is nothing to the next, which may have its memory.
func TestMaskerReadersAreApart(t *testing.T) {
	const real2 = "another-secret-9876543210"
	first, second := NewMasker(NewSecret(real1)), NewMasker(NewSecret(real2))
	hidden := func(secret string) string { return strings.Repeat("*", len(secret)) }
	for range 100 {
		for _, tt := range []struct {
			m         *Masker
			say, want string
		}{
			{first, "one " + real1[:10], "one " + real1[:10]},
			{second, real1[10:] + real2, real1[10:] + hidden(real2)},
			{first, real2 + real1, real2 + hidden(real1)},
			{nil, real1, real1},
			{first, real1[1:] + real1, real1[1:] + hidden(real1)},
			{second, "", ""},
		} {
			got, err := io.ReadAll(tt.m.Reader(iotest.DataErrReader(strings.NewReader(tt.say))))
			if err != nil || string(got) != tt.want {
				t.Fatalf("%q, %v; want %q", got, err, tt.want)
			}
		}
	}
}

// TestMaskerReaderIsLive reads an event before the next one is written.
func TestMaskerReaderIsLive(t *testing.T) {
	pr, pw := io.Pipe()
	defer pr.Close()
	r := NewMasker(NewSecret(real1)).Reader(pr)
	buf := make([]byte, 256)
	for _, event := range []string{"data: 1\n\n", "data: s", "sk-", "{}s"} {
		go func() { _, _ = io.WriteString(pw, event) }()
		got := ""
		for len(got) < len(event) {
			n, err := r.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got += string(buf[:n])
		}
		if got != event {
			t.Fatalf("%q, want %q", got, event)
		}
	}
}

// sameBut tells whether got is text masked, except that up to three bytes at
// the beginning of an occurrence may have been let go.
func sameBut(got, text string, secrets ...string) bool {
	want, heads := slowMask(text, secrets...)
	if len(got) != len(want) {
		return false
	}
	for i := range len(got) {
		if got[i] != want[i] && (got[i] != text[i] || !heads[i]) {
			return false
		}
	}
	return true
}

// slowMask is the definition of masking: every byte of every occurrence of
// every form. heads tells which bytes are among the first three of one.
func slowMask(text string, secrets ...string) (masked string, heads []bool) {
	b := []byte(text)
	heads = make([]bool, len(text))
	for _, s := range secrets {
		for _, form := range needle.Forms(s) {
			for i := 0; i+len(form) <= len(text); i++ {
				if text[i:i+len(form)] == form {
					fill(b[i : i+len(form)])
					heads[i], heads[i+1], heads[i+2] = true, true, true
				}
			}
		}
	}
	return string(b), heads
}

// FuzzMasker compares masking whole, and in pieces of every size, with its
// definition.
func FuzzMasker(f *testing.F) {
	f.Add("abcdefgh", "hgfedcba", "xxabcdefghxxhgfedcbabcdefgh", uint64(1))
	f.Add("aaaaaaaa", "aaaaaaaab", "aaaaaaaaaaaaab", uint64(2))
	f.Add("%41%41%41%41", "AAAAAAAA", "%41%41%41%41%41", uint64(3))
	f.Fuzz(func(t *testing.T, a, b, text string, seed uint64) {
		if len(a) > 40 || len(b) > 40 || len(text) > 300 {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 1))
		forms := append(append(needle.Forms(a), needle.Forms(b)...), "")
		form := forms[rng.IntN(len(forms))]
		text += a + text + form + b
		want, _ := slowMask(text, a, b)
		m := NewMasker(NewSecret(a), NewSecret(b))
		if got := m.String(text); got != want {
			t.Fatalf("whole: %q became %q, want %q", text, got, want)
		}
		s := m.Stream()
		s.Push([]byte(text))
		s.Reset(m)
		var out bytes.Buffer
		last := rng.IntN(2) == 0
		for rest := text; rest != ""; {
			n := 1 + rng.IntN(min(len(rest), 1+rng.IntN(40)))
			piece := []byte(rest[:n])
			if last && n == len(rest) {
				out.Write(s.End(piece))
			} else {
				out.Write(s.Push(piece))
			}
			rest = rest[n:]
			clear(piece) // nothing of it is needed any more
		}
		out.Write(s.Flush())
		if !sameBut(out.String(), text, a, b) {
			t.Fatalf("in pieces: %q became\n%q, want\n%q", text, out.String(), want)
		}
	})
}

func BenchmarkMaskerStream(b *testing.B) {
	secret := NewSecret("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + strings.Repeat("c2VjcmV0IGNsYWltcyBvZiBhIHVzZXI", 40) + ".c2lnbmF0dXJlIG9mIGl0")
	text := []byte(strings.Repeat(`data: {"choices":[{"delta":{"content":" the quick brown fox"}}],"usage":null}`+"\n\n", 200))
	s := NewMasker(secret).Stream()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		s.Push(text)
	}
}

// BenchmarkMaskerEvent is one event of an event stream at a time.
func BenchmarkMaskerEvent(b *testing.B) {
	s := NewMasker(NewSecret("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + strings.Repeat("c2VjcmV0", 150))).Stream()
	event := []byte(`data: {"choices":[{"delta":{"content":" the"}}],"usage":null}` + "\n\n")
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	for b.Loop() {
		s.Push(event)
	}
}
