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
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"gatewayd/lab"
)

// How many connections are held, below what gatewayd lets one bottle have: 1,024, of HTTP/2 128, and 512 to one server. The
// last two are held twice, see [world.holdMore].
const (
	heldConnections = 1000
	heldH2          = 60 * manyIdle / manyPerBottle
	heldSockets     = 250
)

// heldSettle is how long connections are idle before their memory is looked at, and a new process before they are opened, so that what
// opening them and starting left can be given back.
const heldSettle = 3 * time.Second

// holders open the connections of the loads that hold some.
var holders = map[string]func(context.Context, *job) (io.Closer, error){
	"hold": holdRaw, idleName: holdIdle, h2IdleName: holdIdleH2, socketIdleName: holdSocket,
}

// holdConnections opens count connections, prints its Result, and keeps them until its input ends.
func holdConnections(ctx context.Context, j *job, in io.Reader, out io.Writer) error {
	held := make([]io.Closer, 0, j.count)
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range j.count {
		c, err := holders[j.load](ctx, j)
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
func holdRaw(ctx context.Context, j *job) (io.Closer, error) {
	c, err := j.greet(ctx, j.connect, j.hello)
	if err != nil {
		return nil, err
	}
	// As any TLS client, it says something after the answer: until it does, a gate may wait for a second hello.
	if _, err := c.Write(message(askWait)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if _, _, err := readRecord(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// holdIdle opens an HTTP/1.1 connection over TLS and makes one request.
func holdIdle(ctx context.Context, j *job) (io.Closer, error) {
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

// holdIdleH2 opens an HTTP/2 connection and makes one request.
func holdIdleH2(ctx context.Context, j *job) (io.Closer, error) {
	c, err := httpClient(j)
	if err != nil {
		return nil, err
	}
	if _, err := get(ctx, c, j, smallPath); err != nil {
		return nil, err
	}
	return idleClient{c}, nil
}

// idleClient is a client that keeps one connection.
type idleClient struct{ *http.Client }

// Close is [io.Closer].Close.
func (c idleClient) Close() error {
	c.CloseIdleConnections()
	return nil
}

// holdSocket opens a WebSocket and sends one message there and back.
func holdSocket(ctx context.Context, j *job) (io.Closer, error) {
	client, err := httpClient(j)
	if err != nil {
		return nil, err
	}
	c, err := dialSocket(ctx, client, j)
	if err != nil {
		return nil, err
	}
	if err := roundTrip(ctx, c, bytes.Repeat([]byte("m"), messageSize)); err != nil {
		return nil, errors.Join(err, c.CloseNow())
	}
	return socketCloser{c}, nil
}

// socketCloser ends a WebSocket without ceremony.
type socketCloser struct{ *websocket.Conn }

// Close is [io.Closer].Close.
func (c socketCloser) Close() error { return c.CloseNow() }

// hold measures how much memory open connections take that have been idle for heldSettle.
func (w *world) hold(ctx context.Context, o *options, l load, via string) (Result, int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, clientPatience, fmt.Errorf("not done after %s", clientPatience))
	defer cancel()
	before, err := w.settled(ctx, via)
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
	p, err := g.Start(ctx, keep, print, &errOut, append(append(args, "-count", strconv.Itoa(heldConnections)), w.nextPorts(g, heldConnections)...)...)
	print.Close()
	if err != nil {
		return Result{}, 0, err
	}
	var r Result
	errRead := json.NewDecoder(result).Decode(&r)
	during, errSpent := w.settled(ctx, via)
	release.Close()
	if err := p.Wait(); err != nil {
		return r, 0, errors.Join(fmt.Errorf("%w: %s", err, bytes.TrimSpace(errOut.Bytes())), context.Cause(ctx))
	}
	return r, during - before, errors.Join(errRead, errSpent)
}

// holdMore measures how much memory l.held connections take beside as many others, in a process that has done nothing else:
// what the first ones make it set up is not counted, and no memory of earlier loads is used again. It is looked at when they have been
// idle for heldSettle.
func (w *world) holdMore(ctx context.Context, o *options, l load, via string) (Result, int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*clientPatience, fmt.Errorf("not done after %s", 2*clientPatience))
	defer cancel()
	if err := settle(ctx); err != nil {
		return Result{}, 0, err
	}
	var total Result
	var resident [2]int64
	for i := range resident {
		total.Units = 0
		for _, b := range w.holdersFor(l, via) {
			r, h, err := w.holdSome(ctx, o, l, via, b)
			if err != nil {
				return Result{}, 0, err
			}
			defer func() { _ = h.release() }() // what it says of connections that were cut off is no result
			total.Units += r.Units
			total.Connections += r.Connections
		}
		var err error
		if resident[i], err = w.settled(ctx, via); err != nil {
			return Result{}, 0, err
		}
	}
	return total, resident[1] - resident[0], nil
}

// settled is what works for a path has in memory when nothing was asked of it for heldSettle.
func (w *world) settled(ctx context.Context, via string) (resident int64, err error) {
	if err := settle(ctx); err != nil {
		return 0, err
	}
	_, resident, err = w.spent(via)
	return resident, err
}

// settle lets pass what a program may take to give memory back.
func settle(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(heldSettle):
		return nil
	}
}

// holdersFor are the bottles that hold l.held connections together: of HTTP/2 one may not have so many.
func (w *world) holdersFor(l load, via string) []holder {
	if l.name != h2IdleName || !isGatewayd(via) {
		return []holder{{nil, l.held}}
	}
	var all []holder
	for _, b := range w.idle {
		all = append(all, holder{b, l.held / len(w.idle)})
	}
	return all
}

// holdSome starts a client and waits until it holds its connections.
func (w *world) holdSome(ctx context.Context, o *options, l load, via string, b holder) (r Result, h *held, err error) {
	if h, err = w.holdIn(ctx, o, l, via, b.bottle, b.count); err != nil {
		return r, nil, err
	}
	if err := json.NewDecoder(h.output).Decode(&r); err != nil {
		return r, nil, errors.Join(err, h.release())
	}
	return r, h, nil
}

// renew starts anew what works for a path: gatewayd, or HAProxy.
func (w *world) renew(ctx context.Context, o *options, via string) error {
	if !isGatewayd(via) {
		path, err := o.packages.find(ctx, "haproxy")
		if err != nil {
			return err
		}
		return errors.Join(w.peers["haproxy"].close(), w.startHAProxy(ctx, o, path))
	}
	ctx, cancel := context.WithTimeout(ctx, setupPatience)
	defer cancel()
	if err := w.gatewayd.Stop(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	if err := w.gatewayd.Start(); err != nil {
		return err
	}
	for _, b := range append([]*lab.Bottle{w.bottle, w.second}, w.idle...) {
		if err := w.gatewayd.WaitBottle(ctx, b.Name); err != nil {
			return err
		}
	}
	return nil
}
