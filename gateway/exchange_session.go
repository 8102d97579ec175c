package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/routes"
)

// roundTripper carries a request to the upstream that a route names. *upstream is the one in use.
type roundTripper interface {
	RoundTrip(route *routes.Route, host string, req *http.Request, on observer) (*http.Response, error)
}

// observer is told what happens before a response is there.
type observer interface {
	connected(remote netip.AddrPort)         // before the request is sent, for each try
	Interim(status int, header http.Header)  // with each 1xx response; the header is not the observer's to keep
	memory() (*http1.Request, *http1.Answer) // for what is sent and what comes back, over HTTP/1.1
}

// running is told which requests are under way, so that a new plan can end those that it forbids.
type running interface {
	enter(x *exchange)
	leave(x *exchange)
}

// session is what the requests on one connection of a guest share. It is used by as many goroutines as there are requests
// at once.
type session struct {
	snapshot func() *snapshot // the plan in force
	upstream roundTripper
	begin    func(*Record) // fills in all that the flow knows
	running  running
	record   func(*Record) // takes it, as [bottle.record] does
	ready    func() bool   // whether a record can be taken; false only where it must be
	log      *slog.Logger
	engine   *engine
	meter    *meter
	over     func(routes.Reason) // counts what the bottle's budget refused on this connection
	closing  context.Context     // ends when no further request is to be taken

	bottle   string
	host     string // canonical server name of the connection; "" if each request names its own
	port     uint16
	protocol routes.Protocol
	h2       bool            // the connection agreed on HTTP/2
	tripped  func() bool     // the bottle is cut off
	denied   *routes.Verdict // of the whole connection; nil if requests are decided on

	told atomic.Bool // the log was told of a credential that is not there
}

// session returns the session of the flow. denied, if not nil, answers every request. It is not inlined, for the stack of idle connections.
//
//go:noinline
func (f *flow) session(denied *routes.Verdict) *session {
	return &session{
		snapshot: f.b.current, tripped: f.b.isTripped, upstream: f.b.up, engine: f.b.engine, log: f.b.log, record: f.b.record, running: f,
		meter: f.b.meter, over: f.overBudget,
		ready: f.b.g.auditReady, closing: f.b.taking,
		begin:  f.beginRecord,
		bottle: f.b.name, host: f.host, port: f.port, protocol: f.protocol, h2: f.alpn == alpnH2, denied: denied,
	}
}

// overBudget counts what the bottle's budget refused on the flow's connection. A flood is what the flow's record says.
func (f *flow) overBudget(why routes.Reason) {
	f.b.overBudget(f.src, why)
	if why == ReasonH2Flood {
		f.note(func(r *Record) { r.Reason = why })
	}
}

// ServeHTTP answers one request and records it. It panics with [http.ErrAbortHandler] to have the response cut off.
func (s *session) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.h2 {
		if !s.meter.streams.try() {
			s.over(ReasonStreamBudget)
			panic(http.ErrAbortHandler) // an answer could not be finished before its guest reads it
		}
		defer s.meter.streams.give()
		if r.Body != http.NoBody {
			body := watchBody(w, r, s.engine)
			defer body.free()
			r.Body = body
		}
	}
	x := newExchange(s, w, r)
	whole := s.serve(x)
	if x.alone {
		s.engine.spare.put(x)
	}
	if !whole {
		panic(http.ErrAbortHandler)
	}
}

// serve runs an exchange. A panic below is a defect: it ends this response and nothing else.
func (s *session) serve(x *exchange) (whole bool) {
	defer func() {
		if p := recover(); p != nil {
			s.defect(x, p)
			whole = false
		}
	}()
	return x.serve()
}

// defect logs that p ended x.
func (s *session) defect(x *exchange, p any) {
	s.log.Error("request ended by a defect", "request", x.rec.ID, "panic", p, "stack", string(debug.Stack()))
}

// refused records a request that was refused before it became one, and returns what the guest is told.
func (s *session) refused(err *http1.ProtocolError) (contentType string, body []byte) {
	x := &exchange{s: s}
	s.begin(&x.rec)
	x.rec.Time = time.Now().UTC()
	x.rec.Status = err.Status
	x.rec.Lane, x.rec.Reason, x.rec.Error = LaneNone, routes.Reason("http_"+string(err.Reason)), err.Detail
	d := &denial{status: err.Status, reason: x.rec.Reason, detail: "The request breaks HTTP: " + err.Detail + "."}
	body = x.problem(d)
	s.record(&x.rec)
	return problemType, body
}

// reasonOf returns the reason of a record for a broken request, without its prefix.
func reasonOf(err *http1.ProtocolError) routes.Reason { return routes.Reason(err.Reason) }
