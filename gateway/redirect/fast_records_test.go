package redirect

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestFastPathRecordsWhileNobodyLooks refuses a flow while there is no process. The next one tells whose it was.
func TestFastPathRecordsWhileNobodyLooks(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	s.pin(goodName)
	c := newRawClient(s)
	c.connect()
	s.unwatch()
	must(t, s.r.Close())
	c.data(0, clientHello(t, "evil.test"))
	eventually(t, "the reset", func() bool {
		return slices.ContainsFunc(s.leaks.frames(), func(f []byte) bool { return len(f) > 47 && f[23] == 6 && f[47]&flagRST != 0 })
	})
	s.open()
	s.set(s.l)
	s.watchEvents()
	eventually(t, "the record", func() bool {
		return slices.ContainsFunc(s.events(), func(e FastEvent) bool {
			return e.Refused && e.Reason == FastName && e.Flow.Bottle == s.l.Bottle && e.Flow.Src.Addr() == s.l.Guest
		})
	})
}

// TestFastPathRecordsOfALinkThatIsGone deletes the link of an open flow. Its record still names the bottle.
func TestFastPathRecordsOfALinkThatIsGone(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	s.pin(goodName)
	c, err := s.call(goodName)
	must(t, err)
	must(t, echoed(c, "before"))
	dev, err := netlink.LinkByName(s.l.Name)
	must(t, err)
	must(t, netlink.LinkDel(dev))
	must(t, s.r.repair())
	eventually(t, "the record", func() bool {
		must(t, s.r.CollectFast())
		return slices.ContainsFunc(s.events(), func(e FastEvent) bool { return e.Flow.Name == goodName && e.Flow.Bottle == s.l.Bottle })
	})
}
