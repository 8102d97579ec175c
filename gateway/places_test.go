package gateway

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"gatewayd/gateway/pipelock"
	"gatewayd/gateway/routes"
)

// gzipped returns text in the gzip coding.
func gzipped(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withParts is a multipart body whose second part has the token in it, in base64.
func withParts(t testing.TB, token string) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for header, content := range map[string]string{"7bit": "nothing", "base64": base64.StdEncoding.EncodeToString([]byte("token: " + token))} {
		p, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="f"`}, "Content-Transfer-Encoding": {header}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(p, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), b.String()
}

// places are the places of a request where something can be, each with what puts it there.
func places(t testing.TB, token string) map[string]func(*http.Request) {
	t.Helper()
	body := func(contentType, content string) func(*http.Request) {
		return func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader(content)), int64(len(content))
			r.Header.Set("Content-Type", contentType)
		}
	}
	inner, err := json.Marshal(map[string]string{"command": "export A=b\n" + token + "\n"})
	if err != nil {
		t.Fatal(err)
	}
	outer, err := json.Marshal(map[string]string{"arguments": string(inner)})
	if err != nil {
		t.Fatal(err)
	}
	parts, partsBody := withParts(t, token)
	return map[string]func(*http.Request){
		"path: url":            func(r *http.Request) { r.URL.Path += "/" + token + "/x" },
		"query: url":           func(r *http.Request) { r.URL.RawQuery = "a=b&key=" + token },
		"query, escaped: url":  func(r *http.Request) { r.URL.RawQuery = "key=%" + fmt.Sprintf("%x", token[0]) + token[1:] },
		"header: header X-Any": func(r *http.Request) { r.Header.Set("X-Any", "see "+token) },
		"auth: header Authorization": func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+token)
		},
		"basic: header Authorization": func(r *http.Request) { r.SetBasicAuth("user", token) },
		"cookie: header Cookie":       func(r *http.Request) { r.Header.Set("Cookie", "a=b; session="+token) },
		"body: body":                  body("text/plain", "x "+token+" y"),
		"json: body":                  body("application/json", string(outer)),
		"form: body":                  body("application/x-www-form-urlencoded", "a=b&c="+url.QueryEscape(token)+"&d=%41"),
		"multipart: body":             body(parts, partsBody),
		"grpc: body":                  body("application/grpc", "\x00\x00\x00\x00"+string(rune(len(token)+2))+"\x42"+string(rune(len(token)))+token),
		"gzip: body": func(r *http.Request) {
			body("text/plain", string(gzipped(t, "x "+token+" y")))(r)
			r.Header.Set("Content-Encoding", "gzip")
		},
		"trailer: header X-After": func(r *http.Request) {
			body("text/plain", "nothing")(r)
			r.ContentLength = -1 // chunked, or there is no place for trailers
			r.Trailer = http.Header{"X-After": {token}}
		},
	}
}

// TestEveryPlaceIsScanned puts a token that is known, one that the operator listed, and one that is known by its form
// everywhere in a request but in its method: no plan allows one that is not registered.
func TestEveryPlaceIsScanned(t *testing.T) {
	s := newStage(t, nil, func(_ http.ResponseWriter, r *http.Request) { readAll(r) }, authRoute(t, "home.test", 443))
	const listed = "canary-8c1f0e-of-the-operator"
	s.b.Formats = builtinSet(t)
	s.b.CanaryTokens = []pipelock.Token{{Name: "listed", Value: listed}}
	s.apply(t, s.b)
	bothVersions(t, func(t *testing.T, h2 bool) {
		c := s.client(t, h2)
		for rule, token := range map[string]string{"dummy of home.test": canaryDummy, "listed": listed, "github-pat": formToken()} {
			for name, put := range places(t, token) {
				_, place, _ := strings.Cut(name, ": ")
				r := s.ask(t, http.MethodGet, "/"+strings.Fields(name)[0], nil)
				put(r)
				resp, err := c.Do(r)
				if err != nil {
					t.Fatalf("%s in %s: %v", rule, name, err)
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil {
					t.Fatalf("%s in %s: %v", rule, name, err)
				}
				id := resp.Header.Get("X-Gatewayd-Request")
				if id == "" {
					t.Errorf("%s in %s: %d %v without an id: %s", rule, name, resp.StatusCode, resp.Header, b)
					continue
				}
				rec := s.request(t, func(r Record) bool { return r.ID == id })
				grpc := strings.HasPrefix(name, "grpc")
				if !grpc && resp.StatusCode != http.StatusForbidden || rec.Reason != ReasonLeak || rec.Decision != routes.Deny ||
					!strings.HasPrefix(strings.Replace(rec.Finding, ", as base64: ", ": ", 1), rule+" in "+place+": ") {
					t.Errorf("%s in %s: %d, record %+v", rule, name, resp.StatusCode, rec)
				}
				if all := string(b) + asJSON(t, rec); strings.Contains(all, token) || strings.Contains(all, token[4:14]) {
					t.Errorf("%s in %s: the explanation shows it: %s", rule, name, all)
				}
			}
		}
	})
}

// TestStreamThatHasBegunIsReset lets a response begin before the leak comes: what is left is to break both off, and to say
// so in the record.
func TestStreamThatHasBegunIsReset(t *testing.T) {
	for name, action := range map[string]string{"block": "", "warn": routes.WarnAction} {
		got := make(chan string, 2)
		s := formStage(t, func(r *routes.Route) { r.Pipelock.Action = action }, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			b, err := io.ReadAll(r.Body)
			got <- fmt.Sprint(string(b), " ", err)
		})
		bothVersions(t, func(t *testing.T, h2 bool) {
			pr, pw := io.Pipe()
			path := fmt.Sprintf("/stream-%t", h2)
			go io.WriteString(pw, "begin ")
			resp, err := s.client(t, h2).Do(s.ask(t, http.MethodPost, path, pr))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(pw, formToken()+" end"); err == nil {
				pw.Close()
			}
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			rec := s.request(t, func(r Record) bool { return r.Path == path })
			seen := <-got
			if action == routes.WarnAction {
				if err != nil || seen != "begin "+formToken()+" end <nil>" || !strings.HasPrefix(rec.Finding, "let go: github-pat in body: ") {
					t.Errorf("%s: %v, the origin saw %q, finding %q", name, err, seen, rec.Finding)
				}
				return
			}
			if err == nil || strings.Contains(seen, formToken()[:6]) || strings.HasSuffix(seen, "<nil>") {
				t.Errorf("%s: the guest's response ended with %v, and the origin saw %q", name, err, seen)
			}
			if rec.Reason != ReasonLeak || rec.Decision != routes.Deny || !strings.HasPrefix(rec.Finding, "github-pat in body: ") {
				t.Errorf("%s: record %+v", name, rec)
			}
		})
	}
}

// mostForBomb bounds what is allocated, in all, for a bomb of 64 MB: one that is undone to its end would be seen.
const mostForBomb = 48 << 20

// TestBombsAreRefused sends bodies that stand for far more than they are: each is refused with the reason, and not undone.
func TestBombsAreRefused(t *testing.T) {
	s := formStage(t, nil, func(_ http.ResponseWriter, r *http.Request) { readAll(r) })
	bombs := map[string][]byte{}
	for _, coding := range []string{"gzip", "deflate", "br", "zstd"} {
		bombs[coding] = bomb(t, coding)
	}
	bothVersions(t, func(t *testing.T, h2 bool) {
		c := s.client(t, h2)
		for coding, bomb := range bombs {
			for name, h := range map[string]http.Header{
				"body":      {"Content-Encoding": {coding}},
				"multipart": {"Content-Type": {"multipart/form-data; boundary=x"}},
				"grpc":      {"Content-Type": {"application/grpc"}, "Grpc-Encoding": {coding}},
				"connect":   {"Content-Type": {"application/connect+proto"}, "Connect-Content-Encoding": {coding}},
			} {
				body := bomb
				message := name == "grpc" || name == "connect" // it may have begun
				if name == "multipart" {
					body = []byte("--x\r\nContent-Encoding: " + coding + "\r\n\r\n" + string(bomb) + "\r\n--x--\r\n")
				}
				if message {
					n := len(bomb)
					body = append([]byte{1, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, bomb...)
				}
				r := s.ask(t, http.MethodPost, "/"+name, bytes.NewReader(body))
				r.Header = h
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				resp, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				rec := s.request(t, func(r Record) bool { return r.ID == resp.Header.Get("X-Gatewayd-Request") })
				if !message && resp.StatusCode != http.StatusUnsupportedMediaType || rec.Reason != ReasonUnscannable || rec.Decision != routes.Deny ||
					!strings.Contains(rec.Error, "beyond all proportion") {
					t.Errorf("%s, %s: %d, record %+v", name, coding, resp.StatusCode, rec)
				}
				runtime.ReadMemStats(&after)
				if n := after.TotalAlloc - before.TotalAlloc; n > mostForBomb {
					t.Errorf("%s, %s: %d MB were allocated", name, coding, n>>20)
				}
			}
		}
		many := s.ask(t, http.MethodGet, "/many", nil)
		for i := range 10_000 {
			many.Header.Add(fmt.Sprintf("X-%d", i), "v")
		}
		resp, err := c.Do(many)
		if h2 { // the client keeps to what the server has told it; TestHeaderBomb sends them all the same
			if err == nil || !strings.Contains(err.Error(), "request header list larger than peer's advertised limit") {
				t.Errorf("10,000 fields: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("10,000 fields: %d", resp.StatusCode)
		}
	})
}

// bomb is 64 MB of zeros in a content coding.
func bomb(t testing.TB, coding string) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&out)
	case "deflate":
		w = zlib.NewWriter(&out)
	case "br":
		w = brotli.NewWriter(&out)
	default:
		w, err = zstd.NewWriter(&out)
	}
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 64 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
