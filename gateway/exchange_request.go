package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/inject"
	"gatewayd/gateway/pipelock"
	"gatewayd/gateway/routes"
)

// checkUpgrade judges a request to change the protocol (RFC 9110 section 7.8). WebSocket is the only one that is carried.
// An offer of h2c is passed over, as RFC 9113 section 3.1 lets a server do, and the request served as it is: some clients
// make it with every request. Any other would turn the connection into something that nobody here can judge.
func (x *exchange) checkUpgrade() *denial {
	offers := x.r.Header["Upgrade"]
	if len(offers) == 0 || !httpguts.HeaderValuesContainsToken(x.r.Header["Connection"], "Upgrade") {
		return nil
	}
	if len(offers) == 1 && strings.EqualFold(offers[0], "h2c") {
		return nil
	}
	var why string
	switch {
	case len(offers) != 1 || !strings.EqualFold(offers[0], "websocket"):
		why = "The only protocol that a connection can be upgraded to is WebSocket."
	case x.r.Method != http.MethodGet || x.r.ContentLength != 0 || !x.r.ProtoAtLeast(1, 1):
		why = "A WebSocket handshake is a GET without a body (RFC 6455 section 4.1)."
	case len(x.r.Header["Sec-Websocket-Key"]) != 1:
		why = "A WebSocket handshake has one Sec-WebSocket-Key (RFC 6455 section 4.1)."
	default:
		x.upgrade = true
		return nil
	}
	return &denial{status: http.StatusForbidden, reason: ReasonUpgradeRefused, detail: why}
}

// prepare makes the request that goes upstream: checked for credentials that are not the bottle's, scanned, stripped of
// what belongs to the guest's connection, and, last of all, given the credential.
func (x *exchange) prepare() (*http.Request, *denial) {
	out := &x.out
	*out = *x.r // a shallow copy: the header is changed in place, and not looked at any more
	out.URL, out.RequestURI, out.Body, out.TransferEncoding = x.outURL(), "", nil, nil
	if x.upgrade {
		out.ProtoMajor = 1
	}
	if out.URL == nil {
		return nil, x.badTarget("it cannot be sent on as it is")
	}
	for _, step := range [...]func(*http.Request) *denial{x.checkCredential, x.scanHead, x.strip, x.body, x.inject} {
		if d := step(out); d != nil {
			return nil, d
		}
	}
	return out, nil
}

// outURL returns the URL whose path and query are sent exactly as the guest wrote them, or nil if net/http would not.
func (x *exchange) outURL() *url.URL {
	u := &x.url
	*u = url.URL{RawQuery: x.query, ForceQuery: x.hasQuery}
	if !strings.HasPrefix(x.path, "//") {
		u.Opaque = x.path
		return u
	}
	path, err := url.PathUnescape(x.path)
	if err != nil {
		return nil
	}
	u.Path, u.RawPath = path, x.path
	if u.EscapedPath() != x.path {
		return nil
	}
	return u
}

// scanHead looks for what must not leave in method, target and header, as the guest sent them.
func (x *exchange) scanHead(out *http.Request) *denial {
	if !x.verdict.Scan {
		return nil
	}
	var skip []string
	if x.verdict.Route.Auth != nil && x.verdict.Route.Auth.Header != "" {
		skip = []string{x.verdict.Route.Auth.Header} // checkCredential takes nothing there but this route's own dummy
	}
	found := x.scanner().Request(x.host, x.asked, out.Header, skip)
	if len(x.r.Method) > shortMethod {
		found = append(found, x.scanner().Scan(x.host, "method", []byte(x.r.Method))...)
	}
	if leak := x.worst(found); leak != nil {
		return x.leaked(leak)
	}
	return nil
}

// shortMethod is the length in bytes up to which a method is too short for a token: the usual ones are.
const shortMethod = 7

// scanner is that of the request's route. On a route without one nothing is scanned.
func (x *exchange) scanner() *pipelock.Scanner { return x.snap.scanners[x.verdict.Route] }

