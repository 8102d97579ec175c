package http1

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
)

// Hijack takes over the connection, after sending what the handler has written, for instance a 101 head. The reader of the
// result holds what the guest sent beyond the request; the writer is empty. The deadlines are cleared and the connection is
// the caller's to close. It fails if the request's body has not been read to its end. See [http.Hijacker].
func (r *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if r.hijacked {
		return nil, nil, http.ErrHijacked
	}
	if r.status != 0 {
		if err := r.FlushError(); err != nil {
			return nil, nil, err
		}
	}
	conn, rest, err := r.owner.hijack(r.body)
	if err != nil {
		return nil, nil, err
	}
	r.hijacked = true
	r.mu.Lock()
	r.interimOff = true
	r.mu.Unlock()
	in := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(rest), conn), max(len(rest), readBuffer))
	if len(rest) > 0 {
		if _, err := in.Peek(len(rest)); err != nil {
			return nil, nil, err
		}
	}
	return conn, bufio.NewReadWriter(in, bufio.NewWriter(conn)), nil
}
