package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// rawClient speaks TLS to a name with HTTP/1.1 agreed on, sends its standard
// words as they are (Go escapes undone), and prints all that comes back until
// the other side ends or two seconds pass in silence.
func rawClient(ctx context.Context, args []string) error {
	words, err := strconv.Unquote(`"` + args[1] + `"`)
	if err != nil {
		return err
	}
	d := tls.Dialer{Config: &tls.Config{NextProtos: []string{"http/1.1"}}}
	c, err := d.DialContext(ctx, "tcp4", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, words); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		n, err := c.Read(buf)
		os.Stdout.Write(buf[:n])
		if err != nil {
			fmt.Printf("\n[%v]\n", err)
			return nil // the end is part of what is shown
		}
	}
}

// crowdClient opens COUNT connections to an address, sends nothing on them,
// says so, and holds them until it is killed.
func crowdClient(ctx context.Context, args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var open []net.Conn
	var all sync.WaitGroup
	gate := make(chan struct{}, 64)
	for range count {
		all.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			if c, err := new(net.Dialer).DialContext(ctx, "tcp4", args[0]); err == nil {
				mu.Lock()
				defer mu.Unlock()
				open = append(open, c)
			}
		})
	}
	all.Wait()
	fmt.Println("open", len(open))
	<-ctx.Done()
	return ctx.Err()
}

// batchClient makes COUNT requests, WIDTH at a time, of which every third is
// given up in the middle, and prints how many of the others went well.
func batchClient(ctx context.Context, args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	width, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	gate := make(chan struct{}, width)
	for n := range count {
		version := "1"
		if n%2 == 0 {
			version = "2"
		}
		c, err := httpClient(version)
		if err != nil {
			return err
		}
		all.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			defer c.CloseIdleConnections()
			err := batchOne(ctx, n, func(ctx context.Context) (io.ReadCloser, error) {
				resp, err := send(ctx, c, "GET", args[0]+"/down?n=200000", nil)
				if err != nil {
					return nil, err
				}
				return resp.Body, nil
			})
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, err)
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

func batchOne(ctx context.Context, n int, open func(context.Context) (io.ReadCloser, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := open(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	if n%3 == 0 {
		_, err := io.ReadFull(body, make([]byte, 1000))
		return err // and gone
	}
	got, err := io.Copy(io.Discard, body)
	if err == nil && got != 200_000 {
		err = fmt.Errorf("%d bytes", got)
	}
	return err
}
