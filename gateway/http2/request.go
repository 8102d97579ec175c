package http2

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// maxLengthDigits keeps a Content-Length below 2^63: 18 nines fit.
const maxLengthDigits = 18

// makeRequest makes r the request of a head, or says why the head is malformed (RFC 9113 section 8.3.1). Its body and its context are
// left to the caller. open says that a body follows.
func makeRequest(r *http.Request, fields []hpack.HeaderField, open bool) (scheme, bad string) {
	p, rest, bad := splitFields(fields)
	if bad == "" {
		bad = p.check()
	}
	if bad != "" {
		return "", bad
	}
	*r = http.Request{Method: p.method, Proto: "HTTP/2.0", ProtoMajor: 2, Header: makeHeader(rest), Body: http.NoBody, Host: p.authority}
	if bad = host(r, p.scheme); bad != "" {
		return "", bad
	}
	if bad = target(r, p); bad != "" {
		return "", bad
	}
	if bad = length(r, open); bad != "" {
		return "", bad
	}
	if cookies := r.Header["Cookie"]; len(cookies) > 1 { // RFC 9113 section 8.2.3
		r.Header["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	r.Trailer = announcedTrailer(r.Header)
	if p.protocol != "" {
		r.Header[":protocol"] = []string{p.protocol}
	}
	return p.scheme, ""
}

// check says what is wrong with the pseudo-header fields among themselves.
func (p *pseudo) check() string {
	switch {
	case p.method == http.MethodConnect && p.protocol == "":
		if p.path != "" || p.scheme != "" || p.authority == "" {
			return "CONNECT has an authority, and neither a scheme nor a path" // RFC 9113 section 8.5
		}
	case p.method == "" || p.path == "" || p.scheme != "https" && p.scheme != "http":
		return "a request has a method, a scheme and a path"
	case !httpguts.ValidHeaderFieldName(p.method): // a token as well (RFC 9110 section 9.1)
		return "the method is no token"
	}
	return ""
}

// host makes the Host field and the authority one.
func host(r *http.Request, scheme string) string {
	switch fields := r.Header["Host"]; {
	case len(fields) > 1:
		return "more than one Host field"
	case len(fields) == 1 && r.Host == "":
		r.Host = fields[0]
	case len(fields) == 1 && r.Host != fields[0]:
		return "the Host field names another host than the authority"
	}
	delete(r.Header, "Host")
	switch {
	case scheme != "" && strings.Contains(r.Host, "@"):
		return "the authority names a user"
	case r.Host != "" && !httpguts.ValidHostHeader(r.Host):
		return "the authority is none"
	}
	return ""
}

// target fills in what the path says.
func target(r *http.Request, p pseudo) string {
	if p.method == http.MethodConnect && p.protocol == "" {
		r.URL, r.RequestURI = &url.URL{Host: r.Host}, r.Host // as over HTTP/1.1
		return ""
	}
	if p.path[0] != '/' && p.path != "*" {
		return "the path does not begin with a slash"
	}
	u, err := url.ParseRequestURI(p.path)
	if err != nil {
		return "the path is no URI's"
	}
	r.URL, r.RequestURI = u, p.path
	return ""
}

// length fills in how long the body is, -1 if that is not known.
func length(r *http.Request, open bool) string {
	values, ok := r.Header["Content-Length"]
	if !ok {
		if open {
			r.ContentLength = -1
		}
		return ""
	}
	n, err := strconv.ParseUint(values[0], 10, 63)
	if err != nil || len(values) > 1 || len(values[0]) > maxLengthDigits || values[0][0] == '+' {
		return "the content-length is no number"
	}
	if !open && n > 0 {
		return "the content-length is that of a body, and there is none"
	}
	r.ContentLength = int64(n)
	return ""
}

// announcedTrailer takes the Trailer field out of h and returns the keys that it announces, nil if none.
func announcedTrailer(h http.Header) http.Header {
	var trailer http.Header
	for _, v := range h["Trailer"] {
		for key := range strings.SplitSeq(v, ",") {
			key = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(key))
			if key == "" || !httpguts.ValidTrailerHeader(key) {
				continue
			}
			if trailer == nil {
				trailer = http.Header{}
			}
			trailer[key] = nil
		}
	}
	delete(h, "Trailer")
	return trailer
}

// ownField reports whether a field says what HTTP/2 says in other ways (RFC 9113 section 8.2.2).
func ownField(key string) bool {
	switch key {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// checkFields says which field a request of HTTP/2 may not have.
func checkFields(h http.Header) error {
	for key := range h {
		if ownField(key) {
			return errors.New("The field " + key + " has no place in HTTP/2 (RFC 9113 section 8.2.2).") //nolint:staticcheck // a sentence for the guest
		}
	}
	te := h["Te"]
	if len(te) > 1 || len(te) == 1 && te[0] != "trailers" && te[0] != "" {
		return errors.New("The field TE may only say trailers in HTTP/2 (RFC 9113 section 8.2.2).") //nolint:staticcheck // likewise
	}
	return nil
}

// overTLS is the state of a request that came over TLS, whatever connection that was.
var overTLS = &tls.ConnectionState{HandshakeComplete: true}

// tlsState returns what a handler is told of the connection beneath, nil if there is no TLS.
func (c *conn) tlsState() *tls.ConnectionState {
	if _, ok := c.net.(*tls.Conn); ok {
		return overTLS
	}
	return nil
}
