package tls

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// hello builds ClientHello messages for tests; the zero value has no extension block.
type hello struct {
	version uint16
	session []byte
	exts    [][]byte
	block   []byte // in place of exts
	tail    []byte // behind the extensions
}

func (h hello) bytes() []byte {
	if h.version == 0 {
		h.version = 0x0303
	}
	b := []byte{byte(h.version >> 8), byte(h.version)}
	b = append(b, bytes.Repeat([]byte{7}, 32)...)
	b = append(append(b, byte(len(h.session))), h.session...)
	b = append(b, 0, 4, 0x13, 0x01, 0xc0, 0x2b, 1, 0)
	if h.block != nil {
		b = append(b, h.block...)
	} else if h.exts != nil {
		b = append(b, vec16(bytes.Join(h.exts, nil))...)
	}
	b = append(b, h.tail...)
	return append([]byte{1, byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)
}

func vec16(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }

func ext(typ uint16, data []byte) []byte {
	return append([]byte{byte(typ >> 8), byte(typ)}, vec16(data)...)
}

// sni builds a server_name extension with one host_name per argument.
func sni(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(append(list, 0), vec16([]byte(n))...)
	}
	return ext(extServerName, vec16(list))
}

func TestParseHelloRefuses(t *testing.T) {
	ok := sni("a.example.test")
	cases := map[string]struct {
		msg  []byte
		kind HelloKind
	}{
		"empty":                     {nil, Malformed},
		"no extension block":        {hello{}.bytes(), NoName},
		"empty extension block":     {hello{exts: [][]byte{}}.bytes(), NoName},
		"other extensions":          {hello{exts: [][]byte{ext(23, nil)}}.bytes(), NoName},
		"two names":                 {hello{exts: [][]byte{sni("a.example.test", "b.example.test")}}.bytes(), Malformed},
		"the same name twice":       {hello{exts: [][]byte{sni("a.example.test", "a.example.test")}}.bytes(), Malformed},
		"two extensions":            {hello{exts: [][]byte{ok, ok}}.bytes(), Malformed},
		"two other extensions":      {hello{exts: [][]byte{ok, ext(99, nil), ext(99, nil)}}.bytes(), Malformed},
		"empty list":                {hello{exts: [][]byte{ext(0, vec16(nil))}}.bytes(), Malformed},
		"empty body":                {hello{exts: [][]byte{ext(0, nil)}}.bytes(), Malformed},
		"empty name":                {hello{exts: [][]byte{sni("")}}.bytes(), Malformed},
		"other name type":           {hello{exts: [][]byte{ext(0, []byte{0, 4, 1, 0, 1, 'a'})}}.bytes(), Malformed},
		"other type, then name":     {hello{exts: [][]byte{ext(0, []byte{0, 8, 1, 0, 1, 'a', 0, 0, 1, 'b'})}}.bytes(), Malformed},
		"name, then other type":     {hello{exts: [][]byte{ext(0, []byte{0, 8, 0, 0, 1, 'a', 1, 0, 1, 'b'})}}.bytes(), Malformed},
		"list shorter than body":    {hello{exts: [][]byte{ext(0, []byte{0, 4, 0, 0, 1, 'a', 0})}}.bytes(), Malformed},
		"list longer than body":     {hello{exts: [][]byte{ext(0, []byte{0, 5, 0, 0, 1, 'a'})}}.bytes(), Malformed},
		"name longer than list":     {hello{exts: [][]byte{ext(0, []byte{0, 4, 0, 0, 2, 'a'})}}.bytes(), Malformed},
		"name shorter than list":    {hello{exts: [][]byte{ext(0, []byte{0, 5, 0, 0, 1, 'a', 'b'})}}.bytes(), Malformed},
		"extension cut short":       {hello{block: vec16(ok[:len(ok)-1])}.bytes(), Malformed},
		"half an extension header":  {hello{exts: [][]byte{ok, {0}}}.bytes(), Malformed},
		"bytes behind extensions":   {hello{exts: [][]byte{ok}, tail: []byte{0}}.bytes(), Malformed},
		"block length short":        {hello{block: append([]byte{0, 4}, ok...)}.bytes(), Malformed},
		"session id of 33":          {hello{session: make([]byte, 33), exts: [][]byte{ok}}.bytes(), Malformed},
		"version 2":                 {hello{version: 0x0200, exts: [][]byte{ok}}.bytes(), Malformed},
		"psk not last":              {hello{exts: [][]byte{ext(41, []byte{0, 0}), ok}}.bytes(), Malformed},
		"odd versions":              {hello{exts: [][]byte{ok, ext(43, []byte{3, 3, 4, 3})}}.bytes(), Malformed},
		"no versions":               {hello{exts: [][]byte{ok, ext(43, []byte{0})}}.bytes(), Malformed},
		"versions with a tail":      {hello{exts: [][]byte{ok, ext(43, []byte{2, 3, 4, 0})}}.bytes(), Malformed},
		"empty ALPN list":           {hello{exts: [][]byte{ok, ext(16, []byte{0, 0})}}.bytes(), Malformed},
		"empty ALPN entry":          {hello{exts: [][]byte{ok, ext(16, []byte{0, 1, 0})}}.bytes(), Malformed},
		"ALPN entry over the end":   {hello{exts: [][]byte{ok, ext(16, []byte{0, 2, 9, 'h'})}}.bytes(), Malformed},
		"server hello":              {append([]byte{2}, hello{exts: [][]byte{ok}}.bytes()[1:]...), Malformed},
		"a byte over":               {append(hello{exts: [][]byte{ok}}.bytes(), 0), Malformed},
		"over the size":             {make([]byte, maxHelloSize+1), TooLarge},
		"no cipher suites":          {cut(hello{exts: [][]byte{ok}}.bytes(), 39, 6, 0, 0), Malformed},
		"odd cipher suites":         {cut(hello{exts: [][]byte{ok}}.bytes(), 39, 6, 0, 1, 0x13), Malformed},
		"no compression method":     {cut(hello{exts: [][]byte{ok}}.bytes(), 45, 2, 0), Malformed},
		"compression over the end":  {cut(hello{}.bytes(), 45, 2, 9, 0), Malformed},
		"cipher suites over end":    {cut(hello{}.bytes(), 39, 8, 0, 9), Malformed},
		"no room for the random":    {[]byte{1, 0, 0, 3, 3, 3, 0}, Malformed},
		"session id over the end":   {cut(hello{}.bytes(), 38, 9, 32), Malformed},
		"header longer than it all": {[]byte{1, 0, 0, 200}, Malformed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h, err := ParseHello(c.msg)
			var he *HelloError
			if !errors.As(err, &he) || he.Kind != c.kind {
				t.Fatalf("got %+v, error %v; want kind %v", h, err, c.kind)
			}
			if h.ServerName != "" || h.Size != 0 {
				t.Fatalf("a hello beside an error: %+v", h)
			}
			if msg := err.Error(); !strings.HasPrefix(msg, "read client hello: "+c.kind.String()+": ") {
				t.Errorf("message %q", msg)
			}
		})
	}
}

