package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/inject"
	"gatewayd/gateway/pipelock"
	"gatewayd/gateway/routes"
)

// maxAnswerBody bounds what an answerer may read of a request.
const maxAnswerBody = 1 << 20

// exchange is the life of one request: it is addressed, decided on, scanned, given its credential, sent, and its response
// delivered. Every step either goes on or says, as a denial, why not; a step that forgets to say anything sends nothing.
type exchange struct {
	s     *session
	snap  *snapshot // one plan for the whole request
	w     *tally    // is tally
	tally tally
	r     *http.Request
	paced *bodyWatch // the request's body, over HTTP/2
	start time.Time
	rec   Record
	*carried

	method   string // this and host and path are what it is decided by, and stay as they are
	host     string // canonical
	asked    string // path and query in one
	path     string // raw, as it is matched and sent
	query    string // raw, without the question mark
	hasQuery bool
	verdict  routes.Verdict
	upgrade  bool          // the request asks for WebSocket
	stream   io.ReadCloser // what the guest says on the stream that is to carry it; nil if its connection is
	offers   []deflate     // extensions that it offers
	deflate  *deflate      // what was agreed on, if it was

	injector *inject.Injector
	masker   *inject.Masker // hides what was injected; nil if nothing was

	alone   bool // it is over, and nobody else has its memory
	entered bool // it is among those that are under way
	handed  bool // its connection goes on after the handler has returned, and so does it

	sent   atomic.Int64 // bytes of the request's body that went on
	leak   atomic.Pointer[pipelock.Finding]
	warned atomic.Pointer[pipelock.Finding] // the first that was let go
	broken atomic.Pointer[error]            // what reading the request's body failed with

	beginning sync.Mutex // held while a 1xx response is written
	final     bool       // the final response has begun; guarded by beginning
}

// carried is the memory of a request as it goes upstream, and of its response.
type carried struct {
	out      http.Request  // once it is prepared
	url      url.URL       // its
	ask      http1.Request // the same, as it is sent over HTTP/1.1
	told     http1.Answer  // what came back
	delivery delivery      // of its body
}

// newExchange returns the exchange of one request.
func newExchange(s *session, w http.ResponseWriter, r *http.Request) *exchange {
	x := s.engine.spare.get()
	x.s, x.snap, x.r, x.start = s, s.snapshot(), r, time.Now()
	x.tally.ResponseWriter, x.w = w, &x.tally
	s.begin(&x.rec)
	x.paced, _ = r.Body.(*bodyWatch)
	x.rec.Plan = x.snap.digest
	x.method = ownMethod(r.Method)
	x.rec.Method, x.rec.Host = x.method, s.host
	x.rec.Decision, x.rec.Lane = routes.Deny, LaneNone
	return x
}

// ownMethod returns a method for a record, which outlives the head that the method may be a part of.
func ownMethod(method string) string {
	for _, usual := range [...]string{http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch} {
		if method == usual {
			return usual
		}
	}
	return strings.Clone(method)
}

// serve runs the exchange and records it. It reports false if the response is to be cut off, so that the guest does not
// take it for whole.
func (x *exchange) serve() (whole bool) {
	defer x.end()
	if d := x.admit(); d != nil {
		x.deny(d)
		return true
	}
	if d := x.enter(); d != nil {
		x.deny(d)
		return true
	}
	if x.verdict.Route.Answer != "" {
		x.answer()
		return true
	}
	out, d := x.prepare()
	if d != nil {
		x.deny(d)
		return true
	}
	resp, d := x.send(out)
	if d != nil {
		return x.fail(d)
	}
	if x.upgrade && resp.StatusCode == http.StatusSwitchingProtocols {
		return x.tunnel(resp)
	}
	return x.deliver(resp)
}

// enter puts the exchange among those that a new plan and a cut-off look at. What came between its decision and that is asked here.
func (x *exchange) enter() *denial {
	for {
		x.s.running.enter(x)
		now := x.s.snapshot()
		if now == x.snap && !x.s.tripped() {
			x.entered = true
			return nil
		}
		x.s.running.leave(x)
		x.snap, x.rec.Plan = now, now.digest
		if d := x.decide(); d != nil {
			return d
		}
	}
}

// end ends the exchange, unless it goes on after the handler.
func (x *exchange) end() {
	if x.handed {
		return
	}
	if x.entered {
		x.s.running.leave(x)
	}
	x.finish()
}

// lean has the exchange go on without what was its handler's, and without memory that it needs no more.
func (x *exchange) lean() {
	x.handed = true
	x.r, x.paced, x.carried, x.offers = nil, nil, nil, nil
	x.tally.ResponseWriter = nil
	x.asked, x.query = "", "" // parts of the request's head
}

