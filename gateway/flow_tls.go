package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"time"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
)

// The application protocols that the intercept lane speaks (RFC 7301, IANA ids).
const (
	alpnH2 = "h2"
	alpnH1 = "http/1.1"
)

// distrustRemedy is what an operator is told when a client in the bottle does not trust the bottle's CA.
const distrustRemedy = "the client in the bottle does not trust the bottle's CA: write the guest files again with `gatewayd guest` and " +
	"start the client with their env, set the guest's clock if it is years off, or let this host pass undecrypted with `pipelock: { tls_passthrough: true }`"

// clockRemedy is what an operator is told when a client in the bottle says that a certificate is not valid now.
const clockRemedy = "the guest's clock is more than two years behind or weeks ahead: set it, and look at `date` in the VM"

// serveTLS reads the ClientHello, decides by its canonical name and carries the decision out. Nothing but the name
// decides: not the address that the guest called, and nothing that comes later.
func (f *flow) serveTLS(ctx context.Context) {
	f.protocol = routes.HTTPS
	h := f.judgeHello(ctx)
	switch {
	case h == nil:
	case h.verdict.Decision == routes.Passthrough:
		f.relayName(ctx, &h.verdict, h.read)
	case h.verdict.Decision == routes.Intercept:
		f.intercept(ctx, h)
	default:
		f.explain(ctx, h)
	}
}

// judgedHello is a ClientHello that was decided on. It is handed on as one, since arguments stay on the stack of an idle connection.
type judgedHello struct {
	verdict routes.Verdict
	alpn    []string // that the guest offers
	read    []byte   // the hello, and what came with it
}

// judgeHello reads the ClientHello and decides by its name. When it returns nil the flow is done. It is a function of its own so
// that its frame is not on the stack of every connection that goes on.
//
//go:noinline
func (f *flow) judgeHello(ctx context.Context) *judgedHello {
	hello, read, ok := f.peek(ctx)
	if !ok {
		return nil
	}
	host, err := routes.CanonicalHost(hello.ServerName)
	if err != nil {
		f.refuse(routes.BadName, err)
		return nil
	}
	decided := f.decide(host, routes.HTTPS)
	if f.leakyName(decided) {
		return nil
	}
	return &judgedHello{decided, hello.ALPN, read}
}

// peek reads the ClientHello within its deadline and budget. When it reports false the flow has been refused, or handed
// to the plain lane, and is done.
func (f *flow) peek(ctx context.Context) (gwtls.Hello, []byte, bool) {
	wait := f.b.g.waits.Hello
	if !f.snap.httpsPorts[f.port] && !f.snap.httpPorts[f.port] && f.port != 443 {
		wait = f.b.g.waits.ForeignHello
	}
	hctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if !f.b.meter.hellos.take(hctx) {
		f.refuse(ReasonHelloBudget, nil)
		return gwtls.Hello{}, nil, false
	}
	_ = f.conn.SetReadDeadline(f.start.Add(wait)) // fails only on a closed socket, where the read fails too
	hello, read, err := gwtls.Peek(f.conn)
	f.b.meter.hellos.give()
	f.upBytes.Add(int64(len(read)))
	if err == nil {
		_ = f.conn.SetReadDeadline(time.Time{})
		return hello, read, true
	}
	why := helloReason(err)
	if why == ReasonNotTLS && looksLikeHTTP(read) {
		_ = f.conn.SetReadDeadline(time.Time{})
		f.upBytes.Add(int64(-len(read))) // counted again when the plain lane reads them
		f.servePlainReplayed(ctx, read)
		return gwtls.Hello{}, nil, false
	}
	f.refuse(why, err)
	return gwtls.Hello{}, nil, false
}

