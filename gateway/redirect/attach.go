package redirect

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// hooks puts programs on a link, and tells whether they are there. An
// implementation keeps no state: what counts is what the kernel says.
type hooks interface {
	mode() AttachMode
	// attached reads back whether exactly the given programs run on the link
	// and nothing runs before the one at ingress.
	attached(ifindex int) (bool, error)
	// attach puts the programs there, replacing older ones atomically where
	// that can be done. The link should be down: it need not be guarded
	// throughout.
	attach(ifindex int) error
	// update replaces older programs of this instance atomically, without a
	// moment in which none runs. It reports whether the link is attached now.
	update(ifindex int) (bool, error)
	// detach removes the programs.
	detach(ifindex int) error
}

// loopbackIndex is the ifindex of lo in every network namespace (net_init in
// drivers/net/loopback.c).
const loopbackIndex = 1

// hookPoint is one program's place on a link.
type hookPoint struct {
	pin    string // of a tcx link, before "_" and the ifindex
	name   string // of a clsact filter
	egress bool
	prog   *ebpf.Program
	id     ebpf.ProgramID // prog's, see pickHooks
}

// onCapture are the places of a capture link, and onUplink those of the uplink.
func onCapture(o *gatewayObjects) []hookPoint {
	return []hookPoint{
		{pin: "ingress", name: gatewayProgCaptureIngress, prog: o.CaptureIngress},
		{pin: "egress", name: gatewayProgCaptureEgress, egress: true, prog: o.CaptureEgress},
	}
}

func onUplink(o *gatewayObjects) []hookPoint {
	return []hookPoint{{pin: uplinkPin, name: gatewayProgUplinkIngress, prog: o.UplinkIngress}}
}

// uplinkPin is how the names of pinned links of uplinks begin.
const uplinkPin = "uplink"

// pickHooks resolves AttachAuto by asking the kernel for tcx. It asks for the programs' numbers, which stay while they are held: that takes
// longer than anything else that is asked of a link at each look.
func pickHooks(mode AttachMode, dir *pinDir, o *gatewayObjects, points []hookPoint) (hooks, error) {
	for i := range points {
		var err error
		if points[i].id, err = programID(points[i].prog); err != nil {
			return nil, err
		}
	}
	if mode == AttachAuto {
		tcx, err := haveTCX(o.CaptureEgress)
		if err != nil {
			return nil, err
		}
		mode = AttachClsact
		if tcx {
			mode = AttachTCX
		}
	}
	if mode == AttachTCX {
		return &tcxHooks{dir: dir, points: points}, nil
	}
	return &clsactHooks{points: points}, nil
}

// haveTCX tries tcx at the egress of lo with a program that only counts. A query
// would not tell: kernels without tcx call it an invalid argument.
func haveTCX(observer *ebpf.Program) (bool, error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: loopbackIndex, Program: observer, Attach: ebpf.AttachTCXEgress})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("try tcx on lo: %w", err)
	}
	return true, l.Close()
}

func programID(p *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("examine program: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("examine program: the kernel gives no id")
	}
	return id, nil
}
