package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// maxLine bounds one line of a stream: a record with the longest path and remedy is far below.
const maxLine = 1 << 20

// Client asks a daemon over its socket. The zero value is not usable; Socket must be set.
type Client struct {
	// Socket is the path of the admin socket.
	Socket string
}

// NotRunningError says that nobody answers at the socket.
type NotRunningError struct {
	Socket string
	Err    error
}

// Error says what to do about it.
func (e *NotRunningError) Error() string {
	return fmt.Sprintf("no gatewayd answers at %s (%v); start it with `gatewayd run`, or name its --run-dir", e.Socket, e.Err)
}

// Unwrap gives the cause.
func (e *NotRunningError) Unwrap() error { return e.Err }

// StatusError is an answer other than 200.
type StatusError struct {
	Code    int
	Message string
}

// Error is the daemon's own message.
func (e *StatusError) Error() string { return e.Message }

// Get asks for path and decodes the JSON answer into out.
func (c Client) Get(ctx context.Context, path string, out any) error {
	body, err := c.open(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	return nil
}

// Post has the daemon do what path says.
func (c Client) Post(ctx context.Context, path string) error {
	body, err := c.open(ctx, http.MethodPost, path)
	if err != nil {
		return err
	}
	return body.Close()
}

// Lines asks for path and hands each line of the answer to f, without its newline, until the answer ends, ctx ends or f
// returns an error. The end of ctx is no error. The line is valid only during the call.
func (c Client) Lines(ctx context.Context, path string, f func(line []byte) error) error {
	body, err := c.open(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	defer body.Close()
	sc := bufio.NewScanner(body)
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		if err := f(sc.Bytes()); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return sc.Err()
}

// open returns the body of a 200 answer.
func (c Client) open(ctx context.Context, method, path string) (io.ReadCloser, error) {
	var d net.Dialer
	t := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", c.Socket) },
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://gatewayd"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			var op *net.OpError
			if errors.As(err, &op) {
				err = op.Err
			}
			return nil, &NotRunningError{Socket: c.Socket, Err: err}
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, &StatusError{Code: resp.StatusCode, Message: strings.TrimSpace(string(b))}
	}
	return resp.Body, nil
}
