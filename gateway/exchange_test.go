package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

func TestRefusedRequests(t *testing.T) {
	s := newStage(t, func(r *routes.Route) { r.Methods, r.Paths = []string{"GET", "POST", "TRACE2"}, []string{"/v1/**"} },
		func(http.ResponseWriter, *http.Request) { t.Error("a refused request reached the origin") })
	host := fmt.Sprintf("api.test:%d", s.port)
	for _, tt := range []struct {
		name, raw string
		status    int
		reason    routes.Reason
	}{
		{"other host", "GET /v1/x HTTP/1.1\r\nHost: other.test\r\n\r\n", 421, ReasonMisdirected},
		{"other port", "GET /v1/x HTTP/1.1\r\nHost: api.test:444\r\n\r\n", 421, ReasonMisdirected},
		{"suffix of the host", "GET /v1/x HTTP/1.1\r\nHost: xapi.test\r\n\r\n", 421, ReasonMisdirected},
		{"trailing dot", "GET /v1/x HTTP/1.1\r\nHost: api.test.\r\n\r\n", 421, ReasonMisdirected},
		{"address", "GET /v1/x HTTP/1.1\r\nHost: [::1]\r\n\r\n", 421, ReasonMisdirected},
		{"absolute-form of another host", "GET https://other.test/v1/x HTTP/1.1\r\nHost: other.test\r\n\r\n", 421, ReasonMisdirected},
		{"absolute-form of another scheme", "GET http://" + host + "/v1/x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 421, ReasonMisdirected},
		{"TRACE", "TRACE /v1/x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 405, ReasonMethodRefused},
		{"method", "PUT /v1/x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403, routes.MethodDenied},
		{"method in other case", "get /v1/x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403, routes.MethodDenied},
		{"path", "GET /v2/x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403, routes.PathDenied},
		{"dot segments", "GET /v1/../v2 HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403, routes.PathNotCanonical},
		{"encoded dot segments", "GET /v1/%2e%2e/v2 HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403, routes.PathNotCanonical},
		{"dot segments in absolute-form", "GET https://" + host + "/v1/../v2 HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403, routes.PathNotCanonical},
		{"encoded slash", "GET /v1%2fx HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403, routes.PathNotCanonical},
		{"backslash", "GET /v1\\x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403, routes.PathNotCanonical},
		{"upgrade to another protocol", "GET /v1/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n", 403, ReasonUpgradeRefused},
		{"upgrade to one of two", "GET /v1/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", 403, ReasonUpgradeRefused},
		{"WebSocket by POST", "POST /v1/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nContent-Length: 0\r\n\r\n", 403, ReasonUpgradeRefused},
		{"WebSocket without key", "GET /v1/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 403, ReasonUpgradeRefused},
		{"Connection names Host", "GET /v1/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: host\r\n\r\n", 400, ReasonConnectionOption},
		{"Connection names Authorization", "GET /v1/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close, Authorization\r\n\r\n", 400, ReasonConnectionOption},
		{"bare LF", "GET /v1/x HTTP/1.1\nHost: " + host + "\r\n\r\n", 400, "http_bare_lf"},
		{"CONNECT", "CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 405, "http_connect"},
		{"two lengths", "POST /v1/x HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "http_length_and_encoding"},
		{"preface without ALPN", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_h2_preface"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := s.say(t, tt.raw)
			p, _ := s.explained(t, resp, body, tt.status, tt.reason)
			if tt.reason == routes.PathDenied && (!strings.Contains(p.Remedy, "/v2/x") || !strings.Contains(p.Detail, "does not allow this path")) {
				t.Errorf("the remedy does not name the path: %s", body)
			}
		})
	}
}

// TestSecondRequestIsJudgedAnew shows that a connection whose first request was good gives nothing to its second.
func TestSecondRequestIsJudgedAnew(t *testing.T) {
	s := newStage(t, withAuth(t), func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	conn, in := s.raw(t, "api.test", s.port)
	host := fmt.Sprintf("api.test:%d", s.port)
	fmt.Fprintf(conn, "GET /1 HTTP/1.1\r\nHost: %s\r\n\r\nGET /2 HTTP/1.1\r\nHost: API.test\r\n\r\nGET /3 HTTP/1.1\r\nHost: other.test\r\n\r\n", host)
	for range 2 {
		if resp, body := readResponse(t, in); resp.StatusCode != 200 || body != host {
			t.Errorf("got %d %q", resp.StatusCode, body)
		}
	}
	resp, body := readResponse(t, in)
	s.explained(t, resp, body, 421, ReasonMisdirected)
	if s.seen.Load() != 2 {
		t.Errorf("the origin saw %d requests, want 2", s.seen.Load())
	}
}

// TestH2RequestForAnotherHost does what a client that coalesces connections would (RFC 9113 section 9.1.1).
func TestH2RequestForAnotherHost(t *testing.T) {
	s := newStage(t, withAuth(t), func(http.ResponseWriter, *http.Request) { t.Error("reached the origin") })
	r := s.ask(t, "GET", "/", nil)
	r.Host = "other.test"
	resp, body := do(t, s.client(t, true), r)
	s.explained(t, resp, body, 421, ReasonMisdirected)
}

// TestRequestArrivesAsItWasSent shows what of a request changes on its way, which is nothing but what belongs to the
// guest's connection.
func TestRequestArrivesAsItWasSent(t *testing.T) {
	type facts struct {
		uri, host, agent string
		header           http.Header
	}
	saw := make(chan facts, 1)
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		saw <- facts{r.RequestURI, r.Host, strings.Join(r.Header["User-Agent"], "|"), r.Header}
		w.Header()["X-Two"] = []string{"a", "b"}
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Etag", `"strong"`)
		w.Header().Set("Alt-Svc", `h3=":443"`)
		w.Header().Set("Location", "https://elsewhere.test/")
		w.WriteHeader(http.StatusFound)
		io.WriteString(w, "not really gzip")
	})
	bothVersions(t, func(t *testing.T, h2 bool) {
		for _, target := range []string{"/", "/a%20b?x=%20&y=+", "/a?", "/p|q?{}=\"", "/npm/@s%2fp", "//double//slash", "/;p=1"} {
			r := s.ask(t, "GET", "/", nil)
			r.URL.Path, r.URL.Opaque = "", "//"+r.URL.Host+target
			if h2 {
				r.URL.Opaque = target
				if strings.HasPrefix(target, "//") {
					continue // net/http's client cannot say that
				}
			}
			r.Header = http.Header{"X-One": {"1", "2"}, "Proxy-Connection": {"keep-alive"}, "Keep-Alive": {"300"}, "Accept-Encoding": {"exotic"}, "User-Agent": {""}}
			resp, body := do(t, s.client(t, h2), r)
			got := <-saw
			if got.uri != target || got.host != r.URL.Host || got.agent != "" {
				t.Errorf("sent %q, the origin saw %+v", target, got)
			}
			if fmt.Sprint(got.header["X-One"]) != "[1 2]" || got.header.Get("Accept-Encoding") != "exotic" || got.header["Proxy-Connection"] != nil || got.header["Keep-Alive"] != nil || got.header["X-Forwarded-For"] != nil {
				t.Errorf("the origin saw %v", got.header)
			}
			h := resp.Header
			if resp.StatusCode != 302 || body != "not really gzip" || fmt.Sprint(h["X-Two"]) != "[a b]" || h.Get("Etag") != `"strong"` || h.Get("Content-Encoding") != "gzip" || h.Get("Alt-Svc") != "" {
				t.Errorf("the guest got %d %v %q", resp.StatusCode, h, body)
			}
		}
	})
	rec := s.request(t, func(r Record) bool { return r.Path == "/a%20b" })
	if rec.Status != 302 || rec.Decision != routes.Intercept || rec.Lane != LaneIntercept || rec.Method != "GET" || rec.BytesDown != 15 || !rec.Upstream.IsValid() || rec.Rule == "" || rec.Injected {
		t.Errorf("record %+v", rec)
	}
}

func TestAnsweredOnTheHost(t *testing.T) {
	w := newWorld(t, nil)
	b := testBottle(t, routes.Route{Host: "api.test", Answer: "fresh", Methods: []string{"POST"}})
	b.Answerers = map[string]http.Handler{"fresh": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d %v", r.URL.Path, len(content), err)
	})}
	w.apply(t, b)
	s := &stage{world: w, b: b, port: 443}
	bothVersions(t, func(t *testing.T, h2 bool) {
		for size, want := range map[int]string{3: "/token 3 <nil>", 2 << 20: "/token 1048576 http: request body too large"} {
			resp, body := do(t, s.client(t, h2), s.ask(t, "POST", "/token", bytes.NewReader(make([]byte, size))))
			if resp.StatusCode != 200 || body != want {
				t.Errorf("got %d %q, want %q", resp.StatusCode, body, want)
			}
		}
		resp, body := do(t, s.client(t, h2), s.ask(t, "GET", "/token", nil))
		s.explained(t, resp, body, 403, routes.MethodDenied)
	})
	rec := s.request(t, func(r Record) bool { return r.Reason == ReasonAnswered })
	if rec.Decision != routes.Intercept || rec.Status != 200 || rec.Upstream.IsValid() {
		t.Errorf("record %+v", rec)
	}
}

func TestEventStream(t *testing.T) {
	next, left := make(chan string), make(chan struct{})
	s := newStage(t, withAuth(t), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for {
			select {
			case event := <-next:
				fmt.Fprintf(w, "data: %s\n\n", event)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				left <- struct{}{}
				return
			}
		}
	})
	bothVersions(t, func(t *testing.T, h2 bool) {
		ctx, cancel := context.WithCancel(soon(t))
		defer cancel()
		resp, err := s.client(t, h2).Do(s.ask(t, "GET", "/events", nil).WithContext(ctx)) // the head is there before any event
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for _, event := range []string{"one", "two", "three"} {
			next <- event
			want := "data: " + event + "\n\n"
			b := make([]byte, len(want))
			if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != want {
				t.Fatalf("got %q, %v; want %q", b, err, want)
			}
		}
		cancel()
		<-left
	})
}

// TestHeadDoesNotWaitForItsBody shows that a response whose body is long in coming is seen before it.
func TestHeadDoesNotWaitForItsBody(t *testing.T) {
	proceed := make(chan struct{})
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.(http.Flusher).Flush()
		<-proceed
		io.WriteString(w, "{}")
	})
	bothVersions(t, func(t *testing.T, h2 bool) {
		resp, err := s.client(t, h2).Do(s.ask(t, "GET", "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		proceed <- struct{}{}
		if b, err := io.ReadAll(resp.Body); string(b) != "{}" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	})
}

// TestHeadDoesNotWaitForTheRestOfAPiece: a head whose body has begun to come, but so that nothing of it can be given out, is seen before
// there is more: the line of a chunk, or a part of one, and what may become the credential.
func TestHeadDoesNotWaitForTheRestOfAPiece(t *testing.T) {
	begin := canarySecret[:10]
	size := fmt.Sprintf("%x\r\n", len(begin)+1)
	const chunked, length = "Transfer-Encoding: chunked\r\n\r\n", "Content-Length: 11\r\n\r\n"
	proceed := make(chan struct{})
	for name, tt := range map[string]struct{ first, rest, body string }{
		"nothing of chunks":       {chunked, "1\r\na\r\n0\r\n\r\n", "a"},
		"half a line":             {chunked + "1", "\r\na\r\n0\r\n\r\n", "a"},
		"a line":                  {chunked + "1\r\n", "a\r\n0\r\n\r\n", "a"},
		"half the end":            {chunked + "0\r\n", "\r\n", ""},
		"half a trailer":          {chunked + "0\r\nX-Sum: 1", "2\r\n\r\n", ""},
		"a secret's, in a chunk":  {chunked + size + begin, ".\r\n0\r\n\r\n", begin + "."},
		"a secret's, of a length": {length + begin, ".", begin + "."},
		"nothing of a length":     {length, begin + ".", begin + "."},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStageOf(t, []string{alpnH1}, withAuth(t), func(w http.ResponseWriter, r *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n"+tt.first)
				<-proceed
				io.WriteString(conn, tt.rest)
			})
			bothVersions(t, func(t *testing.T, h2 bool) {
				resp, err := s.client(t, h2).Do(s.ask(t, "GET", "/", nil))
				proceed <- struct{}{}
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if b, err := io.ReadAll(resp.Body); string(b) != tt.body || err != nil {
					t.Errorf("got %q, %v; want %q", b, err, tt.body)
				}
			})
		})
	}
}

func TestInterimResponses(t *testing.T) {
	s := newStage(t, withAuth(t), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</"+canarySecret+">; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.WriteHeader(http.StatusProcessing)
		io.WriteString(w, "x")
	})
	bothVersions(t, func(t *testing.T, h2 bool) {
		var got []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, h["Link"]))
			return nil
		}}
		r := s.ask(t, "GET", "/", nil)
		resp, _ := do(t, s.client(t, h2), r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
		want := []string{"103 [</" + strings.Repeat("*", len(canarySecret)) + ">; rel=preload]", "102 []"}
		if fmt.Sprint(got) != fmt.Sprint(want) || resp.StatusCode != 200 || resp.Header.Get("Link") != "" {
			t.Errorf("got %q and then %d %v, want %q", got, resp.StatusCode, resp.Header, want)
		}
	})
}

func TestExpectIsTheOriginsToMeet(t *testing.T) {
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		io.Copy(w, r.Body)
	})
	for path, want := range map[string]int{"/take": 200, "/refuse": 413} {
		body := &noted{Reader: strings.NewReader("content")}
		r := s.ask(t, "POST", path, body)
		r.ContentLength = 7
		r.Header.Set("Expect", "100-continue")
		resp, content := do(t, s.client(t, false), r)
		if resp.StatusCode != want || body.read != (want == 200) || want == 200 && content != "content" {
			t.Errorf("%s: got %d %q, body sent: %v", path, resp.StatusCode, content, body.read)
		}
	}
}

