package redirect

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// origin is the address of the internet's server, behind the internet's end of
// the uplink, and goodName the name that it may be called by.
var origin = netip.MustParseAddr("198.19.0.10")

const goodName = "good.test"

// fastStage is a stage with an uplink, a bottle whose fast path is open, a TLS
// server that echoes on the internet, and the events of the flows.
type fastStage struct {
	*stage
	l    Link
	g    *guest
	mu   sync.Mutex
	over []FastEvent
	// names are those that the server was called by, callers where from.
	names   []string
	callers []netip.AddrPort
	// unwatch ends what watchEvents began.
	unwatch func()
}

func newFastStage(t *testing.T, mode AttachMode, change ...func(*Options)) *fastStage {
	t.Helper()
	uplink := func(o *Options) { o.Attach, o.Uplink = mode, "up0" }
	s := &fastStage{stage: newStage(t, append(change, uplink)...)}
	s.leaksAllowed = true
	s.l = s.link(1)
	s.listeners(s.l)
	s.set(s.l)
	if o := s.r.FastObstacle(); o != "" {
		t.Fatalf("the fast path is shut: %s", o)
	}
	must(t, inNetns(s.net, func() error {
		dev, err := netlink.LinkByName("net0")
		if err != nil {
			return err
		}
		_, err = ensureAddress(dev, origin, 24, false)
		return err
	}))
	s.g = s.enter(s.l)
	s.serve()
	s.watchEvents()
	t.Cleanup(func() {
		if t.Failed() {
			s.tell()
		}
	})
	return s
}

// tell logs what is known of the bottle's frames on their way.
func (s *fastStage) tell() {
	s.t.Logf("counters: %+v", difference(counters(s.t, s.r, s.l), Counters{}))
	s.t.Logf("events: %+v", s.events())
	s.t.Logf("obstacle: %q", s.r.FastObstacle())
	err := s.r.fast.eachFlow(func(k gatewayFlowKey, f *gatewayFlow) { s.t.Logf("flow %+v: %+v", k, *f) })
	s.t.Logf("flows: %v; conntrack:\n%s", err, conntrack(s.t))
	frames := s.leaks.frames()
	s.t.Logf("%d frames reached the internet; the last of them:", len(frames))
	for _, f := range frames[max(0, len(frames)-10):] {
		s.t.Logf("%x", f[:min(len(f), 80)])
	}
}

// pin lets the bottle call the origin by the names, for longer than a slow machine takes for any test.
func (s *fastStage) pin(names ...string) {
	s.t.Helper()
	pins := make([]FastPin, 0, len(names))
	for _, n := range names {
		pins = append(pins, FastPin{Name: n, Port: 443, For: time.Hour})
	}
	must(s.t, s.r.SetFast(s.l.Bottle, origin, pins))
}

// watchEvents keeps what FastEvents tells.
func (s *fastStage) watchEvents() {
	ctx, cancel := context.WithCancel(s.t.Context())
	var reading sync.WaitGroup
	r := s.r
	reading.Go(func() {
		if err := r.FastEvents(ctx, func(e FastEvent) {
			s.mu.Lock()
			s.over = append(s.over, e)
			s.mu.Unlock()
		}); err != nil && !errors.Is(err, ErrClosed) { // closed: the test was quicker
			s.t.Errorf("events: %v", err)
		}
	})
	s.unwatch = func() { cancel(); reading.Wait() }
	s.t.Cleanup(s.unwatch)
}

func (s *fastStage) events() []FastEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]FastEvent(nil), s.over...)
}

// namesCalled are the names that the server was called by.
func (s *fastStage) namesCalled() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.names...)
}

// serve runs a TLS server at the origin, which echoes, and answers any name.
func (s *fastStage) serve() {
	t := s.t
	t.Helper()
	cert := selfSigned(t)
	var l net.Listener
	must(t, inNetns(s.net, func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(origin, 443).String())
		return err
	}))
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				stop := context.AfterFunc(t.Context(), func() { c.Close() })
				defer stop()
				tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert},
					GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
						s.mu.Lock()
						defer s.mu.Unlock()
						s.names = append(s.names, h.ServerName)
						s.callers = append(s.callers, h.Conn.RemoteAddr().(*net.TCPAddr).AddrPort())
						return nil, nil
					}})
				_, _ = io.Copy(tc, tc)
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{goodName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// call opens a TLS connection from the bottle, and closes it with the test.
func (s *fastStage) call(name string) (*tls.Conn, error) {
	raw, err := s.g.dial(netip.AddrPortFrom(origin, 443), patience)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	s.t.Cleanup(func() { raw.Close() })
	must(s.t, raw.SetDeadline(time.Now().Add(patience)))
	return c, c.Handshake()
}

func echoed(c io.ReadWriter, line string) error {
	if _, err := io.WriteString(c, line); err != nil {
		return err
	}
	got := make([]byte, len(line))
	_, err := io.ReadFull(c, got)
	if err == nil && string(got) != line {
		err = os.ErrInvalid
	}
	return err
}
