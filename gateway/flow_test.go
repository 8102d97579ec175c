package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
)

// TestRefusedFlows runs down everything that a guest's first bytes can be refused for: each is a RST, no byte reaches an
// upstream, and the record says why.
func TestRefusedFlows(t *testing.T) {
	hello := func(name string) func(*testing.T, net.Conn) error {
		return func(t *testing.T, c net.Conn) error {
			_, err := c.Write(clientHello(t, name))
			return err
		}
	}
	for _, c := range []struct {
		name  string
		dst   netip.AddrPort
		speak func(*testing.T, net.Conn) error
		want  routes.Reason
	}{
		{"nothing at all", anywhere(443), nil, ReasonHelloTimeout},
		{"nothing at all on a port without routes", anywhere(2525), nil, ReasonHelloTimeout},
		{"not TLS", anywhere(443), func(t *testing.T, c net.Conn) error {
			_, err := io.WriteString(c, "SSH-2.0-guest\r\n")
			return err
		}, ReasonNotTLS},
		{"no name", anywhere(443), hello(""), ReasonNoName},
		{"a name with a port", anywhere(443), hello("pass.test:443"), routes.BadName},
		{"a name with a NUL", anywhere(443), hello("pass.test\x00.evil.test"), routes.BadName},
		{"a wildcard for a name", anywhere(443), hello("*.test"), routes.BadName},
		{"half a hello", anywhere(443), func(t *testing.T, c net.Conn) error {
			_, err := c.Write(clientHello(t, "pass.test")[:100])
			return errors.Join(err, c.(*net.TCPConn).CloseWrite())
		}, ReasonHelloClosed},
		{"the gateway's own address", netip.MustParseAddrPort("198.18.1.1:443"), hello("pass.test"), ReasonOwnAddress},
		{"the listener itself", netip.MustParseAddrPort("198.18.1.1:15001"), hello("pass.test"), ReasonOwnAddress},
		{"an address of this host", netip.MustParseAddrPort("127.0.0.1:443"), hello("pass.test"), ReasonOwnAddress},
		{"another bottle", netip.MustParseAddrPort("198.18.2.2:443"), hello("pass.test"), ReasonOwnAddress},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(o *Options) {
				o.Deadlines.Hello, o.Deadlines.ForeignHello = 300*time.Millisecond, 50*time.Millisecond
			})
			w.names.set("pass.test", "127.0.0.1")
			w.apply(t, testBottle(t, routes.Route{Host: "pass.test", TLSPassthrough: true}), namedBottle(t, "other", 2))
			conn := w.sockets.call(t, testLink("dev", 1), c.dst)
			var err error
			if c.speak != nil {
				err = c.speak(t, conn)
			}
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
			}
			if !isReset(err) {
				t.Errorf("read gave %v; want a RST", err)
			}
			r := w.records.flowOf(t, conn)
			if r.Decision != routes.Deny || r.Lane != LaneNone || r.Reason != c.want {
				t.Errorf("record says %s by %s for %q; want deny by none for %q (%s)", r.Decision, r.Lane, r.Reason, c.want, r.Error)
			}
			if r.BytesDown != 0 || r.Upstream.IsValid() || r.Dst != c.dst || r.Bottle != "dev" || r.Plan != "digest-1" {
				t.Errorf("record %+v", r)
			}
		})
	}
}

func TestGuestThatDistrustsTheCA(t *testing.T) {
	for _, host := range []string{"icept.test", "denied.test"} {
		t.Run(host, func(t *testing.T) {
			w := newWorld(t, nil)
			w.apply(t, testBottle(t, routes.Route{Host: "icept.test"}))
			c := w.sockets.call(t, testLink("dev", 1), anywhere(443))
			err := tls.Client(c, &tls.Config{ServerName: host, RootCAs: w.roots.pool()}).Handshake()
			var unknown x509.UnknownAuthorityError
			if !errors.As(err, &unknown) {
				t.Fatalf("the guest's handshake: %v; want an unknown authority", err)
			}
			r := w.records.flowOf(t, c)
			if r.Reason != ReasonDistrustsCA || r.Lane != LaneNone || r.Host != host || !strings.Contains(r.Remedy, "gatewayd guest") {
				t.Errorf("record %+v; want it to say that the CA is not trusted, and what to do", r)
			}
		})
	}
}