// worst returns the first finding that stops the request, or nil, and notes the others.
func (x *exchange) worst(found []pipelock.Finding) *pipelock.Finding {
	for i := range found {
		if found[i].Action == pipelock.Block {
			return &found[i]
		}
	}
	if len(found) > 0 {
		x.warned.CompareAndSwap(nil, &found[0])
	}
	return nil
}

// leaked is the denial of a request that carries what must not leave.
func (x *exchange) leaked(f *pipelock.Finding) *denial {
	x.rec.Finding = describe(f)
	switch f.Place { // it may be in there; the excerpt shows the place without it
	case "url":
		x.rec.Path = ""
	case "method":
		x.rec.Method = ""
	}
	return &denial{
		status: http.StatusForbidden, reason: ReasonLeak,
		detail: fmt.Sprintf("The request to %s carries what must not go there: %s, in its %s.", x.host, f.Rule, f.Place),
	}
}

// unscannable is the denial of a request whose body is encoded so that it cannot be scanned.
func (x *exchange) unscannable(err error) *denial {
	return &denial{
		status: http.StatusUnsupportedMediaType, reason: ReasonUnscannable, err: err,
		detail: fmt.Sprintf("Requests to %s are scanned, and this one's encoding cannot be: %v.", x.host, err),
	}
}

// cutOff is the denial of a request whose body was cut off by the scan, or nil.
func (x *exchange) cutOff() *denial {
	if leak := x.leak.Load(); leak != nil {
		return x.leaked(leak)
	}
	broken := x.broken.Load()
	if broken == nil {
		return nil
	}
	var encoding *pipelock.EncodingError
	if errors.As(*broken, &encoding) {
		return x.unscannable(encoding)
	}
	return nil
}

// describe says in a record what was found.
func describe(f *pipelock.Finding) string {
	if f.Encoding != "" {
		return fmt.Sprintf("%s in %s, as %s: %s", f.Rule, f.Place, f.Encoding, f.Excerpt)
	}
	return fmt.Sprintf("%s in %s: %s", f.Rule, f.Place, f.Excerpt)
}

// checkCredential refuses credentials that are not the bottle's dummy on a route whose credential the gateway sets.
func (x *exchange) checkCredential(out *http.Request) *denial {
	if !x.verdict.Inject {
		return nil
	}
	x.injector = x.snap.injectors[x.verdict.Route]
	if x.injector == nil {
		return &denial{status: http.StatusServiceUnavailable, reason: ReasonCredentialFailed, detail: "The route has a credential, but the gateway has no way to set it."}
	}
	if err := x.injector.Check(inject.Head{Header: out.Header, RawQuery: &out.URL.RawQuery}); err != nil {
		return &denial{
			status: http.StatusForbidden, reason: ReasonForeignCredential, err: err,
			detail: fmt.Sprintf("The credential for %s is set on the host. A request may carry the bottle's own placeholder or none: %v.", x.host, err),
		}
	}
	return nil
}

// strip removes what belongs to the guest's connection alone (RFC 9110 section 7.6.1) and what would take the gateway's
// sight of the exchange.
func (x *exchange) strip(out *http.Request) *denial {
	h := out.Header
	trailers := httpguts.HeaderValuesContainsToken(h["Te"], "trailers")
	if err := inject.StripHopByHop(h, x.endsHere); err != nil {
		return &denial{status: http.StatusBadRequest, reason: ReasonConnectionOption, err: err, detail: "The Connection field of the request is refused: " + err.Error() + "."}
	}
	if trailers {
		h.Set("Te", "trailers") // gRPC insists on it
	}
	if x.upgrade {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
		x.offers = limitExtensions(h) // so that messages stay readable
	}
	if x.verdict.Inject {
		limitEncodings(h)
	}
	return nil
}

// endsHere tells whether a field of the request goes no further, besides those that end at any gateway.
func (x *exchange) endsHere(key string, _ []string) bool {
	switch key {
	case "Host", "Content-Length", "Http2-Settings": // the second goes by out.ContentLength
		return true
	case "Expect":
		return x.r.ProtoMajor == 1 && x.r.ProtoMinor == 0
	case "Range", "If-Range": // a server may ignore them (RFC 9110 section 14.2)
		return x.verdict.Inject // a credential that is echoed must not come in two halves, past the masking
	}
	return false
}

