package http2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// generator makes what a guest might say on one connection.
type generator struct {
	*rand.Rand
	out   bytes.Buffer
	f     *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
	id    uint32
}

// generate returns the bytes of one connection. Most of it is right, so that what is wrong comes in every state.
func generate(seed uint64) []byte {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 2)), id: 1}
	g.f = http2.NewFramer(&g.out, nil)
	g.f.AllowIllegalWrites = true
	g.enc = hpack.NewEncoder(&g.block)
	g.out.WriteString(preface)
	if !g.rarely(50) {
		_ = g.f.WriteSettings(g.settings()...)
	}
	for range 1 + g.IntN(30) {
		g.step()
	}
	raw := g.out.Bytes()
	if g.rarely(12) {
		raw[len(preface)+g.IntN(len(raw)-len(preface))] ^= 1 << g.IntN(8)
	}
	if g.rarely(12) {
		raw = raw[:len(preface)+g.IntN(len(raw)-len(preface))]
	}
	return raw
}

// rarely is true once in n times.
func (g *generator) rarely(n int) bool { return g.IntN(n) == 0 }

// settings are some, rarely wrong.
func (g *generator) settings() (s []http2.Setting) {
	for range g.IntN(4) {
		id := http2.SettingID(1 + g.IntN(9))
		v := uint32(g.IntN(100_000))
		if id == http2.SettingEnablePush || id == http2.SettingEnableConnectProtocol {
			v = uint32(g.IntN(2))
		}
		if id == http2.SettingMaxFrameSize {
			v += maxFrame
		}
		if g.rarely(40) {
			v = g.Uint32()
		}
		s = append(s, http2.Setting{ID: id, Val: v})
	}
	return s
}

// old is a stream that was begun, or may be.
func (g *generator) old() uint32 {
	if g.rarely(200) {
		return uint32(g.IntN(int(g.id) + 10))
	}
	return 1 + 2*uint32(g.IntN(int(g.id)/2+1))
}

// step says one thing or a few that belong together.
func (g *generator) step() {
	switch n := g.IntN(100); {
	case n < 45:
		g.request()
	case n < 70:
		data := make([]byte, g.IntN(300))
		for i := range data {
			data[i] = byte('a' + g.IntN(26))
		}
		if g.rarely(3) {
			_ = g.f.WriteDataPadded(g.old(), g.rarely(3), data, make([]byte, g.IntN(20)))
			return
		}
		_ = g.f.WriteData(g.old(), g.rarely(3), data)
	case n < 74:
		g.head(g.old(), !g.rarely(10), g.trailers())
	case n < 78:
		_ = g.f.WriteRSTStream(g.old(), http2.ErrCode(g.IntN(14)))
	case n < 83:
		_ = g.f.WriteWindowUpdate(g.old()*uint32(g.IntN(2)), uint32(g.IntN(1000)))
	case n < 87:
		_ = g.f.WritePing(g.rarely(4), [8]byte{1})
	case n < 90:
		_ = g.f.WriteSettings(g.settings()...)
	case n < 93:
		_ = g.f.WritePriority(g.old(), http2.PriorityParam{StreamDep: uint32(g.IntN(9)), Weight: 3})
	case n < 94:
		_ = g.f.WriteGoAway(0, http2.ErrCodeNo, nil)
	case n < 95:
		_ = g.f.WriteSettingsAck()
	default:
		kind := http2.FrameType(10 + g.IntN(240))
		if g.rarely(6) {
			kind = http2.FrameType(g.IntN(10))
		}
		_ = g.f.WriteRawFrame(kind, http2.Flags(g.IntN(256)), g.old()*uint32(g.IntN(2)), make([]byte, g.IntN(12)))
	}
}

// pick is one of them.
func (g *generator) pick(of ...string) string { return of[g.IntN(len(of))] }

