package demo

import (
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"gatewayd/lab"
)

func good() Outcome {
	o := Outcome{Title: "good", Tried: "a", OK: true}
	o.fact(true, "fine")
	return o
}

func bad() Outcome {
	o := Outcome{Title: "bad", Tried: "b", OK: true}
	o.fact(true, "fine")
	o.fact(false, "wrong %d", 7)
	return o
}

func TestScreenSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name     string
		outcomes []Outcome
		left     []string
		want     []string
		wantNot  string
	}{
		{"well", []Outcome{good(), good()}, nil, []string{"✓ good", "2 of 2 as expected", "nothing left behind"}, "NOT AS EXPECTED"},
		{"one wrong", []Outcome{good(), bad()}, nil, []string{"✗ bad", "NOT AS EXPECTED: wrong 7", "1 of 2 as expected"}, "\x1b["},
		{"left", []Outcome{good()}, []string{"/run/netns/x"}, []string{"left behind: /run/netns/x"}, "nothing left"},
	} {
		var out strings.Builder
		s := newScreen(Options{Out: &out})
		for _, o := range c.outcomes {
			s.show(o)
		}
		if err := s.end(c.left); err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: no %q in:\n%s", c.name, w, out.String())
			}
		}
		if strings.Contains(out.String(), c.wantNot) {
			t.Errorf("%s: %q in:\n%s", c.name, c.wantNot, out.String())
		}
	}
}

func TestReportAsJSON(t *testing.T) {
	for _, c := range []struct {
		outcomes []Outcome
		left     []string
		ok       bool
	}{
		{[]Outcome{good()}, nil, true},
		{[]Outcome{good(), bad()}, nil, false},
		{[]Outcome{good()}, []string{"x"}, false},
	} {
		var out strings.Builder
		s := newScreen(Options{Out: &out, JSON: true, Colour: true})
		s.begin()
		s.built(&scene{bottle: &lab.Bottle{}})
		for _, o := range c.outcomes {
			s.show(o)
		}
		if err := s.end(c.left); err != nil {
			t.Fatal(err)
		}
		var r report
		if err := json.Unmarshal([]byte(out.String()), &r); err != nil || r.OK != c.ok || len(r.Outcomes) != len(c.outcomes) || len(r.LeftBehind) != len(c.left) {
			t.Errorf("%v: %+v in %s", err, r, out.String())
		}
	}
}

func TestInventoryBeyond(t *testing.T) {
	before := inventory{"a": true, "b": true}
	after := inventory{"b": true, "d": true, "c": true}
	if got := after.beyond(before); !slices.Equal(got, []string{"c", "d"}) {
		t.Errorf("%q", got)
	}
}

func TestUnexpectedNamesWhatIsLeft(t *testing.T) {
	var err error = &Unexpected{Outcomes: 2, LeftBehind: []string{"/run/netns/x"}}
	var u *Unexpected
	if !errors.As(err, &u) || !strings.Contains(err.Error(), "2 outcomes") || !strings.Contains(err.Error(), "/run/netns/x") {
		t.Errorf("%v", err)
	}
}

func TestClientRejectsArguments(t *testing.T) {
	for _, args := range [][]string{{}, {"a", "b"}, {"-nosuch", "x"}} {
		if code := Client(args, new(strings.Builder)); code != 2 {
			t.Errorf("%q: exit code %d, want 2", args, code)
		}
	}
}

func TestClientTellsRefusedFromAnswered(t *testing.T) {
	closed, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.LocalAddr().String()
	closed.Close()
	ask := func(addr string) (seen Seen) {
		t.Helper()
		var out strings.Builder
		if code := Client([]string{"-udp", addr}, &out); code != 0 {
			t.Fatalf("exit code %d", code)
		}
		if err := json.Unmarshal([]byte(out.String()), &seen); err != nil {
			t.Fatal(err)
		}
		return seen
	}
	if seen := ask(address); !seen.Refused || seen.Error != "" {
		t.Errorf("a closed port: %+v", seen)
	}
	open, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	go func() {
		buf := make([]byte, 2048)
		if n, from, err := open.ReadFrom(buf); err == nil && n == 1200 {
			_, _ = open.WriteTo([]byte("hi"), from) // the test sees that nothing came
		}
	}()
	if seen := ask(open.LocalAddr().String()); seen.Refused || seen.Body != "6869" {
		t.Errorf("an open port: %+v", seen)
	}
}
