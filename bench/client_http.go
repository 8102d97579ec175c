package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Paths and sizes of what the web server holds.
const (
	smallPath, smallSize   = "/1k", 1 << 10
	middlePath, middleSize = "/64k", 64 << 10
	bulkPath, bulkSize     = "/100m", 100 << 20
	// An emulated VM takes a minute for the TLS of the large one.
	vmBulkPath, vmBulkSize = "/8m", 8 << 20
)

var bulkFiles = map[string]int64{bulkPath: bulkSize, vmBulkPath: vmBulkSize}

// version is that of HTTP that the load speaks.
func (j *job) version() string {
	if strings.HasPrefix(j.load, "h2") {
		return "HTTP/2.0"
	}
	return "HTTP/1.1"
}

// httpClient speaks one version of HTTP over one TLS configuration, the same for every peer: X25519 and no hybrid, since
// not every peer's library has one.
func httpClient(j *job) (*http.Client, error) {
	config, err := j.tlsConfig()
	if err != nil {
		return nil, err
	}
	p := new(http.Protocols)
	p.SetHTTP2(j.version() == "HTTP/2.0")
	p.SetHTTP1(j.version() == "HTTP/1.1")
	t := &http.Transport{
		TLSClientConfig:     config,
		Protocols:           p,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 1,
		ReadBufferSize:      64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp4", j.connect)
		},
	}
	return &http.Client{Transport: t}, nil
}

// get makes one request and returns the number of bytes of the body.
func get(ctx context.Context, c *http.Client, j *job, path string) (int64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+j.name+path, nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", j.header)
	answer, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	n, err := drain(answer.Body)
	if err != nil {
		return n, err
	}
	want := j.version()
	if answer.StatusCode != http.StatusOK || answer.Proto != want {
		return n, fmt.Errorf("get %s: status %s over %s, want 200 over %s", path, answer.Status, answer.Proto, want)
	}
	return n, nil
}

// httpBulk downloads the large file, again and again until the duration is over.
func httpBulk(ctx context.Context, j *job) (Result, error) {
	c, err := httpClient(j)
	if err != nil {
		return Result{}, err
	}
	defer c.CloseIdleConnections()
	if _, err := get(ctx, c, j, smallPath); err != nil { // the handshake is not of this load
		return Result{}, err
	}
	r := Result{Connections: 1}
	begin := time.Now()
	for r.Units == 0 || time.Since(begin) < j.duration {
		n, err := get(ctx, c, j, j.bulk)
		if err != nil {
			return r, err
		}
		if want := bulkFiles[j.bulk]; n != want {
			return r, fmt.Errorf("get %s: %w: %d of %d bytes", j.bulk, io.ErrUnexpectedEOF, n, want)
		}
		r.Units += float64(n)
	}
	r.Seconds = time.Since(begin).Seconds()
	return r, nil
}
