package http2

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// encoder makes heads. It is guarded by its connection's lock, and what it has made has to be sent, in that order.
type encoder struct {
	hpack *hpack.Encoder
	block bytes.Buffer
}

// start makes e ready.
func (e *encoder) start() { e.hpack = hpack.NewEncoder(&e.block) }

// limit takes what the guest says of its table. No larger one than usual is used.
func (e *encoder) limit(size uint32) { e.hpack.SetMaxDynamicTableSize(min(size, headerTable)) }

// field adds a field to the block.
func (e *encoder) field(name, value string) {
	_ = e.hpack.WriteField(hpack.HeaderField{Name: name, Value: value}) // a bytes.Buffer takes all
}

// head makes a response's head without those fields that announced names, which are trailers.
func (e *encoder) head(status int, h http.Header, announced []string, date string) {
	e.block.Reset()
	e.field(":status", statusText(status))
	for key, values := range h {
		if ownField(key) || strings.HasPrefix(key, http.TrailerPrefix) || len(announced) > 0 && slices.Contains(announced, key) {
			continue
		}
		e.fields(key, values)
	}
	if _, ok := h["Date"]; !ok && status >= 200 {
		e.field("date", date)
	}
}

// trailers makes trailers of the announced fields and those under [http.TrailerPrefix], and reports whether there are any.
func (e *encoder) trailers(h http.Header, announced []string) bool {
	e.block.Reset()
	for _, key := range announced {
		e.fields(key, h[key])
	}
	for key, values := range h {
		if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok && httpguts.ValidTrailerHeader(name) {
			e.fields(name, values)
		}
	}
	return e.block.Len() > 0
}

// fields adds the values of one field. What could not be taken for it is left out.
func (e *encoder) fields(key string, values []string) {
	name := wireName(key)
	if name == "" {
		return
	}
	for _, v := range values {
		if httpguts.ValidHeaderFieldValue(v) {
			e.field(name, v)
		}
	}
}

// frames appends what was made as HEADERS, whose flags are at offset 4, and as many CONTINUATION as it takes.
func (e *encoder) frames(p []byte, id uint32, flags uint8) []byte {
	kind := uint8(kindHeaders)
	for {
		part := e.block.Next(maxFrame)
		if e.block.Len() == 0 {
			flags |= flagEndHeaders
		}
		p = append(appendFrame(p, len(part), kind, flags, id), part...)
		if flags&flagEndHeaders != 0 {
			break
		}
		kind, flags = kindContinuation, 0
	}
	if e.block.Cap() > 4<<10 {
		e.block = bytes.Buffer{}
	}
	return p
}

// wire are the names in common by their canonical form.
var wire = func() map[string]string {
	m := make(map[string]string, len(common))
	for lower, name := range common {
		m[name] = lower
	}
	return m
}()

// wireName returns the form of a field's name on the wire, "" if it can have none.
func wireName(key string) string {
	if name, ok := wire[key]; ok {
		return name
	}
	if name := strings.ToLower(key); validName(name) {
		return name
	}
	return ""
}

// statusText returns the digits of a status.
func statusText(status int) string {
	switch status {
	case http.StatusOK:
		return "200"
	case http.StatusNotFound:
		return "404"
	}
	return strconv.Itoa(status)
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