// finish completes the record and hands it over.
func (x *exchange) finish() {
	now := time.Now()
	x.rec.Time = now.UTC()
	x.rec.DurationMS = now.Sub(x.start).Milliseconds()
	if x.rec.Status == 0 {
		x.rec.Status = x.w.status
	}
	if w := x.warned.Load(); w != nil && x.rec.Finding == "" {
		x.rec.Finding = "let go: " + describe(w)
	}
	x.rec.BytesUp += x.sent.Load()
	x.rec.BytesDown += x.w.written
	x.s.record(&x.rec)
}

// admit judges the request's head by itself and by the plan.
func (x *exchange) admit() *denial {
	for _, step := range [...]func() *denial{x.recordable, x.address, x.connect, x.target, x.decide, x.checkUpgrade} {
		if d := step(); d != nil {
			return d
		}
	}
	return nil
}

// recordable makes sure that the request's record will be kept, where that is required.
func (x *exchange) recordable() *denial {
	if x.s.ready() {
		return nil
	}
	return &denial{
		status: http.StatusServiceUnavailable, reason: ReasonAuditFull,
		detail: "The gateway has to keep a record of every request, and cannot at present.",
	}
}

// address makes sure that the request is for the host that its connection was made for: the credential that may be
// injected, and the upstream that is verified, are that host's (RFC 9110 section 7.4).
func (x *exchange) address() *denial {
	if x.r.Host == x.s.host && x.s.host != "" && x.r.URL.Scheme == "" && len(x.r.Header["Host"]) == 0 {
		x.host = x.s.host // as most requests have it
		return nil
	}
	name, port := splitAuthority(x.r.Host)
	host, err := name, error(nil)
	if host == "" || host != x.s.host { // else it is canonical
		host, err = routes.CanonicalHost(name)
	}
	if x.s.host == "" {
		if err != nil {
			return &denial{status: http.StatusForbidden, reason: routes.BadName, err: err, detail: "The Host field does not name a host that a plan could name."}
		}
		x.rec.Host = host
	} else if err != nil || host != x.s.host {
		return x.misdirected("the request names another host than its connection")
	}
	if port != 0 && port != x.s.port {
		return x.misdirected("the request names another port than its connection")
	}
	if scheme := x.r.URL.Scheme; scheme != "" && !strings.EqualFold(scheme, string(x.s.protocol)) {
		return x.misdirected("the request names another scheme than its connection")
	}
	for _, v := range x.r.Header["Host"] { // HTTP/2 may carry it beside :authority (RFC 9113 section 8.3.1)
		if !strings.EqualFold(v, x.r.Host) {
			return x.misdirected("the request names two hosts")
		}
	}
	x.host = host
	return nil
}

// misdirected is the denial of a request on the wrong connection.
func (x *exchange) misdirected(why string) *denial {
	where := net.JoinHostPort(x.rec.Host, strconv.Itoa(int(x.s.port)))
	return &denial{
		status: http.StatusMisdirectedRequest, reason: ReasonMisdirected, err: errors.New(why),
		detail: fmt.Sprintf("This connection is for %s, but %s.", where, why),
	}
}

// splitAuthority splits host [ ":" port ]. The port is 0 if there is none, and 65536 is never it: an impossible one comes
// back with the name, which is then not canonical.
func splitAuthority(authority string) (name string, port uint16) {
	i := strings.LastIndexByte(authority, ':')
	if i < 0 {
		return authority, 0
	}
	n, err := strconv.ParseUint(authority[i+1:], 10, 16)
	if err != nil || n == 0 {
		return authority, 0
	}
	return authority[:i], uint16(n)
}

// target takes path and query from the request target, byte for byte: what is decided on is what is sent.
func (x *exchange) target() *denial {
	switch x.r.Method {
	case http.MethodTrace, http.MethodConnect:
		return &denial{status: http.StatusMethodNotAllowed, reason: ReasonMethodRefused, detail: x.r.Method + " is never forwarded."}
	}
	raw := x.r.RequestURI
	if x.r.URL.Scheme != "" {
		if x.r.ProtoMajor != 1 { // RFC 9113 section 8.3.1: :path has no scheme and no authority
			return x.badTarget("it is neither a path nor an asterisk")
		}
		_, rest, _ := strings.Cut(raw, "://")
		i := strings.IndexByte(rest, '/') // behind the authority, which is the Host field's: package http1 has made sure
		if i < 0 {
			return x.badTarget("it has no path")
		}
		raw = rest[i:]
	}
	if strings.ContainsRune(raw, '#') {
		return x.badTarget("it holds a fragment")
	}
	x.asked = raw
	x.path, x.query, x.hasQuery = strings.Cut(raw, "?")
	x.path = strings.Clone(x.path) // a record outlives the head that this is a part of
	x.rec.Path = x.path
	for i := range len(x.query) {
		if c := x.query[i]; c <= ' ' || c >= 0x7f {
			return x.badTarget("its query holds a byte that has to be percent-encoded")
		}
	}
	return nil
}

