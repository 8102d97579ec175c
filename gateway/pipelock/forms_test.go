package pipelock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// formTokens are tokens of several forms, put together so that no file holds one.
func formTokens() map[string]string {
	return map[string]string{
		"gitlab-pat":          "gl" + "pat-1x2Y3z4W5v6U7t8S9r0Q",
		"stripe-access-token": "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc",
		"slack-bot-token":     "xo" + "xb-263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1",
		"npm-access-token":    "np" + "m_b2X8qLmT4vRz7KdWsY1hJpC9fG3nAe5Qx6Zu",
		"digitalocean-pat":    "do" + "p_v1_3fa85f645717456298fc2c963f66afa60b1d2e4c5f6a7b8c9d0e1f2a3b4c5d6e",
		"aws-access-token":    "AK" + "IAQ3EGRZ4T6UXYP2MV",
	}
}

// wrap is a way in which a token can be in a request's body.
type wrap struct {
	header http.Header
	body   func(t *testing.T, token string) []byte
}

func wraps() map[string]wrap {
	text := func(f func(token string) string) func(*testing.T, string) []byte {
		return func(_ *testing.T, token string) []byte { return []byte(f(token)) }
	}
	each := func(s, format string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, format, s[i])
		}
		return b.String()
	}
	all := map[string]wrap{
		"raw":           {nil, text(func(s string) string { return s })},
		"line":          {nil, text(func(s string) string { return "TOKEN=" + s + "\nNEXT=1\n" })},
		"json":          {asJSON, text(func(s string) string { return `{"a":"` + s + `"}` })},
		"json, source":  {asJSON, text(func(s string) string { return `{"a":"line\n\t` + s + `\nline"}` })},
		"json, escaped": {asJSON, text(func(s string) string { return `{"a":"` + each(s, `\u%04x`) + `"}` })},
		"form":          {http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}, text(func(s string) string { return "a=b&c=" + url.QueryEscape(s) + "&d=e" })},
		"form, escaped": {http.Header{"Content-Type": {"Application/X-WWW-Form-URLEncoded"}}, text(func(s string) string { return "c=" + each(s, "%%%02X") })},
		"multipart": {http.Header{"Content-Type": {"multipart/form-data; boundary=x"}}, text(func(s string) string {
			return "--x\r\nContent-Disposition: form-data; name=\"k\"\r\n\r\n" + s + "\r\n--x--\r\n"
		})},
		"event stream":   {http.Header{"Content-Type": {"text/event-stream"}}, text(func(s string) string { return "data: " + s + "\n\n" })},
		"between binary": {nil, text(func(s string) string { return "\x00\x01\x82" + s + "\n\x00\xff" })},
	}
	for coding := range coders { // the token is cut over two blocks
		all[coding] = wrap{http.Header{"Content-Encoding": {coding}}, func(t *testing.T, token string) []byte {
			return encode(t, coding, `{"a":"`+token[:7], token[7:]+`"}`)
		}}
	}
	return all
}

// TestFormsInEveryWrap looks for each token in each way, cut at every offset into two pieces.
func TestFormsInEveryWrap(t *testing.T) {
	s := formScanner(t)
	for rule, token := range formTokens() {
		for name, w := range wraps() {
			body := w.body(t, token)
			step := 1 + len(body)/400
			for cut := 0; cut <= len(body); cut += step {
				r, err := s.RequestBody(other, w.header, io.MultiReader(bytes.NewReader(body[:cut]), bytes.NewReader(body[cut:])))
				if err != nil {
					t.Fatal(err)
				}
				out, err := io.ReadAll(r)
				var leak *LeakError
				if !errors.As(err, &leak) || leak.Finding.Rule != rule {
					t.Fatalf("%s, %s, cut at %d: %v", rule, name, cut, err)
				}
				if bytes.Contains(out, []byte(token)) || strings.Contains(leak.Finding.Excerpt, token[4:12]) {
					t.Fatalf("%s, %s, cut at %d: the token went, or is shown: %q", rule, name, cut, leak.Finding.Excerpt)
				}
			}
		}
	}
}

// TestFormsInSmallPieces sends each token in pieces of few bytes, all of which together would be let go if each were judged
// alone.
func TestFormsInSmallPieces(t *testing.T) {
	s := formScanner(t).withoutTokens()
	for rule, token := range formTokens() {
		for name, w := range map[string]func(string) string{
			"raw":     func(s string) string { return s },
			"escaped": func(s string) string { return `"` + escapedBytes(rand.New(rand.NewPCG(1, 1)), s, false, 2) },
		} {
			for size := 1; size < 8; size++ {
				body := "text " + w(token)
				out, err := io.ReadAll(s.Body(other, &pieceReader{strings.NewReader(body + " text"), size}))
				var leak *LeakError
				if !errors.As(err, &leak) || leak.Finding.Rule != rule {
					t.Fatalf("%s, %s, %d bytes at a time: %v", rule, name, size, err)
				}
				if len(out) > len(body)*3/4 {
					t.Errorf("%s, %s, %d bytes at a time: %q went", rule, name, size, out)
				}
			}
		}
	}
}

