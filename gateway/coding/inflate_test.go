package coding

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
)

// deflater makes messages as a peer does (RFC 7692 section 7.2.1).
type deflater struct {
	out bytes.Buffer
	w   *flate.Writer
}

func newDeflater(t testing.TB) *deflater {
	t.Helper()
	d := &deflater{}
	var err error
	if d.w, err = flate.NewWriter(&d.out, 6); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *deflater) message(t testing.TB, text string, takeover bool) []byte {
	t.Helper()
	d.out.Reset()
	if !takeover {
		d.w.Reset(&d.out)
	}
	if _, err := io.WriteString(d.w, text); err != nil {
		t.Fatal(err)
	}
	if err := d.w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(slices.Clone(d.out.Bytes()), []byte{0, 0, 0xff, 0xff})
}

func inflate(f *Inflater, message []byte) (string, error) {
	if err := f.Begin(bytes.NewReader(message)); err != nil {
		return "", err
	}
	b, err := io.ReadAll(f)
	return string(b), err
}

func TestInflater(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for _, takeover := range []bool{true, false} {
		f, d := NewInflater(takeover), newDeflater(t)
		for i, text := range []string{"hello", "", "hello again, hello", strings.Repeat("long ", 50_000), string(noise), string(noise[70_000:]), "hello"} {
			coded := d.message(t, text, takeover)
			if got, err := inflate(f, coded); err != nil || got != text {
				t.Fatalf("message %d: %d of %d bytes, %v", i, len(got), len(text), err)
			}
			if len(f.window) > 2*inflateWindow || !takeover && f.window != nil {
				t.Errorf("message %d: %d bytes of window are kept", i, len(f.window))
			}
		}
	}
	// RFC 7692 section 7.2.3.2: the second message refers to the first.
	f := NewInflater(true)
	for _, coded := range [][]byte{{0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}, {0xf2, 0x00, 0x11, 0x00, 0x00}} {
		if got, err := inflate(f, coded); err != nil || got != "Hello" {
			t.Errorf("%x is %q, %v", coded, got, err)
		}
	}
}

func TestInflaterRefuses(t *testing.T) {
	for name, message := range map[string][]byte{
		"garbage":            []byte("this is none"),
		"cut":                {0xf2, 0x48, 0xcd},
		"a last block":       {0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00}, // RFC 7692 section 7.2.3.4
		"behind the last":    {0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 'c', 'l', 'e', 'a', 'r'},
		"refers to no bytes": {0xf2, 0x00, 0x11, 0x00, 0x00},
	} {
		f := NewInflater(true)
		if got, err := inflate(f, message); err == nil {
			t.Errorf("%s: taken for %q", name, got)
		}
		if err := f.Begin(bytes.NewReader(nil)); err == nil {
			t.Errorf("%s: another message was begun", name)
		}
	}
}

// FuzzInflater feeds it what a peer might send, and what one that speaks the protocol sends.
func FuzzInflater(f *testing.F) {
	f.Add([]byte{0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}, "Hello", true)
	f.Add([]byte{0}, "", false)
	f.Fuzz(func(t *testing.T, raw []byte, text string, takeover bool) {
		in, d := NewInflater(takeover), newDeflater(t)
		for range 2 {
			if got, err := inflate(in, d.message(t, text, takeover)); err != nil || got != text {
				t.Fatalf("%q came as %q, %v", text, got, err)
			}
		}
		if err := in.Begin(bytes.NewReader(raw)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(in, 1<<20)) // whatever it says
	})
}
