package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// maxQuery is the longest query that is read; a question and an OPT record with cookies and padding have under 600 bytes.
	maxQuery = 2048
	// tcpIdle is how long a TCP client has for its next query, from the first byte to the last (RFC 7766 §6.2.3 asks for
	// seconds).
	tcpIdle = 10 * time.Second
	// tcpWrite is how long a TCP client has to take a reply.
	tcpWrite = 5 * time.Second
	// tcpQueries is how many queries one TCP connection may bring.
	tcpQueries = 256
	// acceptPause is how long a listener rests after an error that may pass, such as no file descriptors.
	acceptPause = 50 * time.Millisecond
	// maxReadErrors is how many errors in a row end a UDP socket. Single ones come from ICMP.
	maxReadErrors = 100
)

// ServeUDP answers queries from c until ctx ends, then closes c, waits for the queries in hand, and returns nil. When c fails
// it does the same and returns that error: the bottle then has no names over UDP until it is called again.
func (s *Server) ServeUDP(ctx context.Context, c PacketConn) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer func() {
		if stop() {
			_ = c.Close()
		}
	}()
	slots := make(chan struct{}, s.cfg.Concurrent)
	buf := make([]byte, maxQuery)
	for failed := 0; ; {
		n, src, dst, err := c.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if failed++; failed > maxReadErrors || errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("read name query: %w", err)
			}
			continue
		}
		failed = 0
		select {
		case slots <- struct{}{}:
		default:
			s.counts[Busy].Add(1)
			continue
		}
		msg := append([]byte(nil), buf[:n]...)
		wg.Go(func() {
			defer func() { <-slots }()
			if reply := s.handle(ctx, msg, false); reply != nil {
				_, _ = c.WriteTo(reply, src, dst) // a guest that does not get it asks again
			}
		})
	}
}

// ServeTCP answers queries on connections accepted from l (RFC 7766) until ctx ends, then closes l and all connections, waits,
// and returns nil. When l fails it does the same and returns that error. Queries of one connection are answered in their order,
// one at a time.
func (s *Server) ServeTCP(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer func() {
		if stop() {
			_ = l.Close()
		}
	}()
	slots := make(chan struct{}, s.cfg.TCPConns)
	for failed := 0; ; {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if failed++; failed > maxReadErrors || errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept name client: %w", err)
			}
			pause(ctx, acceptPause)
			continue
		}
		failed = 0
		select {
		case slots <- struct{}{}:
		default:
			s.counts[Busy].Add(1)
			_ = c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			s.serveConn(ctx, c)
		})
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// serveConn answers the queries of one TCP connection and closes it. A query that gets no answer ends it: over TCP, silence
// would only keep the client waiting.
func (s *Server) serveConn(ctx context.Context, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	buf := make([]byte, maxQuery)
	for range tcpQueries {
		if err := c.SetReadDeadline(time.Now().Add(tcpIdle)); err != nil {
			return
		}
		msg, err := readFramed(c, buf)
		if err != nil {
			return
		}
		reply := s.handle(ctx, msg, true)
		if reply == nil {
			return
		}
		if err := c.SetWriteDeadline(time.Now().Add(tcpWrite)); err != nil {
			return
		}
		framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(reply)), uint16(len(reply)))
		if _, err := c.Write(append(framed, reply...)); err != nil {
			return
		}
	}
}

// readFramed reads one message with its length before it (RFC 1035 §4.2.2) into buf.
func readFramed(r io.Reader, buf []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, buf[:2]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(buf))
	if n < headerSize || n > len(buf) {
		return nil, fmt.Errorf("read name query: length %d", n)
	}
	_, err := io.ReadFull(r, buf[:n])
	return buf[:n], err
}
