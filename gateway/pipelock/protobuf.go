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
	wireFixed32 = 5
)

// lookAtFields looks for forms in the fields of a message in the wire format of protocol buffers, each as a text of its own:
// in the message as it is, a token's length stands before it and the next field's tag behind, and either may be a letter.
// Known tokens need that not, and are found in the message as it is. What is no such message is looked at as one text.
func (st *Stream) lookAtFields(message []byte) *LeakError {
	if st.s.formats == nil {
		return nil
	}
	var leak *LeakError
	eachField(message, fieldDepth, func(text []byte) {
		st.s.formats.Scan(text, st.s.policy, func(f formats.Finding) {
			finding, ok := st.tokens.judge(st.host, st.place, f)
			switch {
			case !ok || leak != nil:
			case finding.Action == Block:
				leak = &LeakError{Finding: finding}
			default:
				st.notes.add(finding)
			}
		})
	})
	return leak
}

// eachField calls found for every field of a message that holds bytes and is no message itself, as far as can be told.
func eachField(message []byte, depth int, found func(text []byte)) {
	if depth == 0 || !wireFormat(message, nil) {
		found(message)
		return
	}
	wireFormat(message, func(field []byte) { eachField(field, depth-1, found) })
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
		default: // groups are of the past
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
