package tls

import (
	"errors"
	"fmt"
)

// Handshake and extension numbers (RFC 8446 §4, IANA "TLS ExtensionType Values").
const (
	typeClientHello = 1

	extServerName           = 0
	extALPN                 = 16
	extPreSharedKey         = 41
	extSupportedVersions    = 43
	extEncryptedClientHello = 0xfe0d
)

const (
	// helloHeaderSize is the handshake header: type and 24-bit length (RFC 8446 §4).
	helloHeaderSize = 4
	// minHelloSize is the shortest ClientHello there is: version, random, empty session id, one suite, one compression
	// method, no extensions.
	minHelloSize = helloHeaderSize + 2 + 32 + 1 + 2 + 2 + 1 + 1
	// maxHelloSize bounds a ClientHello. Real ones are 250 to 1,700 bytes; post-quantum shares and tickets of some stacks
	// make a few kilobytes.
	maxHelloSize = 64 << 10
)

// ParseHello parses one whole ClientHello handshake message, its four-byte header included and record framing removed. It
// keeps nothing of b, blocks on nothing, and returns *HelloError of kind NoName, TooLarge or Malformed.
//
// It is stricter than RFC 8446 about the name, because what is decided by name must mean the same to whoever reads the hello
// next: the server_name list has exactly one entry and that is a host_name (RFC 6066 §3 allows other types beside it, that
// nobody has defined), no extension occurs twice, and nothing follows the last extension.
func ParseHello(b []byte) (Hello, error) {
	if len(b) > maxHelloSize {
		return Hello{}, helloErrorf(TooLarge, "message of %d bytes, at most %d", len(b), maxHelloSize)
	}
	h := Hello{Size: len(b)}
	exts, err := parseHelloHead(b, &h)
	if err != nil {
		return Hello{}, &HelloError{Kind: Malformed, Err: err}
	}
	named, err := parseExtensions(exts, &h)
	if err != nil {
		return Hello{}, &HelloError{Kind: Malformed, Err: err}
	}
	if !named {
		return Hello{}, helloErrorf(NoName, "no server_name extension")
	}
	return h, nil
}

// parseHelloHead reads everything before the extensions into h and returns the extensions' bytes, nil when there are none.
func parseHelloHead(b []byte, h *Hello) ([]byte, error) {
	s := span(b)
	typ, ok1 := s.uint8()
	size, ok2 := s.uint24()
	if !ok1 || !ok2 || typ != typeClientHello || size != len(s) {
		return nil, errors.New("not one whole ClientHello message")
	}
	vers, ok1 := s.uint16()
	_, ok2 = s.take(32)
	if !ok1 || !ok2 || vers>>8 != 3 {
		return nil, errors.New("bad version or random")
	}
	h.Versions = []uint16{vers}
	if id, ok := s.vector8(); !ok || len(id) > 32 {
		return nil, errors.New("bad session id")
	}
	if suites, ok := s.vector16(); !ok || len(suites) == 0 || len(suites)%2 != 0 {
		return nil, errors.New("bad cipher suites")
	}
	if methods, ok := s.vector8(); !ok || len(methods) == 0 {
		return nil, errors.New("bad compression methods")
	}
	if len(s) == 0 {
		return nil, nil // RFC 5246 §7.4.1.2: extensions may be absent
	}
	exts, ok := s.vector16()
	if !ok || len(s) != 0 {
		return nil, errors.New("extensions do not fill the message")
	}
	return exts, nil
}

