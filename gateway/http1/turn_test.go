package http1

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// TestPlainTarget shows that a target is what net/url makes of it, whether that was asked or not.
func TestPlainTarget(t *testing.T) {
	for _, target := range []string{
		"/", "/a", "/a/b.c_d-e~f", "//", "//a/b", "/?", "/a?", "/a??", "/a?b?", "/a?b=c&d=%2f", "/a?/../%00", "/..", "/a/../b", "/%61", "/a%2fb",
		"/a%", "/a;b", "/a:b", "/a@b", "/a+b", "/a!b", "/a'b", "/a=b", "/a,b", "/$", "/[a]", "/a|b", "?", "?a", "a", "",
	} {
		want, err := url.ParseRequestURI(target)
		h := &head{target: target}
		plain := h.plainTarget()
		if plain && (err != nil || !reflect.DeepEqual(&h.uri, want)) {
			t.Errorf("%q is %+v, want %+v, %v", target, h.uri, want, err)
		}
		if letters := strings.Trim(target, "abcdef/?.~_-") == "" && strings.HasPrefix(target, "/"); letters != plain && !strings.Contains(target, "?") {
			t.Errorf("%q is plain: %v", target, plain)
		}
	}
}

// TestControls shows that control bytes are seen wherever they are, and nothing else for one.
func TestControls(t *testing.T) {
	for n := range 20 {
		for at := range n {
			for _, around := range []byte{' ', 'a', '~', 0x80, 0x9f, 0xa0, 0xff} {
				for c := range 256 {
					s := []byte(strings.Repeat(string([]byte{around}), n))
					s[at] = byte(c)
					if want := c >= ' ' && c != 0x7f; noControls(string(s)) != want {
						t.Fatalf("%q has no controls: %v", s, !want)
					}
				}
			}
		}
	}
	if !noControls("") {
		t.Error("nothing has control bytes")
	}
}

// TestTurnForgets shows that a request finds nothing of another one in the memory that it is given, however that one ended.
func TestTurnForgets(t *testing.T) {
	many := strings.Repeat("X: y\r\n", keptFields) + "Y: z\r\n"
	for n := range keptFields {
		many += "X" + strings.Repeat("x", n) + ": y\r\n"
	}
	in := "GET /a?b HTTP/1.1\r\nHost: a.test\r\nX-First: 1\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n" +
		"POST /c HTTP/1.1\r\nHost: c.test\r\nX-Second: 1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n" +
		"GET /d HTTP/1.1\r\nHost: d.test\r\n" + many + "\r\n" +
		"OPTIONS * HTTP/1.1\r\nHost: e.test\r\nX-Last: 1\r\n\r\n" +
		"GET /f HTTP/1.1\r\nHost: f.test\r\n\r\n"
	s := &Server{}
	var seen []http.Header
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Clone())
		if len(w.Header()) != 0 {
			t.Errorf("the response to %s begins with %v", r.URL, w.Header())
		}
		if r.Method == http.MethodGet && (r.ContentLength != 0 || r.Body != http.NoBody || r.Trailer != nil || r.TransferEncoding != nil) {
			t.Errorf("%s has a body: %+v", r.URL, r)
		}
		r.Header.Set("X-Handler", "1")
		w.Header().Set("X-Answer", "1")
	})
	for range 20 { // the memory is lent at random
		seen = nil
		if err := s.Serve(context.Background(), context.Background(), &scriptConn{in: strings.NewReader(in)}); err != nil {
			t.Fatal(err)
		}
		if len(seen) != 5 {
			t.Fatalf("%d requests", len(seen))
		}
		want := http.Header{"X-First": {"1"}, "X-Twice": {"1", "2"}}
		if !reflect.DeepEqual(seen[0], want) || !reflect.DeepEqual(seen[1], http.Header{"X-Second": {"1"}}) ||
			!reflect.DeepEqual(seen[3], http.Header{"X-Last": {"1"}}) || len(seen[4]) != 0 {
			t.Fatalf("requests had %v", seen)
		}
		if got := s.turns.get(); len(got.head.fields.header) > 0 || !reflect.DeepEqual(got.request, http.Request{}) || got.response.header != nil || got.head.method != "" {
			t.Fatalf("what is lent is not empty: %+v", got)
		}
	}
}
