package redirect

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// goesStraightIn tells whether frames to the bottle may be put into its namespace past the link: the far end is a veth's in
// another namespace (bpf_redirect_peer in net/core/filter.c), and nobody has frames to it queued on the way, as to shape them.
func goesStraightIn(dev netlink.Link, l Link) (bool, error) {
	if l.Kind != Netns && l.Kind != Adopted || dev.Type() != "veth" {
		return false, nil
	}
	queues, err := dump(func() ([]netlink.Qdisc, error) { return netlink.QdiscList(dev) })
	if err != nil {
		return false, fmt.Errorf("list queues of %s: %w", dev.Attrs().Name, err)
	}
	for _, q := range queues {
		if q.Attrs().Parent == netlink.HANDLE_ROOT && q.Type() != "noqueue" {
			return false, nil
		}
	}
	return true, nil
}
