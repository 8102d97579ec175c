package http2

import (
	"net/http"
	"net/textproto"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// headReader puts a head together from HEADERS and CONTINUATION frames (RFC 9113 section 4.3). What is wrong with it is found out
// as soon as it is there, and the rest is decoded all the same, since the table of the compression is the connection's.
type headReader struct {
	decoder *hpack.Decoder
	stream  uint32 // whose head has begun and not ended, 0 if none has
	first   frame  // its HEADERS
	self    bool   // its priority depends on itself
	lim     *Limits

	pool     *sync.Pool // of *[]hpack.HeaderField
	lent     *[]hpack.HeaderField
	fields   []hpack.HeaderField
	size     int
	regular  bool // a field came that is no pseudo-header field
	tooLarge bool
	bad      string // why the head is malformed (RFC 9113 section 8.1.1)
}

// begin begins the head of f.
func (h *headReader) begin(f frame, lim *Limits) {
	h.stream, h.first, h.lim = f.stream, f, lim
	h.size, h.regular, h.tooLarge, h.bad, h.self = 0, false, false, "", false
	h.decoder.SetEmitEnabled(true)
	if h.lent, _ = h.pool.Get().(*[]hpack.HeaderField); h.lent == nil {
		h.lent = new([]hpack.HeaderField)
	}
	h.fields = *h.lent
}

// write decodes one frame's part. Whoever goes on beyond what is taken, or with what is malformed, loses the connection.
func (h *headReader) write(p []byte) error {
	if h.bad != "" || len(p) > 2*(h.lim.HeadBytes-h.size) {
		return connError{codeProtocol, "a head goes on that is too large or malformed"}
	}
	if _, err := h.decoder.Write(p); err != nil {
		return connError{codeCompression, err.Error()}
	}
	return nil
}

// end ends the head. Its fields are valid until forget.
func (h *headReader) end() error {
	h.stream = 0
	if err := h.decoder.Close(); err != nil {
		return connError{codeCompression, err.Error()}
	}
	return nil
}

// forget lets go of the fields.
func (h *headReader) forget() {
	clear(h.fields)
	*h.lent = h.fields[:0]
	if cap(h.fields) <= keptFields {
		h.pool.Put(h.lent)
	}
	h.lent, h.fields = nil, nil
}

// field takes a field from the decoder.
func (h *headReader) field(f hpack.HeaderField) {
	pseudo := strings.HasPrefix(f.Name, ":")
	switch {
	case !httpguts.ValidHeaderFieldValue(f.Value):
		h.bad = "a field value holds a control byte"
	case pseudo && h.regular:
		h.bad = "a pseudo-header field follows another field"
	case !pseudo && !validName(f.Name):
		h.bad = "a field name is no token in lower case"
	}
	h.regular = h.regular || !pseudo
	if h.bad != "" {
		h.decoder.SetEmitEnabled(false)
		return
	}
	if h.size += int(f.Size()); h.size > h.lim.HeadBytes || len(h.fields) >= h.lim.Fields {
		h.tooLarge, h.size = true, h.lim.HeadBytes
		h.decoder.SetEmitEnabled(false)
		return
	}
	h.fields = append(h.fields, f)
}

// nameBytes are those that a field name may hold: of a token, without upper case (RFC 9113 section 8.2.1).
var nameBytes = func() (ok [256]bool) {
	for c := range 128 {
		ok[c] = httpguts.IsTokenRune(rune(c)) && (c < 'A' || c > 'Z')
	}
	return ok
}()

// validName reports whether s is a field name.
func validName(s string) bool {
	for i := range len(s) {
		if !nameBytes[s[i]] {
			return false
		}
	}
	return s != ""
}

// pseudo are the pseudo-header fields of a request (RFC 9113 section 8.3.1, RFC 8441 section 4).
type pseudo struct{ method, scheme, authority, path, protocol string }

// splitFields takes the pseudo-header fields off the others. bad says what is wrong with them. One that is there is not told from
// an empty one, which none may be that matters.
func splitFields(fields []hpack.HeaderField) (p pseudo, rest []hpack.HeaderField, bad string) {
	seen := 0
	for i, f := range fields {
		if !strings.HasPrefix(f.Name, ":") {
			return p, fields[i:], ""
		}
		var to *string
		var bit int
		switch f.Name {
		case ":method":
			to, bit = &p.method, 1
		case ":scheme":
			to, bit = &p.scheme, 2
		case ":authority":
			to, bit = &p.authority, 4
		case ":path":
			to, bit = &p.path, 8
		case ":protocol":
			to, bit = &p.protocol, 16
		default:
			return p, nil, "an unknown pseudo-header field"
		}
		if seen&bit != 0 {
			return p, nil, "a repeated pseudo-header field"
		}
		seen |= bit
		*to = f.Value
	}
	return p, nil, ""
}

// makeHeader returns the fields by their canonical names.
func makeHeader(fields []hpack.HeaderField) http.Header {
	h := make(http.Header, len(fields))
	values := make([]string, len(fields)) // one backing array; each key owns a slice of it with no room to grow
	for i, f := range fields {
		key := canonicalName(f.Name)
		if old, ok := h[key]; ok {
			h[key] = append(old, f.Value)
			continue
		}
		values[i] = f.Value
		h[key] = values[i : i+1 : i+1]
	}
	return h
}

// common are names that are often met, by their form on the wire.
var common = func() map[string]string {
	m := map[string]string{}
	for _, name := range []string{
		"Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Accept-Ranges", "Age", "Allow", "Authorization",
		"Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length", "Content-Location",
		"Content-Range", "Content-Type", "Cookie", "Date", "Etag", "Expect", "Expires", "From", "Grpc-Encoding", "Grpc-Message",
		"Grpc-Status", "Grpc-Timeout", "Host", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "Last-Modified", "Link",
		"Location", "Origin", "Priority", "Range", "Referer", "Retry-After", "Sec-Websocket-Extensions", "Sec-Websocket-Protocol",
		"Sec-Websocket-Version", "Server", "Set-Cookie", "Strict-Transport-Security", "Te", "Traceparent", "Tracestate", "Trailer",
		"User-Agent", "Vary", "Via", "Www-Authenticate", "X-Content-Type-Options", "X-Forwarded-For", "X-Request-Id",
	} {
		m[strings.ToLower(name)] = name
	}
	return m
}()

// canonicalName returns the form in which net/http keeps a name.
func canonicalName(name string) string {
	if c, ok := common[name]; ok {
		return c
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}
