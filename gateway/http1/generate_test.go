package http1

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generator makes what a guest might say on one connection: requests by the grammar of RFC 9112, of which each part may be
// one that breaks it or that two servers could read differently. The same seed makes the same cases.
type generator struct {
	*rand.Rand
	odd int // of 100 parts, how many are odd
}

// newGenerator returns one for a seed.
func newGenerator(seed uint64) *generator { return &generator{Rand: rand.New(rand.NewPCG(seed, 9112))} }

// pick returns one of plain, or, now and then, one of odd.
func (g *generator) pick(plain, odd []string) string {
	if len(odd) > 0 && g.IntN(100) < g.odd {
		return odd[g.IntN(len(odd))]
	}
	return plain[g.IntN(len(plain))]
}

// conversation is one to four requests behind one another, and now and then a few bytes of it changed.
func (g *generator) conversation() []byte {
	g.odd = []int{0, 1, 3, 10}[g.IntN(4)]
	var b strings.Builder
	for range 1 + g.IntN(4) {
		b.WriteString(g.request())
	}
	raw := []byte(b.String())
	if g.IntN(4) == 0 {
		raw = g.mutate(raw)
	}
	return raw
}

// eol ends a line.
func (g *generator) eol() string {
	return g.pick([]string{"\r\n"}, []string{"\n", "\r", "\r\r\n", "", "\r\n "})
}

// space stands between the parts of a request line.
func (g *generator) space() string {
	return g.pick([]string{" "}, []string{"  ", "\t", "", " \t", "\v", "\x00"})
}

