package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"gatewayd/gateway/routes"
)

// Why a flow was refused or ended, beyond what routes has words for.
const (
	ReasonOwnAddress     routes.Reason = "own_address"        // the guest called an address of this host
	ReasonFlowBudget     routes.Reason = "flow_budget"        // too many connections at once
	ReasonRateBudget     routes.Reason = "rate_budget"        // too many new connections per second
	ReasonHelloBudget    routes.Reason = "hello_budget"       // too many connections waiting for their ClientHello
	ReasonHandshakes     routes.Reason = "handshake_budget"   // too many TLS handshakes at once
	ReasonDenialBudget   routes.Reason = "denial_budget"      // denied, and too many denials to explain this one
	ReasonH2Budget       routes.Reason = "h2_budget"          // too many HTTP/2 connections for one that speaks nothing else
	ReasonStreamBudget   routes.Reason = "stream_budget"      // too many HTTP/2 requests at once
	ReasonH2Head         routes.Reason = "h2_head"            // an HTTP/2 head that is too large or breaks HTTP, so that it is no request
	ReasonH2Flood        routes.Reason = "h2_flood"           // more resets, such heads, or frames that carry nothing, than a bottle may send, for ten seconds
	ReasonAuditFull      routes.Reason = "audit_full"         // records are required and cannot be taken
	ReasonNotTLS         routes.Reason = "not_tls"            // the first bytes are no TLS
	ReasonNoName         routes.Reason = "no_name"            // a ClientHello without a server name
	ReasonHelloMalformed routes.Reason = "hello_malformed"    // a ClientHello that breaks the protocol
	ReasonHelloTooLarge  routes.Reason = "hello_too_large"    // a ClientHello beyond 64 KB
	ReasonHelloTimeout   routes.Reason = "hello_timeout"      // no whole ClientHello in time
	ReasonHelloClosed    routes.Reason = "hello_closed"       // the guest went away before its hello was whole
	ReasonDistrustsCA    routes.Reason = "guest_distrusts_ca" // the guest's client does not trust the bottle's CA
	ReasonGuestClock     routes.Reason = "guest_clock"        // the certificate is not valid at the guest's time
	ReasonGuestClosed    routes.Reason = "guest_closed"       // the guest went away in the handshake
	ReasonHandshakeTime  routes.Reason = "handshake_timeout"  // the handshake took too long
	ReasonNoCommonTLS    routes.Reason = "no_common_tls"      // no version, cipher or application protocol in common
	ReasonHandshakeFail  routes.Reason = "handshake_failed"   // the handshake failed in another way
	ReasonNoLeaf         routes.Reason = "no_leaf"            // the bottle's CA could not make a certificate
	ReasonPerRequest     routes.Reason = "per_request"        // plain HTTP: each request is decided on its own, and has a record
	ReasonIdle           routes.Reason = "idle"               // ended after a long silence
	ReasonRevoked        routes.Reason = "revoked"            // a new plan no longer allows what this flow was
	ReasonShut           routes.Reason = "shut"               // the bottle was removed or the gateway stopped
	ReasonInternal       routes.Reason = "internal"           // a defect of the gateway; the flow was refused
)

// flow is one TCP connection of a guest, from accept to its record. Its own goroutine writes the fields; what others
// may read of it meanwhile is under mu, set by the methods below.
type flow struct {
	id    string
	b     *bottle
	snap  *snapshot   // the plan that decided; until then, the one in force when the guest connected
	stop  func() bool // has the end of the bottle forget the flow
	conn  *net.TCPConn
	start time.Time
	src   netip.AddrPort // the guest
	dst   netip.AddrPort // where the guest wanted to go

	host     string // canonical, "" until learned
	port     uint16
	protocol routes.Protocol

	upBytes   atomic.Int64 // guest to upstream
	downBytes atomic.Int64 // upstream to guest
	requests  atomic.Int64 // that were begun on an intercepted connection

	tlsVersion string // agreed with the guest, "" without TLS
	alpn       string // agreed with the guest, "" if none
	h2         bool   // it has a place among the bottle's HTTP/2 connections

	mu     sync.Mutex
	rec    Record         // what the record will say
	grant  routes.Verdict // what carried the flow, for revocation
	peer   *net.TCPConn   // the relay's other side
	ended  bool           // the connection was taken away by abort
	broken bool           // a direction of the relay ended by an error
	half   bool           // one side of the relay has ended its stream
	live   counters       // what the relay's sockets had moved at the last sweep
	liveAt time.Time      // when that last changed

	exchanges []*exchange // requests under way, as many as the guest may have at once
}

