package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gatewayd/gateway/dns"
	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(guestVariable); spec != "" {
		guest(spec)
		return
	}
	goleak.VerifyTestMain(socketCheck{m})
}

// socketCheck runs the tests and fails if sockets are left open behind them.
type socketCheck struct{ m *testing.M }

// Run returns the exit code.
func (c socketCheck) Run() int {
	before := sockets()
	code := c.m.Run()
	if after := sockets(); code == 0 && after > before {
		fmt.Fprintf(os.Stderr, "%d sockets are open that were not before the tests (%d)\n", after-before, before)
		return 1
	}
	return code
}

// sockets counts this process's sockets.
func sockets() (n int) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// testWait is how long a test waits for something that ought to happen at once.
const testWait = 10 * time.Second

// loopbackSockets listens on loopback instead of the addresses of links, and is told by the test where a connection was
// going.
type loopbackSockets struct {
	mu     sync.Mutex
	cond   *sync.Cond
	tcp    map[netip.AddrPort]net.Listener
	dst    map[uint16]netip.AddrPort // by the guest's port
	always netip.AddrPort            // where connections go of which the test says nothing, if valid
	fail   map[netip.AddrPort]error  // what ListenTCP answers, if not nil
	before func(netip.AddrPort)      // called by ListenTCP before it does anything
	order  *order
}

func newLoopbackSockets(o *order) *loopbackSockets {
	s := &loopbackSockets{tcp: map[netip.AddrPort]net.Listener{}, dst: map[uint16]netip.AddrPort{}, order: o}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *loopbackSockets) ListenTCP(_ context.Context, addr netip.AddrPort) (net.Listener, error) {
	if s.before != nil {
		s.before(addr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail[addr] != nil {
		return nil, s.fail[addr]
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.tcp[addr] = l
	s.order.add("listen " + addr.String())
	return l, nil
}

func (s *loopbackSockets) ListenUDP(context.Context, netip.AddrPort) (dns.PacketConn, error) {
	return &idlePackets{closed: make(chan struct{})}, nil
}

// OriginalDst waits until the test has said where the connection was going.
func (s *loopbackSockets) OriginalDst(c *net.TCPConn) (netip.AddrPort, error) {
	port := addrPortOf(c.RemoteAddr()).Port()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.always.IsValid() {
		return s.always, nil
	}
	for !s.dst[port].IsValid() {
		s.cond.Wait()
	}
	d := s.dst[port]
	delete(s.dst, port)
	return d, nil
}

// call connects as a guest that calls dst by the link with this gateway address.
func (s *loopbackSockets) call(t testing.TB, link redirect.Link, dst netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := s.tryCall(t, link, dst)
	if err != nil {
		t.Fatalf("connect to the listener: %v", err)
	}
	return c
}

// tryCall is call for a connection that may be refused: the RST can come before connect(2) has returned.
func (s *loopbackSockets) tryCall(t testing.TB, link redirect.Link, dst netip.AddrPort) (*net.TCPConn, error) {
	t.Helper()
	s.mu.Lock()
	l := s.tcp[netip.AddrPortFrom(link.Gateway, link.InterceptPort)]
	s.mu.Unlock()
	if l == nil {
		t.Fatal("nothing listens for this link")
	}
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.dst[addrPortOf(c.LocalAddr()).Port()] = dst
	s.cond.Broadcast()
	s.mu.Unlock()
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(testWait)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), nil
}

// wantReset makes sure that the connection to dst is refused by a RST, now or as soon as something is read.
func (s *loopbackSockets) wantReset(t testing.TB, link redirect.Link, dst netip.AddrPort) {
	t.Helper()
	c, err := s.tryCall(t, link, dst)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !isReset(err) {
		t.Fatalf("connection gave %v; want a RST", err)
	}
}

// listenerOf is where the bottle's listener for flows would be.
func listenerOf(b Bottle) netip.AddrPort {
	return netip.AddrPortFrom(b.Link.Gateway, b.Link.InterceptPort)
}

// idlePackets is a UDP socket on which nothing ever comes.
type idlePackets struct {
	once   sync.Once
	closed chan struct{}
}

func (p *idlePackets) ReadFrom([]byte) (int, netip.AddrPort, netip.AddrPort, error) {
	<-p.closed
	return 0, netip.AddrPort{}, netip.AddrPort{}, net.ErrClosed
}
func (p *idlePackets) WriteTo(b []byte, _, _ netip.AddrPort) (int, error) { return len(b), nil }
func (p *idlePackets) Close() error                                       { p.once.Do(func() { close(p.closed) }); return nil }

// order is what happened, in order.
type order struct {
	mu   sync.Mutex
	what []string
}

func (o *order) add(s string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.what = append(o.what, s)
}

func (o *order) list() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.what)
}

