package http1

import (
	"net/http"
	"strings"
)

// fields is the memory that the fields of a head are parsed into. The zero value has none yet.
type fields struct {
	header http.Header
	values []string // one backing array; each key owns a slice of it with no room to grow
}

// keptFields is how many fields memory that is used again may have room for.
const keptFields = 32

// room makes room for n fields.
func (f *fields) room(n int) {
	if f.header == nil {
		f.header = make(http.Header, n)
	}
	if cap(f.values) < n {
		f.values = make([]string, n)
	}
	f.values = f.values[:n]
}

// reset forgets all fields and keeps the memory, unless there is much of it.
func (f *fields) reset() {
	f.values = f.values[:cap(f.values)]
	if len(f.values) > keptFields || len(f.header) > keptFields {
		*f = fields{}
		return
	}
	clear(f.header)
	clear(f.values)
}

// parse parses field lines up to the empty line, which must be the end of text. At most max are taken
// (RFC 9112 section 5). The memory must be empty.
func (f *fields) parse(text string, max int) (http.Header, *ProtocolError) {
	n := strings.Count(text, "\n") - 1
	if n > max {
		return nil, tooLarge()
	}
	f.room(max0(n))
	header, values := f.header, f.values
	for {
		line, rest, ok := strings.Cut(text, "\r\n")
		if !ok {
			return nil, refuse(ReasonFieldName, "the head has no empty line at its end")
		}
		if line == "" {
			if rest != "" {
				return nil, refuse(ReasonFieldName, "bytes follow the empty line")
			}
			return header, nil
		}
		text = rest
		key, value, err := parseField(line)
		if err != nil {
			return nil, err
		}
		if old, ok := header[key]; ok {
			header[key] = append(old, value)
			continue
		}
		if len(values) == 0 {
			return nil, refuse(ReasonBareLF, "a line end is not CRLF")
		}
		values[0] = value
		header[key], values = values[:1:1], values[1:]
	}
}

// max0 returns n, or 0 if it is negative.
func max0(n int) int { return max(n, 0) }