// FlowInfo is the state of one open flow.
type FlowInfo struct {
	ID       string          `json:"id"`
	Bottle   string          `json:"bottle"`
	Src      netip.AddrPort  `json:"src"`
	Dst      netip.AddrPort  `json:"dst"`
	Host     string          `json:"host,omitempty"`
	Port     uint16          `json:"port"`
	Protocol routes.Protocol `json:"protocol,omitempty"`
	Decision routes.Decision `json:"decision"`
	Lane     Lane            `json:"lane"`
	Rule     string          `json:"rule,omitempty"`
	Reason   routes.Reason   `json:"reason,omitempty"`
	Upstream netip.AddrPort  `json:"upstream,omitzero"`
	Since    time.Time       `json:"since"`
	// BytesUp and BytesDown are as of the last sweep for a relayed flow, and exact for an intercepted one.
	BytesUp   int64 `json:"bytes_up"`
	BytesDown int64 `json:"bytes_down"`
}

// newFlow returns the flow of conn, which dst says where the guest meant to go. The caller runs it.
func (b *bottle) newFlow(conn *net.TCPConn, dst netip.AddrPort) *flow {
	f := &flow{
		id:    newID("f-"),
		b:     b,
		snap:  b.current(),
		conn:  conn,
		start: time.Now(),
		src:   addrPortOf(conn.RemoteAddr()),
		dst:   dst,
		port:  dst.Port(),
	}
	f.liveAt = f.start
	f.rec = Record{Lane: LaneNone}
	return f
}

// addrPortOf returns a as an unmapped address and port, or the zero value for anything that is no TCP address.
func addrPortOf(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp == nil {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// serve runs the flow to its end and writes its record. A panic below is a defect: the flow is refused and the gateway
// goes on.
func (f *flow) serve(ctx context.Context) {
	f.stop = context.AfterFunc(ctx, func() { f.abort(ReasonShut) })
	defer f.end()
	f.route(ctx)
}

// end is what serve ends with, by a panic too. One deferred call takes less of the stack of an idle connection than three.
func (f *flow) end() {
	if p := recover(); p != nil {
		f.b.log.Error("flow ended by a defect", slog.String("flow", f.id), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		f.refuse(ReasonInternal, nil)
	}
	f.stop()
	f.finish()
}

// route sends the flow to the lane that its port and first bytes ask for.
func (f *flow) route(ctx context.Context) {
	switch {
	case !f.b.g.auditReady():
		f.refuse(ReasonAuditFull, nil)
	case f.b.g.own(f.dst.Addr()):
		f.refuse(ReasonOwnAddress, nil)
	case f.snap.table.TCP(f.port) && f.relayPinned(ctx):
	case f.plainPort():
		f.servePlainLane(ctx)
	default:
		f.serveTLS(ctx)
	}
}

// plainPort tells whether the port speaks HTTP without TLS: 80, or one that only routes of protocol http name.
func (f *flow) plainPort() bool {
	if f.snap.httpPorts[f.port] {
		return !f.snap.httpsPorts[f.port]
	}
	return f.port == 80 && !f.snap.httpsPorts[80]
}

// servePlainLane hands the connection to the HTTP/1.1 lane without TLS.
func (f *flow) servePlainLane(ctx context.Context) {
	f.protocol = routes.HTTP
	f.note(func(r *Record) { r.Decision, r.Lane, r.Reason = routes.Intercept, LaneIntercept, ReasonPerRequest })
	f.servePlain(ctx, &countedConn{Conn: f.conn, f: f})
	f.conn.Close()
}

// note changes the record to be, under the lock that Flows reads it by.
func (f *flow) note(change func(*Record)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.rec)
}

// decide judges the flow by the plan in force, as host and protocol, and makes the verdict what a later plan is compared
// with. A plan that is swapped in meanwhile, or a cut-off, may have gone over the open flows before this one had a verdict to
// compare; then the flow is judged again, so that no flow begins by what was so before.
func (f *flow) decide(host string, protocol routes.Protocol) routes.Verdict {
	f.host, f.protocol = host, protocol
	for {
		s, tripped := f.b.current(), f.b.isTripped()
		v := s.table.DecideFlow(host, f.port, protocol)
		if tripped {
			v = routes.Verdict{Reason: ReasonTripped}
		}
		f.mu.Lock()
		f.grant = v
		f.rec.Host, f.rec.Protocol = host, protocol
		f.mu.Unlock()
		f.snap = s
		if f.b.current() == s && f.b.isTripped() == tripped {
			return v
		}
	}
}

// verdict puts v and the lane that carries it into the record to be.
func (f *flow) verdict(v *routes.Verdict, lane Lane) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rec.Decision, f.rec.Rule, f.rec.Reason, f.rec.Lane = v.Decision, v.Rule, v.Reason, lane
}

// refuse ends the connection with a RST, so that the client fails at once, and records why. err may be nil. Nothing of
// the flow has reached an upstream, or nothing more will.
func (f *flow) refuse(why routes.Reason, err error) {
	f.note(func(r *Record) {
		r.Host, r.Protocol = f.host, f.protocol
		if f.ended {
			return // the connection broke because it was taken away; that reason stands
		}
		r.Decision, r.Lane, r.Reason = routes.Deny, LaneNone, why
		if err != nil {
			r.Error = err.Error()
		}
	})
	reset(f.conn)
}

// abort takes the connections away from whatever lane holds them. It may be called by any goroutine, at any time, and
// more than once; the first reason stands.
func (f *flow) abort(why routes.Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return
	}
	f.ended = true
	f.rec.Reason = why
	reset(f.conn)
	if f.peer != nil {
		reset(f.peer)
	}
}