// fakeRedirect notes what it is asked for.
type fakeRedirect struct {
	mu     sync.Mutex
	config redirect.Config
	fail   error
	order  *order
	before func() // called by Set before it does anything
}

func (r *fakeRedirect) Set(_ context.Context, c redirect.Config) (redirect.Status, error) {
	if r.before != nil {
		r.before()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return redirect.Status{}, r.fail
	}
	r.config = c
	r.order.add("set")
	return r.status(), nil
}

func (r *fakeRedirect) status() redirect.Status {
	var s redirect.Status
	for _, l := range r.config.Links {
		s.Links = append(s.Links, redirect.LinkStatus{Link: l, Up: true})
	}
	return s
}

func (r *fakeRedirect) Status() redirect.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status()
}

func (r *fakeRedirect) Counters(string) (redirect.Counters, error) {
	return redirect.Counters{Drops: map[redirect.Reason]uint64{0: 3}, RxPackets: 7}, nil
}

func (r *fakeRedirect) links() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, l := range r.config.Links {
		out = append(out, l.Bottle)
	}
	return out
}

// fakeNames resolves from a map.
type fakeNames struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
}

func (n *fakeNames) Lookup(_ context.Context, name string) (dns.Answer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := n.addrs[name]
	if len(a) == 0 {
		return dns.Answer{}, &dns.LookupError{Name: name, Kind: dns.NXDomain}
	}
	return dns.Answer{Addrs: a, TTL: time.Minute}, nil
}

func (n *fakeNames) set(name string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[name] = nil
	for _, a := range addrs {
		n.addrs[name] = append(n.addrs[name], netip.MustParseAddr(a))
	}
}

// records keeps what it is given and lets a test wait for it.
type records struct {
	mu   sync.Mutex
	cond *sync.Cond
	all  []Record
}

func newRecords() *records {
	r := &records{}
	r.cond = sync.NewCond(&r.mu)
	return r
}

func (r *records) Record(rec Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, rec)
	r.cond.Broadcast()
}

// wait returns the first record that match accepts.
func (r *records) wait(t testing.TB, match func(Record) bool) Record {
	t.Helper()
	late := time.AfterFunc(testWait, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cond.Broadcast()
	})
	defer late.Stop()
	end := time.Now().Add(testWait)
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if i := slices.IndexFunc(r.all, match); i >= 0 {
			return r.all[i]
		}
		if time.Now().After(end) {
			t.Fatalf("no such record among %+v", r.all)
		}
		r.cond.Wait()
	}
}

// flowRecord waits for the record of the flow that came from c.
func (r *records) flowOf(t testing.TB, c net.Conn) Record {
	t.Helper()
	src := addrPortOf(c.LocalAddr())
	return r.wait(t, func(rec Record) bool { return rec.Type == RecordFlow && rec.Src == src })
}

func (r *records) list() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// world is a gateway with everything around it made up.
type world struct {
	g        *Gateway
	sockets  *loopbackSockets
	redirect *fakeRedirect
	names    *fakeNames
	records  *records
	order    *order
	roots    *testRoots
	log      *lockedBuffer
}