// request is a head and the body that it announces, or another.
func (g *generator) request() string {
	method := g.pick([]string{"GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "PROPFIND"}, []string{"get", "CONNECT", "TRACE", "", "G T", "GE\x00T", "PRI", "(GET)", "\r\nGET", strings.Repeat("M", 40)})
	host := g.pick([]string{"a.test", "a.test:443", "A.test", "[::1]:80"}, []string{"", "a.test:", "a.test:99999", "a.test,b.test", "a b", "user@a.test", "a.test/x", "\"a\"", "[::1", "a.test\x00"})
	target := g.pick([]string{"/", "/a/b?c=d&e", "/%20x", "//double", "/a?", "/;x"}, []string{"http://" + host + "/abs", "https://b.test/other", "*", "a.test:80", "/sp ace", "/frag#ment", "/\x7f", "/é", "", "/%zz", "http://", "HTTP://" + host + "/"})
	version := g.pick([]string{"HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"}, []string{"HTTP/1.2", "http/1.1", "HTTP/2.0", "HTTP/1.1 ", "HTTP/01.1", "", "HTTP/0.9", "HTTP/1.10"})
	var b strings.Builder
	b.WriteString(method + g.space() + target + g.space() + version + g.eol())
	framing, body := g.body()
	fields := append([]string{"Host" + g.colon() + host}, framing...)
	for range g.IntN(4) {
		fields = append(fields, g.field())
	}
	if g.odd > 0 && g.IntN(100) < g.odd {
		i := g.IntN(len(fields))
		fields = append(fields, fields[i]) // twice
	}
	g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	for _, f := range fields {
		b.WriteString(f + g.eol())
	}
	b.WriteString(g.eol() + body)
	return b.String()
}

// colon separates name and value.
func (g *generator) colon() string {
	return g.pick([]string{": ", ":", ":\t", ":   "}, []string{" : ", "\t:", "", ": \x00", " "})
}

// field is a field line that frames nothing.
func (g *generator) field() string {
	name := g.pick([]string{"X-A", "x-b", "ACCEPT", "Cookie", "Pragma", "Content-Type", "Te", "Expect", "Connection"}, []string{"", "X Y", "X\x00", "X_Y", " X", "X-É", "Trailer", "Upgrade", "Host", "Transfer-Encoding", "Content-Length"})
	value := g.pick([]string{"", "v", "a, b", "text/plain; q=\"x\"", "no-cache"}, []string{"a\x00b", "a\r\n folded", "a\n b", "\x7f", "é", "\x0b", "a\rb", strings.Repeat("v", 300)})
	switch name {
	case "Expect":
		value = g.pick([]string{"100-continue"}, []string{"200-ok", "100-Continue, x", ""})
	case "Connection":
		value = g.pick([]string{"keep-alive", "close", "x-a", "Keep-Alive, Te"}, []string{"close, keep-alive", "\"close\"", ",,close"})
	}
	return name + g.colon() + value + g.pick([]string{"", "", " ", "\t"}, nil)
}

// body is a body with the fields that announce it, which may disagree.
func (g *generator) body() (framing []string, body string) {
	content := strings.Repeat("x", g.IntN(20))
	if g.IntN(3) == 0 {
		content = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n"
	}
	length := g.pick([]string{fmt.Sprint(len(content))}, []string{
		fmt.Sprint(len(content) + 1), "-1", "+5", "0x5", " 5", "5 5", "5, 5", "", "05", "99999999999999999999", "1e1", "5;x", "٥",
	})
	coding := g.pick([]string{"chunked", "Chunked"}, []string{"gzip, chunked", "chunked, chunked", "identity", "xchunked", "chunked;q=1", "\"chunked\"", "chunked\x0b", ",chunked", "chunked ,"})
	switch g.IntN(4) {
	case 0:
		return nil, g.pick([]string{""}, []string{content})
	case 1:
		return []string{"Content-Length" + g.colon() + length}, content
	case 2:
		if g.odd > 0 && g.IntN(100) < g.odd {
			framing = append(framing, "Content-Length"+g.colon()+length)
		}
	}
	trailers, announced := g.trailers()
	if announced != "" {
		framing = append(framing, "Trailer"+g.colon()+announced)
	}
	return append(framing, "Transfer-Encoding"+g.colon()+coding), g.chunks(content) + trailers
}

// chunks is content in the chunked coding, without what follows the last chunk's line.
func (g *generator) chunks(content string) string {
	var b strings.Builder
	line := func(n int) {
		size := g.pick([]string{fmt.Sprintf("%x", n), fmt.Sprintf("%X", n), fmt.Sprintf("%03x", n)}, []string{
			fmt.Sprintf("0x%x", n), fmt.Sprintf("+%x", n), fmt.Sprintf("%x ", n), fmt.Sprintf(" %x", n), fmt.Sprintf("%x", n+1), "", "-1", "ffffffffffffffff1", fmt.Sprintf("%017x", n), fmt.Sprintf("%x_", n),
		})
		extension := g.pick([]string{"", "", "", ";a", ";a=b", ";a=\"b c\""}, []string{"; a", ";", ";a=\n", ";\x00", ";a\r", ";" + strings.Repeat("e", 300), " ;a", "\t"})
		b.WriteString(size + extension + g.eol())
	}
	for content != "" {
		n := 1 + g.IntN(len(content))
		line(n)
		b.WriteString(content[:n] + g.eol())
		content = content[n:]
	}
	line(0)
	return b.String()
}

// trailers is a trailer section with its empty line, and the names in it, which may be announced.
func (g *generator) trailers() (section, announced string) {
	var names []string
	var b strings.Builder
	for range g.IntN(3) {
		name := g.pick([]string{"X-Sum", "x-t", "Digest"}, []string{"Content-Length", "Transfer-Encoding", "Host", "Authorization", " X", "", "X Y", "Trailer"})
		names = append(names, name)
		b.WriteString(name + g.colon() + g.pick([]string{"1", "", "a b"}, []string{"a\x00", "a\r\n b", "\n"}) + g.eol())
	}
	b.WriteString(g.eol())
	if len(names) > 0 && g.IntN(2) == 0 {
		announced = strings.Join(names, g.pick([]string{", ", ","}, []string{";", " ", ",,"}))
	}
	return b.String(), announced
}

// mutate changes bytes without regard to the grammar.
func (g *generator) mutate(raw []byte) []byte {
	for range 1 + g.IntN(3) {
		if len(raw) == 0 {
			return raw
		}
		i := g.IntN(len(raw))
		j := i + g.IntN(min(len(raw)-i, 12)+1)
		switch g.IntN(5) {
		case 0:
			raw[i] = "\x00\t\n\r :;,0aZ\x7f\xff"[g.IntN(13)]
		case 1:
			raw[i] = byte(g.IntN(256))
		case 2:
			raw = append(raw[:i:i], raw[j:]...)
		case 3:
			raw = append(raw[:j:j], raw[i:]...) // a piece twice
		case 4:
			raw = raw[:i]
		}
	}
	return raw
}
