package redirect

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// seen is how many frames the link itself has carried to the bottle.
func (s *fastStage) seen() uint64 {
	s.t.Helper()
	dev, err := netlink.LinkByName(s.l.Name)
	must(s.t, err)
	return dev.Attrs().Statistics.TxPackets
}

// TestFastLaneStraightIn has answers go into the bottle's namespace past the link, where nothing queues before that, and by the
// link where something does. They are counted the same.
func TestFastLaneStraightIn(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			for _, queued := range []bool{false, true} {
				t.Run(fmt.Sprintf("queued %t", queued), func(t *testing.T) {
					s := laneStage(t, mode)
					dev, err := netlink.LinkByName(s.l.Name)
					must(t, err)
					if queued {
						must(t, netlink.QdiscAdd(&netlink.GenericQdisc{QdiscType: "pfifo",
							QdiscAttrs: netlink.QdiscAttrs{LinkIndex: dev.Attrs().Index, Parent: netlink.HANDLE_ROOT}}))
						must(t, s.r.repair())
					}
					c, err := s.call(goodName)
					must(t, err)
					s.inLane(1)
					before, seen := counters(t, s.r, s.l), s.seen()
					big := strings.Repeat("0123456789abcdef", 1<<12)
					must(t, echoed(c, big))
					d := difference(counters(t, s.r, s.l), before)
					if d.TxPackets == 0 || d.TxBytes < uint64(len(big)) {
						t.Errorf("counted %+v", d)
					}
					if through := s.seen() - seen; (through != 0) != queued {
						t.Errorf("%d frames went through the link, of %d", through, d.TxPackets)
					}
					flows, err := s.r.FastFlows(s.l.Bottle)
					if err != nil || len(flows) != 1 || flows[0].DownBytes < uint64(len(big)) {
						t.Errorf("flows are %+v, %v", flows, err)
					}
				})
			}
		})
	}
}
