package tls

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// recorded returns the first flights of testdata/hello by file name, and the server name that each must have.
func recorded(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/hello/*.bin")
	if err != nil || len(files) < 10 {
		t.Fatalf("find recorded hellos: %v, %d files", err, len(files))
	}
	flights := make(map[string][]byte, len(files))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		flights[strings.TrimSuffix(filepath.Base(f), ".bin")] = b
	}
	return flights
}

// wantName is the server name that the client of a recorded flight asked for.
func wantName(file string) string { return strings.TrimSuffix(file, "-retry") + ".example.test" }

// message takes the handshake message out of a recorded flight, in which it is always one record.
func message(flight []byte) []byte {
	n := int(binary.BigEndian.Uint16(flight[3:5]))
	return flight[recordHeaderSize : recordHeaderSize+n]
}

// records wraps message in records of at most size bytes.
func records(message []byte, size int) []byte {
	var b []byte
	for len(message) > 0 {
		n := min(size, len(message))
		b = append(b, record(message[:n])...)
		message = message[n:]
	}
	return b
}

// record wraps body in one handshake record.
func record(body []byte) []byte {
	return append([]byte{recordHandshake, 3, 1, byte(len(body) >> 8), byte(len(body))}, body...)
}

func TestPeekRecorded(t *testing.T) {
	want := map[string]struct{ alpn, versions int }{
		"chromium": {2, 3}, "curl": {2, 4}, "curl-tls12": {2, 1}, "git": {2, 4}, "go-mlkem": {2, 2}, "go-classic": {2, 2}, "java-http": {2, 2},
		"java-http-retry": {0, 2}, "java-url": {0, 2}, "node-fetch": {1, 2}, "node-https": {0, 2}, "openssl": {0, 4},
		"openssl-psk": {0, 4}, "openssl-mlkem": {0, 2}, "openssl-cli": {0, 2}, "python": {1, 2}, "rustls-mlkem": {2, 2},
		"rustls-cli-h2": {2, 2}, "rustls-cli-ws": {0, 2}, "wget": {0, 4},
	}
	for file, flight := range recorded(t) {
		h, read, err := Peek(bytes.NewReader(flight))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if h.ServerName != wantName(file) || h.Size != len(message(flight)) || h.ECH != (file == "chromium") {
			t.Errorf("%s: got %+v", file, h)
		}
		if w, ok := want[file]; !ok || len(h.ALPN) != w.alpn || len(h.Versions) != w.versions {
			t.Errorf("%s: got ALPN %q, versions %x; want %d and %d", file, h.ALPN, h.Versions, w.alpn, w.versions)
		}
		if !bytes.HasPrefix(flight, read) {
			t.Errorf("%s: what was read is not what was sent", file)
		}
	}
}

func TestPeekEverySplitOfReads(t *testing.T) {
	for file, flight := range recorded(t) {
		for cut := 1; cut < len(flight); cut++ {
			r := io.MultiReader(bytes.NewReader(flight[:cut]), bytes.NewReader(flight[cut:]))
			checkPeek(t, file, r, flight)
		}
		checkPeek(t, file, iotest.OneByteReader(bytes.NewReader(flight)), flight)
		checkPeek(t, file, iotest.DataErrReader(bytes.NewReader(flight)), flight)
	}
}

func TestPeekEverySplitOfRecords(t *testing.T) {
	for file, flight := range recorded(t) {
		m := message(flight)
		for cut := 1; cut < len(m); cut++ {
			split := append(record(m[:cut]), record(m[cut:])...)
			checkPeek(t, file, bytes.NewReader(split), split)
		}
		for size := 1; size <= len(m); size++ {
			split := records(m, size)
			checkPeek(t, file, bytes.NewReader(split), split)
		}
		tiny := records(m, 1)
		checkPeek(t, file, iotest.OneByteReader(bytes.NewReader(tiny)), tiny)
	}
}

// checkPeek peeks at r, which gives sent, and checks the name and that nothing is lost.
func checkPeek(t *testing.T, file string, r io.Reader, sent []byte) {
	t.Helper()
	h, read, err := Peek(r)
	if err != nil || h.ServerName != wantName(file) {
		t.Fatalf("%s: got name %q, error %v", file, h.ServerName, err)
	}
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(append(read, rest...), sent) {
		t.Fatalf("%s: bytes lost or changed (%v)", file, err)
	}
}

func TestPeekEveryTruncation(t *testing.T) {
	for file, flight := range recorded(t) {
		whole := recordHeaderSize + len(message(flight))
		for n := range whole {
			h, read, err := Peek(bytes.NewReader(flight[:n]))
			var he *HelloError
			if !errors.As(err, &he) || he.Kind != Closed || !errors.Is(err, io.EOF) || h.ServerName != "" {
				t.Fatalf("%s cut to %d bytes: got %+v, error %v", file, n, h, err)
			}
			if !bytes.Equal(read, flight[:n]) {
				t.Fatalf("%s cut to %d bytes: got %d bytes back", file, n, len(read))
			}
		}
		// The message cut short inside a record that says it is whole: never a name.
		m := message(flight)
		for n := helloHeaderSize; n < len(m); n++ {
			short := bytes.Clone(m[:n])
			short[1], short[2], short[3] = 0, byte((n-4)>>8), byte(n-4)
			if h, err := ParseHello(short); err == nil {
				t.Fatalf("%s with its message cut to %d bytes: got name %q", file, n, h.ServerName)
			}
		}
	}
}

func TestPeekRefuses(t *testing.T) {
	m := message(recorded(t)["go-mlkem"])
	with := func(b []byte, at int, v byte) []byte { c := bytes.Clone(b); c[at] = v; return c }
	cases := map[string]struct {
		sent []byte
		kind HelloKind
	}{
		"http":                   {[]byte("GET / HTTP/1.1\r\n"), NotTLS},
		"ssh":                    {[]byte("SSH-2.0-x\r\n"), NotTLS},
		"one byte":               {[]byte("G"), NotTLS},
		"sslv2":                  {[]byte{0x80, 0x2e, 1, 0, 2}, NotTLS},
		"alert first":            {[]byte{21, 3, 3, 0, 2, 2, 40}, NotTLS},
		"application data first": {append([]byte{23, 3, 3, 1, 0}, m[:256]...), NotTLS},
		"ccs first":              {append([]byte{20, 3, 3, 0, 1, 1}, record(m)...), NotTLS},
		"bad record version":     {with(record(m), 1, 4), NotTLS},
		"empty first record":     {append([]byte{22, 3, 1, 0, 0}, record(m)...), Malformed},
		"empty record inside":    {append(append(record(m[:100]), 22, 3, 1, 0, 0), record(m[100:])...), Malformed},
		"alert inside":           {append(append(record(m[:100]), 21, 3, 1, 0, 2, 1, 0), record(m[100:])...), Malformed},
		"version inside":         {append(record(m[:100]), with(record(m[100:]), 1, 2)...), Malformed},
		"record too long":        {[]byte{22, 3, 1, 0x40, 1}, Malformed},
		"server hello":           {record(with(m, 0, 2)), Malformed},
		"server hello, early":    {[]byte{22, 3, 1, 0, 200, 2}, Malformed},
		"bytes behind the hello": {record(append(bytes.Clone(m), 20, 0, 0, 0)), Malformed},
		"two hellos":             {record(append(bytes.Clone(m), m...)), Malformed},
		"too short":              {[]byte{22, 3, 1, 0, 200, 1, 0, 0, 40}, Malformed},
		"too large":              {[]byte{22, 3, 1, 0x40, 0, 1, 1, 0, 0}, TooLarge},
		"too large by a byte":    {[]byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xfd}, TooLarge},
		"too many records":       {records(append([]byte{1, 0, 0x40, 0}, make([]byte, 1<<14)...), 1), TooLarge},
		"nothing":                {nil, Closed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h, read, err := Peek(iotest.OneByteReader(bytes.NewReader(c.sent)))
			var he *HelloError
			if !errors.As(err, &he) || he.Kind != c.kind || h.ServerName != "" {
				t.Fatalf("got %+v, error %v; want kind %v", h, err, c.kind)
			}
			if !bytes.HasPrefix(c.sent, read) {
				t.Fatal("what was read is not what was sent")
			}
			_, again, err := Peek(bytes.NewReader(c.sent))
			if !errors.As(err, &he) || he.Kind != c.kind || !bytes.HasPrefix(c.sent, again) {
				t.Fatalf("in one read: error %v; want kind %v", err, c.kind)
			}
		})
	}
}

// A hopeless stream is refused at its first hopeless byte, not when a deadline passes.
func TestPeekRefusesEarly(t *testing.T) {
	for name, c := range map[string]struct {
		sent string
		kind HelloKind
	}{
		"text":              {"H", NotTLS},
		"version":           {"\x16\x04", NotTLS},
		"empty record":      {"\x16\x03\x01\x00\x00", Malformed},
		"message type":      {"\x16\x03\x01\x02\x00\x0b", Malformed},
		"message too large": {"\x16\x03\x01\x02\x00\x01\x02\x00\x00", TooLarge},
	} {
		if _, _, err := Peek(io.MultiReader(strings.NewReader(c.sent), iotest.ErrReader(errors.New("asked for more")))); err == nil ||
			err.(*HelloError).Kind != c.kind {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestPeekLargest(t *testing.T) {
	h := hello{exts: [][]byte{sni("big.example.test")}}
	h.exts = append(h.exts, ext(21, make([]byte, maxHelloSize-len(h.bytes())-4)))
	m := h.bytes()
	if len(m) != maxHelloSize {
		t.Fatalf("built %d bytes", len(m))
	}
	for _, size := range []int{maxRecordSize, 1000, 17} {
		got, _, err := Peek(bytes.NewReader(records(m, size)))
		if err != nil || got.ServerName != "big.example.test" || got.Size != maxHelloSize {
			t.Errorf("records of %d: got %q, %v", size, got.ServerName, err)
		}
	}
}

func TestPeekNoProgress(t *testing.T) {
	_, _, err := Peek(stuck{})
	if !errors.Is(err, io.ErrNoProgress) {
		t.Fatalf("got %v", err)
	}
}

// stuck is a reader that breaks the contract: never a byte, never an error.
type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func TestPeekTimeout(t *testing.T) {
	flight := recorded(t)["curl"]
	guest, gateway := net.Pipe()
	defer guest.Close()
	defer gateway.Close()
	if err := gateway.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = guest.Write(flight[:100]) }()
	_, read, err := Peek(gateway)
	var he *HelloError
	if !errors.As(err, &he) || he.Kind != Timeout || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if !bytes.Equal(read, flight[:100]) {
		t.Fatalf("got %d bytes back", len(read))
	}
}

func TestReplay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	guest, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := guest.Write([]byte(" and then")); err != nil {
		t.Fatal(err)
	}
	if err := guest.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r := Replay(c, []byte("first"))
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Fatalf("empty read: %d, %v", n, err)
	}
	got, err := io.ReadAll(iotest.OneByteReader(r))
	if err != nil || string(got) != "first and then" {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := r.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := guest.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("after CloseWrite the guest read %d, %v", n, err)
	}
	if r.(interface{ NetConn() net.Conn }).NetConn() != c {
		t.Error("NetConn is not the connection beneath")
	}
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	if err := Replay(pipe, nil).(interface{ CloseWrite() error }).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("half-close of a pipe: %v", err)
	}
}