// noted remembers whether it was read.
type noted struct {
	io.Reader
	read bool
}

func (n *noted) Read(p []byte) (int, error) { n.read = true; return n.Reader.Read(p) }

func TestTrailers(t *testing.T) {
	s := newStage(t, withAuth(t), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		content, _ := io.ReadAll(r.Body)
		w.Write(content)
		w.(http.Flusher).Flush()
		w.Header().Set("X-Sum", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Late", canarySecret)
	})
	bothVersions(t, func(t *testing.T, h2 bool) {
		r := s.ask(t, "POST", "/", io.MultiReader(strings.NewReader("abc")))
		r.Trailer = http.Header{"X-Sum": {"sum"}}
		resp, content := do(t, s.client(t, h2), r)
		if content != "abc" || resp.Trailer.Get("X-Sum") != "sum" || resp.Trailer.Get("X-Late") != strings.Repeat("*", len(canarySecret)) {
			t.Errorf("got %q, header %v, trailer %v", content, resp.Header, resp.Trailer)
		}
	})
}

func TestFullDuplex(t *testing.T) {
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.(http.Flusher).Flush()
		b := make([]byte, 10)
		for {
			n, err := r.Body.Read(b)
			w.Write(b[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				return
			}
		}
	})
	bothVersions(t, func(t *testing.T, h2 bool) {
		out, in := io.Pipe()
		resp, err := s.client(t, h2).Do(s.ask(t, "POST", "/", out))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for i := range 5 {
			fmt.Fprintf(in, "ping%d", i)
			b := make([]byte, 5)
			if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != fmt.Sprintf("ping%d", i) {
				t.Fatalf("got %q, %v", b, err)
			}
		}
		in.Close()
		if _, err := resp.Body.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	})
}

