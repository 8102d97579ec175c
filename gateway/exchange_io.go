package gateway

import (
	"io"
	"maps"
	"net/http"
	"sync/atomic"
)

// tally is a response writer that keeps what a record says of the response.
type tally struct {
	http.ResponseWriter
	status  int   // the final status, 0 until it was sent
	written int64 // body bytes
}

// WriteHeader is [http.ResponseWriter].WriteHeader.
func (t *tally) WriteHeader(status int) {
	if t.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		t.status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

// Write is [http.ResponseWriter].Write.
func (t *tally) Write(p []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	n, err := t.ResponseWriter.Write(p)
	t.written += int64(n)
	return n, err
}

// FlushError is [http.ResponseController].Flush.
func (t *tally) FlushError() error {
	if f, ok := t.ResponseWriter.(interface{ FlushError() error }); ok {
		return f.FlushError()
	}
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// adopt takes the fields of h for the response's header, which is empty. The response owns them.
func (t *tally) adopt(h http.Header) {
	if w, ok := t.ResponseWriter.(interface{ AdoptHeader(http.Header) }); ok {
		w.AdoptHeader(h)
		return
	}
	maps.Copy(t.Header(), h)
}

// disown takes back what was adopted, and reports whether the response has let go of it.
func (t *tally) disown() bool {
	w, ok := t.ResponseWriter.(interface{ AdoptHeader(http.Header) })
	if ok {
		w.AdoptHeader(nil)
	}
	return ok
}

// Unwrap lets [http.ResponseController] reach the writer below.
func (t *tally) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// counted is a body that counts what is read of it.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

// Read is [io.Reader].Read.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}