// badTarget is the denial of a request target.
func (x *exchange) badTarget(why string) *denial {
	return &denial{status: http.StatusBadRequest, reason: ReasonTargetRefused, err: errors.New(why), detail: "The request target is refused: " + why + "."}
}

// decide asks the plan. Nothing but an Intercept decision lets a request go on.
func (x *exchange) decide() *denial {
	if x.s.tripped() {
		x.verdict = routes.Verdict{Reason: ReasonTripped}
	} else if x.s.denied != nil {
		x.verdict = *x.s.denied
	} else {
		x.verdict = x.snap.table.Decide(routes.Request{
			Host: x.host, Port: x.s.port, Protocol: x.s.protocol, Method: x.method, Path: x.path,
		})
	}
	v := x.verdict
	x.rec.Rule, x.rec.Reason = v.Rule, v.Reason
	switch {
	case v.Decision == routes.Intercept && v.Route != nil && x.s.denied == nil:
		x.rec.Decision, x.rec.Lane = routes.Intercept, LaneIntercept
		return nil
	case v.Decision == routes.Passthrough:
		d := x.misdirected("the plan in force passes this host through undecrypted; connect again")
		d.reason = ReasonNotIntercepted
		return d
	}
	remedy := v.Remedy()
	detail := x.denialDetail(v)
	if remedy != "" {
		detail += " These lines in the bottle's manifest would allow it:"
	}
	return &denial{status: http.StatusForbidden, reason: v.Reason, detail: detail, remedy: remedy}
}

// denialDetail says in words why the plan denies the request.
func (x *exchange) denialDetail(v routes.Verdict) string {
	what := fmt.Sprintf("%s %s://%s%s is denied", x.r.Method, x.s.protocol, x.host, x.path)
	switch v.Reason {
	case routes.NoRoute:
		return fmt.Sprintf("%s: no route of bottle %s names this host.", what, x.s.bottle)
	case routes.PortDenied:
		return fmt.Sprintf("%s: no route of bottle %s names this host with port %d.", what, x.s.bottle, x.s.port)
	case routes.ProtocolDenied:
		return fmt.Sprintf("%s: the route %s is of another protocol.", what, v.Rule)
	case routes.MethodDenied:
		return fmt.Sprintf("%s: the route %s does not allow this method.", what, v.Rule)
	case routes.PathDenied:
		return fmt.Sprintf("%s: the route %s does not allow this path.", what, v.Rule)
	case routes.PathNotCanonical:
		return fmt.Sprintf("%s: the path could be read in more than one way. Ask for it in its plain form.", what)
	}
	if v.Reason == ReasonTripped {
		return fmt.Sprintf("%s: too many requests of bottle %s held what must not leave, and it is cut off until its operator lets it go on.", what, x.s.bottle)
	}
	return fmt.Sprintf("%s (%s).", what, v.Reason)
}

// answer lets the route's answerer respond. Nothing goes upstream.
func (x *exchange) answer() {
	a := x.snap.answerers[x.verdict.Route.Answer]
	if a == nil {
		x.deny(&denial{status: http.StatusBadGateway, reason: ReasonInternal, detail: "The route is answered on the host, but nobody there does."})
		return
	}
	if x.stream != nil { // any answer of success would open the stream (RFC 8441 section 5)
		x.deny(x.notConnected(http.StatusNotImplemented, "The route is answered on the host, which speaks no WebSocket."))
		return
	}
	x.rec.Reason = ReasonAnswered
	r := x.r.Clone(x.r.Context())
	r.Body = http.MaxBytesReader(x.w, &counted{ReadCloser: x.r.Body, n: &x.sent}, maxAnswerBody)
	a.ServeHTTP(x.w, r)
}

// fail answers a request that could not be carried to its end. A denial without status is for a guest that has left.
func (x *exchange) fail(d *denial) (whole bool) {
	x.beginning.Lock()
	x.final = true
	x.beginning.Unlock()
	if d.status == 0 || x.w.status != 0 {
		x.note(d)
		return false
	}
	x.deny(d)
	return true
}