// TestGuestThatLeavesEndsTheRequest shows that an origin does not work for nobody.
func TestGuestThatLeavesEndsTheRequest(t *testing.T) {
	entered, ended := make(chan struct{}), make(chan struct{})
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	bothVersions(t, func(t *testing.T, h2 bool) {
		ctx, cancel := context.WithCancel(soon(t))
		go func() { <-entered; cancel() }()
		if resp, err := s.client(t, h2).Do(s.ask(t, "GET", "/leave", nil).WithContext(ctx)); err == nil {
			resp.Body.Close()
			t.Error("a request that was given up got a response")
		}
		select {
		case <-ended:
		case <-time.After(testWait):
			t.Fatal("the origin's request went on")
		}
	})
	if rec := s.request(t, func(r Record) bool { return r.Path == "/leave" }); rec.Reason != ReasonGuestLeft {
		t.Errorf("record %+v", rec)
	}
}

// TestResponseThatBreaksOff shows that the guest can tell half a response from a whole one.
func TestResponseThatBreaksOff(t *testing.T) {
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", "100")
		}
		io.WriteString(w, "some")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	bothVersions(t, func(t *testing.T, h2 bool) {
		for _, path := range []string{"/length", "/chunked"} {
			resp, err := s.client(t, h2).Do(s.ask(t, "GET", path, nil))
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(resp.Body); string(b) != "some" || err == nil {
				t.Errorf("%s: got %q, %v; want an error", path, b, err)
			}
			resp.Body.Close()
		}
	})
	if rec := s.request(t, func(r Record) bool { return r.Path == "/chunked" }); rec.Error == "" || rec.Status != 200 {
		t.Errorf("record %+v", rec)
	}
}