// body sets the request's body: the guest's, scanned on its way if the route asks for it.
func (x *exchange) body(out *http.Request) *denial {
	if x.r.Body == nil || x.r.Body == http.NoBody || x.r.ContentLength == 0 {
		out.Body = nil
		return nil
	}
	var src io.Reader = x.r.Body
	warnings := func() []pipelock.Finding { return nil }
	if x.verdict.Scan {
		scanned, err := x.scanner().RequestBody(x.host, x.r.Header, src)
		if err != nil {
			return x.unscannable(err)
		}
		src = scanned
		warnings = scanned.Warnings
	}
	out.Body = &requestBody{x: x, src: src, warnings: warnings}
	return nil
}

// requestBody is a guest's body on its way to the upstream. It notes why it broke off, since the error that comes back from
// the upstream's side may not say.
type requestBody struct {
	x        *exchange
	src      io.Reader
	warnings func() []pipelock.Finding
}

// Read is [io.Reader].Read.
func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	b.x.sent.Add(int64(n))
	if err == nil {
		return n, nil
	}
	b.x.worst(b.warnings())
	if errors.Is(err, io.EOF) {
		err = b.x.scanTrailer()
	}
	if err == nil {
		return n, io.EOF
	}
	var leak *pipelock.LeakError
	if errors.As(err, &leak) {
		b.x.leak.CompareAndSwap(nil, &leak.Finding)
	}
	b.x.broken.CompareAndSwap(nil, &err)
	return 0, err // a request that broke off must not look whole to the upstream, which whoever reads this sees to
}

// Near reports whether all of the guest's body has come, so that reading it waits for nobody.
func (b *requestBody) Near() bool {
	n, ok := b.x.r.Body.(interface{ Near() bool })
	return ok && n.Near()
}

// Close is [io.Closer].Close. The guest's server closes its body itself.
func (b *requestBody) Close() error { return nil }

// scanTrailer scans the request's trailers, which are there once its body has ended.
func (x *exchange) scanTrailer() error {
	if !x.verdict.Scan || len(x.r.Trailer) == 0 {
		return nil
	}
	if leak := x.worst(x.scanner().Request(x.host, "", x.r.Trailer, nil)); leak != nil {
		return &pipelock.LeakError{Finding: *leak}
	}
	return nil
}

// inject puts the credential on the request. Nothing changes its head afterwards.
func (x *exchange) inject(out *http.Request) *denial {
	if !x.verdict.Inject {
		return nil
	}
	secret, err := x.injector.Apply(out.Context(), inject.Head{Header: out.Header, RawQuery: &out.URL.RawQuery})
	if err != nil {
		return x.withoutCredential(err)
	}
	x.masker = x.injector.Masker(secret)
	x.rec.Injected = true
	return nil
}

