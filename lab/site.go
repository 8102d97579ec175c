package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
)

// keptBody is how much of each request's body a Site remembers.
const keptBody = 1 << 20

// Site is one HTTP server of the internet.
type Site struct {
	// Names are entered into the DNS with the site's address.
	Names []string
	// Addr is where it listens; a fresh address when zero.
	Addr netip.Addr
	// Port is where it listens; 443, or 80 when Plain, when zero.
	Port uint16
	// Plain makes it speak HTTP/1.1 without TLS.
	Plain bool
	// HTTP1 makes it offer HTTP/1.1 alone; else HTTP/2 is offered as well.
	HTTP1 bool
	// Forgets makes it keep nothing of the requests that it sees, for loads that take long.
	Forgets bool
	// Handler answers; Echo when nil.
	Handler http.Handler

	server   *http.Server
	listener *countingListener
	done     sync.WaitGroup

	mu       sync.Mutex
	requests []*Request
}

// Request is what a site saw of one request.
type Request struct {
	// SNI is the name in the ClientHello, empty without TLS.
	SNI string
	// TLSVersion and ALPN are what was agreed on.
	TLSVersion uint16
	ALPN       string
	// Host, Proto, Method and URI are the request's own words.
	Host, Proto, Method, URI string
	// Header is the request's header without Host.
	Header http.Header
	// Body is the first MiB of the body, BodyBytes its full length so far.
	Body      []byte
	BodyBytes int64
	// From is the other end of the connection.
	From string
}

// Serve starts a site. Internet.Close stops it.
func (n *Internet) Serve(s *Site) error {
	if !s.Addr.IsValid() {
		s.Addr = n.NewAddress()
	}
	if s.Port == 0 {
		s.Port = 443
		if s.Plain {
			s.Port = 80
		}
	}
	if s.Handler == nil {
		s.Handler = http.HandlerFunc(Echo)
	}
	l, err := n.Listen(netip.AddrPortFrom(s.Addr, s.Port))
	if err != nil {
		return fmt.Errorf("start site %v: %w", s.Names, err)
	}
	s.listener = &countingListener{Listener: l}
	s.server = &http.Server{
		Handler:  s,
		ErrorLog: log.New(io.Discard, "", 0), // broken clients are the point of many tests
		Protocols: func() *http.Protocols {
			p := new(http.Protocols)
			p.SetHTTP1(true)
			p.SetHTTP2(!s.HTTP1 && !s.Plain)
			return p
		}(),
	}
	for _, name := range s.Names {
		n.Names.Set(name, s.Addr)
	}
	serve := s.server.Serve
	if !s.Plain {
		s.server.TLSConfig = &tls.Config{
			GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return n.CA.Leaf(h.ServerName) },
		}
		serve = func(l net.Listener) error { return s.server.ServeTLS(l, "", "") }
	}
	s.done.Go(func() { _ = serve(s.listener) }) // ends by Close
	n.onClose(s.Close)
	return nil
}

// ServeHTTP implements http.Handler: it records the request and passes it on.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.Forgets {
		s.Handler.ServeHTTP(w, r)
		return
	}
	seen := &Request{
		Host: r.Host, Proto: r.Proto, Method: r.Method, URI: r.RequestURI,
		Header: r.Header.Clone(), From: r.RemoteAddr,
	}
	if r.TLS != nil {
		seen.SNI, seen.TLSVersion, seen.ALPN = r.TLS.ServerName, r.TLS.Version, r.TLS.NegotiatedProtocol
	}
	s.mu.Lock()
	s.requests = append(s.requests, seen)
	s.mu.Unlock()
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &recordedBody{ReadCloser: r.Body, site: s, seen: seen}
	}
	s.Handler.ServeHTTP(w, r)
}

type recordedBody struct {
	io.ReadCloser
	site *Site
	seen *Request
}

func (b *recordedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.site.mu.Lock()
	defer b.site.mu.Unlock()
	b.seen.BodyBytes += int64(n)
	if room := keptBody - len(b.seen.Body); room > 0 {
		b.seen.Body = append(b.seen.Body, p[:min(n, room)]...)
	}
	return n, err
}

// Requests returns copies of what the site has seen so far, oldest first.
func (s *Site) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Request, 0, len(s.requests))
	for _, r := range s.requests {
		c := *r
		c.Body = bytes.Clone(r.Body)
		out = append(out, c)
	}
	return out
}

// Forget drops what was seen so far.
func (s *Site) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// Connections is the number of connections accepted so far.
func (s *Site) Connections() int { return s.listener.count() }

// CloseConnections closes what is open and goes on listening.
func (s *Site) CloseConnections() { s.listener.closeAll() }

// Close stops the site and waits for it.
func (s *Site) Close() error {
	err := s.server.Close()
	s.listener.closeAll() // hijacked ones, which the server no longer knows
	s.done.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("stop site %v: %w", s.Names, err)
	}
	return nil
}

// countingListener remembers what it accepted.
type countingListener struct {
	net.Listener
	mu    sync.Mutex
	total int
	open  []net.Conn
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	t := &trackedConn{Conn: c, from: l}
	l.open = append(l.open, t)
	return t, nil
}

func (l *countingListener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

func (l *countingListener) closeAll() {
	l.mu.Lock()
	open := slices.Clone(l.open)
	l.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
}

type trackedConn struct {
	net.Conn
	from *countingListener
}

func (c *trackedConn) Close() error {
	c.from.mu.Lock()
	c.from.open = slices.DeleteFunc(c.from.open, func(o net.Conn) bool { return o == net.Conn(c) })
	c.from.mu.Unlock()
	return c.Conn.Close()
}

// ServeTCP starts a server that runs f for every connection, and closes the
// connection when f returns. Internet.Close stops it and waits for every f;
// ctx ends then.
func (n *Internet) ServeTCP(at netip.AddrPort, f func(ctx context.Context, c net.Conn)) error {
	inner, err := n.Listen(at)
	if err != nil {
		return err
	}
	l := &countingListener{Listener: inner}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			done.Go(func() {
				defer c.Close()
				f(ctx, c)
			})
		}
	})
	n.onClose(func() error {
		cancel()
		err := l.Close()
		l.closeAll()
		done.Wait()
		return err
	})
	return nil
}
