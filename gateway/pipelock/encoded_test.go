package pipelock

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"gatewayd/gateway/coding"
)

type writer interface {
	io.WriteCloser
	Flush() error
}

// coders make each encoding that is undone.
var coders = map[string]func(io.Writer) writer{
	"gzip":    func(w io.Writer) writer { return gzip.NewWriter(w) },
	"x-gzip":  func(w io.Writer) writer { return gzip.NewWriter(w) },
	"DEFLATE": func(w io.Writer) writer { return zlib.NewWriter(w) },
	"br":      func(w io.Writer) writer { return brotli.NewWriter(w) },
	"zstd": func(w io.Writer) writer {
		e, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic(err)
		}
		return e
	},
}

func encode(t testing.TB, encoding string, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := coders[encoding](&b)
	for _, p := range parts {
		if _, err := io.WriteString(w, p); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readEncoded(t testing.TB, s *Scanner, host, encoding string, r io.Reader) ([]byte, error) {
	t.Helper()
	b, err := s.EncodedBody(host, encoding, r)
	if err != nil {
		t.Fatal(err)
	}
	return io.ReadAll(b)
}

func TestEncodedBody(t *testing.T) {
	s := scanner()
	for encoding := range coders {
		for name, parts := range map[string][]string{
			"empty": {""}, "short": {"hello"}, "flushed": {"one", "two", "three"}, "long": {noise(3 << 20)}, "repeated": {strings.Repeat("text ", 200_000)},
		} {
			coded := encode(t, encoding, parts...)
			for _, r := range []io.Reader{bytes.NewReader(coded), iotest.HalfReader(bytes.NewReader(coded)), iotest.DataErrReader(bytes.NewReader(coded))} {
				if got, err := readEncoded(t, s, other, encoding, r); err != nil || !bytes.Equal(got, coded) {
					t.Errorf("%s, %s: %v, %d of %d bytes", encoding, name, err, len(got), len(coded))
				}
			}
		}
		if got, err := readEncoded(t, s, other, encoding, strings.NewReader("")); err != nil || len(got) != 0 {
			t.Errorf("%s: no body at all: %q, %v", encoding, got, err)
		}
		if got, err := readEncoded(t, s, home, encoding, bytes.NewReader(encode(t, encoding, dummy))); err != nil || len(got) == 0 {
			t.Errorf("%s: at home: %v", encoding, err)
		}
		var leak *LeakError
		for enc, token := range encodings(dummy) {
			got, err := readEncoded(t, s, other, encoding, bytes.NewReader(encode(t, encoding, "before ", token, " after")))
			if !errors.As(err, &leak) || len(got) != 0 {
				t.Errorf("%s, %s: %d bytes went, %v", encoding, enc, len(got), err)
			}
		}
		// In a long body what decodes to the token is still held back.
		head := noise(1 << 20)
		coded := encode(t, encoding, head, dummy, noise(1<<20))
		got, err := readEncoded(t, s, other, encoding, bytes.NewReader(coded))
		if at := len(encode(t, encoding, head)); !errors.As(err, &leak) || len(got) > at || len(got) == 0 {
			t.Errorf("%s: in a long body: %d bytes went, the token begins near %d: %v", encoding, len(got), at, err)
		}
	}
}

func TestIdentityIsBody(t *testing.T) {
	for _, encoding := range []string{"", "identity", " Identity "} {
		got, err := readEncoded(t, scanner(), other, encoding, strings.NewReader("plain text"))
		if err != nil || string(got) != "plain text" {
			t.Errorf("%q: %q, %v", encoding, got, err)
		}
		var leak *LeakError
		if _, err := readEncoded(t, scanner(), other, encoding, strings.NewReader("plain "+dummy)); !errors.As(err, &leak) {
			t.Errorf("%q: %v", encoding, err)
		}
	}
}

func wantEncodingError(t *testing.T, name string, err error, kind EncodingKind) {
	t.Helper()
	var ee *EncodingError
	if !errors.As(err, &ee) || ee.Kind != kind || err.Error() == "" {
		t.Errorf("%s: %v, want kind %d", name, err, kind)
	}
}

func TestUnknownEncodings(t *testing.T) {
	for _, encoding := range []string{"compress", "gzip, gzip", "gzip,br", "identity, gzip", "aes128gcm", "gzip;q=1", "x\r\ny", "deflate-raw", "dcb", "exi"} {
		b, err := scanner().EncodedBody(other, encoding, strings.NewReader("x"))
		if b != nil {
			t.Errorf("%q: there is a reader", encoding)
		}
		wantEncodingError(t, encoding, err, Unknown)
		if err != nil && strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%q in %q", encoding, err)
		}
	}
}

func TestMalformedBodies(t *testing.T) {
	s := scanner()
	var raw bytes.Buffer
	fw, err := flate.NewWriter(&raw, 6)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fw.Write([]byte(strings.Repeat("raw deflate ", 10))); err != nil {
		t.Fatal(err)
	}
	if err := fw.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = readEncoded(t, s, other, "deflate", &raw)
	wantEncodingError(t, "deflate without zlib", err, Malformed)
	for encoding := range coders {
		coded := encode(t, encoding, noise(1000))
		for name, body := range map[string][]byte{
			"garbage":          []byte("this is no such thing at all, is it?"),
			"cut":              coded[:len(coded)/2],
			"cut by one":       coded[:len(coded)-1],
			"bytes behind":     append(bytes.Clone(coded), "and the rest in clear"...),
			"one byte behind":  append(bytes.Clone(coded), 'x'),
			"NULs behind":      append(bytes.Clone(coded), make([]byte, 40)...),
			"far behind":       append(bytes.Clone(coded), bytes.Repeat([]byte{0xff}, 100_000)...),
			"checksum changed": flip(coded, len(coded)-2),
		} {
			if name == "checksum changed" && encoding == "br" {
				continue // it has none
			}
			got, err := readEncoded(t, s, other, encoding, bytes.NewReader(body))
			wantEncodingError(t, encoding+", "+name, err, Malformed)
			if len(got) != 0 {
				t.Errorf("%s, %s: %d bytes went", encoding, name, len(got))
			}
		}
		broken := errors.New("broken")
		_, err := readEncoded(t, s, other, encoding, io.MultiReader(bytes.NewReader(coded[:20]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("%s: error of the body became %v", encoding, err)
		}
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x55
	return b
}

// TestTokenBesideTheData hides a token where a decoder does not give it out.
func TestTokenBesideTheData(t *testing.T) {
	var named bytes.Buffer
	w := gzip.NewWriter(&named)
	w.Comment = dummy
	if _, err := w.Write([]byte("harmless")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	frame := encode(t, "zstd", "harmless")
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, byte(len(dummy)), 0, 0, 0}, dummy...) // RFC 8878 section 3.1.2
	for name, c := range map[string]struct {
		encoding string
		body     []byte
	}{
		"gzip comment":            {"gzip", named.Bytes()},
		"zstd skippable frame":    {"zstd", append(bytes.Clone(skippable), frame...)},
		"zstd skippable frame, 2": {"zstd", append(bytes.Clone(frame), skippable...)},
		"second gzip member":      {"gzip", append(encode(t, "gzip", "harmless"), encode(t, "gzip", dummy)...)},
		"second zstd frame":       {"zstd", append(bytes.Clone(frame), encode(t, "zstd", dummy)...)},
		"over two gzip members":   {"gzip", append(encode(t, "gzip", dummy[:9]), encode(t, "gzip", dummy[9:])...)},
	} {
		got, err := readEncoded(t, scanner(), other, c.encoding, bytes.NewReader(c.body))
		var leak *LeakError
		if !errors.As(err, &leak) || len(got) != 0 {
			t.Errorf("%s: %d bytes went, %v", name, len(got), err)
		}
	}
}

// endless gives out n bytes of zeros.
type endless struct{ n int64 }

func (z *endless) Read(p []byte) (int, error) {
	if z.n <= 0 {
		return 0, io.EOF
	}
	clear(p)
	n := min(int64(len(p)), z.n)
	z.n -= n
	return int(n), nil
}

func TestBombs(t *testing.T) {
	for encoding, open := range coders {
		var coded bytes.Buffer
		w := open(&coded)
		if _, err := io.Copy(w, &endless{64 << 20}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := readEncoded(t, scanner(), other, encoding, &coded)
		wantEncodingError(t, encoding, err, Oversized)
		if len(got) != 0 {
			t.Errorf("%s: %d bytes went", encoding, len(got))
		}
	}
	// A zstd frame that asks for a window of 1 GB.
	_, err := readEncoded(t, scanner(), other, "zstd", bytes.NewReader([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00}))
	wantEncodingError(t, "window", err, Oversized)
	// Empty stored blocks (RFC 1951 section 3.2.4), and skippable frames, without end.
	empty := bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 1<<20)
	_, err = readEncoded(t, scanner(), other, "deflate", io.MultiReader(bytes.NewReader([]byte{0x78, 0x9c}), bytes.NewReader(empty)))
	wantEncodingError(t, "empty blocks", err, Oversized)
	skippable := bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, 1<<18)
	_, err = readEncoded(t, scanner(), other, "zstd", bytes.NewReader(skippable))
	wantEncodingError(t, "skippable frames", err, Oversized)
}

// TestBodiesAreNotKept sends 64 MB through each kind of reader and looks at
// what stays.
func TestBodiesAreNotKept(t *testing.T) {
	for _, encoding := range []string{"", "zstd", "gzip"} {
		pr, pw := io.Pipe()
		go func() {
			var w io.WriteCloser = pw
			switch encoding {
			case "gzip":
				gz, _ := gzip.NewWriterLevel(pw, gzip.BestSpeed)
				w = gz
			case "zstd":
				w = coders[encoding](pw)
			}
			for i := range 64 {
				if _, err := io.WriteString(w, seededNoise(1<<20, uint64(i))); err != nil {
					break
				}
			}
			if w != io.WriteCloser(pw) {
				_ = w.Close()
			}
			_ = pw.Close()
		}()
		b, err := scanner().EncodedBody(other, encoding, pr)
		if err != nil {
			t.Fatal(err)
		}
		var most uint64
		buf := make([]byte, 1<<20)
		var total int64
		for i := 0; ; i++ {
			n, err := b.Read(buf)
			total += int64(n)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if i%64 == 0 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
			}
		}
		if most > 48<<20 || total < 48<<20 {
			t.Errorf("%q: heap of %d MB after %d MB", encoding, most>>20, total>>20)
		}
	}
}

// FuzzEncodedBody checks that no body makes a decoder panic or a reader give out anything else than the body, and that a
// clean end means that the scan of what the body says has nothing to say either.
func FuzzEncodedBody(f *testing.F) {
	for encoding := range coders {
		f.Add(encoding, encode(f, encoding, "hello"), 7)
		f.Add(encoding, encode(f, encoding, dummy), 1)
		f.Add(encoding, encode(f, encoding, `{"a":"`+formTokens()["gitlab-pat"]+`"}`), 40)
	}
	f.Add("zstd", []byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, 3)
	f.Fuzz(func(t *testing.T, encoding string, body []byte, cut int) {
		s := formScanner(t)
		cut = int(uint(cut) % uint(len(body)+1))
		b, err := s.EncodedBody(other, encoding, io.MultiReader(bytes.NewReader(body[:cut]), bytes.NewReader(body[cut:])))
		if err != nil {
			return
		}
		got, err := io.ReadAll(b)
		if !bytes.HasPrefix(body, got) {
			t.Fatalf("%s: %x gave %x", encoding, body, got)
		}
		if err != nil {
			return
		}
		if len(got) != len(body) || bytes.Contains(got, []byte(dummy)) {
			t.Fatalf("%s: %x ended cleanly after %d bytes", encoding, body, len(got))
		}
		said := body
		if name := codingName(encoding); name != "" && len(body) > 0 {
			r, err := coding.Open(name, bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if said, err = io.ReadAll(r); err != nil {
				t.Fatalf("%s: %x ended cleanly, but: %v", encoding, body, err)
			}
		}
		if _, err := io.ReadAll(s.Body(other, bytes.NewReader(said))); err != nil {
			t.Fatalf("%s: %x ended cleanly, and says what is refused: %v", encoding, body, err)
		}
	})
}

func BenchmarkEncodedBody(b *testing.B) {
	text := strings.Repeat(noise(300)+strings.Repeat(`{"role":"user","content":"please look"},`, 20), 900)
	for _, encoding := range []string{"gzip", "zstd", "br", "DEFLATE"} {
		body := encode(b, encoding, text)
		b.Run(encoding, func(b *testing.B) {
			b.SetBytes(int64(len(text))) // of what is scanned
			for b.Loop() {
				if _, err := readEncoded(b, scanner(), other, encoding, bytes.NewReader(body)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
