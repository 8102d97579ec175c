package pipelock

import (
	"encoding/binary"

	"gatewayd/gateway/formats"
)

// fieldDepth is how deep messages within messages are looked into.
const fieldDepth = 16

// Wire types of protocol buffers (encoding, "Message Structure").
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireLength  = 2
	wireBegin   = 3 // of a group; its fields follow, as if they were the message's own
	wireEnd     = 4
	wireFixed32 = 5
)

// lookAtFields looks for forms in a message that is whole, and in each of its fields as a text of its own.
func (st *Stream) lookAtFields(message []byte) (leak *LeakError) {
	if st.s.formats == nil {
		return nil
	}
	eachField(message, fieldDepth, func(text []byte) { st.s.formats.Scan(text, st.s.policy, st.take(&leak)) })
	return leak
}

// take returns what notes a finding, or makes it the leak if it is to be blocked.
func (st *Stream) take(leak **LeakError) func(formats.Finding) {
	return func(f formats.Finding) {
		finding, ok := st.tokens.judge(st.host, st.place, f)
		switch {
		case !ok || *leak != nil:
		case st.notes.all != nil:
			st.notes.all(inspect(finding, f))
		case finding.Action == Block:
			*leak = &LeakError{Finding: finding}
		default:
			st.notes.add(finding)
		}
	}
}

// eachField calls found for the message and every field in it that holds bytes. A field that could be a message is looked
// into, and is a text besides: many a token could be a message.
func eachField(message []byte, depth int, found func(text []byte)) {
	found(message)
	if depth > 0 && wireFormat(message, nil) {
		wireFormat(message, func(field []byte) { eachField(field, depth-1, found) })
	}
}

// wireFormat calls field, if it is not nil, for every field that holds bytes, and reports whether the message is in the wire
// format to its end. An empty one is.
func wireFormat(b []byte, field func([]byte)) bool {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 {
			return false
		}
		b = b[n:]
		var size uint64
		switch tag & 7 {
		case wireVarint:
			_, n := binary.Uvarint(b)
			if n <= 0 {
				return false
			}
			size = uint64(n)
		case wireFixed64:
			size = 8
		case wireFixed32:
			size = 4
		case wireLength:
			if size, n = binary.Uvarint(b); n <= 0 {
				return false
			}
			b = b[n:]
		case wireBegin, wireEnd:
		default:
			return false
		}
		if size > uint64(len(b)) {
			return false
		}
		if field != nil && tag&7 == wireLength {
			field(b[:size])
		}
		b = b[size:]
	}
	return true
}
