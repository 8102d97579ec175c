package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// talks returns the client's half of a connection whose server is golang.org/x/net's with a handler, and takes so many streams at
// once, or as many as it does by default.
func talks(t testing.TB, lim ClientLimits, streams uint32, handler http.HandlerFunc) (*ClientConn, <-chan struct{}) {
	t.Helper()
	near, far := pair(t)
	s := &http2.Server{MaxConcurrentStreams: streams} //nolint:staticcheck // net/http's takes no connection
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.ServeConn(far, &http2.ServeConnOpts{Handler: handler, BaseConfig: &http.Server{}}) //nolint:staticcheck // likewise
	}()
	gone := make(chan struct{})
	c := NewClient(lim).NewConn(near, func() { close(gone) })
	t.Cleanup(func() {
		c.Close()
		<-served
		<-gone
	})
	return c, gone
}

// pair returns two ends of a TCP connection.
func pair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// trip carries one request and reads the response.
func (c *ClientConn) trip(ctx context.Context, req *Request) (*http.Response, string, error) {
	if !c.Reserve() {
		return nil, "", errors.New("no room")
	}
	resp, err := c.RoundTrip(ctx, req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

// plain is a request.
func plain(method string, body io.Reader, length int64) *Request {
	return &Request{Method: method, Scheme: "https", Authority: "a.test", Path: "/p?q", Header: http.Header{"X-One": {"1", "2"}, "Authorization": {"Bearer b"}}, Body: body, Length: length}
}

// TestClientSpeaks sends requests of every kind to golang.org/x/net's server.
func TestClientSpeaks(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 3<<16)
	c, _ := talks(t, ClientLimits{}, 0, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		h := w.Header()
		h.Set("X-Saw", fmt.Sprint(r.Method, " ", r.Host, r.RequestURI, " ", r.Header["X-One"], r.Header["Authorization"], r.ContentLength, r.Trailer))
		h.Set("Trailer", "X-End")
		if r.Method == http.MethodPut {
			h.Set("Content-Length", fmt.Sprint(len(b)))
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.Write(b)
		h.Set("X-End", "end")
		h.Set(http.TrailerPrefix+"X-Else", "else")
	})
	for _, tt := range []struct {
		name, method, body string
		length             int64
		near               bool
		trailer            http.Header
		saw                string
	}{
		{"GET", "GET", "", 0, false, nil, "GET a.test/p?q [1 2] [Bearer b] 0 map[]"},
		{"HEAD", "HEAD", "", 0, false, nil, "HEAD a.test/p?q [1 2] [Bearer b] 0 map[]"},
		{"POST without a body", "POST", "", 0, false, nil, "POST a.test/p?q [1 2] [Bearer b] 0 map[]"},
		{"another method", "PROPFIND", "x", -1, false, nil, "PROPFIND a.test/p?q [1 2] [Bearer b] -1 map[]"},
		{"near", "POST", "near", 4, true, nil, "POST a.test/p?q [1 2] [Bearer b] 4 map[]"},
		{"sized", "PUT", large, int64(len(large)), false, nil, fmt.Sprintf("PUT a.test/p?q [1 2] [Bearer b] %d map[]", len(large))},
		{"of no known length", "POST", large, -1, false, nil, "POST a.test/p?q [1 2] [Bearer b] -1 map[]"},
		{"with trailers", "POST", "b", -1, false, http.Header{"X-Sum": {"6"}}, "POST a.test/p?q [1 2] [Bearer b] -1 map[X-Sum:[6]]"},
		{"empty, with trailers", "POST", "", -1, false, http.Header{"X-Sum": {"6"}}, "POST a.test/p?q [1 2] [Bearer b] -1 map[X-Sum:[6]]"},
		{"again", "GET", "", 0, false, nil, "GET a.test/p?q [1 2] [Bearer b] 0 map[]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var body io.Reader
			if tt.body != "" || tt.length != 0 {
				body = strings.NewReader(tt.body)
			}
			req := plain(tt.method, body, tt.length)
			req.Near, req.Trailer = tt.near, tt.trailer
			interims := interimList{}
			req.Interim = &interims
			resp, got, err := c.trip(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Header.Get("X-Saw") != tt.saw || tt.method != "HEAD" && got != tt.body {
				t.Errorf("the server saw %q, and answered %d bytes", resp.Header.Get("X-Saw"), len(got))
			}
			if tt.method != "HEAD" && (resp.Trailer.Get("X-End") != "end" || resp.Trailer.Get("X-Else") != "else") {
				t.Errorf("trailers %v", resp.Trailer)
			}
			if tt.method == "PUT" && (len(interims) != 1 || interims[0] != http.StatusEarlyHints || resp.ContentLength != tt.length) {
				t.Errorf("interim responses %v, length %d", interims, resp.ContentLength)
			}
		})
	}
	if !c.Idle() {
		t.Error("something is left under way")
	}
}

// interimList takes the status of each interim response.
type interimList []int

// Interim is what [Request.Interim] asks for.
func (l *interimList) Interim(status int, _ http.Header) { *l = append(*l, status) }

// TestClientManyAtOnce has many requests at once, both ways larger than a stream's window, on one connection.
func TestClientManyAtOnce(t *testing.T) {
	c, _ := talks(t, ClientLimits{StreamWindow: 1 << 16, ConnWindow: 1 << 17}, 0, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	})
	body := strings.Repeat("xyz", 100_000)
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			want, req := "", plain("GET", nil, 0)
			if i%2 == 0 {
				want = body
				req = plain("POST", strings.NewReader(body), -1)
			}
			if _, got, err := c.trip(t.Context(), req); err != nil || got != want {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
	if !c.Idle() {
		t.Error("something is left under way")
	}
}

// TestClientFullDuplex speaks in turns on one stream.
func TestClientFullDuplex(t *testing.T) {
	c, _ := talks(t, ClientLimits{}, 0, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		var b [1]byte
		for {
			if _, err := io.ReadFull(r.Body, b[:]); err != nil {
				return
			}
			w.Write(b[:])
			http.NewResponseController(w).Flush()
		}
	})
	in, out := io.Pipe()
	c.Reserve()
	resp, err := c.RoundTrip(t.Context(), plain("POST", in, -1))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for i := range 50 {
		out.Write([]byte{byte(i)})
		var b [1]byte
		if _, err := io.ReadFull(resp.Body, b[:]); err != nil || b[0] != byte(i) {
			t.Fatalf("turn %d: %v, %v", i, b, err)
		}
	}
	out.Close()
	if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

// TestClientGivesUp ends requests in every way, whose server then sees its stream end; the connection goes on.
func TestClientGivesUp(t *testing.T) {
	ended := make(chan struct{}, 1)
	c, _ := talks(t, ClientLimits{Head: 50 * time.Millisecond}, 0, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fine":
			return
		case "/begun":
			io.WriteString(w, "begun")
			http.NewResponseController(w).Flush()
		}
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		ended <- struct{}{}
	})
	broken := errors.New("broken")
	for name, do := range map[string]func() error{
		"context before the head": func() error {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(5*time.Millisecond, cancel)
			_, _, err := c.trip(ctx, plain("GET", nil, 0))
			return wants(err, ErrCanceled)
		},
		"context in the body": func() error {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			req := plain("GET", nil, 0)
			req.Path = "/begun"
			_, got, err := c.trip(ctx, req)
			return errors.Join(wants(err, ErrCanceled), same(got, "begun"))
		},
		"closed body": func() error {
			req := plain("GET", nil, 0)
			req.Path = "/begun"
			c.Reserve()
			resp, err := c.RoundTrip(t.Context(), req)
			if err != nil {
				return err
			}
			return resp.Body.Close()
		},
		"no head": func() error {
			_, _, err := c.trip(t.Context(), plain("GET", nil, 0))
			return wants(err, ErrHeadTimeout)
		},
		"broken body": func() error {
			_, _, err := c.trip(t.Context(), plain("POST", io.MultiReader(strings.NewReader("some"), &failing{broken}), 8))
			return wants(err, broken)
		},
		"short body": func() error {
			_, _, err := c.trip(t.Context(), plain("POST", strings.NewReader("some"), 8))
			return wants(err, errLength)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := do(); err != nil {
				t.Error(err)
			}
			<-ended
			req := plain("GET", nil, 0)
			req.Path = "/fine"
			if _, _, err := c.trip(t.Context(), req); err != nil {
				t.Errorf("the next request: %v", err)
			}
		})
	}
}