// request begins a stream.
func (g *generator) request() {
	host := "a.test"
	fields := [][2]string{
		{":method", g.pick("GET", "POST", "HEAD", "PUT")}, {":scheme", "https"}, {":authority", host}, {":path", fmt.Sprintf("/%d", g.id)},
	}
	open := g.rarely(2)
	for range g.IntN(5) {
		fields = append(fields, [2]string{
			g.pick("accept", "cookie", "x-a", "x-b", "user-agent", "te", "trailer", "expect", "content-type", "authorization"),
			g.pick("a", "b=c", "trailers", "x-sum, x-more", "100-continue", "", " ", strings.Repeat("long", 50), "tab\tin it"),
		})
	}
	if open && g.rarely(2) {
		fields = append(fields, [2]string{"content-length", fmt.Sprint(g.IntN(200))})
	}
	if g.rarely(10) {
		fields = g.spoil(fields)
	}
	g.head(g.id, !open, fields)
	if g.id += 2; open && !g.rarely(4) {
		_ = g.f.WriteData(g.id-2, g.rarely(2), make([]byte, g.IntN(200)))
	}
	if g.rarely(30) {
		g.id += 2 * uint32(g.IntN(3))
	}
}

// spoil makes something of a head that it should not be, or seldom is.
func (g *generator) spoil(fields [][2]string) [][2]string {
	i := g.IntN(len(fields))
	switch g.IntN(10) {
	case 0:
		return append(fields[:i], fields[i+1:]...)
	case 1:
		return append(fields, fields[i])
	case 2:
		fields[i][0] = g.pick(":method", ":path", ":status", ":odd", ":protocol", "Upper", "sp ace", "", "host", "connection", "transfer-encoding")
	case 3:
		fields[i][1] = g.pick("", "\x00", "a\r\nb: c", "\x7f", "/", "*", "http", "https", "CONNECT", "a.test:1", "u@a.test", "b.test", "/a b", "//x", "/%zz", "/#f", "a,b", "é")
	case 4:
		return append(fields, [2]string{"host", g.pick("a.test", "b.test", "")})
	case 5:
		return append(fields, [2]string{"content-length", g.pick("0", "1", "-1", "+1", "1,1", "x", "00", "99999999999999999999", "")})
	case 6:
		return append(fields, [2]string{g.pick("connection", "keep-alive", "proxy-connection", "upgrade", "te", "transfer-encoding"), g.pick("close", "x", "chunked", "gzip")})
	case 7:
		fields[0], fields[len(fields)-1] = fields[len(fields)-1], fields[0]
	case 8:
		return append(fields, [2]string{":protocol", "websocket"})
	case 9:
		return [][2]string{{":method", "CONNECT"}, {":authority", g.pick("a.test:443", "")}}
	}
	return fields
}

// trailers are some, or no such.
func (g *generator) trailers() [][2]string {
	return [][2]string{{g.pick("x-sum", "x-more", "x-sum", "content-length", "host", ":path", "X"), g.pick("1", "", "\x01")}}
}

// head writes a head in one frame or more.
func (g *generator) head(id uint32, end bool, fields [][2]string) {
	g.block.Reset()
	if g.rarely(20) {
		g.enc.SetMaxDynamicTableSize(uint32(g.IntN(4097)))
	}
	for _, f := range fields {
		_ = g.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: g.rarely(10)})
	}
	block := g.block.Bytes()
	param := http2.HeadersFrameParam{StreamID: id, EndStream: end}
	if g.rarely(6) {
		param.PadLength = uint8(g.IntN(30))
	}
	if g.rarely(6) {
		param.Priority = http2.PriorityParam{StreamDep: uint32(g.IntN(10)), Weight: 1}
	}
	cut := len(block)
	if g.rarely(4) {
		cut = g.IntN(len(block) + 1)
	}
	param.BlockFragment, param.EndHeaders = block[:cut], cut == len(block)
	_ = g.f.WriteHeaders(param)
	if cut < len(block) {
		if g.rarely(20) {
			_ = g.f.WritePing(false, [8]byte{})
		}
		_ = g.f.WriteContinuation(id, true, block[cut:])
	}
}