// cut replaces n bytes of the message at an offset by with, and mends the message's length.
func cut(m []byte, at, n int, with ...byte) []byte {
	b := append(append(bytes.Clone(m[:at]), with...), m[at+n:]...)
	b[1], b[2], b[3] = byte((len(b)-4)>>16), byte((len(b)-4)>>8), byte(len(b)-4)
	return b
}

// The name is returned as sent: judging it is the canonicaliser's office, and it must see what the next reader will see.
func TestParseHelloReturnsNameRaw(t *testing.T) {
	for _, name := range []string{
		"A.Example.TEST", "a.example.test\x00.evil.test", "a\r\nb", "*.test", "192.0.2.1", "::1", "a.test:443", "a.test.", ".",
		"a b", "/", "ü.test", "\xff", strings.Repeat("a", 300), strings.Repeat("x", 60000),
	} {
		h, err := ParseHello(hello{exts: [][]byte{sni(name)}}.bytes())
		if err != nil || h.ServerName != name {
			t.Errorf("%.20q: got %.20q, %v", name, h.ServerName, err)
		}
	}
}

func TestParseHelloFields(t *testing.T) {
	msg := hello{exts: [][]byte{
		ext(0x0a0a, nil), sni("a.example.test"), ext(16, []byte{0, 6, 2, 'h', '2', 2, 'x', 'y'}),
		ext(43, []byte{6, 0x7a, 0x7a, 3, 4, 3, 3}), ext(extEncryptedClientHello, []byte{0}), ext(41, []byte{1, 2}),
	}}.bytes()
	h, err := ParseHello(msg)
	if err != nil {
		t.Fatal(err)
	}
	if h.ServerName != "a.example.test" || strings.Join(h.ALPN, " ") != "h2 xy" || !h.ECH || h.Size != len(msg) ||
		len(h.Versions) != 3 || h.Versions[0] != 0x7a7a || h.Versions[1] != 0x0304 || h.Versions[2] != 0x0303 {
		t.Errorf("got %+v", h)
	}
	h, err = ParseHello(hello{version: 0x0301, exts: [][]byte{sni("a.example.test")}}.bytes())
	if err != nil || len(h.Versions) != 1 || h.Versions[0] != 0x0301 || h.ALPN != nil || h.ECH {
		t.Errorf("got %+v, %v", h, err)
	}
}