func TestGuestThatHangsUpAfterTheHandshake(t *testing.T) {
	w := newWorld(t, nil)
	b := testBottle(t, routes.Route{Host: "icept.test"})
	w.apply(t, b)
	for _, asks := range []bool{false, true} {
		c := w.sockets.call(t, testLink("dev", 1), anywhere(443))
		tc := tls.Client(c, &tls.Config{ServerName: "icept.test", RootCAs: bottlePool(t, b)})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		if asks {
			if _, err := tc.Write([]byte("TRACE / HTTP/1.1\r\nHost: icept.test\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			if _, err := tc.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		tc.Close()
		r := w.records.flowOf(t, c)
		if told := strings.Contains(r.Remedy, "gatewayd guest") && r.Error != ""; told == asks {
			t.Errorf("with a request: %v; record says %q and %q", asks, r.Error, r.Remedy)
		}
	}
}

func TestALPNIsMirrored(t *testing.T) {
	for _, c := range []struct{ offer, want []string }{
		{nil, nil},
		{[]string{"http/1.1"}, []string{"http/1.1"}},
		{[]string{"http/1.1", "h2"}, []string{"h2", "http/1.1"}},
		{[]string{"h3", "h2"}, []string{"h2"}},
		{[]string{"acme-tls/1"}, []string{"h2", "http/1.1"}}, // nothing in common: crypto/tls refuses
	} {
		if got := offerALPN(c.offer); !slices.Equal(got, c.want) {
			t.Errorf("offer %v gets %v, want %v", c.offer, got, c.want)
		}
	}
	w := newWorld(t, nil)
	b := testBottle(t, routes.Route{Host: "icept.test"})
	w.apply(t, b)
	c := w.sockets.call(t, testLink("dev", 1), anywhere(443))
	if err := tls.Client(c, &tls.Config{ServerName: "icept.test", RootCAs: bottlePool(t, b), NextProtos: []string{"acme-tls/1"}}).Handshake(); err == nil {
		t.Error("a foreign protocol was agreed on")
	}
	if r := w.records.flowOf(t, c); r.Reason != ReasonNoCommonTLS || r.Decision != routes.Deny {
		t.Errorf("record %+v; want nothing in common", r)
	}
}

func TestFlowBudget(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Budget.Flows = 2 })
	w.apply(t, testBottle(t), namedBottle(t, "other", 2))
	first := w.sockets.call(t, testLink("dev", 1), anywhere(443))
	w.sockets.call(t, testLink("dev", 1), anywhere(443))
	waitFor(t, func() bool { return len(w.g.Flows()) == 2 })
	w.sockets.wantReset(t, testLink("dev", 1), anywhere(443))
	r := w.records.wait(t, func(r Record) bool { return r.Type == RecordEvent })
	if r.Reason != ReasonFlowBudget || r.Count != 1 || r.Bottle != "dev" {
		t.Errorf("record %+v; want one that says the budget is used up", r)
	}
	// The other bottle is not touched by it, and a flow that ends makes room.
	w.sockets.call(t, testLink("other", 2), anywhere(443))
	waitFor(t, func() bool { return len(w.g.Flows()) == 3 })
	first.Close()
	w.records.flowOf(t, first)
	w.sockets.call(t, testLink("dev", 1), anywhere(443))
	waitFor(t, func() bool { return len(w.g.Flows()) == 3 })
}

func TestRateBudgetCountsAFloodInFewRecords(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Budget.FlowsPerSecond, o.Budget.FlowBurst = 1, 1 })
	w.apply(t, testBottle(t))
	w.sockets.call(t, testLink("dev", 1), anywhere(443))
	const flood = 50
	for range flood {
		w.sockets.wantReset(t, testLink("dev", 1), anywhere(443))
	}
	waitFor(t, func() bool { return metricValue(t, w, "gatewayd_connections_turned_away_total") >= flood-2 })
	events := 0
	for _, r := range w.records.list() {
		if r.Type == RecordEvent {
			events++
		}
	}
	if events == 0 || events > 5 {
		t.Errorf("%d event records for %d refused connections; want one a second", events, flood)
	}
}