// withoutCredential is the denial of a request whose credential is not to be had, and tells the log what to do on the host.
func (x *exchange) withoutCredential(err error) *denial {
	d := &denial{status: http.StatusServiceUnavailable, reason: ReasonCredentialFailed, err: err}
	d.detail = fmt.Sprintf("The host's credential for %s could not be put on the request.", x.host)
	var missing *inject.MissingError
	var expired *inject.ExpiredError
	switch {
	case errors.As(err, &missing):
		d.reason, d.remedy = ReasonCredentialMissing, missing.Remedy()
		d.detail = fmt.Sprintf("The host has no credential for %s at %s.", x.host, missing.Ref)
	case errors.As(err, &expired):
		d.reason, d.remedy = ReasonCredentialExpired, expired.Remedy()
		d.detail = fmt.Sprintf("The host's credential for %s at %s expired at %s.", x.host, expired.Ref, expired.At.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	if !x.s.told.Swap(true) { // once for each connection
		x.s.log.Warn("credential is not to be had", "host", x.host, "rule", x.verdict.Rule, "request", x.rec.ID, "error", err, "remedy", d.remedy)
	}
	return d
}

// connected notes the upstream's address.
func (x *exchange) connected(remote netip.AddrPort) { x.rec.Upstream = remote }

// memory lends the exchange's own.
func (x *exchange) memory() (*http1.Request, *http1.Answer) { return &x.ask, &x.told }

// Interim sends a 1xx response on (RFC 9110 section 15.2). 100 is sent when the body is first read, and 101 is final.
func (x *exchange) Interim(code int, header http.Header) {
	if code == http.StatusContinue || code == http.StatusSwitchingProtocols {
		return
	}
	x.beginning.Lock()
	defer x.beginning.Unlock()
	if x.final {
		return
	}
	h := x.w.Header()
	copyResponseHeader(h, header)
	if x.masker != nil {
		x.masker.Header(h)
	}
	x.w.WriteHeader(code)
	clear(h)
}

// send carries the request to the upstream and waits for the response's head.
func (x *exchange) send(out *http.Request) (*http.Response, *denial) {
	resp, err := x.s.upstream.RoundTrip(x.verdict.Route, x.host, out, x)
	x.beginning.Lock()
	x.final = true
	x.beginning.Unlock()
	if x.paced != nil {
		x.paced.free()
	}
	if err == nil {
		return resp, nil
	}
	return nil, x.failure(err)
}

// failure says what went wrong between the request and its response: by what is known of the guest's side first, since an
// upstream's error may only be its echo.
func (x *exchange) failure(err error) *denial {
	if d := x.cutOff(); d != nil {
		return d
	}
	var protocol *http1.ProtocolError
	if broken := x.broken.Load(); broken != nil {
		if errors.As(*broken, &protocol) {
			return &denial{status: protocol.Status, reason: "http_" + reasonOf(protocol), err: *broken, detail: "The request breaks HTTP: " + protocol.Detail + "."}
		}
		return &denial{reason: ReasonGuestLeft, err: *broken}
	}
	if x.r.Context().Err() != nil {
		return &denial{reason: ReasonGuestLeft, err: err}
	}
	return x.upstreamFailure(err)
}

// upstreamFailure is the denial of a request that its upstream did not answer.
func (x *exchange) upstreamFailure(err error) *denial {
	d := &denial{status: http.StatusBadGateway, reason: ReasonUpstreamExchange, err: err}
	d.detail = fmt.Sprintf("%s broke off before it answered.", x.host)
	var at *UpstreamError
	if errors.As(err, &at) {
		d.reason = at.Stage
	}
	var timeout net.Error
	var invalid *tls.CertificateVerificationError
	switch {
	case errors.As(err, &invalid):
		d.detail = fmt.Sprintf("The certificate that %s presented is not valid: %v.", x.host, invalid.Err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		d.status, d.detail = http.StatusGatewayTimeout, fmt.Sprintf("%s did not answer in time (%s).", x.host, d.reason)
		if d.reason == ReasonUpstreamExchange {
			d.reason = ReasonUpstreamTimeout
		}
	case d.reason == ReasonUpstreamGuard:
		d.remedy = x.privateRemedy(at.Err)
		d.detail = fmt.Sprintf("%s resolves to an address that bottles may not reach: %v.", x.host, at.Err)
	case d.reason == ReasonUpstreamResolve:
		d.detail = fmt.Sprintf("The name %s has no usable address.", x.host)
	case d.reason == ReasonUpstreamDial:
		d.detail = fmt.Sprintf("%s could not be reached.", x.host)
	case d.reason == ReasonUpstreamTLS:
		d.detail = fmt.Sprintf("TLS with %s failed.", x.host)
	}
	return d
}

// privateRemedy returns the manifest lines that would let the request reach an address that the guard refused, or "" if
// none would.
func (x *exchange) privateRemedy(err error) string {
	var refused *routes.AddrError
	if !errors.As(err, &refused) || (routes.Guard{}).Check(refused.Addr, true) != nil || refused.Self {
		return ""
	}
	return fmt.Sprintf("# %s, with the rest of it as it is:\negress:\n  routes:\n    - host: %s\n      allow_private: true\n", x.verdict.Rule, x.verdict.Route.Host)
}
