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

// slowly returns the text of what was written, where each of its bytes was, what stood there as an escape, and an escape at the
// end that is cut.
func slowly(how escapes, written []byte) (text []byte, origins []int64, escaped [256]bool, rest []byte) {
	v := view{escapes: how}
	for i := 0; i < len(written); {
		c, times, n := written[i], 1, 1
		if v.special(written[i:i+1]) == 0 {
			if c, times, n = v.unescape(written[i:]); n == 0 {
				return text, origins, escaped, written[i:]
			}
			escaped[c] = true
		}
		for j := range times {
			text, origins = append(text, c), append(origins, int64(i+j))
		}
		i += n
	}
	return text, origins, escaped, nil
}

// viewTexts have escapes near each other and far away, of every length.
func viewTexts() []string {
	all := []string{`{"a":"\\\\u0041\\n"}`, `a=%41&b=%`, strings.Repeat(`\`, 500), strings.Repeat(`\n`, 300)}
	for gap := range 70 {
		var b strings.Builder
		for i, e := range []string{`\n`, `\\`, `\"`, `\u0041`, `\d`, `\\\\n`, `\u00e9`, `\t`, `\n`, `\\\u0042`, `\ud83d`, `\uzzzz`, strings.Repeat(`\`, 19), `\/`, `\b`} {
			b.WriteString(e + strings.Repeat("x", (gap*(i+1)+i)%(gap+1)))
		}
		all = append(all, strings.Repeat(b.String(), 3)+strings.Repeat("y", 200))
	}
	return all
}

// eachUndo calls f for each way to undo escapes that this processor has.
func eachUndo(f func()) {
	f()
	if hasUndo64 {
		hasUndo64 = false
		defer func() { hasUndo64 = true }()
		f()
	}
}

// checkView compares the text of what was written, where it was, and what it tells, with what is found byte by byte, whatever the
// pieces and the way.
func checkView(t *testing.T, how escapes, written []byte, size int) {
	t.Helper()
	telling := &[256]bool{'\n': true, '/': true, '\\': len(written)%2 == 0, 0xff: true, 'A': true, ' ': true}
	want, origins, escaped, rest := slowly(how, written)
	eachUndo(func() {
		checkOneView(t, &view{escapes: how, telling: telling}, written, size, want, origins, escaped, rest)
	})
}

func checkOneView(t *testing.T, v *view, written []byte, size int, want []byte, origins []int64, escaped [256]bool, rest []byte) {
	t.Helper()
	var got []byte
	for rest := written; len(rest) > 0; {
		n := min(size, len(rest))
		piece := v.decode(rest[:n])
		from := len(got)
		got = append(got, piece...)
		for i := from; i < min(len(got), len(origins)); i++ {
			if at := v.origin(int64(i)); at != origins[i] {
				t.Fatalf("%q in pieces of %d: byte %d of the text was at %d, want %d", written, size, i, at, origins[i])
			}
		}
		rest = rest[n:]
	}
	if string(got) != string(want) || string(v.carry) != string(rest) {
		t.Fatalf("%q in pieces of %d: %q, carried %q; want %q, %q", written, size, got, v.carry, want, rest)
	}
	wanted := false
	for c, tells := range v.telling {
		wanted = wanted || tells && escaped[c]
	}
	if size >= len(written) && len(rest) == 0 && v.undone != wanted {
		t.Fatalf("%q: told %v, want %v", written, v.undone, wanted)
	}
}

func TestViewOfLongTexts(t *testing.T) {
	for _, text := range viewTexts() {
		for _, size := range []int{1, 7, 190, 193, 300, 1 << 20} {
			checkView(t, backslashes, []byte(text), size)
		}
	}
}

// TestViewTells makes sure that an escape for a byte that matters is told, and no other, wherever it is.
func TestViewTells(t *testing.T) {
	telling := [256]bool{'"': true, 'A': true}
	for _, c := range []struct {
		escape string
		want   bool
	}{{`\n`, false}, {`\"`, true}, {`\u0041`, true}, {`\u0042`, false}, {`\\"`, true}, {`\t\n\/`, false}} {
		for at := range 300 {
			eachUndo(func() {
				v := view{escapes: backslashes, telling: &telling}
				v.decode([]byte(strings.Repeat(`\n`, at/20) + strings.Repeat("x", at) + c.escape + strings.Repeat("x", 300-at)))
				if v.undone != c.want {
					t.Fatalf("%q at %d: %v", c.escape, at, v.undone)
				}
			})
		}
	}
}

// FuzzView makes sure that the text does not depend on how what was written is cut, nor on how it is undone.
func FuzzView(f *testing.F) {
	for _, text := range viewTexts() {
		f.Add([]byte(text), 3, false)
		f.Add([]byte(text), 1000, true)
	}
	f.Fuzz(func(t *testing.T, written []byte, size int, form bool) {
		how := backslashes
		if form {
			how = percents
		}
		checkView(t, how, written, 1+int(uint(size)%1024))
	})
}
