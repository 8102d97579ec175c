package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// These run inside the bottle, started again from the test binary.

// httpClient speaks one version: "1" or "2".
func httpClient(version string) (*http.Client, error) {
	p := new(http.Protocols)
	switch version {
	case "1":
		p.SetHTTP1(true)
	case "2":
		p.SetHTTP2(true)
	default:
		return nil, fmt.Errorf("HTTP version %q", version)
	}
	// CloseIdleConnections misses a connection of HTTP/2 whose last stream has ended but is not yet forgotten.
	return &http.Client{Transport: &http.Transport{Protocols: p, DisableCompression: true, IdleConnTimeout: time.Second}}, nil
}

// sseClient reads events from URL, and acknowledges each at URL/ack before the
// server sends the next: an event that is held back stops everything.
func sseClient(ctx context.Context, args []string) error {
	c, err := httpClient(args[0])
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	resp, err := send(ctx, c, http.MethodGet, args[1], nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for n := 0; lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if data != strconv.Itoa(n) {
			return fmt.Errorf("event %q, want %d", data, n)
		}
		ack, err := send(ctx, c, http.MethodPost, args[1]+"/ack", strings.NewReader(data))
		if err != nil {
			return err
		}
		ack.Body.Close()
		if n++; n == sseEvents {
			_, err := io.Copy(io.Discard, resp.Body) // the connection is idle then, and is closed
			return err
		}
	}
	return fmt.Errorf("the stream ended early: %w", lines.Err())
}

func send(ctx context.Context, c *http.Client, method, url string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // part of the message
		resp.Body.Close()
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, b)
	}
	return resp, nil
}

// socketClient sends messages of growing size and wants each back; then it is silent for as long as args[2] says, and does
// it again on the same connection.
func socketClient(ctx context.Context, args []string) error {
	mode := map[string]websocket.CompressionMode{
		"off": websocket.CompressionDisabled, "on": websocket.CompressionContextTakeover,
	}[args[0]]
	c, _, err := websocket.Dial(ctx, args[1], &websocket.DialOptions{CompressionMode: mode})
	if err != nil {
		return err
	}
	defer c.CloseNow()
	c.SetReadLimit(4 << 20)
	if err := echoed(ctx, c); err != nil {
		return err
	}
	silence, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	select {
	case <-time.After(silence):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := echoed(ctx, c); err != nil {
		return fmt.Errorf("after %s of silence: %w", silence, err)
	}
	return c.Close(websocket.StatusNormalClosure, "done")
}

// echoed sends messages of growing size on c and wants each back.
func echoed(ctx context.Context, c *websocket.Conn) error {
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			msg := bytes.Repeat([]byte("x"), size)
			if err := c.Write(ctx, kind, msg); err != nil {
				return fmt.Errorf("write %d bytes: %w", size, err)
			}
			gotKind, got, err := c.Read(ctx)
			if err != nil {
				return fmt.Errorf("read %d bytes: %w", size, err)
			}
			if gotKind != kind || !bytes.Equal(got, msg) {
				return fmt.Errorf("sent %v of %d bytes, got %v of %d", kind, size, gotKind, len(got))
			}
		}
	}
	return nil
}

// grpcClient calls the health service: unary, a stream, and an error that
// comes in the trailers.
func grpcClient(ctx context.Context, args []string) error {
	conn, err := grpc.NewClient("dns:///"+args[0], grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{})))
	if err != nil {
		return err
	}
	defer conn.Close()
	h := grpc_health_v1.NewHealthClient(conn)
	ok, err := h.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "known"})
	if err != nil || ok.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("check: %v, %w", ok, err)
	}
	if _, err := h.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
		return fmt.Errorf("check an unknown service: %w, want NotFound from the trailers", err)
	}
	watch, err := h.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "known"})
	if err != nil {
		return err
	}
	_, err = watch.Recv()
	return err
}

// interimClient wants a 103 before the answer, and trailers after it.
func interimClient(ctx context.Context, args []string) error {
	c, err := httpClient(args[0])
	if err != nil {
		return err
	}
	var hints []string
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		},
	})
	resp, err := send(ctx, c, http.MethodGet, args[1], nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if got := strings.Join(hints, "; "); got != "103 </style.css>; rel=preload" {
		return fmt.Errorf("interim answers %q", got)
	}
	if got := resp.Trailer.Get("X-Sum"); got != "42" {
		return fmt.Errorf("trailers %v", resp.Trailer)
	}
	return nil
}

// duplexClient sends a line only after the last one came back, in one request.
func duplexClient(ctx context.Context, args []string) error {
	c, err := httpClient(args[0])
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	type answer struct {
		resp *http.Response
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		resp, err := send(ctx, c, http.MethodPost, args[1], r)
		got <- answer{resp, err}
	}()
	if _, err := io.WriteString(w, "0\n"); err != nil {
		return err
	}
	a := <-got
	if a.err != nil {
		return a.err
	}
	defer a.resp.Body.Close()
	lines := bufio.NewScanner(a.resp.Body)
	for n := 1; lines.Scan(); n++ {
		if want := strconv.Itoa(n - 1); lines.Text() != want {
			return fmt.Errorf("line %q, want %s", lines.Text(), want)
		}
		if n == 20 {
			return w.Close()
		}
		if _, err := fmt.Fprintln(w, n); err != nil {
			return err
		}
	}
	return fmt.Errorf("the answer ended early: %w", lines.Err())
}

// castagnoli is hardware's own polynomial: sums cost next to nothing.
func newSum() func([]byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := uint32(0)
	return func(p []byte) uint32 {
		sum = crc32.Update(sum, table, p)
		return sum
	}
}

// pattern is an endless stream of blocks that differ from each other.
type pattern struct {
	left int64
	n    byte
	sum  func([]byte) uint32
	last uint32
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.left)]
	for i := range b {
		b[i] = p.n
	}
	p.n++
	p.left -= int64(len(b))
	p.last = p.sum(b)
	return len(b), nil
}

// bulkClient moves BYTES down or up and prints the sum of what it moved.
func bulkClient(ctx context.Context, args []string) error {
	version, direction, url := args[0], args[1], args[2]
	size, err := strconv.ParseInt(args[3], 10, 64)
	if err != nil {
		return err
	}
	c, err := httpClient(version)
	if err != nil {
		return err
	}
	start := time.Now()
	var mine, theirs string
	switch direction {
	case "up":
		p := &pattern{left: size, sum: newSum()}
		resp, err := send(ctx, c, http.MethodPost, url+"/up", p)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		mine, theirs = fmt.Sprint(size, " ", p.last), string(b)
	case "down":
		resp, err := send(ctx, c, http.MethodGet, fmt.Sprintf("%s/down?n=%d", url, size), nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		n, sum, err := sumOf(resp.Body)
		if err != nil {
			return err
		}
		mine, theirs = fmt.Sprint(n, " ", sum), resp.Trailer.Get("X-Sum")
	default:
		return fmt.Errorf("direction %q", direction)
	}
	if mine != theirs {
		return fmt.Errorf("this side has %s, the server %s", mine, theirs)
	}
	fmt.Printf("%d MB/s\n", int64(float64(size)/time.Since(start).Seconds())>>20)
	return nil
}

func sumOf(r io.Reader) (n int64, sum uint32, err error) {
	add := newSum()
	buf := make([]byte, 64<<10)
	for {
		k, err := r.Read(buf)
		n += int64(k)
		sum = add(buf[:k])
		if errors.Is(err, io.EOF) {
			return n, sum, nil
		}
		if err != nil {
			return n, sum, err
		}
	}
}