func TestFormsInHeads(t *testing.T) {
	s := formScanner(t)
	for rule, token := range formTokens() {
		for place, got := range map[string][]Finding{
			"url":                  s.Request(other, "/a?b="+url.QueryEscape(token), nil, nil),
			"url ":                 s.Request(other, "/a/"+token+"/c?b="+token+"&d=e", nil, nil),
			"header X-Any":         s.Request(other, "/", http.Header{"X-Any": {token}}, nil),
			"header Cookie":        s.Request(other, "/", http.Header{"Cookie": {"a=b; c=" + token}}, nil),
			"header Authorization": s.Request(other, "/", http.Header{"Authorization": {"Bearer " + token}}, nil),
		} {
			if len(got) != 1 || got[0].Rule != rule || got[0].Place != strings.TrimSpace(place) || got[0].Action != Block {
				t.Errorf("%s in %s: %+v", rule, place, got)
			}
		}
		if got := s.Request(other, "/", http.Header{"Authorization": {token}}, []string{"Authorization"}); len(got) != 0 {
			t.Errorf("%s in the header that is set afterwards: %+v", rule, got)
		}
	}
}

// TestFormAtHome lets a dummy that looks like a token go to its own host, and nowhere else.
func TestFormAtHome(t *testing.T) {
	set, err := builtin()
	if err != nil {
		t.Fatal(err)
	}
	token := formTokens()["gitlab-pat"]
	s := New([]Token{{Name: "dummy", Value: token, Homes: []string{home}}}).WithFormats(set, set.Policy(nil, false))
	if out, err := io.ReadAll(s.Body(home, strings.NewReader(token))); err != nil || string(out) != token {
		t.Errorf("at home: %q, %v", out, err)
	}
	var leak *LeakError
	if _, err := io.ReadAll(s.Body(other, strings.NewReader(token))); !errors.As(err, &leak) || leak.Finding.Rule != "dummy" {
		t.Errorf("elsewhere: %v", err)
	}
}

func TestCompressedMessagesAreRefused(t *testing.T) {
	var e *EncodingError
	if _, err := formScanner(t).RequestBody(other, http.Header{"Grpc-Encoding": {"gzip"}}, strings.NewReader("")); !errors.As(err, &e) || e.Kind != Unknown {
		t.Errorf("%v", err)
	}
	if _, err := formScanner(t).RequestBody(other, http.Header{"Grpc-Encoding": {"identity"}}, strings.NewReader("")); err != nil {
		t.Errorf("identity: %v", err)
	}
}

// TestFormsAreLive reads a message before the next is written, while the scanner looks for forms.
func TestFormsAreLive(t *testing.T) {
	pr, pw := io.Pipe()
	defer pr.Close()
	b := formScanner(t).Body(other, pr)
	buf := make([]byte, 256)
	for _, message := range []string{"data: {\"key\": \"", "data: token\n\n", "s", "sk", "ghp", "\\", "\\u0", "an api key = ", "eyJ"} {
		go func() { _, _ = io.WriteString(pw, message) }()
		if _, err := io.ReadFull(b, buf[:len(message)]); err != nil || string(buf[:len(message)]) != message {
			t.Fatalf("%q, %v", buf[:len(message)], err)
		}
	}
}

// FuzzForms makes sure that whatever is not refused comes out as it went in, however it is cut, and that cutting changes
// nothing of what is refused.
func FuzzForms(f *testing.F) {
	f.Add(`{"a":"\u0067\n\\u00e9 `+formTokens()["gitlab-pat"]+`"}`, uint64(1))
	f.Add(`key=\`, uint64(2))
	f.Fuzz(func(t *testing.T, body string, seed uint64) {
		if len(body) > 1<<14 {
			return
		}
		s := formScanner(t)
		want, wantErr := io.ReadAll(s.Body(other, strings.NewReader(body)))
		if wantErr == nil && string(want) != body {
			t.Fatalf("%q came out as %q", body, want)
		}
		rnd := rand.New(rand.NewPCG(seed, 1))
		st := s.Stream(other, "body")
		var got []byte
		var err error
		for rest := []byte(body); len(rest) > 0 && err == nil; {
			n := 1 + rnd.IntN(min(len(rest), 50))
			var out []byte
			out, err = st.Push(slices.Clone(rest[:n]))
			got, rest = append(got, out...), rest[n:]
		}
		if err == nil {
			var out []byte
			out, err = st.Rest()
			got = append(got, out...)
		}
		if (err == nil) != (wantErr == nil) || err == nil && string(got) != body {
			t.Fatalf("%q in pieces: %q, %v; whole: %v", body, got, err, wantErr)
		}
		if _, err := io.ReadAll(s.Body(other, iotest.OneByteReader(strings.NewReader(body)))); (err == nil) != (wantErr == nil) {
			t.Fatalf("by bytes: %v; whole: %v", err, wantErr)
		}
	})
}
