package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

const (
	socketName     = "h1-ws"
	socketIdleName = "h1-ws-idle"
	socketPath     = "/ws"
)

// echoMessages sends every message of a WebSocket (RFC 6455) back until the client closes it.
func echoMessages(rw http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(rw, r, nil)
	if err != nil {
		return // it has answered
	}
	defer func() { _ = c.CloseNow() }() // whatever it was, it is over
	for {
		kind, text, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, text) != nil {
			return
		}
	}
}

// roundTrips sends one message at a time over one WebSocket and waits until it is back.
func roundTrips(ctx context.Context, j *job) (Result, error) {
	client, err := httpClient(j)
	if err != nil {
		return Result{}, err
	}
	defer client.CloseIdleConnections()
	c, err := dialSocket(ctx, client, j)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = c.CloseNow() }() // whatever it was, it is over
	sent := bytes.Repeat([]byte("m"), messageSize)
	var took []time.Duration
	begin := time.Now()
	for len(took) < 10 || time.Since(begin) < j.duration {
		start := time.Now()
		err := roundTrip(ctx, c, sent)
		took = append(took, time.Since(start))
		if err != nil {
			return Result{}, fmt.Errorf("message %d: %w", len(took), err)
		}
	}
	n := len(took)
	r := Result{Units: float64(n), Seconds: time.Since(begin).Seconds(), Median: median(took), Connections: 1}
	return r, c.Close(websocket.StatusNormalClosure, "")
}

// dialSocket opens a WebSocket.
func dialSocket(ctx context.Context, client *http.Client, j *job) (*websocket.Conn, error) {
	c, _, err := websocket.Dial(ctx, "wss://"+j.name+socketPath, &websocket.DialOptions{ //nolint:bodyclose // the connection has it
		HTTPClient: client, HTTPHeader: http.Header{"Authorization": {j.header}},
	})
	return c, err
}

// roundTrip sends a message and waits until it is back.
func roundTrip(ctx context.Context, c *websocket.Conn, sent []byte) error {
	if err := c.Write(ctx, websocket.MessageText, sent); err != nil {
		return err
	}
	_, got, err := c.Read(ctx)
	if err != nil || !bytes.Equal(got, sent) {
		return fmt.Errorf("%d bytes came back: %w", len(got), errors.Join(err))
	}
	return nil
}
