package redirect

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"gatewayd/lab/privileged"
)

var bothHooks = []AttachMode{AttachTCX, AttachClsact}

// TestFastPathCarriesTLS is the fast path in one line: a TLS connection that no
// socket of the host has anything to do with.
func TestFastPathCarriesTLS(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := newFastStage(t, mode)
			s.pin(goodName)
			before := counters(t, s.r, s.l)
			c, err := s.call(goodName)
			if err != nil {
				t.Fatalf("handshake: %v; %v; %+v", err, s.events(), difference(counters(t, s.r, s.l), before))
			}
			must(t, echoed(c, "hello"))
			big := strings.Repeat("0123456789abcdef", 1<<14)
			go io.WriteString(c, big)
			got, err := io.ReadAll(io.LimitReader(c, int64(len(big))))
			if err != nil || !bytes.Equal(got, []byte(big)) {
				t.Errorf("%d bytes came back, %v", len(got), err)
			}
			flows, err := s.r.FastFlows(s.l.Bottle)
			must(t, err)
			if len(flows) != 1 || flows[0].Name != goodName || !flows[0].Verified || flows[0].UpBytes < uint64(len(big)) || flows[0].DownBytes < uint64(len(big)) {
				t.Errorf("flows are %+v", flows)
			}
			after := difference(counters(t, s.r, s.l), before)
			if after.Assigned != 0 || after.Forwarded == 0 || unexpected(after) != 0 {
				t.Errorf("counted %+v", after)
			}
			if n := hellosKept(t, s.r); n != 0 {
				t.Errorf("%d hellos are still kept", n)
			}
		})
	}
}

// TestFastPathOverANarrowUplink has an uplink that takes less than the bottle's
// link, and a hello that is longer than either.
func TestFastPathOverANarrowUplink(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	up, err := netlink.LinkByName("up0")
	must(t, err)
	must(t, netlink.LinkSetMTU(up, 1280))
	s.pin(goodName)
	for range 3 {
		c, err := s.call(goodName)
		must(t, err)
		must(t, echoed(c, strings.Repeat("narrow", 1000)))
	}
	if e := s.events(); len(e) > 0 {
		t.Errorf("events %+v", e)
	}
}

// TestFastPathChoosesPorts has a bottle call from ports that flows of the fast path leave by, one after the other. They leave by
// others of these, which nobody can tell before: a port that a bottle could choose might be one by which it takes what is meant for
// somebody else (CVE-2021-3773), and no connection of the host's own has one.
func TestFastPathChoosesPorts(t *testing.T) {
	const calls, first = 32, 20000
	s := newFastStage(t, AttachAuto)
	s.pin(goodName)
	for i := range uint16(calls) {
		raw, err := s.g.dialFrom(first+i, netip.AddrPortFrom(origin, 443), patience)
		must(t, err)
		t.Cleanup(func() { raw.Close() })
		must(t, tls.Client(raw, &tls.Config{ServerName: goodName, InsecureSkipVerify: true}).Handshake())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, next := 0, 0
	for i, c := range s.callers {
		if c.Port() < translatePortMin || c.Port() > translatePortMax {
			t.Errorf("call %d left by port %d", i, c.Port())
		}
		if c.Port() == first+uint16(i) {
			kept++
		}
		if i > 0 && c.Port() == s.callers[i-1].Port()+1 {
			next++
		}
	}
	if len(s.callers) != calls || kept > 1 || next > 1 { // once by chance, perhaps
		t.Errorf("of %d calls %d left by the bottle's own port, and %d by the port behind the last one's: %v", calls, kept, next, s.callers)
	}
}

func hellosKept(t testing.TB, r *Redirect) (n int) {
	t.Helper()
	must(t, r.fast.eachFlow(func(_ gatewayFlowKey, f *gatewayFlow) {
		if f.Slot != 0 {
			n++
		}
	}))
	return n
}

// conntrack returns the table of tracked connections as text.
func conntrack(t testing.TB) []byte {
	t.Helper()
	privileged.Require(t, privileged.Program("conntrack"))
	out, err := exec.Command("conntrack", "-L").Output()
	must(t, err)
	return out
}