func TestUpstreamFailuresAreExplained(t *testing.T) {
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		routes.Route{Host: "nowhere.test"}, routes.Route{Host: "shut.test", Port: 9}, routes.Route{Host: "inner.test"}, routes.Route{Host: "imposter.test"})
	imposter := newOrigin(t, func() *tls.Certificate { c := s.roots.leaf(t, time.Now().Add(time.Hour), "else.test"); return &c }(), func(http.ResponseWriter, *http.Request) { t.Error("reached an imposter") })
	s.names.set("imposter.test", "127.0.0.1")
	s.names.set("shut.test", "127.0.0.1")
	s.names.set("inner.test", "10.0.0.1")
	b := testBottle(t, append(s.b.Table.Routes(), routes.Route{Host: "imposter.test", Port: imposter.port})...)
	b.CA = s.b.CA
	s.apply(t, b)
	bothVersions(t, func(t *testing.T, h2 bool) {
		for _, tt := range []struct {
			host   string
			port   uint16
			status int
			reason routes.Reason
			detail string
		}{
			{"api.test", s.port, 502, ReasonUpstreamExchange, "broke off"},
			{"nowhere.test", 443, 502, ReasonUpstreamResolve, "no usable address"},
			{"shut.test", 9, 502, ReasonUpstreamDial, "could not be reached"},
			{"inner.test", 443, 502, ReasonUpstreamGuard, "may not reach"},
			{"imposter.test", imposter.port, 502, ReasonUpstreamTLS, "certificate that imposter.test presented is not valid"},
		} {
			r, _ := http.NewRequestWithContext(t.Context(), "POST", fmt.Sprintf("https://%s/", net.JoinHostPort(tt.host, fmt.Sprint(tt.port))), strings.NewReader("x"))
			resp, body := do(t, s.guestClient(t, s.b, tt.port, h2), r)
			p, rec := s.explained(t, resp, body, tt.status, tt.reason)
			if !strings.Contains(p.Detail, tt.detail) || rec.Error == "" || strings.Contains(p.Remedy, "allow_private: true") != (tt.host == "inner.test") {
				t.Errorf("%s: explained as %q, error %q", tt.host, p.Detail, rec.Error)
			}
		}
	})
}

