package pipelock

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"gatewayd/gateway/needle"
	"gatewayd/gateway/routes"
)

const (
	dummy  = "dummy-4f9a-of-bottle-dev"
	secret = "live+secret/of=the-host"
	home   = "api.example.org"
	other  = "evil.example.net"
)

func scanner() *Scanner {
	return New([]Token{
		{Name: "dummy of " + home, Value: dummy, Homes: []string{home, "www.example.org"}},
		{Name: "host secret", Value: secret},
		{Name: "too short", Value: "GET"},
	})
}

func TestPassthroughHosts(t *testing.T) {
	auth := &routes.Auth{Scheme: routes.Bearer}
	got := PassthroughHosts([]routes.Route{
		{Host: "b.test", TLSPassthrough: true, Auth: auth}, {Host: "a.test"}, {Host: "c.test", Auth: auth},
		{Host: "*.d.test", TLSPassthrough: true}, {Host: "b.test", Port: 8443, TLSPassthrough: true}, {Host: "e.test", Answer: "x", TLSPassthrough: true},
	})
	if want := []string{"b.test", "*.d.test", "e.test"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := PassthroughHosts(nil); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// encodings are the ways in which a guest's own programs send a token.
func encodings(token string) map[string]string {
	b64 := base64.StdEncoding.EncodeToString
	return map[string]string{
		"raw":           token,
		"within text":   "x=" + token + "&y",
		"percent":       url.QueryEscape(token),
		"base64":        b64([]byte(token)),
		"base64 +1":     b64([]byte("u" + token)),
		"base64 +2":     b64([]byte("u:" + token + ":x")),
		"base64url":     base64.RawURLEncoding.EncodeToString([]byte("u:" + token)),
		"hex":           hex.EncodeToString([]byte(token)),
		"hex, capitals": strings.ToUpper(hex.EncodeToString([]byte(token))),
	}
}

func TestRequestFindsTokens(t *testing.T) {
	s := scanner()
	for _, c := range []struct{ token, rule string }{{dummy, "dummy of " + home}, {secret, "host secret"}} {
		for name, text := range encodings(c.token) {
			pct := strings.NewReplacer(" ", "%20", "+", "%2B").Replace(text)
			mixed := strings.ReplaceAll(strings.ReplaceAll(pct, "o", "%6f"), "e", "%2565")
			for place, req := range map[string]struct {
				url string
				h   http.Header
			}{
				"url":             {"/a?" + pct, nil},
				"header X-Any":    {"/", http.Header{"X-Any": {"fine", text}}},
				"header Cookie":   {"/", http.Header{"Cookie": {"a=b; c=" + pct}}},
				"header x-lower":  {"/", http.Header{"x-lower": {text}}},
				"header Referer":  {"/", http.Header{"Referer": {"https://a.test/" + mixed}}},
				"url, part coded": {"/" + mixed, nil},
			} {
				want := strings.TrimSuffix(place, ", part coded")
				if want == "header x-lower" {
					want = "header X-Lower"
				}
				got := s.Request(other, req.url, req.h, nil)
				if len(got) != 1 || got[0].Rule != c.rule || got[0].Place != want {
					t.Errorf("%s in %s: %+v", name, place, got)
				}
			}
		}
	}
}

func TestRequestLeavesAlone(t *testing.T) {
	s := scanner()
	authorized := http.Header{"Authorization": {"Bearer " + dummy}}
	for name, got := range map[string][]Finding{
		"clean":          s.Request(other, "/a?b=c%20d%", http.Header{"Accept": {"*/*"}, "X": {"GET"}}, nil),
		"at home":        s.Request(home, "/", authorized, nil),
		"second home":    s.Request("www.example.org", "/"+dummy, nil, nil),
		"skipped":        s.Request(other, "/", authorized, []string{"authorization"}),
		"nil scanner":    (*Scanner)(nil).Request(other, "/"+dummy, authorized, nil),
		"no tokens":      New(nil).Request(other, "/"+dummy, authorized, nil),
		"almost":         s.Request(other, "/"+dummy[1:]+dummy[:len(dummy)-1], nil, nil),
		"scan at home":   s.Scan(home, "x", []byte(dummy)),
		"nil scan":       (*Scanner)(nil).Scan(other, "x", []byte(dummy)),
		"home of others": s.Request(home, "/"+"GET", nil, nil),
	} {
		if len(got) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := s.Request(home, "/", http.Header{"X": {secret}}, nil); len(got) != 1 {
		t.Errorf("another token at a home: %+v", got)
	}
	if got := s.Request("sub."+home, "/", authorized, nil); len(got) != 1 {
		t.Errorf("below a home: %+v", got)
	}
	if got := s.Request(other, "/", http.Header{dummy: {"x"}}, []string{"Authorization"}); len(got) != 1 || got[0].Place != "header name" {
		t.Errorf("in a header's name: %+v", got)
	}
}

func TestFindingsAreBounded(t *testing.T) {
	var tokens []Token
	text := ""
	for i := range 40 {
		v := strings.Repeat(string(rune('a'+i%26)), 8) + string(rune('A'+i%26)) + strings.Repeat("x", i)
		tokens = append(tokens, Token{Name: v, Value: v})
		text += v + " "
	}
	h := http.Header{}
	for _, name := range []string{"A", "B", "C"} {
		h.Set(name, text)
	}
	if got := New(tokens).Request(other, "/", h, nil); len(got) != maxFindings {
		t.Errorf("%d findings", len(got))
	}
	if got := scanner().Scan(other, "x", []byte(strings.Repeat(dummy+" ", 100))); len(got) != 1 {
		t.Errorf("%d findings of one token", len(got))
	}
}

func TestExcerpt(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{`{"a": "`, `"}`, `{"a": "[REDACTED]"}`},
		{"key=", "&b=c", "key=[REDACTED]&b=c"},
		{"password=hunter22hunter22 ", " tail of it that is long", "**************** [REDACTED] tail of it that"},
		{"\r\n\x00é", "\x7f\x1b[31m", ".....[REDACTED]..[31m"},
		{"", "", "[REDACTED]"},
	} {
		b := []byte(c.before + dummy + c.after)
		got := scanner().Scan(other, "x", b)
		if len(got) != 1 {
			t.Fatalf("%+v", got)
		}
		if want := c.want; !strings.HasSuffix(want, got[0].Excerpt) && got[0].Excerpt != want {
			t.Errorf("excerpt %q, want %q", got[0].Excerpt, want)
		}
	}
	for _, f := range scanner().Scan(other, "x", []byte(dummy+dummy+secret+dummy)) {
		for _, token := range []string{dummy, secret} {
			for i := range len(token) - 6 {
				if strings.Contains(f.Excerpt, token[i:i+7]) {
					t.Errorf("excerpt %q shows %q", f.Excerpt, token[i:i+7])
				}
			}
		}
	}
}

// TestCutOverValues cuts a token where the values of a field are joined again.
func TestCutOverValues(t *testing.T) {
	s := New([]Token{{Name: "cookies", Value: "session=41f9; csrf=9a77"}, {Name: "list", Value: "first-half, second-half"}})
	for _, c := range []struct {
		name   string
		values []string
		rule   string
	}{
		{"Cookie", []string{"a=b; session=41f9", "csrf=9a77; c=d"}, "cookies"},
		{"cookie", []string{"session=41f9", "csrf=9a77"}, "cookies"},
		{"Cookie", []string{"session=41f9", "a=b", "csrf=9a77"}, ""},
		{"X-Any", []string{"session=41f9", "csrf=9a77"}, ""},
		{"X-Any", []string{"the first-half", "second-half"}, "list"},
		{"Cookie", []string{"first-half", "second-half"}, ""},
	} {
		got := s.Request(other, "/", http.Header{c.name: c.values}, nil)
		if rules := len(got); rules > 1 || (rules == 1) != (c.rule != "") || rules == 1 && got[0].Rule != c.rule {
			t.Errorf("%s %q: %+v", c.name, c.values, got)
		}
	}
	if got := s.Request(other, "/", http.Header{"X-Any": {"the first-half", "second-half"}}, []string{"x-any"}); len(got) != 0 {
		t.Errorf("in a field that is set afterwards: %+v", got)
	}
}

// FuzzRequest checks that no head makes the scanner panic, and that a token in
// it is found whatever surrounds it.
func FuzzRequest(f *testing.F) {
	f.Add("/a?b", "X-Y", "%", 3)
	f.Add("/%zz%25%3", "cookie", "dummy-4f9a-of-bottle-de", 9)
	f.Fuzz(func(t *testing.T, target, name, value string, at int) {
		s := scanner()
		for _, finding := range s.Request(other, target, http.Header{name: {value}}, nil) {
			if strings.Contains(finding.Excerpt, dummy) || strings.Contains(finding.Excerpt, secret) {
				t.Fatalf("%+v shows a token", finding)
			}
		}
		forms := needle.Forms(dummy)
		form := forms[uint(at)%uint(len(forms))]
		if len(s.Request(other, target+form, nil, nil)) == 0 || len(s.Request(other, "/", http.Header{name: {form + value}}, nil)) == 0 {
			t.Fatalf("%q is missed beside %q %q", form, target, value)
		}
	})
}
