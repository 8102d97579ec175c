package control

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestMessagesComeThrough(t *testing.T) {
	want := []Message{
		{Kind: Hello},
		{Kind: Run, ID: 7, Argv: []string{"/bin/sh", "-c", "a\nb"}, Env: []string{"A=b"}, Dir: "/root", Console: true},
		{Kind: Stdout, ID: 7, Data: bytes.Repeat([]byte{0, '\n', 0xff}, MaxData/3)},
		{Kind: Exit, ID: 7, Code: 3, Text: "ü"},
	}
	var wire bytes.Buffer
	for _, m := range want {
		if err := Write(&wire, m); err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(&wire)
	for _, m := range want {
		got, err := r.Read()
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("got %v, %v; want %v", got, err, m)
		}
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestWhatIsNoMessage(t *testing.T) {
	for _, c := range []struct {
		name, wire string
		want       error
	}{
		{"cut", `{"kind":"hello"}`, io.ErrUnexpectedEOF},
		{"too long", `{"kind":"hello","text":"` + strings.Repeat("x", MaxLine) + "\"}\n", ErrTooLong},
		{"text", "Linux version\n", new(SyntaxError)},
		{"unknown", `{"kind":"other"}` + "\n", new(SyntaxError)},
		{"none", "{}\n", new(SyntaxError)},
	} {
		_, err := NewReader(strings.NewReader(c.wire)).Read()
		var syntax *SyntaxError
		if wantSyntax := errors.As(c.want, &syntax); wantSyntax != errors.As(err, &syntax) || !wantSyntax && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := Write(io.Discard, Message{Kind: Run, Dir: strings.Repeat("x", MaxLine)}); !errors.Is(err, ErrTooLong) {
		t.Errorf("a message that does not fit: %v", err)
	}
}

// FuzzRead: whatever a guest writes gives messages that can be written again, or an error; never more than a line is
// held.
func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"kind\":\"stdout\",\"id\":1,\"data\":\"AAo=\"}\n{\"kind\":\"exit\",\"code\":-1}\n"))
	f.Add([]byte("\n\n{\"kind\":\"hello\"}"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := NewReader(bytes.NewReader(wire))
		for {
			m, err := r.Read()
			if err != nil {
				return
			}
			if len(m.Data) > MaxLine {
				t.Fatalf("%d bytes of data", len(m.Data))
			}
			var again bytes.Buffer
			if err := Write(&again, m); err != nil && !errors.Is(err, ErrTooLong) {
				t.Fatal(err)
			} else if err != nil {
				continue // escapes may make a line longer
			}
			back, err := NewReader(&again).Read()
			if err != nil || back.Kind != m.Kind || back.ID != m.ID || !bytes.Equal(back.Data, m.Data) {
				t.Fatalf("%v became %v: %v", m, back, err)
			}
		}
	})
}
