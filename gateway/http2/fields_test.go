package http2

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// TestEncoder makes heads and has another implementation read them, with a table that it may not use.
func TestEncoder(t *testing.T) {
	s := new(Server)
	s.once.Do(s.start)
	var made []hpack.HeaderField
	d := hpack.NewDecoder(headerTable, func(f hpack.HeaderField) { made = append(made, f) })
	e := encoder{pool: &s.writes}
	read := func(what string) {
		t.Helper()
		p := e.frames(nil, 1, 0)
		made = nil
		for len(p) > 0 {
			f := parseFrame(p)
			if _, err := d.Write(p[frameHead : frameHead+f.length]); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			p = p[frameHead+f.length:]
			if f.has(flagEndHeaders) != (len(p) == 0) {
				t.Fatalf("%s: the head ends where its frames do not", what)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if e.lent != nil {
			t.Errorf("%s: a buffer is kept", what)
		}
	}
	for status := 100; status < 1000; status++ {
		e.head(status, nil, nil, "today")
		read("status")
		if made[0].Name != ":status" || made[0].Value != strconv.Itoa(status) {
			t.Errorf("status %d became %v", status, made[0])
		}
		if dated := len(made) > 1 && made[1] == (hpack.HeaderField{Name: "date", Value: "today"}); dated != (status >= 200) {
			t.Errorf("status %d came with %v", status, made)
		}
	}
	for name := range staticNames {
		e.begin()
		e.field(nameForm(name), "x")
		read(name)
		if len(made) != 1 || made[0].Name != name || made[0].Value != "x" {
			t.Errorf("%s became %v", name, made)
		}
	}
	for _, size := range []int{0, 1, 126, 127, 128, 254, 255, 256, 4096, 1<<14 - 1, 1 << 14, 3 << 14} {
		name := "X-" + strings.Repeat("n", size)
		value := strings.Repeat("v", size)
		e.head(200, http.Header{name: {value, "another"}, "Connection": {"close"}, "Bad name": {"x"}, "Bad-Value": {"\n"}}, nil, "today")
		read("a field")
		want := []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: strings.ToLower(name), Value: value},
			{Name: strings.ToLower(name), Value: "another"}, {Name: "date", Value: "today"}}
		if len(made) != len(want) {
			t.Fatalf("%d bytes became %d fields", size, len(made))
		}
		for i := range want {
			if made[i] != want[i] {
				t.Errorf("field %d of %d bytes came back as %d and %d bytes", i, size, len(made[i].Name), len(made[i].Value))
			}
		}
	}
	if e.trailers(http.Header{"X": {"no trailer"}}, nil) || e.lent != nil {
		t.Error("trailers were made of nothing")
	}
}
