package e2e

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// steadySeen is what steadyClient saw.
type steadySeen struct {
	Open     int      // connections that were open all the time
	Sent     int64    // bytes on them
	Lost     int64    // of these, bytes that did not come back as they were
	Resets   int      // of them that ended by themselves
	Fresh    int      // connections made meanwhile, one after another
	Failures []string // what went wrong, of all
}

// steadyClient resolves HOST once, holds WIDTH connections to it on which blocks go to an echo and back, and makes fresh
// ones beside them, all until FILE exists. It prints steadySeen.
func steadyClient(ctx context.Context, args []string) error {
	host, file := args[0], args[2]
	width, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return err
	}
	// A connection from a port that another had a moment before is the relay's, and a gatewayd that is killed may leave no record of that
	// other one: these are from ports that follow one another, none of which the system gives by itself.
	s := &steady{host: host, addr: net.JoinHostPort(addrs[0], "443"), ports: new(atomic.Int32)}
	s.ports.Store(10_000)
	s.done = func() bool {
		_, err := os.Stat(file)
		return err == nil || ctx.Err() != nil
	}
	var all sync.WaitGroup
	for range width {
		all.Go(func() { s.hold(ctx) })
	}
	all.Go(func() {
		for !s.done() {
			s.fresh(ctx)
		}
	})
	all.Wait()
	s.seen.Open = width
	return json.NewEncoder(os.Stdout).Encode(s.seen)
}

type steady struct {
	host, addr string
	done       func() bool
	ports      *atomic.Int32 // the last local port that was taken; nil leaves that to the system

	mu   sync.Mutex
	seen steadySeen
}

func (s *steady) failed(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.Failures = append(s.seen.Failures, fmt.Sprintf("%s: %v", what, err))
}

func (s *steady) dial(ctx context.Context) (*tls.Conn, error) {
	from := new(net.Dialer)
	if s.ports != nil {
		from.LocalAddr = &net.TCPAddr{Port: int(s.ports.Add(1))}
	}
	d := tls.Dialer{NetDialer: from, Config: &tls.Config{ServerName: s.host}}
	c, err := d.DialContext(ctx, "tcp4", s.addr)
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), nil
}

// hold keeps one connection busy.
func (s *steady) hold(ctx context.Context) {
	c, err := s.dial(ctx)
	if err != nil {
		s.failed("open", err)
		return
	}
	defer c.Close()
	for !s.done() {
		lost, err := ping(c, 16<<10)
		s.mu.Lock()
		s.seen.Sent += 16 << 10
		s.seen.Lost += lost
		s.mu.Unlock()
		if err != nil {
			s.failed("hold", err)
			s.mu.Lock()
			s.seen.Resets++
			s.mu.Unlock()
			return
		}
	}
}

// fresh makes a connection, uses it and closes it. A SYN that finds no gateway is dropped, and comes again after 1, 3, 7, 15,
// 31 s and so on (RFC 6298 section 5.5): it may be under way for twice as long as it takes a gateway to start.
func (s *steady) fresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	c, err := s.dial(ctx)
	if err == nil {
		_, err = ping(c, 1000)
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		s.failed("fresh", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.Fresh++
}

// ping sends n random bytes to an echo, and returns how many did not come back as they were.
func ping(c net.Conn, n int) (lost int64, err error) {
	sent, got := make([]byte, n), make([]byte, n)
	_, _ = rand.Read(sent) // it never fails
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return int64(n), err
	}
	if _, err := c.Write(sent); err != nil {
		return int64(n), err
	}
	k, err := io.ReadFull(c, got)
	lost = int64(n - k)
	for i := range got[:k] {
		if got[i] != sent[i] {
			lost++
		}
	}
	return lost, err
}

// pingClient sends 50,000 bytes to an echo by name and wants them back.
func pingClient(ctx context.Context, args []string) error {
	s := &steady{host: args[0], addr: net.JoinHostPort(args[0], "443")}
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if lost, err := ping(c, 50_000); err != nil || lost > 0 {
		return fmt.Errorf("%d bytes are lost: %w", lost, err)
	}
	return nil
}
