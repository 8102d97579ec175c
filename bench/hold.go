package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
)

// heldConnections is below what one bottle may have at once by default (1,024).
const heldConnections = 1000

// holdConnections opens count connections, prints its Result, and keeps them until its input ends.
func holdConnections(ctx context.Context, j *job, in io.Reader, out io.Writer) error {
	held := make([]net.Conn, 0, j.count)
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	open := holdRaw
	if j.load == idleName {
		open = holdIdle
	}
	for range j.count {
		c, err := open(ctx, j)
		if err != nil {
			return fmt.Errorf("after %d connections: %w", len(held), err)
		}
		held = append(held, c)
	}
	if err := json.NewEncoder(out).Encode(Result{Units: float64(len(held)), Connections: len(held)}); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, in)
	return err
}

// holdRaw opens a connection of the made-up protocol.
func holdRaw(ctx context.Context, j *job) (net.Conn, error) {
	c, err := greet(ctx, j.connect, j.hello)
	if err != nil {
		return nil, err
	}
	// As any TLS client, it says something after the answer: until it does, a gate may wait for a second hello.
	if _, err := c.Write(message(askSink)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// holdIdle opens an HTTP/1.1 connection over TLS and makes one request.
func holdIdle(ctx context.Context, j *job) (net.Conn, error) {
	config, err := j.tlsConfig()
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{Config: config}
	c, err := d.DialContext(ctx, "tcp4", j.connect)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\n\r\n", smallPath, j.name, j.header); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	n, err := drain(resp.Body)
	resp.Body.Close()
	if err != nil || n != smallSize || resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("status %s and %d bytes", resp.Status, n), err, c.Close())
	}
	return c, nil
}

// hold measures how much memory open connections take.
func (w *world) hold(ctx context.Context, o *options, l load, via string) (Result, int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, clientPatience, fmt.Errorf("not done after %s", clientPatience))
	defer cancel()
	_, before, err := w.spent(via)
	if err != nil {
		return Result{}, 0, err
	}
	keep, release, err := os.Pipe()
	if err != nil {
		return Result{}, 0, fmt.Errorf("make pipe: %w", err)
	}
	defer keep.Close()
	defer release.Close()
	result, print, err := os.Pipe()
	if err != nil {
		return Result{}, 0, fmt.Errorf("make pipe: %w", err)
	}
	defer result.Close()
	var errOut bytes.Buffer
	g, args := w.clientCommand(o, l, via, 0)
	p, err := g.Start(ctx, keep, print, &errOut, append(args, "-count", strconv.Itoa(heldConnections))...)
	print.Close()
	if err != nil {
		return Result{}, 0, err
	}
	var r Result
	errRead := json.NewDecoder(result).Decode(&r)
	_, during, errSpent := w.spent(via)
	release.Close()
	if err := p.Wait(); err != nil {
		return r, 0, errors.Join(fmt.Errorf("%w: %s", err, bytes.TrimSpace(errOut.Bytes())), context.Cause(ctx))
	}
	return r, during - before, errors.Join(errRead, errSpent)
}