// lockedBuffer is a buffer that several goroutines may write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newWorld returns a gateway whose upstreams are on loopback, which its guard lets pass. change may alter the options.
func newWorld(t testing.TB, change func(*Options)) *world {
	t.Helper()
	w := &world{order: &order{}, names: &fakeNames{addrs: map[string][]netip.Addr{}}, records: newRecords(), log: &lockedBuffer{}}
	w.sockets = newLoopbackSockets(w.order)
	w.redirect = &fakeRedirect{order: w.order}
	w.roots = newTestRoots(t)
	o := Options{
		Redirect: w.redirect,
		Roots:    w.roots.load(t),
		Guard: routes.Guard{AllowRanges: []netip.Prefix{
			netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("127.0.0.2/32"), netip.MustParsePrefix("::1/128"),
		}},
		Audit:   w.records,
		Log:     slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Sockets: w.sockets,
	}
	if change != nil {
		change(&o)
	}
	w.g = New(o)
	w.g.names = w.names
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testWait)
		defer cancel()
		if err := w.g.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
	})
	return w
}

// testLink is the link of bottle number n (1 to 50).
func testLink(name string, n byte) redirect.Link {
	return redirect.Link{
		Bottle: name, Name: "gw-" + name, Kind: redirect.Existing, Owner: -1,
		Guest: netip.AddrFrom4([4]byte{198, 18, n, 2}), Gateway: netip.AddrFrom4([4]byte{198, 18, n, 1}), Bits: 30,
		MAC: net.HardwareAddr{2, 0, 0, 0, 0, n}, MTU: 1500, InterceptPort: 15001, DNSPort: 53,
	}
}

// testBottle is bottle "dev" number 1 with these routes and a CA of its own.
func testBottle(t testing.TB, rs ...routes.Route) Bottle {
	t.Helper()
	return namedBottle(t, "dev", 1, rs...)
}

func namedBottle(t testing.TB, name string, n byte, rs ...routes.Route) Bottle {
	t.Helper()
	table, err := routes.NewTable(rs)
	if err != nil {
		t.Fatalf("make table: %v", err)
	}
	ca, err := gwtls.OpenCA(filepath.Join(t.TempDir(), name), name, time.Now)
	if err != nil {
		t.Fatalf("make CA: %v", err)
	}
	return Bottle{Name: name, Link: testLink(name, n), Table: table, PlanDigest: "digest-1", CA: ca}
}

// apply applies the bottles or ends the test.
func (w *world) apply(t testing.TB, bottles ...Bottle) {
	t.Helper()
	if err := w.g.Apply(context.Background(), bottles); err != nil {
		t.Fatalf("apply: %v", err)
	}
}

// bottle returns a running bottle.
func (w *world) bottle(name string) *bottle {
	w.g.mu.RLock()
	defer w.g.mu.RUnlock()
	return w.g.bottles[name]
}

// anywhere is an address that a guest may believe its host to have: nothing is ever sent there.
func anywhere(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, 9}), port)
}

// testRoots is a certificate authority of the made-up internet.
type testRoots struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newTestRoots(t testing.TB) *testRoots {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "made-up internet " + t.Name()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &testRoots{cert, key, file}
}

func (r *testRoots) load(t testing.TB) *gwtls.Roots {
	t.Helper()
	roots, err := gwtls.LoadRoots([]string{r.file})
	if err != nil {
		t.Fatalf("load roots: %v", err)
	}
	return roots
}

func (r *testRoots) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(r.cert)
	return p
}

// leaf returns a certificate for names, valid until notAfter.
func (r *testRoots) leaf(t testing.TB, notAfter time.Time, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: notAfter.Add(-48 * time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, r.cert, key.Public(), r.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// bottlePool returns the trust store of a guest of b: its CA alone.
func bottlePool(t testing.TB, b Bottle) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(b.CA.CertPEM()) {
		t.Fatal("the bottle's CA is no PEM certificate")
	}
	return p
}

// serveEach accepts on loopback and gives each connection to serve, in a goroutine that the test waits for. It returns
// the port.
func serveEach(t testing.TB, addr string, serve func(*net.TCPConn)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(3 * testWait))
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return addrPortOf(l.Addr()).Port()
}

// isReset tells whether err is the peer's RST.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