// abortUndecided is abort for a flow on which nothing is under way yet, since its guest has not said whom it wants.
func (f *flow) abortUndecided() {
	f.mu.Lock()
	undecided := f.rec.Lane == LaneNone && f.rec.Reason == ""
	f.mu.Unlock()
	if undecided {
		f.abort(ReasonShut)
	}
}

// reset closes c so that the peer gets a RST instead of a FIN (SO_LINGER with zero time, socket(7)).
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // a closed socket has nothing left to linger
	_ = c.Close()
}

// finish completes the record and hands it over.
func (f *flow) finish() {
	f.conn.Close()
	f.leaveH2()
	f.mu.Lock()
	r := f.rec
	f.mu.Unlock()
	r.Time = time.Now().UTC()
	r.Type = RecordFlow
	r.ID = f.id
	r.Bottle, r.Plan = f.b.name, f.snap.digest
	r.Src, r.Dst, r.Port = f.src, f.dst, f.port
	r.Host, r.Protocol = f.host, f.protocol
	r.TLSVersion, r.ALPN = f.tlsVersion, f.alpn
	r.BytesUp, r.BytesDown = f.upBytes.Load(), f.downBytes.Load()
	r.DurationMS = time.Since(f.start).Milliseconds()
	f.b.record(&r)
}

// beginRecord counts a request on the flow and fills in what the flow knows of it, but no time. r is empty.
func (f *flow) beginRecord(r *Record) {
	f.requests.Add(1)
	r.Type, r.ID, r.Flow, r.Bottle, r.Plan = RecordRequest, newID("r-"), f.id, f.b.name, f.b.current().digest
	r.Src, r.Dst, r.Host, r.Port, r.Protocol = f.src, f.dst, f.host, f.port, f.protocol
	r.Lane, r.TLSVersion, r.ALPN = LaneIntercept, f.tlsVersion, f.alpn
}

// info returns the flow's state for the operator.
func (f *flow) info() FlowInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := FlowInfo{
		ID: f.id, Bottle: f.b.name, Src: f.src, Dst: f.dst, Port: f.port, Since: f.start,
		Host: f.rec.Host, Protocol: f.rec.Protocol,
		Decision: f.rec.Decision, Lane: f.rec.Lane, Rule: f.rec.Rule, Reason: f.rec.Reason, Upstream: f.rec.Upstream,
		BytesUp: f.upBytes.Load(), BytesDown: f.downBytes.Load(),
	}
	if f.peer != nil {
		i.BytesUp, i.BytesDown = f.live.up, f.live.down
	}
	return i
}

// countedConn counts the guest's bytes of an intercepted connection, as they are on the wire.
type countedConn struct {
	net.Conn
	f *flow
}

// Read counts what came from the guest.
func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.f.upBytes.Add(int64(n))
	return n, err
}

// Write counts what went to the guest.
func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.f.downBytes.Add(int64(n))
	return n, err
}

// CloseWrite ends the stream towards the guest, for a lane that closes in two steps.
func (c *countedConn) CloseWrite() error { return c.f.conn.CloseWrite() }
