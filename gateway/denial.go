package gateway

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"strconv"
	"strings"

	"gatewayd/gateway/routes"
)

// Why a request was refused, beyond what routes has words for. A request that broke HTTP itself has a reason that begins
// with "http_" and goes on with one of package http1's.
const (
	ReasonMisdirected       routes.Reason = "misdirected"        // the request names another host than its connection
	ReasonMethodRefused     routes.Reason = "method_refused"     // TRACE or CONNECT
	ReasonTargetRefused     routes.Reason = "target_refused"     // a request target that cannot be sent on as it is
	ReasonUpgradeRefused    routes.Reason = "upgrade_refused"    // an upgrade to something other than WebSocket, or a malformed one
	ReasonNotIntercepted    routes.Reason = "not_intercepted"    // a new plan passes this host through; the connection is of the old one
	ReasonConnectionOption  routes.Reason = "connection_option"  // Connection names a field that must reach the upstream
	ReasonForeignCredential routes.Reason = "foreign_credential" // a credential other than the dummy on a route with auth
	ReasonLeak              routes.Reason = "leak"               // the scanner found what must not leave
	ReasonUnscannable       routes.Reason = "unscannable"        // a content coding that cannot be scanned
	ReasonCredentialMissing routes.Reason = "credential_missing" // the host has no credential where the plan says
	ReasonCredentialExpired routes.Reason = "credential_expired" // the host's credential is past its time
	ReasonCredentialFailed  routes.Reason = "credential_failed"  // the host's credential could not be put on the request
	ReasonUnmaskable        routes.Reason = "unmaskable"         // a response that could hide the credential from masking
	ReasonUpstreamTimeout   routes.Reason = "upstream_timeout"   // the upstream did not answer in time
	ReasonGuestLeft         routes.Reason = "guest_left"         // the guest gave the request up
	ReasonAnswered          routes.Reason = "answer"             // answered on the host; nothing went upstream
)

// problemType is the media type of an explanation (RFC 9457 section 6.1).
const problemType = "application/problem+json"

// denial is why a request gets no response of an upstream, and what the guest is told.
type denial struct {
	status int // HTTP status, 4xx or 5xx
	reason routes.Reason
	detail string // one or two sentences for the person or agent in the bottle
	remedy string // manifest lines, or what to do on the host; may be empty
	err    error  // for the record; may be nil
}

// problem is the body of an explanation: the members of RFC 9457 section 3, and the gateway's own.
type problem struct {
	Type      string        `json:"type"`
	Title     string        `json:"title"`
	Status    int           `json:"status"`
	Detail    string        `json:"detail"`
	Instance  string        `json:"instance"`
	RequestID string        `json:"request_id"`
	Bottle    string        `json:"bottle"`
	Host      string        `json:"host,omitempty"`
	Method    string        `json:"method,omitempty"`
	Path      string        `json:"path,omitempty"`
	Rule      string        `json:"rule,omitempty"`
	Reason    routes.Reason `json:"reason"`
	Remedy    string        `json:"remedy,omitempty"`
	Error     problemError  `json:"error"`
}

// problemError is the member that clients of JSON APIs look for when they show an error to their user.
type problemError struct {
	Message string `json:"message"`
	Type    string `json:"type"`
	Code    string `json:"code"`
}

// message says everything in one text: what happened, what would allow it, and how to learn more on the host.
func (x *exchange) message(d *denial) string {
	var b strings.Builder
	b.WriteString("gatewayd: " + d.detail)
	if d.remedy != "" {
		b.WriteString("\n\n" + strings.TrimRight(d.remedy, "\n"))
	}
	fmt.Fprintf(&b, "\n\nOn the host, `gatewayd explain %s` tells more.", x.rec.ID)
	return b.String()
}

