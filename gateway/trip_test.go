package gateway

import (
	"crypto/tls"
	"encoding/base32"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/miekg/dns"

	"gatewayd/gateway/pipelock"
	"gatewayd/gateway/routes"
)

// lookUp asks the bottle's name server for the address of a name.
func (w *world) lookUp(t testing.TB, b Bottle, name string) *dns.Msg {
	t.Helper()
	w.sockets.mu.Lock()
	l := w.sockets.tcp[netip.AddrPortFrom(b.Link.Gateway, b.Link.DNSPort)]
	w.sockets.mu.Unlock()
	q := new(dns.Msg).SetQuestion(name+".", dns.TypeA)
	a, _, err := (&dns.Client{Net: "tcp", Timeout: testWait}).Exchange(q, l.Addr().String())
	if err != nil {
		t.Fatalf("look up %s: %v", name, err)
	}
	return a
}

// TestTripCountsMessages cuts a bottle off for what it says on connections that were opened long ago.
func TestTripCountsMessages(t *testing.T) {
	s := newEcho(t, nil)
	s.b.Formats, s.b.Trip = builtinSet(t), 3
	s.apply(t, s.b)
	leak := func(ws *websocket.Conn, n int) {
		if err := ws.Write(soon(t), websocket.MessageText, []byte("a key: "+formToken())); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.Read(soon(t)); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("message %d: %v", n, err)
		}
	}
	for n := range s.b.Trip {
		ws, _, err := s.dialWS(t, fmt.Sprintf("/ws%d", n), nil)
		if err != nil {
			t.Fatal(err)
		}
		read(t, ws)
		leak(ws, n)
	}
	s.records.wait(t, func(r Record) bool { return r.Type == RecordEvent && r.Reason == ReasonTripped && r.Count == 3 })
	if _, resp, err := s.dialWS(t, "/ws", nil); err == nil || resp == nil || resp.StatusCode != 403 {
		t.Errorf("a bottle that is cut off opens a connection: %v, %v", resp, err)
	}
}

// TestTripCutsOffWhatIsUnderWay cuts a bottle off while something goes on that was let go before: it ends, and its flow's record
// says why. The request whose leak did it is told what is wrong with it.
func TestTripCutsOffWhatIsUnderWay(t *testing.T) {
	var relayed uint16
	relay := func(t *testing.T, s *stage, _ chan string) underWay {
		s.names.set("pass.test", "127.0.0.1")
		c := tls.Client(s.sockets.call(t, s.b.Link, anywhere(relayed)), &tls.Config{ServerName: "pass.test", RootCAs: s.world.roots.pool()})
		t.Cleanup(func() { c.Close() })
		return underWay{
			piece: func() error {
				if _, err := io.WriteString(c, "piece"); err != nil {
					return err
				}
				_, err := io.ReadFull(c, make([]byte, len("piece")))
				return err
			},
			end: func() error { _, err := io.ReadAll(c); return err },
		}
	}
	for _, tt := range append(slices.Clip(thingsUnderWay), struct {
		name  string
		begin func(t *testing.T, s *stage, next chan string) underWay
	}{"relay", relay}) {
		t.Run(tt.name, func(t *testing.T) {
			next := make(chan string)
			s := newStage(t, nil, talkOrigin(next))
			s.b.Formats, s.b.Trip = builtinSet(t), 1
			relayed = tlsEcho(t, s.world, "pass.test")
			table, err := routes.NewTable(append(s.b.Table.Routes(), routes.Route{Host: "pass.test", Port: relayed, TLSPassthrough: true}))
			if err != nil {
				t.Fatal(err)
			}
			s.b.Table = table
			s.apply(t, s.b)
			u := tt.begin(t, s, next)
			if err := u.piece(); err != nil {
				t.Fatal(err)
			}
			resp, text := do(t, s.client(t, false), s.ask(t, "POST", "/v1/notes", strings.NewReader(formToken())))
			s.explained(t, resp, text, http.StatusForbidden, ReasonLeak)
			ended := make(chan error, 1)
			go func() { ended <- u.end() }()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("it looks whole although the bottle is cut off")
				}
			case <-time.After(testWait):
				t.Fatal("it goes on although the bottle is cut off")
			}
			s.records.wait(t, func(r Record) bool { return r.Type == RecordFlow && r.Reason == ReasonTripped })
		})
	}
}

