package formats

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// encodings are ways of writing a text within another that are undone.
var encodings = []struct {
	name, finding string
	encode        func(string) string
}{
	{"base64", "base64", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }},
	{"base64, no padding", "base64", func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte(s)) }},
	{"base64url", "base64", func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }},
	{"base64, lines", "base64", func(s string) string { return inLines(base64.StdEncoding.EncodeToString([]byte(s)), 76, "\n") }},
	{"base64, mail", "base64", func(s string) string { return inLines(base64.StdEncoding.EncodeToString([]byte(s)), 64, "\r\n") }},
	{"hex", "hex", func(s string) string { return hex.EncodeToString([]byte(s)) }},
	{"HEX", "hex", func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) }},
}

// inLines cuts s into lines.
func inLines(s string, length int, end string) string {
	var b strings.Builder
	for len(s) > length {
		b.WriteString(s[:length] + end)
		s = s[length:]
	}
	return b.String() + s
}

// TestEncoded looks for a token in what is encoded, with much and little around it, cut at every offset.
func TestEncoded(t *testing.T) {
	s := defaultSet(t)
	token := "gl" + "pat-1x2Y3z4W5v6U7t8S9r0Q"
	for _, text := range []string{
		token, "a" + token, "ab" + token, token + "\n",
		"# settings\nTOKEN=" + token + "\nOTHER=1\n",
		strings.Repeat("lines of a file, which says little\n", 9) + token + "\n" + strings.Repeat("and more of it\n", 9),
		`{"user":"` + strings.Repeat("é", 20) + `","token":"` + token + `"}`,
	} {
		for _, e := range encodings {
			for _, around := range []string{"%", "\"%\"", "a=1&data:text/plain;base64,%,next", "\n%\n"} {
				before, after, _ := strings.Cut(around, "%")
				body := before + e.encode(text) + after
				whole := inPieces(s, body, func() int { return len(body) })
				if !slices.ContainsFunc(whole, func(f string) bool {
					return strings.HasPrefix(f, "gitlab-pat ") && strings.HasSuffix(f, " "+e.finding)
				}) {
					t.Errorf("%s of %q in %q: %q", e.name, text, around, whole)
					continue
				}
				for cut := 1; cut < len(body); cut++ {
					first := true
					got := inPieces(s, body, func() int {
						if first {
							first = false
							return cut
						}
						return len(body)
					})
					if !slices.Equal(got, whole) {
						t.Fatalf("%s of %q in %q, cut at %d: %q, whole %q", e.name, text, around, cut, got, whole)
					}
				}
			}
		}
	}
}

// TestEncodedIsHeldBack makes sure that of an encoded token that is being recognised no more is let go.
func TestEncodedIsHeldBack(t *testing.T) {
	s := defaultSet(t)
	token := "gl" + "pat-1x2Y3z4W5v6U7t8S9r0Q"
	body := []byte(`{"file":"` + base64.StdEncoding.EncodeToString([]byte("# settings, in a file\nTOKEN="+token+"\n")) + `"}`)
	at := int64(bytes.Index(body, []byte(base64.StdEncoding.EncodeToString([]byte("# settings, in a file\nTOK"))[:32])) + 28/3*4)
	for cut := int(at) + 12; ; cut++ {
		st := s.NewStream(s.Policy(nil, false))
		found := false
		free := st.Push(body[:cut], func(Finding) { found = true })
		if found {
			break
		}
		if free > at+12 { // what is gone is the literal that the form is known by
			t.Fatalf("%d bytes of %q may go, of which the token begins at %d", free, body[:cut], at)
		}
	}
}

// TestEncodedIsNoText holds what is not undone: binary, too short, and twice encoded.
func TestEncodedIsNoText(t *testing.T) {
	s := defaultSet(t)
	token := "gl" + "pat-1x2Y3z4W5v6U7t8S9r0Q"
	b64 := base64.StdEncoding.EncodeToString
	for name, body := range map[string]string{
		"binary": b64([]byte("\x00\x01\x02\xff\xfe\x03" + token)),
		"twice":  b64([]byte(b64([]byte(token)))),
		"short":  b64([]byte("s.abc"))[:8],
	} {
		if got := found(s, body); len(got) > 0 {
			t.Errorf("%s: %q: its boundary has moved, which docs/SCANNER.md names", name, got)
		}
	}
}