// failing is a reader that fails.
type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// wants is nil if err is target.
func wants(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return fmt.Errorf("got %w, want %w", err, target)
}

// same is nil if got is want.
func same(got, want string) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("got %q, want %q", got, want)
}

// TestClientLastBytesWait shows that the last bytes of a body leave when it is known to be whole.
func TestClientLastBytesWait(t *testing.T) {
	for name, near := range map[string]bool{"near": true, "far": false} {
		t.Run(name, func(t *testing.T) {
			saw := make(chan string, 1)
			c, _ := talks(t, ClientLimits{}, 0, func(w http.ResponseWriter, r *http.Request) {
				var b bytes.Buffer
				io.Copy(&b, r.Body)
				saw <- b.String()
			})
			bad := errors.New("a leak behind the last byte")
			req := plain("POST", io.MultiReader(strings.NewReader("abcd"), &failing{bad}), 4)
			req.Near = near
			if _, _, err := c.trip(t.Context(), req); !errors.Is(err, bad) {
				t.Errorf("got %v", err)
			}
			if got := <-saw; got != "" {
				t.Errorf("the server saw %q", got)
			}
		})
	}
}

// TestClientContinue shows that a body whose guest waits for 100 Continue waits for the server, and is not sent to one that answers.
func TestClientContinue(t *testing.T) {
	c, _ := talks(t, ClientLimits{Continue: time.Minute}, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		io.Copy(w, r.Body)
	})
	for path, want := range map[string]string{"/yes": "body", "/no": ""} {
		req := plain("POST", strings.NewReader("body"), 4)
		req.Path = path
		req.Header["Expect"] = []string{"100-continue"}
		if resp, got, err := c.trip(t.Context(), req); err != nil || got != want {
			t.Errorf("%s: %v, %q, %v", path, resp, got, err)
		}
	}
}

