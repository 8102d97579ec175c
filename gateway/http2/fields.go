package http2

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// encoder makes heads. It uses no dynamic table (RFC 7541 section 2.3.2) and no Huffman code: what is said goes to a guest of the same
// machine, to which bytes are cheaper than looking for what was said before, and an idle connection has nothing to remember. It is
// guarded by its connection's lock, and what it has made has to be sent, in that order.
type encoder struct {
	pool  *buffers
	lent  *[]byte // while there is something in block
	block []byte
	told  bool // the guest knows that there is no table
}

// begin begins a head.
func (e *encoder) begin() {
	e.lent = e.pool.get(0)
	e.block = (*e.lent)[:0]
	if !e.told {
		e.told = true
		e.block = append(e.block, 0x20) // the table has the size 0 (RFC 7541 section 6.3)
	}
}

// release gives back what begin took.
func (e *encoder) release() {
	e.pool.put(e.lent)
	e.lent, e.block = nil, nil
}

// field adds a field, whose name is on the wire as form says, to the block.
func (e *encoder) field(form, value string) {
	e.block = append(e.block, form...)
	e.block = append(appendInt(e.block, 0, 7, len(value)), value...)
}

// appendInt appends n after the bits first, of which it shares a byte (RFC 7541 section 5.1).
func appendInt(b []byte, first byte, bits uint, n int) []byte {
	limit := 1<<bits - 1
	if n < limit {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(limit))
	for n -= limit; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// nameForm is what a field without indexing begins with (RFC 7541 section 6.2.2): its name's place in the static table, or the name.
func nameForm(name string) string {
	if i := staticNames[name]; i > 0 {
		return string(appendInt(nil, 0, 4, i))
	}
	return string(append(appendInt([]byte{0}, 0, 7, len(name)), name...))
}

// staticNames are the fields that have a place in the static table (RFC 7541 appendix A), by the first of them.
var staticNames = map[string]int{
	":authority": 1, ":method": 2, ":path": 4, ":status": 8, "accept-charset": 15, "accept-encoding": 16, "accept-language": 17,
	"accept-ranges": 18, "accept": 19, "access-control-allow-origin": 20, "age": 21, "allow": 22, "authorization": 23, "cache-control": 24,
	"content-disposition": 25, "content-encoding": 26, "content-language": 27, "content-length": 28, "content-location": 29,
	"content-range": 30, "content-type": 31, "cookie": 32, "date": 33, "etag": 34, "expect": 35, "expires": 36, "from": 37, "host": 38,
	"if-match": 39, "if-modified-since": 40, "if-none-match": 41, "if-range": 42, "if-unmodified-since": 43, "last-modified": 44,
	"link": 45, "location": 46, "max-forwards": 47, "proxy-authenticate": 48, "range": 50, "referer": 51, "refresh": 52,
	"retry-after": 53, "server": 54, "set-cookie": 55, "strict-transport-security": 56, "user-agent": 58, "vary": 59, "via": 60,
	"www-authenticate": 61,
}

// staticStatus are the statuses that have a place in that table.
var staticStatus = map[int]byte{200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}

var (
	statusForm = nameForm(":status")
	dateForm   = nameForm("date")
)

// status adds the status to the block.
func (e *encoder) status(status int) {
	if i := staticStatus[status]; i > 0 {
		e.block = append(e.block, 0x80|i)
		return
	}
	e.field(statusForm, strconv.Itoa(status))
}

// head makes a response's head without those fields that announced names, which are trailers.
func (e *encoder) head(status int, h http.Header, announced []string, date string) {
	e.begin()
	e.status(status)
	for key, values := range h {
		if ownField(key) || strings.HasPrefix(key, http.TrailerPrefix) || len(announced) > 0 && slices.Contains(announced, key) {
			continue
		}
		e.fields(key, values)
	}
	if _, ok := h["Date"]; !ok && status >= 200 {
		e.field(dateForm, date)
	}
}

// trailers makes trailers of the announced fields and those under [http.TrailerPrefix], and reports whether there are any. They are
// not the first head.
func (e *encoder) trailers(h http.Header, announced []string) bool {
	e.begin()
	for _, key := range announced {
		e.fields(key, h[key])
	}
	for key, values := range h {
		if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok && httpguts.ValidTrailerHeader(name) {
			e.fields(name, values)
		}
	}
	if len(e.block) == 0 {
		e.release()
		return false
	}
	return true
}

// fields adds the values of one field. What could not be taken for it is left out.
func (e *encoder) fields(key string, values []string) {
	form := wireForm(key)
	if form == "" {
		return
	}
	for _, v := range values {
		if httpguts.ValidHeaderFieldValue(v) {
			e.field(form, v)
		}
	}
}

// frames appends what was made as HEADERS, whose flags are at offset 4, and as many CONTINUATION as it takes.
func (e *encoder) frames(p []byte, id uint32, flags uint8) []byte {
	kind := uint8(kindHeaders)
	for {
		part := e.block[:min(len(e.block), maxFrame)]
		if e.block = e.block[len(part):]; len(e.block) == 0 {
			flags |= flagEndHeaders
		}
		p = append(appendFrame(p, len(part), kind, flags, id), part...)
		if flags&flagEndHeaders != 0 {
			break
		}
		kind, flags = kindContinuation, 0
	}
	e.release()
	return p
}

// forms are the forms of the names in common, by their canonical one.
var forms = func() map[string]string {
	m := make(map[string]string, len(common))
	for lower, name := range common {
		m[name] = nameForm(lower)
	}
	return m
}()

// wireForm returns what a field begins with whose name has the canonical form key, "" if there can be none.
func wireForm(key string) string {
	if form, ok := forms[key]; ok {
		return form
	}
	if name := strings.ToLower(key); validName(name) {
		return nameForm(name)
	}
	return ""
}

// dateCache is the Date field of one second.
type dateCache struct {
	second int64
	text   string
}

// date returns what the Date field says now.
func (s *Server) date() string {
	now := time.Now()
	if d := s.dates.Load(); d != nil && d.second == now.Unix() {
		return d.text
	}
	d := &dateCache{now.Unix(), now.UTC().Format(http.TimeFormat)}
	s.dates.Store(d)
	return d.text
}

// dates is the one that was made last.
type dates = atomic.Pointer[dateCache]