// TestTripCountsNames cuts a bottle off for names under a wildcard that carry what must not leave. None is asked for, and no
// record has one.
func TestTripCountsNames(t *testing.T) {
	w := newWorld(t, nil)
	b := testBottle(t, routes.Route{Host: "*.wild.test", TLSPassthrough: true})
	b.CanaryTokens = []pipelock.Token{{Name: "listed", Value: longToken}}
	b.Formats = builtinSet(t)
	hidden := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(longToken)))
	leaks := []struct {
		rule, name string
		times      int // clients ask again; that is no other leak
	}{
		{"listed", inLabels(hidden, "wild.test"), 2},
		{"gitlab-pat", "gl" + "pat-1x2y3z4w5v6u7t8s9r0q.wild.test", 2},
		{"github-pat", strings.ToLower(formToken()) + ".wild.test", 1}, // its checksum is lost with its capitals
	}
	b.Trip = len(leaks)
	w.apply(t, b)
	ordinary := func() string {
		a := w.lookUp(t, b, "www.wild.test")
		for _, rr := range a.Answer {
			return rr.(*dns.A).A.String()
		}
		return dns.RcodeToString[a.Rcode]
	}
	if got := ordinary(); got != "SERVFAIL" { // nobody is there to be asked
		t.Errorf("an ordinary name is answered with %s", got)
	}
	for _, l := range leaks {
		for range l.times {
			if a := w.lookUp(t, b, l.name); a.Rcode != dns.RcodeRefused {
				t.Errorf("%s: answered with %s", l.rule, dns.RcodeToString[a.Rcode])
			}
		}
		r := w.records.wait(t, func(r Record) bool { return r.Type == RecordDNS && strings.HasPrefix(r.Finding, l.rule+" in name: ") })
		if r.Reason != ReasonLeak || r.Decision != routes.Deny || r.Host != "" || r.Method != "A" {
			t.Errorf("%s: record %+v", l.rule, r)
		}
		if all := strings.ToLower(asJSON(t, r)); strings.Contains(all, l.name[:14]) {
			t.Errorf("%s: the record shows it: %s", l.rule, all)
		}
	}
	w.records.wait(t, func(r Record) bool { return r.Type == RecordEvent && r.Reason == ReasonTripped && r.Count == 3 })
	if got := ordinary(); got != blockAddress.String() {
		t.Errorf("a name under the wildcard, once cut off, is answered with %s", got)
	}
	w.records.wait(t, func(r Record) bool {
		return r.Type == RecordDNS && r.Reason == ReasonTripped && r.Host == "www.wild.test"
	})
	if err := w.g.Release(b.Name); err != nil {
		t.Fatal(err)
	}
	if got := ordinary(); got != "SERVFAIL" {
		t.Errorf("let go on, an ordinary name is answered with %s", got)
	}
	if strings.Contains(w.log.String(), "glpat-1x2y") {
		t.Error("the log shows a token")
	}
}

// TestDeniedNamesAreNotRecorded: a name that no route allows leaves nowhere; what it carries goes into no record either.
func TestDeniedNamesAreNotRecorded(t *testing.T) {
	w := newWorld(t, nil)
	b := testBottle(t, routes.Route{Host: "exact.test"})
	b.Formats, b.Trip = builtinSet(t), 1
	w.apply(t, b)
	token := "gl" + "pat-1x2y3z4w5v6u7t8s9r0q"
	w.lookUp(t, b, token+".evil.test")
	r := w.records.wait(t, func(r Record) bool { return r.Type == RecordDNS })
	if r.Reason != "dns_denied" || strings.Contains(asJSON(t, r), token[6:14]) {
		t.Errorf("record %+v", r)
	}
	if i := w.g.Bottles(); i[0].CutOff {
		t.Error("what did not leave is counted")
	}
}
