package gateway

import (
	"encoding/base32"
	"fmt"
	"net/netip"
	"strings"
	"testing"

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
