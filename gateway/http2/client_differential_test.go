package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// heard is a response, as a client took it from a connection.
type heard struct {
	status  int
	length  int64
	header  string
	trailer string
	body    string
	interim []int
}

// scripted serves a connection: it sends what is given once a whole request has come, and ends.
func scripted(conn net.Conn, script []byte) {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len(preface))); err != nil {
		return
	}
	f := http2.NewFramer(conn, conn)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		if h, ok := frame.(*http2.HeadersFrame); ok && h.StreamEnded() {
			break
		}
	}
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	conn.Write(script)
	conn.(*net.TCPConn).CloseWrite()
	conn.SetReadDeadline(time.Now().Add(time.Second))
	io.Copy(io.Discard, conn)
}

// hear carries one request over a connection to a scripted server.
func hear(t testing.TB, script []byte, method string, trip func(net.Conn, *[]int) (*http.Response, error)) (heard, error) {
	near, far := pair(t)
	over := make(chan struct{})
	go func() {
		defer close(over)
		scripted(far, script)
	}()
	defer func() { <-over }()
	defer near.Close()
	var h heard
	resp, err := trip(near, &h.interim)
	if err != nil {
		return h, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return h, err
	}
	h.status, h.length, h.body = resp.StatusCode, resp.ContentLength, string(body)
	resp.Header.Del("Trailer") // the one takes it out of the header, the other does not
	h.header = fmt.Sprint(resp.Header)
	for key, values := range resp.Trailer {
		if len(values) == 0 || !httpguts.ValidTrailerHeader(key) { // which is dropped here
			delete(resp.Trailer, key)
		}
	}
	h.trailer = fmt.Sprint(resp.Trailer)
	if len(resp.Trailer) == 0 {
		h.trailer = ""
	}
	if method == http.MethodHead { // golang.org/x/net reads nothing behind the head then
		h.length, h.trailer = 0, ""
	}
	return h, nil
}

// ours carries the request by this package.
func ours(method string) func(net.Conn, *[]int) (*http.Response, error) {
	return func(conn net.Conn, interims *[]int) (*http.Response, error) {
		c := NewClient(ClientLimits{Fields: 1 << 20}).NewConn(conn, func() {})
		c.Reserve()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = cancel // the response's body is read under it
		req := plain(method, nil, 0)
		req.Interim = (*interimList)(interims)
		return c.RoundTrip(ctx, req)
	}
}

// theirs carries it by golang.org/x/net.
func theirs(method string) func(net.Conn, *[]int) (*http.Response, error) {
	return func(conn net.Conn, interims *[]int) (*http.Response, error) {
		tr := &http2.Transport{DisableCompression: true, AllowHTTP: true, MaxHeaderListSize: 1 << 20} //nolint:staticcheck // net/http's takes no connection
		c, err := tr.NewClientConn(conn)                                                              //nolint:staticcheck // likewise
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = cancel // likewise
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			if code != http.StatusContinue {
				*interims = append(*interims, code)
			}
			return nil
		}})
		req, err := http.NewRequestWithContext(ctx, method, "http://a.test/p?q", nil)
		if err != nil {
			return nil, err
		}
		return c.RoundTrip(req)
	}
}

// agree fails if a response is taken here that golang.org/x/net refuses, or takes for another.
func agree(t testing.TB, script []byte, method string) (taken bool) {
	t.Helper()
	got, err := hear(t, script, method, ours(method))
	if err != nil {
		return false
	}
	want, err := hear(t, script, method, theirs(method))
	if bodiless := got.status == http.StatusNoContent || got.status == http.StatusNotModified; bodiless && got.body == "" && errors.Is(err, io.ErrUnexpectedEOF) {
		return true // the length is that of a body which such a response does not have (RFC 9110 section 8.6)
	}
	if err != nil {
		t.Errorf("taken as %+v, which golang.org/x/net refuses: %v\n%x", got, err, script)
		return true
	}
	if !slices.Equal(got.interim, want.interim) {
		t.Errorf("interim responses %v, by golang.org/x/net %v\n%x", got.interim, want.interim, script)
	}
	got.interim, want.interim = nil, nil
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("taken as %+v, by golang.org/x/net as %+v\n%x", got, want, script)
	}
	return true
}