// looksLikeHTTP tells whether the first bytes of a connection can be those of an HTTP/1.1 request: a method in upper case,
// as all that are in use, and a space, as far as the bytes go (RFC 9112 section 3). On a port that is not known for plain
// text, such a connection goes to the plain lane, which decides each request for this very port: one that no route of
// protocol http allows is refused there too, but with words.
func looksLikeHTTP(first []byte) bool {
	for i, c := range first {
		if c == ' ' && i >= 3 {
			return true
		}
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return len(first) > 0
}

// servePlainReplayed is servePlainLane for a connection whose first bytes were read already.
func (f *flow) servePlainReplayed(ctx context.Context, read []byte) {
	f.protocol = routes.HTTP
	f.note(func(r *Record) { r.Decision, r.Lane, r.Reason = routes.Intercept, LaneIntercept, ReasonPerRequest })
	f.servePlain(ctx, &countedConn{Conn: gwtls.Replay(f.conn, read), f: f})
	f.conn.Close()
}

// helloReason gives the reason of a record for an error of Peek.
func helloReason(err error) routes.Reason {
	var he *gwtls.HelloError
	if !errors.As(err, &he) {
		return ReasonHelloMalformed
	}
	switch he.Kind {
	case gwtls.NotTLS:
		return ReasonNotTLS
	case gwtls.NoName:
		return ReasonNoName
	case gwtls.TooLarge:
		return ReasonHelloTooLarge
	case gwtls.Timeout:
		return ReasonHelloTimeout
	case gwtls.Closed:
		return ReasonHelloClosed
	default:
		return ReasonHelloMalformed
	}
}

// intercept terminates the guest's TLS with a leaf for the decided name and hands the connection to the HTTP lane.
func (f *flow) intercept(ctx context.Context, h *judgedHello) {
	f.verdict(&h.verdict, LaneIntercept)
	conn, ok := f.handshake(ctx, h)
	if !ok {
		return
	}
	shaken := f.upBytes.Load()
	f.serveIntercept(ctx, conn)
	f.closeTLS(conn)
	f.noteSilence(f.upBytes.Load() - shaken)
}

// explain terminates the TLS of a denied flow, so that each of its requests can be answered with the reason. The number
// of leaves minted for names outside the plan is limited for each bottle; beyond it the flow is just refused.
func (f *flow) explain(ctx context.Context, h *judgedHello) {
	v := &h.verdict
	f.verdict(v, LaneNone)
	remedy := v.Remedy()
	f.note(func(r *Record) { r.Decision, r.Remedy = routes.Deny, remedy })
	if !f.b.meter.denials.Allow() {
		f.refuse(ReasonDenialBudget, nil)
		return
	}
	conn, ok := f.handshake(ctx, h)
	if !ok {
		return
	}
	shaken := f.upBytes.Load()
	f.serveDenied(ctx, conn, v)
	f.closeTLS(conn)
	f.noteSilence(f.upBytes.Load() - shaken)
}

// alertBytes is more than an encrypted alert takes on the wire in any cipher suite (RFC 8446 section 5.2: 5 bytes of
// record header, 2 of alert, 1 of type, at most 32 of tag or MAC and padding), and less than the smallest HTTP request.
const alertBytes = 80

// noteSilence marks a flow whose guest finished the handshake and hung up without a request, sent being what came of it
// since. GnuTLS and Node judge the certificate only then, and may send no alert, so it may be distrust and may be a
// probe: the record says both.
func (f *flow) noteSilence(sent int64) {
	if f.requests.Load() > 0 || sent > alertBytes {
		return
	}
	f.note(func(r *Record) {
		if r.Error == "" && !f.ended {
			r.Error = "the guest hung up after the handshake without a request, as some clients do that do not trust the certificate"
			r.Remedy = cmp.Or(r.Remedy, distrustRemedy)
		}
	})
}

// closeTLS ends a TLS connection in order: close_notify, for which crypto/tls waits 5 s at most, then FIN.
func (f *flow) closeTLS(conn *tls.Conn) {
	_ = conn.Close() // the flow is over either way
}

// handshake makes the TLS connection with the guest, for the flow's host. When it reports false the flow was refused.
func (f *flow) handshake(ctx context.Context, h *judgedHello) (*tls.Conn, bool) {
	hctx, cancel := context.WithTimeout(ctx, f.b.g.waits.Handshake)
	defer cancel()
	if !f.b.meter.handshakes.take(hctx) {
		f.refuse(ReasonHandshakes, nil)
		return nil, false
	}
	defer f.b.meter.handshakes.give()
	if f.snap.ca == nil {
		f.refuse(ReasonNoLeaf, errors.New("the bottle has no CA"))
		return nil, false
	}
	offer, room := f.offerH2(offerALPN(h.alpn))
	if !room {
		f.refuse(ReasonH2Budget, nil)
		return nil, false
	}
	cfg, err := f.snap.ca.ServerConfig(f.host, offer)
	if err != nil {
		f.refuse(ReasonNoLeaf, err)
		return nil, false
	}
	f.upBytes.Add(int64(-len(h.read))) // the wire counts them again
	wire, err := gwtls.NewWire(f.conn, &f.b.engine.wires, true, h.read, &f.upBytes, &f.downBytes)
	if err != nil {
		f.refuse(ReasonGuestClosed, err)
		return nil, false
	}
	// A guest that asks for new keys (RFC 8446 section 4.6.3) is answered within a read, before the lane has set a deadline.
	_ = f.conn.SetWriteDeadline(time.Now().Add(cmp.Or(f.b.engine.h1.Limits.Write, http1.DefaultWrite)))
	conn := tls.Server(wire, cfg)
	if err := conn.HandshakeContext(hctx); err != nil {
		f.refuseHandshake(err)
		return nil, false
	}
	state := conn.ConnectionState()
	f.tlsVersion, f.alpn = tls.VersionName(state.Version), state.NegotiatedProtocol
	f.note(func(r *Record) { r.TLSVersion, r.ALPN = f.tlsVersion, f.alpn })
	if f.alpn != alpnH2 {
		f.leaveH2()
	}
	return conn, true
}

// offerH2 takes a place among the bottle's HTTP/2 connections if that protocol is in offer. If there is none left, offer
// comes back without it, and room is false if nothing else is in it.
func (f *flow) offerH2(offer []string) (left []string, room bool) {
	i := slices.Index(offer, alpnH2)
	if i < 0 {
		return offer, true
	}
	if f.h2 = f.b.meter.h2.try(); f.h2 {
		return offer, true
	}
	offer = slices.Delete(offer, i, i+1)
	return offer, len(offer) > 0
}

// leaveH2 gives back what offerH2 took, if it did.
func (f *flow) leaveH2() {
	if f.h2 {
		f.h2 = false
		f.b.meter.h2.give()
	}
}

// refuseHandshake records why the guest's handshake failed and closes with what crypto/tls has said already.
func (f *flow) refuseHandshake(err error) {
	var why routes.Reason
	switch gwtls.ClassifyHandshake(err) {
	case gwtls.GuestDistrustsCA:
		why = ReasonDistrustsCA
	case gwtls.GuestClock:
		why = ReasonGuestClock
	case gwtls.GuestClosed:
		why = ReasonGuestClosed
	case gwtls.HandshakeTimeout:
		why = ReasonHandshakeTime
	case gwtls.NoCommon:
		why = ReasonNoCommonTLS
	default:
		why = ReasonHandshakeFail
	}
	f.note(func(r *Record) {
		r.Decision, r.Lane, r.Reason, r.Error = routes.Deny, LaneNone, why, err.Error()
		switch why {
		case ReasonDistrustsCA:
			r.Remedy = distrustRemedy
		case ReasonGuestClock:
			r.Remedy = clockRemedy
		}
	})
	f.conn.Close()
}

// offerALPN returns what the gateway offers the guest: those of its own offer that the intercept lane speaks, in the
// gateway's order. A guest that offered something, but none of these, is met with the full list, so that crypto/tls
// ends the handshake with no_application_protocol (RFC 7301 section 3.2). A guest that offered nothing gets nothing.
func offerALPN(guest []string) []string {
	if len(guest) == 0 {
		return nil
	}
	var out []string
	for _, p := range []string{alpnH2, alpnH1} {
		if slices.Contains(guest, p) {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return []string{alpnH2, alpnH1}
	}
	return out
}