func TestDenialBudget(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Budget.DenialsPerSecond, o.Budget.DenialBurst = 1, 1 })
	b := testBottle(t)
	w.apply(t, b)
	var got []routes.Reason
	for _, name := range []string{"one.test", "two.test", "three.test"} {
		c := w.sockets.call(t, testLink("dev", 1), anywhere(443))
		guest := tls.Client(c, &tls.Config{ServerName: name, RootCAs: bottlePool(t, b)})
		_ = guest.Handshake()
		guest.Close()
		got = append(got, w.records.flowOf(t, c).Reason)
	}
	if want := []routes.Reason{routes.NoRoute, ReasonDenialBudget, ReasonDenialBudget}; !slices.Equal(got, want) {
		t.Errorf("reasons %v, want %v", got, want)
	}
}

// gatedRecords is a recorder that can be full.
type gatedRecords struct {
	*records
	ready chan bool
}

func (g gatedRecords) Ready() bool { return len(g.ready) > 0 }

func TestRequiredAuditThatIsFullDenies(t *testing.T) {
	gate := gatedRecords{newRecords(), make(chan bool, 1)}
	w := newWorld(t, func(o *Options) { o.Audit, o.AuditRequired = gate, true })
	w.names.set("pass.test", "127.0.0.1")
	port := tlsEcho(t, w, "pass.test")
	w.apply(t, testBottle(t, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true}))
	c := w.sockets.call(t, testLink("dev", 1), anywhere(port))
	if _, err := c.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("read gave %v; want a RST", err)
	}
	if r := gate.flowOf(t, c); r.Reason != ReasonAuditFull || r.Decision != routes.Deny {
		t.Errorf("record %+v; want it refused for want of records", r)
	}
	gate.ready <- true
	c = w.sockets.call(t, testLink("dev", 1), anywhere(port))
	if err := tls.Client(c, &tls.Config{ServerName: "pass.test", RootCAs: w.roots.pool()}).Handshake(); err != nil {
		t.Errorf("with room for records: %v", err)
	}
	b := testBottle(t, routes.Route{Host: "icept.test"})
	w.apply(t, b)
	c = w.sockets.call(t, testLink("dev", 1), anywhere(443))
	open := tls.Client(c, &tls.Config{ServerName: "icept.test", RootCAs: bottlePool(t, b)})
	if err := open.Handshake(); err != nil {
		t.Fatal(err)
	}
	<-gate.ready
	answer := make([]byte, len("HTTP/1.1 503"))
	if _, err := io.WriteString(open, "GET / HTTP/1.1\r\nHost: icept.test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(open, answer); err != nil || string(answer) != "HTTP/1.1 503" {
		t.Errorf("a request on an open connection got %q, %v; want a 503", answer, err)
	}
	bare := New(Options{Redirect: w.redirect, Sockets: w.sockets, AuditRequired: true, Audit: newRecords()})
	if err := bare.Apply(t.Context(), nil); err == nil {
		t.Error("records are required of something that cannot say whether it takes them")
	}
}

func TestDefectInOneFlowEndsThatFlow(t *testing.T) {
	w := newWorld(t, nil)
	w.apply(t, testBottle(t))
	w.g.own = func(netip.Addr) bool { panic("a defect") }
	c := w.sockets.call(t, testLink("dev", 1), anywhere(443))
	if _, err := c.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("read gave %v; want a RST", err)
	}
	if r := w.records.flowOf(t, c); r.Reason != ReasonInternal || r.Decision != routes.Deny {
		t.Errorf("record %+v; want a defect", r)
	}
	if !strings.Contains(w.log.String(), "a defect") {
		t.Error("the log does not show it")
	}
}

func TestHelloReasons(t *testing.T) {
	seen := map[routes.Reason]bool{}
	for kind := gwtls.NotTLS; kind <= gwtls.Closed; kind++ {
		why := helloReason(&gwtls.HelloError{Kind: kind, Err: io.EOF})
		if seen[why] {
			t.Errorf("kind %v shares the reason %s with another", kind, why)
		}
		seen[why] = true
	}
	if helloReason(io.EOF) != ReasonHelloMalformed {
		t.Error("an error of another type is not malformed")
	}
}

func TestLooksLikeHTTP(t *testing.T) {
	for first, want := range map[string]bool{
		"": false, "G": true, "GET": true, "GET /": true, "OPTIONS * ": true, "GE /": false, "get /": false, "SSH-2": false,
		"\x16\x03\x01": false, " GET": false, "\x00": false,
	} {
		if got := looksLikeHTTP([]byte(first)); got != want {
			t.Errorf("%q: %v, want %v", first, got, want)
		}
	}
}