// answers makes what a server says, mostly well, by chance.
func answers(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	var out, block bytes.Buffer
	f := http2.NewFramer(&out, nil)
	f.AllowIllegalWrites = true
	enc := hpack.NewEncoder(&block)
	rarely := func(n int) bool { return r.IntN(n) == 0 }
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	id := func() uint32 {
		if rarely(40) {
			return uint32(r.IntN(5))
		}
		return 1
	}
	head := func(end bool, fields ...string) {
		block.Reset()
		for i := 0; i+1 < len(fields); i += 2 {
			enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		b := block.Bytes()
		p := http2.HeadersFrameParam{StreamID: id(), BlockFragment: b, EndHeaders: true, EndStream: end}
		if rarely(4) {
			p.PadLength = uint8(r.IntN(9))
		}
		if len(b) > 1 && rarely(4) {
			p.BlockFragment, p.EndHeaders = b[:1], false
			f.WriteHeaders(p)
			f.WriteContinuation(p.StreamID, true, b[1:])
			return
		}
		f.WriteHeaders(p)
	}
	if !rarely(30) {
		f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(r.IntN(1 << 17))})
	}
	for rarely(3) {
		head(rarely(10), ":status", pick("100", "103", "199", "101"), "link", "x")
	}
	bodies := r.IntN(4)
	fields := []string{":status", pick("200", "200", "204", "304", "404", "0", "1000", "abc", "20")}
	for range r.IntN(4) {
		fields = append(fields, pick("x-one", "content-type", "trailer", "set-cookie", "Upper", "bad name", ":path", "connection", "content-length"), pick("a", "b c", "X-End", "3", "6", "a\x01", ""))
	}
	if rarely(2) {
		fields = append(fields, "content-length", fmt.Sprint(3*bodies))
	}
	end := bodies == 0 && rarely(2)
	head(end, fields...)
	for range bodies {
		switch {
		case rarely(12):
			f.WritePing(rarely(2), [8]byte{1})
		case rarely(12):
			f.WriteWindowUpdate(id(), uint32(r.IntN(3)))
		case rarely(20):
			f.WriteRSTStream(id(), http2.ErrCode(r.IntN(12)))
		case rarely(20):
			f.WriteGoAway(uint32(r.IntN(3)), http2.ErrCodeNo, nil)
		case rarely(20):
			f.WriteRawFrame(http2.FrameType(r.IntN(20)), http2.Flags(r.IntN(256)), id(), []byte("12345678")[:r.IntN(9)])
		}
		f.WriteDataPadded(id(), rarely(12), []byte("abc"), make([]byte, r.IntN(3)))
	}
	if !end && rarely(2) {
		head(!rarely(6), pick("x-end", "x-end", ":status", "content-length", "Upper"), "e")
	} else if !end {
		f.WriteData(1, true, nil)
	}
	return out.Bytes()
}

// TestClientAgrees gives generated answers to both clients.
func TestClientAgrees(t *testing.T) {
	taken := 0
	for seed := range uint64(2000) {
		if agree(t, answers(seed), []string{http.MethodGet, http.MethodHead}[seed%4/3]) {
			taken++
		}
	}
	if taken < 100 {
		t.Errorf("only %d answers were taken", taken)
	}
}

// FuzzAnswers gives any bytes to both clients.
func FuzzAnswers(f *testing.F) {
	for seed := range uint64(100) {
		f.Add(answers(seed), seed%4 == 3)
	}
	f.Fuzz(func(t *testing.T, script []byte, head bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		agree(t, script, method)
	})
}
