package pipelock

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestNestedJSON puts a token on a line of its own into JSON within JSON within JSON, where what ends the line is written
// with ever more backslashes.
func TestNestedJSON(t *testing.T) {
	s := formScanner(t).withoutTokens()
	for rule, token := range formTokens() {
		text := "first line\n" + token + "\nlast line \"quoted\"\t" + token + "\"\n"
		for depth := 1; depth <= 4; depth++ {
			b, err := json.Marshal(map[string]string{"arguments": text})
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
			for i, r := range []io.Reader{strings.NewReader(text), &oneByOne{text}} {
				_, err := io.ReadAll(s.Body(other, r))
				var leak *LeakError
				if !errors.As(err, &leak) || leak.Finding.Rule != rule {
					t.Errorf("%s, depth %d, reader %d: %v", rule, depth, i, err)
				}
			}
		}
	}
}

// oneByOne reads text byte by byte.
type oneByOne struct{ rest string }

func (o *oneByOne) Read(p []byte) (int, error) {
	if o.rest == "" || len(p) == 0 {
		return 0, io.EOF
	}
	p[0], o.rest = o.rest[0], o.rest[1:]
	return 1, nil
}

func TestView(t *testing.T) {
	for _, c := range []struct{ written, want string }{
		{`a\nb`, "a\nb"}, {`a\\nb`, "a\nb"}, {`a\\\\nb`, "a\nb"}, {`\"\\\"\\\\\\\"`, `"""`}, {`\u0041\\u0042\\\\u0043`, "ABC"},
		{`C:\\Users \d`, `C:\Users \d`}, {`\u00e9\u20ac`, "\xff\xff"}, {`\u00`, ""}, {`\u00g1`, `\u00g1`}, {`\`, ""},
		{strings.Repeat(`\`, 40) + "x", strings.Repeat(`\`, 33) + "x"}, {`\/`, "/"},
	} {
		for _, size := range []int{1, 2, 3, 100} {
			v := view{escapes: backslashes}
			got := ""
			for rest := c.written; rest != ""; {
				n := min(size, len(rest))
				got += string(v.decode([]byte(rest[:n])))
				rest = rest[n:]
				if len(v.carry) > longestRun+6 {
					t.Fatalf("%q: %d bytes are carried", c.written, len(v.carry))
				}
			}
			if got != c.want {
				t.Errorf("%q in pieces of %d is %q, want %q", c.written, size, got, c.want)
			}
		}
	}
	v := view{escapes: percents}
	if got := string(v.decode([]byte("a=%41+b&c=%zz%4"))); got != "a=A b\nc=%zz" || string(v.carry) != "%4" {
		t.Errorf("%q, carried %q", got, v.carry)
	}
}

// FuzzView makes sure that the text does not depend on how what was written is cut.
func FuzzView(f *testing.F) {
	f.Add([]byte(`{"a":"\\\\u0041\\n"}`), 3, false)
	f.Add([]byte(`a=%41&b=%`), 1, true)
	f.Fuzz(func(t *testing.T, written []byte, size int, form bool) {
		how := backslashes
		if form {
			how = percents
		}
		whole, cut := view{escapes: how}, view{escapes: how}
		want := string(whole.decode(written))
		size = 1 + int(uint(size)%64)
		var got []byte
		for rest := written; len(rest) > 0; {
			n := min(size, len(rest))
			got = append(got, cut.decode(rest[:n])...)
			rest = rest[n:]
			if at := cut.origin(int64(len(got))); at > int64(len(written)) {
				t.Fatalf("text of %d bytes ends at %d of %d", len(got), at, len(written))
			}
		}
		if string(got) != want || string(cut.carry) != string(whole.carry) {
			t.Fatalf("%q in pieces of %d: %q, carried %q; want %q, %q", written, size, got, cut.carry, want, whole.carry)
		}
	})
}