func TestPlainHTTP(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("plain.test", "127.0.0.1")
	o := newOrigin(t, nil, func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, r.Host, r.RequestURI) })
	b := testBottle(t, routes.Route{Host: "plain.test", Port: o.port, Protocol: routes.HTTP})
	w.apply(t, b)
	s := &stage{world: w, b: b, port: o.port}
	conn := w.sockets.call(t, b.Link, anywhere(o.port))
	in := bufio.NewReader(conn)
	fmt.Fprintf(conn, "GET /1 HTTP/1.1\r\nHost: plain.test:%d\r\n\r\n", o.port)
	if resp, body := readResponse(t, in); resp.StatusCode != 200 || body != fmt.Sprintf("plain.test:%d/1", o.port) {
		t.Errorf("got %d %q", resp.StatusCode, body)
	}
	for _, tt := range []struct {
		host   string
		status int
		reason routes.Reason
	}{
		{"other.test", 403, routes.NoRoute}, {"127.0.0.1", 403, routes.BadName}, {"plain.test:1", 421, ReasonMisdirected},
	} {
		fmt.Fprintf(conn, "GET /2 HTTP/1.1\r\nHost: %s\r\n\r\n", tt.host)
		resp, body := readResponse(t, in)
		s.explained(t, resp, body, tt.status, tt.reason)
	}
	// Port 80 without any route: explained as well, since that is where the block address leads a browser.
	conn = w.sockets.call(t, b.Link, anywhere(80))
	in = bufio.NewReader(conn)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: blocked.test\r\nAccept: text/html\r\n\r\n")
	resp, body := readResponse(t, in)
	if resp.StatusCode != 403 || !strings.Contains(body, "<pre>egress:") || !strings.Contains(body, "blocked.test") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

