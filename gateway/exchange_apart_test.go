package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// TestExchangesAreApart has many requests of every form under way at once, whose memory is used again and again, and holds each
// against its own: what the server was asked, what the guest was told, and what was recorded. Every fourth guest speaks HTTP/2, all of
// them on one connection.
func TestExchangesAreApart(t *testing.T) {
	for _, protocols := range [][]string{nil, {alpnH1}} {
		t.Run(fmt.Sprint("server of ", protocols), func(t *testing.T) { testApart(t, protocols) })
	}
}

func testApart(t *testing.T, protocols []string) {
	s := newStageOf(t, protocols, nil, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		id := r.Header.Get("X-Id")
		if r.URL.Path != "/"+id || len(r.Header["X-Id"]) != 1 || (r.Header.Get("X-Odd") == "") != (len(id)%2 == 0) {
			http.Error(w, "another request's", http.StatusTeapot)
			return
		}
		w.Header().Set("X-Id", id)
		if r.Header.Get("X-Hint") != "" {
			w.WriteHeader(http.StatusEarlyHints)
		}
		if r.Header.Get("X-Empty") != "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if r.Header.Get("X-Chunked") != "" {
			w.(http.Flusher).Flush()
			w.Header().Set(http.TrailerPrefix+"X-Sum", id)
		}
		io.WriteString(w, strings.Repeat(id, 100))
	})
	const guests, each = 16, 50
	var all sync.WaitGroup
	h2 := s.client(t, true)
	for g := range guests {
		c := h2
		if g%4 != 3 {
			c = s.client(t, false)
		}
		all.Go(func() {
			for n := range each {
				askApart(t, s, c, g, n)
			}
		})
	}
	all.Wait()
	for g := range guests {
		for n := range each {
			id := apartID(g, n)
			rec := s.request(t, func(r Record) bool { return r.Path == "/"+id })
			if rec.Status/100 != 2 || rec.Host != "api.test" || rec.Error != "" || rec.BytesUp != int64(apartBody(n)) {
				t.Errorf("recorded %+v", rec)
			}
		}
	}
}

func apartID(g, n int) string { return fmt.Sprintf("%d-%d", g, n*37) }

// apartBody is how long the body of a guest's nth request is.
func apartBody(n int) int {
	if n%5 == 1 {
		return 10 * n
	}
	return 0
}

// askApart makes a guest's nth request, of the form that n says.
func askApart(t *testing.T, s *stage, c *http.Client, g, n int) {
	id := apartID(g, n)
	method, body := http.MethodGet, io.Reader(nil)
	if size := apartBody(n); size > 0 {
		method, body = http.MethodPost, strings.NewReader(strings.Repeat("b", size))
	}
	r := s.ask(t, method, "/"+id, body)
	r.Header.Set("X-Id", id)
	if len(id)%2 == 1 {
		r.Header.Set("X-Odd", "1")
	}
	form := []string{"X-Plain", "X-Plain", "X-Hint", "X-Empty", "X-Chunked"}[n%5]
	r.Header.Set(form, "1")
	resp, err := c.Do(r)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	want, sum := strings.Repeat(id, 100), ""
	switch form {
	case "X-Empty":
		want = ""
	case "X-Chunked":
		sum = id
	}
	if err != nil || string(got) != want || resp.Header.Get("X-Id") != id || resp.Trailer.Get("X-Sum") != sum {
		t.Errorf("%s %s is answered with %d %v %q %v %v", form, id, resp.StatusCode, resp.Header, got, resp.Trailer, err)
	}
}