// TestClientRoom shows that a server's limit is kept, and what a connection that is to end still takes.
func TestClientRoom(t *testing.T) {
	let := make(chan struct{})
	c, gone := talks(t, ClientLimits{}, 2, func(w http.ResponseWriter, r *http.Request) { <-let })
	first := make(chan error, 2)
	for range 2 {
		go func() {
			_, _, err := c.trip(t.Context(), plain("GET", nil, 0))
			first <- err
		}()
	}
	for room := true; room; { // until both have begun, and the server's limit was read
		c.mu.Lock()
		room = len(c.calls) < 2 || c.most != 2
		c.mu.Unlock()
	}
	if c.Reserve() {
		t.Error("there is room for a third request")
	}
	c.Retire()
	let <- struct{}{}
	let <- struct{}{}
	for range 2 {
		if err := <-first; err != nil {
			t.Error(err)
		}
	}
	<-gone
	if _, err := c.RoundTrip(t.Context(), plain("GET", nil, 0)); !errors.As(err, new(*UnseenError)) {
		t.Errorf("after the end: %v", err)
	}
}

// TestClientIdle shows that an unused connection ends.
func TestClientIdle(t *testing.T) {
	c, gone := talks(t, ClientLimits{Idle: 30 * time.Millisecond}, 0, func(http.ResponseWriter, *http.Request) {})
	if _, _, err := c.trip(t.Context(), plain("GET", nil, 0)); err != nil {
		t.Fatal(err)
	}
	<-gone
}

// TestClientKeepsLimit shows that what a server once said of its streams holds until it says otherwise.
func TestClientKeepsLimit(t *testing.T) {
	c := NewClient(ClientLimits{}).NewConn(deadConn(t), func() {})
	defer c.Close()
	most := func(settings ...byte) int {
		if err := c.settings(frame{length: len(settings), kind: kindSettings}, settings); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.most
	}
	if got := most(appendSetting(nil, settingStreams, firstStreams)...); got != firstStreams {
		t.Errorf("room for %d", got)
	}
	if got := most(); got != firstStreams {
		t.Errorf("room for %d after other settings", got)
	}
}

// deadConn returns a connection whose other end says nothing.
func deadConn(t testing.TB) net.Conn {
	near, far := pair(t)
	t.Cleanup(func() { far.Close() })
	return near
}

// TestClientServerFloods has a server ask for more answers than it takes: the connection ends, with its requests.
func TestClientServerFloods(t *testing.T) {
	near, far := pair(t)
	defer far.Close()
	gone := make(chan struct{})
	c := NewClient(ClientLimits{}).NewConn(near, func() { close(gone) })
	failed := make(chan error, 1)
	go func() {
		_, _, err := c.trip(t.Context(), plain("GET", nil, 0))
		failed <- err
	}()
	far.Write(appendFrame(nil, 0, kindSettings, 0, 0))
	var pings []byte
	for range 1000 {
		pings = append(appendFrame(pings, 8, kindPing, 0, 0), "12345678"...)
	}
	for {
		if _, err := far.Write(pings); err != nil { // it has been closed
			break
		}
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
	<-gone
}
