package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// tlsConfig is the same for every peer: the curve that all have, and no session kept.
func (j *job) tlsConfig() (*tls.Config, error) {
	pem, err := os.ReadFile(j.ca)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read authorities: %s holds none", j.ca)
	}
	return &tls.Config{ServerName: j.name, RootCAs: pool, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}}, nil
}

// newTLS makes TLS connections one after another, connectors at a time: a full handshake, one request, its answer.
func newTLS(ctx context.Context, j *job) (Result, error) {
	config, err := j.tlsConfig()
	if err != nil {
		return Result{}, err
	}
	return manyTLS(ctx, j, config)
}

func manyTLS(ctx context.Context, j *job, config *tls.Config) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var started, done atomic.Int64
	var all sync.WaitGroup
	begin := time.Now()
	for range connectors {
		all.Go(func() {
			for time.Since(begin) < j.duration && started.Add(1) <= mostConnects && ctx.Err() == nil {
				if err := oneTLS(ctx, j, config); err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	n := int(done.Load())
	r := Result{Units: float64(n), Seconds: time.Since(begin).Seconds(), Connections: n}
	if err := context.Cause(ctx); err != nil {
		return r, fmt.Errorf("after %d connections: %w", n, err)
	}
	return r, nil
}

func oneTLS(ctx context.Context, j *job, config *tls.Config) error {
	d := tls.Dialer{NetDialer: j.ports.dialer(), Config: config}
	c, err := d.DialContext(ctx, "tcp4", j.connect)
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline() // there is always one, see client
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+j.name+smallPath, nil)
	if err != nil {
		return err
	}
	req.Close = true
	if err := req.Write(c); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err == nil && len(answer) < smallSize {
		err = fmt.Errorf("an answer of %d bytes", len(answer))
	}
	return err
}
