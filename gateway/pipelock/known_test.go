package pipelock

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// TestExcerptsHideEveryToken: not only the one that was found, whatever it is made of and wherever the text is cut.
func TestExcerptsHideEveryToken(t *testing.T) {
	const secret = "be a cat, or a dog!"
	text := "see: " + secret + " " + secret + "; " + secret
	s := New([]Token{{Name: "secret", Value: secret}})
	check := func(where string, f Finding) {
		t.Helper()
		if f.Rule != "secret" || !strings.Contains(f.Excerpt, redacted) {
			t.Errorf("%s: finding %+v", where, f)
		}
		for _, word := range []string{"be a", "cat", "dog"} {
			if strings.Contains(f.Excerpt, word) {
				t.Errorf("%s: the excerpt %q says %q", where, f.Excerpt, word)
			}
		}
	}
	for cut := 0; cut <= len(text); cut++ {
		for _, f := range s.Scan("host", "body", []byte(text[:cut])) {
			check(fmt.Sprintf("scan of %d bytes", cut), f)
		}
		st := s.Stream("host", "body")
		_, err := st.Push([]byte(text[:cut]))
		if err == nil {
			_, err = st.Push([]byte(text[cut:]))
		}
		var leak *LeakError
		if !errors.As(err, &leak) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		check(fmt.Sprintf("stream cut at %d", cut), leak.Finding)
	}
	for _, f := range s.Request("host", "/"+strings.ReplaceAll(text, " ", "%20"), http.Header{"X": {text}}, nil) {
		check("head", f)
	}
	f := formScanner(t)
	forms := s.WithFormats(f.formats, f.policy)
	for _, f := range forms.Scan("host", "body", []byte(secret+" "+formTokens()["gitlab-pat"]+" "+secret)) {
		if strings.Contains(f.Excerpt, "cat") || strings.Contains(f.Excerpt, "dog") {
			t.Errorf("beside a form: %+v", f)
		}
	}
}

// TestScannersDoNotPrintTokens: not whole, by no verb, if a value has no home.
func TestScannersDoNotPrintTokens(t *testing.T) {
	const secret = "a-secret-of-the-host"
	k := NewKnown([]Token{{Name: "secret", Value: secret}})
	s := Live(func() *Known { return k })
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if said := fmt.Sprintf(verb+verb+verb, k, *k, s); strings.Contains(said, secret) {
			t.Errorf("%s prints %s", verb, said)
		}
	}
}

func TestRedact(t *testing.T) {
	k := NewKnown([]Token{{Name: "one", Value: "abcabcabcabc"}, {Name: "two", Value: "cabc-and-more"}})
	for text, want := range map[string]string{
		"":                                      "",
		"nothing of it":                         "nothing of it",
		"abcabcabcabc":                          redacted,
		"x abcabcabcabc y abcabcabcabc":         "x " + redacted + " y " + redacted,
		"abcabcabcabcabc":                       redacted, // twice, one over the other
		"abcabcabcabc-and-more!":                redacted + "!",
		"%61%62%63%61%62%63%61%62%63%61%62%63?": redacted + "?",
	} {
		if got := k.Redact(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
	if got := new(Known).Redact("anything at all"); got != "anything at all" {
		t.Errorf("nothing is known, and it shows %q", got)
	}
}

// TestLiveTokens: a stream that is open finds what becomes known on its way, and a text in base64 that is under way then ends
// with what was known when it began.
func TestLiveTokens(t *testing.T) {
	const first, second = "first-secret-of-the-host", "second-secret-of-the-host"
	var now atomic.Pointer[Known]
	knows := func(values ...string) {
		tokens := make([]Token, len(values))
		for i, v := range values {
			tokens[i] = Token{Name: "secret", Value: v}
		}
		now.Store(NewKnown(tokens))
	}
	f := formScanner(t)
	for _, scanner := range []*Scanner{Live(now.Load), Live(now.Load).WithFormats(f.formats, f.policy)} {
		knows()
		st := scanner.Stream("host", "body")
		push := func(text string) error {
			_, err := st.Push([]byte(text))
			return err
		}
		if err := errors.Join(push("a "+first+" b"), push("first-sec")); err != nil {
			t.Fatalf("nothing is known, and %v", err)
		}
		knows("many-other-secrets", "of-which-none-is-here", first)
		wrapped := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("text that is encoded and goes on and on ", 30)))
		if err := push("ret " + second + ` "` + wrapped[:400]); err != nil {
			t.Fatal(err)
		}
		knows(second)
		if err := push(wrapped[400:] + `" ` + first); err != nil {
			t.Fatalf("it is forgotten, and %v", err)
		}
		if err := push(" " + second[:9]); err != nil {
			t.Fatal(err)
		}
		if err := push(second[9:]); err == nil {
			t.Error("what became known on the way is not found")
		}
	}
}
