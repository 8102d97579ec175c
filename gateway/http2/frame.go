package http2

import "encoding/binary"

// preface is what a client's connection begins with (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frameHead is the length of a frame's head (RFC 9113 section 4.1).
const frameHead = 9

// Frame types (RFC 9113 section 6).
const (
	kindData         = 0x0
	kindHeaders      = 0x1
	kindPriority     = 0x2
	kindReset        = 0x3
	kindSettings     = 0x4
	kindPush         = 0x5
	kindPing         = 0x6
	kindGoAway       = 0x7
	kindWindow       = 0x8
	kindContinuation = 0x9

	kindPriorityUpdate = 0x10 // RFC 9218 section 7.1
)

// Flags.
const (
	flagEndStream  = 0x1 // DATA, HEADERS
	flagAck        = 0x1 // SETTINGS, PING
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings (RFC 9113 section 6.5.2, RFC 8441 section 3, RFC 9218 section 2.1).
const (
	settingTable      = 0x1
	settingPush       = 0x2
	settingStreams    = 0x3
	settingWindow     = 0x4
	settingFrame      = 0x5
	settingHeadList   = 0x6
	settingConnect    = 0x8
	settingPriorities = 0x9
)

// frame is a frame's head.
type frame struct {
	length      int
	kind, flags uint8
	stream      uint32
}

// has reports whether a flag is set.
func (f frame) has(flag uint8) bool { return f.flags&flag != 0 }

// parseFrame reads the head at the beginning of b, which has frameHead bytes at least.
func parseFrame(b []byte) frame {
	return frame{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   b[3], flags: b[4],
		stream: binary.BigEndian.Uint32(b[5:]) &^ (1 << 31), // the reserved bit is ignored
	}
}

// appendFrame appends the head of a frame.
func appendFrame(b []byte, length int, kind, flags uint8, stream uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags, byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// appendSetting appends a setting to the payload of a SETTINGS frame.
func appendSetting(b []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), value)
}

// appendNumber appends a frame whose payload is one number: RST_STREAM and WINDOW_UPDATE.
func appendNumber(b []byte, kind uint8, stream, value uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, kind, 0, stream), value)
}

// unpad removes the padding of a payload, whose length is its first byte (RFC 9113 section 6.1).
func unpad(f frame, p []byte) ([]byte, error) {
	if !f.has(flagPadded) {
		return p, nil
	}
	if len(p) == 0 {
		return nil, connError{codeFrameSize, "a padded frame has no room for the padding's length"}
	}
	n := int(p[0])
	if p = p[1:]; n > len(p) {
		return nil, connError{codeProtocol, "padding longer than its frame"}
	}
	return p[:len(p)-n], nil
}
