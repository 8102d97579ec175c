package redirect

import (
	"io"
	"net/netip"
	"testing"
	"time"
)

// TestTCPFlowReachesTheListener is the datapath in one line: a connection to an
// address that nobody has is answered by the gateway, which sees that address.
func TestTCPFlowReachesTheListener(t *testing.T) {
	for _, mode := range []AttachMode{AttachTCX, AttachClsact} {
		t.Run(string(mode), func(t *testing.T) {
			s := newStage(t, func(o *Options) { o.Attach = mode })
			l := s.link(1)
			s.listeners(l)
			status := s.set(l)
			if got := status.Links[0]; got.Attached != mode || !got.Up || got.Ifindex == 0 {
				t.Fatalf("status is %+v", got)
			}
			g := s.enter(l)
			for _, tc := range []struct {
				to   string
				want string
			}{
				{"198.19.77.9:443", "15001 198.19.77.9:443\n"},
				{"198.19.77.9:53", "53 198.19.77.9:53\n"},
				{"10.1.2.3:22", "15001 10.1.2.3:22\n"},
				// The bottle calls the listener itself: visible as such.
				{"198.18.1.1:15001", "15001 198.18.1.1:15001\n"},
				{"198.18.1.1:80", "15001 198.18.1.1:80\n"},
			} {
				if got := g.ask(netip.MustParseAddrPort(tc.to)); got != tc.want {
					t.Errorf("%s answered %q, want %q", tc.to, got, tc.want)
				}
			}
			c, err := s.r.Counters(l.Bottle)
			must(t, err)
			if unexpected(c) != 0 || c.Assigned < 15 || c.ARP == 0 || c.TxPackets == 0 {
				t.Errorf("counters are %+v", c)
			}
		})
	}
}

// ask connects, and returns all that the listener sent.
func (g *guest) ask(to netip.AddrPort) string {
	g.t.Helper()
	conn, err := g.dial(to, patience)
	must(g.t, err)
	defer conn.Close()
	must(g.t, conn.SetDeadline(time.Now().Add(patience)))
	b, err := io.ReadAll(conn)
	must(g.t, err)
	return string(b)
}
