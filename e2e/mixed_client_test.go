package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Between two pieces of one kind of work; the longer is for loads that take long, so that a day's records still fit a disk and
// the machine has time for other things.
const (
	mixedPause     = 50 * time.Millisecond
	mixedLongPause = 250 * time.Millisecond
)

// mixedClient does every kind of work at once, over and over, for as long as its first argument says and with the pauses of
// its second, and prints how often each was done. It fails with the first one that does not go as it should.
func mixedClient(ctx context.Context, args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	pause, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	// One address has all the names, and a connection that passes through is refused if its address turns out, between SYN and
	// hello, to have a name that does not.
	for _, name := range []string{"plain.example.org", "api.example.org", "direct.example.org"} {
		if _, err := net.DefaultResolver.LookupHost(ctx, name); err != nil {
			return err
		}
	}
	kinds := map[string]func(context.Context) error{}
	for _, v := range []string{"1", "2"} {
		c, err := httpClient(v)
		if err != nil {
			return err
		}
		kinds["get h"+v] = func(ctx context.Context) error {
			return mixedGet(ctx, c, "https://api.example.org/bulk/down?n=1024", 1024)
		}
		kinds["relayed h"+v] = func(ctx context.Context) error {
			return mixedGet(ctx, c, "https://direct.example.org/bulk/down?n=1024", 1024)
		}
		kinds["upload h"+v] = func(ctx context.Context) error { return mixedUpload(ctx, c) }
		kinds["cancelled h"+v] = func(ctx context.Context) error { return mixedCancel(ctx, c) }
		kinds["denied h"+v] = func(ctx context.Context) error { return mixedDenied(ctx, c) }
	}
	versions := 0
	kinds["events"] = func(ctx context.Context) error {
		versions++ // of this kind's goroutine alone
		return sseClient(ctx, []string{strconv.Itoa(1 + versions%2), "https://plain.example.org/sse"})
	}
	kinds["grpc"] = func(ctx context.Context) error { return grpcClient(ctx, []string{"plain.example.org:443"}) }
	kinds["socket"] = mixedSocket
	kinds["reset"] = mixedReset
	counts, err := repeatAll(ctx, d, pause, kinds)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(counts)
}

// repeatAll repeats each kind in a goroutine of its own, with a pause between two times.
func repeatAll(ctx context.Context, d, pause time.Duration, kinds map[string]func(context.Context) error) (map[string]int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	counts := map[string]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	begin := time.Now()
	for name, do := range kinds {
		all.Go(func() {
			for ctx.Err() == nil && time.Since(begin) < d {
				if err := do(ctx); err != nil {
					cancel(fmt.Errorf("%s, after %d times and %s: %w", name, counts[name], time.Since(begin), err))
					return
				}
				mu.Lock()
				counts[name]++
				mu.Unlock()
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	all.Wait()
	return counts, context.Cause(ctx)
}

func mixedGet(ctx context.Context, c *http.Client, url string, want int64) error {
	resp, err := send(ctx, c, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != want {
		return fmt.Errorf("%d of %d bytes: %w", n, want, err)
	}
	return nil
}

func mixedUpload(ctx context.Context, c *http.Client) error {
	const size = 256 << 10
	resp, err := send(ctx, c, http.MethodPost, "https://plain.example.org/bulk/up", io.LimitReader(&pattern{left: size, sum: newSum()}, size))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.HasPrefix(string(text), strconv.Itoa(size)+" ") {
		return fmt.Errorf("answer %q: %w", text, err)
	}
	return nil
}

// mixedCancel leaves a download at its first byte: a closed connection of HTTP/1.1, a reset stream of HTTP/2.
func mixedCancel(ctx context.Context, c *http.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := send(ctx, c, http.MethodGet, "https://api.example.org/bulk/down?n=10000000", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.ReadFull(resp.Body, make([]byte, 1))
	return err
}

func mixedDenied(ctx context.Context, c *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://other.example.org/", nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusForbidden {
		return fmt.Errorf("status %s, want 403: %w", resp.Status, err)
	}
	return nil
}

func mixedSocket(ctx context.Context) error {
	c, _, err := websocket.Dial(ctx, "wss://plain.example.org/ws", nil)
	if err != nil {
		return err
	}
	defer c.CloseNow()
	c.SetReadLimit(4 << 20)
	if err := echoed(ctx, c); err != nil {
		return err
	}
	return c.Close(websocket.StatusNormalClosure, "done")
}

// mixedReset sends half a request and resets the connection.
func mixedReset(ctx context.Context) error {
	d := tls.Dialer{Config: &tls.Config{NextProtos: []string{"http/1.1"}}}
	c, err := d.DialContext(ctx, "tcp4", "api.example.org:443")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST /bulk/up HTTP/1.1\r\nHost: api.example.org\r\nContent-Length: 100000\r\n\r\nhalf"); err != nil {
		return err
	}
	return c.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
}