// parseExtensions reads the extension block into h and tells whether a server_name was in it.
func parseExtensions(exts span, h *Hello) (named bool, err error) {
	var seen [1 << 16 / 64]uint64
	for len(exts) > 0 {
		typ, ok1 := exts.uint16()
		data, ok2 := exts.vector16()
		if !ok1 || !ok2 {
			return false, errors.New("extension cut short")
		}
		if seen[typ/64]&(1<<(typ%64)) != 0 {
			return false, fmt.Errorf("extension %d occurs twice", typ)
		}
		seen[typ/64] |= 1 << (typ % 64)
		switch typ {
		case extServerName:
			named = true
			h.ServerName, err = parseServerName(data)
		case extALPN:
			h.ALPN, err = parseALPN(data)
		case extSupportedVersions:
			h.Versions, err = parseVersions(data)
		case extEncryptedClientHello:
			h.ECH = true
		case extPreSharedKey:
			if len(exts) != 0 {
				err = errors.New("pre_shared_key is not the last extension") // RFC 8446 §4.2.11
			}
		}
		if err != nil {
			return false, err
		}
	}
	return named, nil
}

// parseServerName reads the body of server_name (RFC 6066 §3).
func parseServerName(data span) (string, error) {
	list, ok := data.vector16()
	if !ok || len(data) != 0 {
		return "", errors.New("bad server_name list")
	}
	typ, ok1 := list.uint8()
	name, ok2 := list.vector16()
	if !ok1 || !ok2 || len(name) == 0 {
		return "", errors.New("bad server_name entry")
	}
	if typ != 0 || len(list) != 0 {
		return "", errors.New("server_name is not exactly one host_name")
	}
	return string(name), nil
}

// parseALPN reads the body of application_layer_protocol_negotiation (RFC 7301 §3.1).
func parseALPN(data span) ([]string, error) {
	list, ok := data.vector16()
	if !ok || len(data) != 0 || len(list) == 0 {
		return nil, errors.New("bad ALPN list")
	}
	var protocols []string
	for len(list) > 0 {
		p, ok := list.vector8()
		if !ok || len(p) == 0 {
			return nil, errors.New("bad ALPN entry")
		}
		protocols = append(protocols, string(p))
	}
	return protocols, nil
}

// parseVersions reads the body of supported_versions (RFC 8446 §4.2.1).
func parseVersions(data span) ([]uint16, error) {
	list, ok := data.vector8()
	if !ok || len(data) != 0 || len(list) == 0 || len(list)%2 != 0 {
		return nil, errors.New("bad supported_versions")
	}
	versions := make([]uint16, 0, len(list)/2)
	for len(list) > 0 {
		v, _ := list.uint16()
		versions = append(versions, v)
	}
	return versions, nil
}

// helloErrorf makes a HelloError with a cause in words.
func helloErrorf(kind HelloKind, format string, args ...any) *HelloError {
	return &HelloError{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// span is what is left to parse. Each method takes from the front, or takes nothing and returns false.
type span []byte

func (s *span) take(n int) (span, bool) {
	if len(*s) < n {
		return nil, false
	}
	b := (*s)[:n]
	*s = (*s)[n:]
	return b, true
}

func (s *span) uint8() (uint8, bool) {
	b, ok := s.take(1)
	if !ok {
		return 0, false
	}
	return b[0], true
}

func (s *span) uint16() (uint16, bool) {
	b, ok := s.take(2)
	if !ok {
		return 0, false
	}
	return uint16(b[0])<<8 | uint16(b[1]), true
}

func (s *span) uint24() (int, bool) {
	b, ok := s.take(3)
	if !ok {
		return 0, false
	}
	return int(b[0])<<16 | int(b[1])<<8 | int(b[2]), true
}

// vector8 takes a vector with a one-byte length (RFC 8446 §3.4).
func (s *span) vector8() (span, bool) {
	rest := *s
	n, ok := rest.uint8()
	if !ok {
		return nil, false
	}
	v, ok := rest.take(int(n))
	if ok {
		*s = rest
	}
	return v, ok
}

// vector16 takes a vector with a two-byte length (RFC 8446 §3.4).
func (s *span) vector16() (span, bool) {
	rest := *s
	n, ok := rest.uint16()
	if !ok {
		return nil, false
	}
	v, ok := rest.take(int(n))
	if ok {
		*s = rest
	}
	return v, ok
}