// FuzzEncoded makes sure that nothing breaks on what may be encoded, however it is cut.
func FuzzEncoded(f *testing.F) {
	s := defaultSet(f)
	f.Add("TOKEN=gl"+"pat-1x2Y3z4W5v6U7t8S9r0Q\n", uint64(1))
	f.Add("676c7061742d3178", uint64(2))
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		if len(text) > 1<<14 {
			return
		}
		rnd := rand.New(rand.NewPCG(seed, 9))
		for _, e := range encodings {
			text := text + e.encode(text) + "\n" + text
			want := inPieces(s, text, func() int { return len(text) })
			if got := inPieces(s, text, func() int { return 1 + rnd.IntN(90) }); !slices.Equal(got, want) {
				t.Fatalf("%s: got %q\nwant %q", e.name, got, want)
			}
		}
	})
}

// TestMemberWords holds the arithmetic on eight bytes against the table, for each byte at each place.
func TestMemberWords(t *testing.T) {
	for at := range 9 * wordSize {
		for c := range 256 {
			words := [9 * wordSize]byte([]byte(strings.Repeat("aZ9+/-_z", 9)))
			words[at] = byte(c)
			member := uint(31)
			if at/wordSize%2 == 0 && base64Values[c] == notMember {
				member &^= 1 << (at / (2 * wordSize))
			}
			if got := memberWords(&words); got != member {
				t.Fatalf("%#x at %d: members %05b, want %05b", c, at, got, member)
			}
			dirty := c < '+' || c >= 0x80
			if none(unclean(words[at/wordSize*wordSize:]))>>63 == 0 != dirty {
				t.Fatalf("%#x at %d: unclean %v", c, at, !dirty)
			}
			clean := [9 * wordSize]byte([]byte(strings.Repeat("(aZ9+/-_", 9))) // but for the word, and the one before or behind
			pair := at / wordSize
			copy(clean[max(0, pair-1)*wordSize:], strings.Repeat("aZ9+/-_z", 2))
			if !cleanPair(&clean) {
				t.Fatalf("%q has no pair", clean)
			}
			if clean[at] = byte(c); cleanPair(&clean) == dirty {
				t.Fatalf("%#x at %d of %q: pair %v", c, at, clean, !dirty)
			}
		}
	}
}

// TestFindRun holds the search for runs against reading each byte, for runs of all lengths at all places.
func TestFindRun(t *testing.T) {
	for _, between := range []string{" ", ",", "=", "é", "some words (of a text), x[i] = y; "} {
		for before := range 140 {
			for length := range 2 * shortestRun {
				text := strings.Repeat(between, 140)[:before] + " " + strings.Repeat("aZ9+/-_z", 8)[:length]
				for _, text := range []string{text, text + " " + strings.Repeat(between, 20)} {
					checkFindRun(t, []byte(text))
				}
			}
		}
	}
}

// FuzzFindRun holds the search for runs, in each way that this processor knows, against reading each byte.
func FuzzFindRun(f *testing.F) {
	for c := range 256 {
		f.Add([]byte(strings.Repeat("aZ9+/-_z", 4)+string([]byte{byte(c)})+strings.Repeat("-", 30)), c%40)
	}
	f.Fuzz(func(t *testing.T, text []byte, from int) {
		checkFindRun(t, text[min(len(text), int(uint(from)%64)):])
	})
}

func checkFindRun(t *testing.T, text []byte) {
	t.Helper()
	wantAt, want := readRun(text)
	if at, ok := findRun(text); at != wantAt || ok != want {
		t.Fatalf("%q: %d %v, want %d %v", text, at, ok, wantAt, want)
	}
	if at, ok := findRunInWords(text); at != wantAt || ok != want {
		t.Fatalf("%q, in words: %d %v, want %d %v", text, at, ok, wantAt, want)
	}
}

// readRun is findRun, byte by byte.
func readRun(text []byte) (at int, ok bool) {
	for i := range len(text) {
		switch {
		case base64Values[text[i]] == notMember:
			at = i + 1
		case i+1-at == shortestRun:
			return at, true
		}
	}
	return at, false
}
