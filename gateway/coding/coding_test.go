package coding

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// encode returns text in a coding.
func encode(t testing.TB, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch name {
	case "gzip", "x-gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "raw":
		w, err = flate.NewWriter(&b, 6)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		w, err = zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	case Snappy:
		w = s2.NewWriter(&b, s2.WriterSnappyCompat(), s2.WriterConcurrency(1))
	}
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var names = []string{"gzip", "x-gzip", "deflate", "br", "zstd", Snappy}

func TestOpen(t *testing.T) {
	for _, text := range []string{"", "content", strings.Repeat("content and more ", 100_000)} {
		for _, name := range names {
			coded := encode(t, name, text)
			for _, src := range []io.Reader{bytes.NewReader(coded), iotest.OneByteReader(bytes.NewReader(coded)), iotest.DataErrReader(bytes.NewReader(coded))} {
				r, err := Open(name, src)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(r); err != nil || string(got) != text {
					t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(text), err)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, name := range []string{"", "identity", "compress", "GZIP", "gzip, gzip"} {
		if _, err := Open(name, nil); err == nil || Known(name) {
			t.Errorf("%q was opened", name)
		}
		if _, err := OpenLenient(name, nil); err == nil {
			t.Errorf("%q was opened leniently", name)
		}
	}
	read := func(name string, coded []byte) error {
		r, err := Open(name, bytes.NewReader(coded))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, r)
		return err
	}
	for _, name := range names {
		coded := encode(t, name, strings.Repeat("content", 100))
		if read(name, coded[:len(coded)-1]) == nil || read(name, []byte("this is no such thing at all")) == nil {
			t.Errorf("%s: what is malformed was taken", name)
		}
	}
	if read("deflate", encode(t, "raw", "content")) == nil {
		t.Error("deflate without zlib was taken")
	}
	if err := read("zstd", []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a window of 1 GB: %v", err)
	}
	r, err := Open("gzip", bytes.NewReader(encode(t, "gzip", "content")))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("a closed reader reads")
	}
}

func TestOpenLenient(t *testing.T) {
	for name, coded := range map[string][]byte{
		"gzip": {}, "br": {}, "deflate": encode(t, "raw", ""), "zstd": encode(t, "zstd", ""),
	} {
		r, err := OpenLenient(name, bytes.NewReader(coded))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || len(got) != 0 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, form := range []string{"raw", "deflate"} {
		r, err := OpenLenient("deflate", iotest.OneByteReader(bytes.NewReader(encode(t, form, "content"))))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != "content" {
			t.Errorf("%s: %q, %v", form, got, err)
		}
	}
	broken := errors.New("broken")
	r, err := OpenLenient("gzip", iotest.ErrReader(broken))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// FuzzOpen feeds the decoders what a peer might send: they must end, and not panic.
func FuzzOpen(f *testing.F) {
	for _, name := range names {
		f.Add(name, encode(f, name, "content content content"))
		f.Add(name, []byte{})
	}
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		for _, open := range []func(string, io.Reader) (io.ReadCloser, error){Open, OpenLenient} {
			r, err := open(name, bytes.NewReader(raw))
			if err != nil {
				if Known(name) {
					t.Fatalf("known, but: %v", err)
				}
				return
			}
			_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20)) // whatever it says
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