// TestPageEscapes shows that nothing of a request becomes markup.
func TestPageEscapes(t *testing.T) {
	x := &exchange{s: &session{bottle: "dev"}, rec: Record{ID: "r-1"}}
	page := x.page(&denial{status: 403, reason: "x", detail: "<script>", remedy: "</pre><script>"})
	if bytes.Contains(page, []byte("<script>")) {
		t.Errorf("page %s", page)
	}
}

// TestPlanThatPassesThroughNow shows that a connection of an old plan is sent away when the new one does not intercept.
func TestPlanThatPassesThroughNow(t *testing.T) {
	x := &exchange{s: &session{bottle: "dev", host: "api.test", port: 443, protocol: routes.HTTPS, tripped: func() bool { return false }}, r: &http.Request{Method: "GET"}, method: "GET", host: "api.test", path: "/"}
	table, err := routes.NewTable([]routes.Route{{Host: "api.test", TLSPassthrough: true}})
	if err != nil {
		t.Fatal(err)
	}
	x.snap = &snapshot{table: table}
	if d := x.decide(); d == nil || d.status != 421 || d.reason != ReasonNotIntercepted || x.rec.Decision != routes.Deny {
		t.Errorf("decided %+v, record %+v", d, x.rec)
	}
}

// TestDefectEndsOneRequest shows that a panic on the way of a request is logged and ends that request alone.
func TestDefectEndsOneRequest(t *testing.T) {
	w := newWorld(t, nil)
	b := testBottle(t, routes.Route{Host: "api.test", Answer: "bad"})
	b.Answerers = map[string]http.Handler{"bad": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			panic("a bug")
		}
	})}
	w.apply(t, b)
	s := &stage{world: w, b: b, port: 443}
	bothVersions(t, func(t *testing.T, h2 bool) {
		c := s.client(t, h2)
		if resp, err := c.Do(s.ask(t, "GET", "/bad", nil)); err == nil {
			resp.Body.Close()
			t.Errorf("got %d, want a broken response", resp.StatusCode)
		}
		if resp, _ := do(t, c, s.ask(t, "GET", "/good", nil)); resp.StatusCode != 200 {
			t.Errorf("the next request got %d", resp.StatusCode)
		}
	})
	s.request(t, func(r Record) bool { return r.Path == "/bad" })
	if log := s.log.String(); strings.Count(log, "a bug") != 2 {
		t.Errorf("log %s", log)
	}
}

// TestRequestThatCannotBeRecorded shows that a connection does not outlive the room for records where they are required.
func TestRequestThatCannotBeRecorded(t *testing.T) {
	x := &exchange{s: &session{ready: func() bool { return false }}}
	if d := x.admit(); d == nil || d.status != 503 || d.reason != ReasonAuditFull {
		t.Errorf("admitted with %+v", d)
	}
}
