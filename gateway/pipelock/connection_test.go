package pipelock

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
)

// peer makes messages as a WebSocket client does.
type peer struct {
	out bytes.Buffer
	w   *flate.Writer
}

func (p *peer) message(t testing.TB, text string, takeover bool) []byte {
	t.Helper()
	if p.w == nil || !takeover {
		w, err := flate.NewWriter(&p.out, 6)
		if err != nil {
			t.Fatal(err)
		}
		p.w = w
	}
	p.out.Reset()
	if _, err := io.WriteString(p.w, text); err != nil {
		t.Fatal(err)
	}
	if err := p.w.Flush(); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(p.out.Bytes()[:p.out.Len()-4])
}

func TestMessages(t *testing.T) {
	token := formTokens()["gitlab-pat"]
	for _, takeover := range []bool{true, false} {
		for name, c := range map[string]struct {
			texts []string
			rule  string
		}{
			"clean":                     {[]string{"hello", "", "hello again", strings.Repeat("long ", 200_000), "end"}, ""},
			"form":                      {[]string{"hello", `{"a":"` + token + `"}`}, "gitlab-pat"},
			"form at the very end":      {[]string{"hello", token}, "gitlab-pat"},
			"form, repeated":            {[]string{"gl", "hello gl", "gl" + token[2:]}, "gitlab-pat"},
			"form in two messages":      {[]string{token[:9], token[9:], "next"}, ""},
			"known":                     {[]string{dummy}, "dummy of " + home},
			"known, in two messages":    {[]string{"x " + dummy[:9], dummy[9:]}, "dummy of " + home},
			"known, in three messages":  {[]string{"x " + dummy[:9], dummy[9:12], dummy[12:] + " y"}, "dummy of " + home},
			"known, but not one by one": {[]string{dummy[:9], "x", dummy[9:]}, ""},
		} {
			m, p := formScanner(t).Messages(other, takeover), &peer{}
			var err error
			for i, text := range c.texts {
				compressed := i%2 == 0 || !takeover
				payload := []byte(text)
				if compressed {
					payload = p.message(t, text, takeover)
				}
				var got []byte
				if got, err = io.ReadAll(m.Next(bytes.NewReader(payload), compressed)); err != nil {
					if i != len(c.texts)-1 {
						t.Errorf("%s: message %d: %v", name, i, err)
					}
					break
				}
				if !bytes.Equal(got, payload) {
					t.Errorf("%s: message %d: %d bytes became %d", name, i, len(payload), len(got))
				}
			}
			var leak *LeakError
			if errors.As(err, &leak) != (c.rule != "") || c.rule != "" && leak.Finding.Rule != c.rule || err != nil && leak == nil {
				t.Errorf("%s, takeover %t: %v", name, takeover, err)
			}
		}
	}
}

func TestMessagesRefused(t *testing.T) {
	for name, c := range map[string]struct {
		payload []byte
		kind    EncodingKind
	}{
		"garbage":      {[]byte("this is none"), Malformed},
		"a last block": {[]byte{0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00}, Malformed},
		"bomb":         {(&peer{}).message(t, strings.Repeat("\x00", 32<<20), false), Oversized},
		"empty blocks": {bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 1<<19), Oversized},
	} {
		m := scanner().Messages(other, true)
		got, err := io.ReadAll(m.Next(bytes.NewReader(c.payload), true))
		wantEncodingError(t, name, err, c.kind)
		if len(got) != 0 {
			t.Errorf("%s: %d bytes went", name, len(got))
		}
		if _, err := io.ReadAll(m.Next(bytes.NewReader([]byte{0}), true)); err == nil {
			t.Errorf("%s: another message was read", name)
		}
	}
	// Bombs too small to be one: what counts is the connection.
	m, p := scanner().Messages(other, false), &peer{}
	bomb := p.message(t, strings.Repeat("\x00", 1<<20), false)
	var err error
	for range 20 {
		if _, err = io.ReadAll(m.Next(bytes.NewReader(bomb), true)); err != nil {
			break
		}
	}
	wantEncodingError(t, "many small bombs", err, Oversized)
}

// FuzzMessages holds compressed messages against the same messages as they are.
func FuzzMessages(f *testing.F) {
	f.Add("hello", dummy[:8], dummy[8:], true, []byte{0xf2, 0x48})
	f.Add("", formTokens()["gitlab-pat"], "x", false, []byte{})
	f.Fuzz(func(t *testing.T, a, b, c string, takeover bool, raw []byte) {
		s := formScanner(t)
		plain, coded, p := s.Messages(other, takeover), s.Messages(other, takeover), &peer{}
		for _, text := range []string{a, b, c} {
			payload := p.message(t, text, takeover)
			got, err := io.ReadAll(coded.Next(bytes.NewReader(payload), true))
			_, want := io.ReadAll(plain.Next(strings.NewReader(text), false))
			if (err == nil) != (want == nil) || err == nil && !bytes.Equal(got, payload) {
				t.Fatalf("%q: %v compressed, %v as it is", text, err, want)
			}
			if err != nil {
				return
			}
		}
		if got, _ := io.ReadAll(coded.Next(bytes.NewReader(raw), true)); !bytes.HasPrefix(raw, got) {
			t.Fatalf("%x gave %x", raw, got)
		}
	})
}