// problem returns the explanation as JSON.
func (x *exchange) problem(d *denial) []byte {
	p := problem{
		Type: "urn:gatewayd:" + string(d.reason), Title: http.StatusText(d.status), Status: d.status,
		Detail: d.detail, Instance: "urn:gatewayd:request:" + x.rec.ID, RequestID: x.rec.ID,
		Bottle: x.s.bottle, Host: x.rec.Host, Method: x.rec.Method, Path: x.rec.Path,
		Rule: x.rec.Rule, Reason: d.reason, Remedy: d.remedy,
		Error: problemError{Message: x.message(d), Type: "gatewayd_" + string(d.reason), Code: string(d.reason)},
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return []byte("{}\n") // strings and a number: it does not fail
	}
	return append(b, '\n')
}

// deny answers the request with an explanation, in the form that its client can show: a gRPC status, a page, or a problem.
// It records the reason. The response must not have begun.
func (x *exchange) deny(d *denial) {
	x.note(d)
	h := x.w.Header()
	clear(h)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Gatewayd-Request", x.rec.ID)
	h.Set("X-Gatewayd-Reason", string(d.reason))
	if strings.HasPrefix(x.r.Header.Get("Content-Type"), "application/grpc") {
		x.denyGRPC(d)
		return
	}
	contentType, body := problemType, x.problem(d)
	if strings.Contains(x.r.Header.Get("Accept"), "text/html") {
		contentType, body = "text/html; charset=utf-8", x.page(d)
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	}
	if d.status == http.StatusMisdirectedRequest && x.r.ProtoMajor == 1 {
		h.Set("Connection", "close") // the request may succeed on another connection (RFC 9110 section 15.5.20)
	}
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	x.w.WriteHeader(d.status)
	_, _ = x.w.Write(body) // a guest that left does not read explanations
	if x.paced != nil {
		x.paced.rest()
	}
}

// note puts a denial into the record. What merely failed (5xx, or a guest that left) leaves the decision as it was; an
// address that the guard refuses is no failure, whatever the status.
func (x *exchange) note(d *denial) {
	if d.status >= 400 && d.status < 500 || d.reason == ReasonUpstreamGuard {
		x.rec.Decision, x.rec.Lane = routes.Deny, LaneNone
	}
	x.rec.Reason, x.rec.Remedy = d.reason, d.remedy
	if d.err != nil {
		x.rec.Error = d.err.Error()
	}
}

// denyGRPC answers with the status that a gRPC client shows, in a response that is all trailers ("Trailers-Only" in the
// protocol's description).
func (x *exchange) denyGRPC(d *denial) {
	code := "7" // PERMISSION_DENIED
	if d.status >= 500 {
		code = "14" // UNAVAILABLE
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", code)
	h.Set("Grpc-Message", percentEncode(x.message(d)))
	x.w.WriteHeader(http.StatusOK)
}

// percentEncode encodes a gRPC status message: everything but printable ASCII, and the percent sign.
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// page returns the explanation for a browser.
func (x *exchange) page(d *denial) []byte {
	var b strings.Builder
	e := html.EscapeString
	title := strconv.Itoa(d.status) + " " + http.StatusText(d.status)
	b.WriteString("<!doctype html>\n<meta charset=\"utf-8\">\n<title>" + e(title) + "</title>\n")
	b.WriteString("<style>body{font:16px/1.5 sans-serif;max-width:44em;margin:3em auto;padding:0 1em}pre{background:#eee;padding:1em;overflow:auto}</style>\n")
	b.WriteString("<h1>" + e(title) + "</h1>\n<p>" + e(d.detail) + "</p>\n")
	if d.remedy != "" {
		b.WriteString("<pre>" + e(strings.TrimRight(d.remedy, "\n")) + "</pre>\n")
	}
	fmt.Fprintf(&b, "<p>Answered by gatewayd on the host of bottle %s (%s). There, <code>gatewayd explain %s</code> tells more.</p>\n",
		e(x.s.bottle), e(string(d.reason)), e(x.rec.ID))
	return []byte(b.String())
}
