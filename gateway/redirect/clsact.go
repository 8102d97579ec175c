package redirect

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The filters' place: the first priority there is, so that they run first.
const (
	filterPriority = 1
	filterHandle   = 1
)

// clsactHooks attaches direct-action filters to a clsact qdisc. They belong to
// the qdisc, and so outlive the process without a pin.
type clsactHooks struct {
	points []hookPoint
}

type clsactHook struct {
	parent uint32
	name   string
	prog   *ebpf.Program
	id     ebpf.ProgramID
}

func (h *clsactHooks) hooks() []clsactHook {
	all := make([]clsactHook, 0, len(h.points))
	for _, p := range h.points {
		parent := uint32(netlink.HANDLE_MIN_INGRESS)
		if p.egress {
			parent = netlink.HANDLE_MIN_EGRESS
		}
		all = append(all, clsactHook{parent, p.name, p.prog, p.id})
	}
	return all
}

func (h *clsactHooks) mode() AttachMode { return AttachClsact }

func (h *clsactHooks) attached(ifindex int) (bool, error) {
	for _, hook := range h.hooks() {
		ok, err := hook.attached(ifindex)
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (h *clsactHooks) attach(ifindex int) error {
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact qdisc: %w", err)
	}
	for _, hook := range h.hooks() {
		if err := netlink.FilterReplace(hook.filter(ifindex)); err != nil {
			return fmt.Errorf("replace filter %s: %w", hook.name, err)
		}
	}
	return nil
}

// update uses that the kernel replaces a filter of the same handle in place
// (cls_bpf_change in net/sched/cls_bpf.c).
func (h *clsactHooks) update(ifindex int) (bool, error) {
	for _, hook := range h.hooks() {
		found, err := hook.find(ifindex)
		if err != nil {
			return false, err
		}
		if found == nil {
			return false, nil
		}
		if hook.runs(found) {
			continue
		}
		if err := netlink.FilterReplace(hook.filter(ifindex)); err != nil {
			return false, fmt.Errorf("replace filter %s: %w", hook.name, err)
		}
	}
	return h.attached(ifindex)
}

func (h *clsactHooks) detach(ifindex int) error {
	for _, hook := range h.hooks() {
		found, err := hook.find(ifindex)
		if err != nil {
			return err
		}
		if found == nil {
			continue
		}
		if err := netlink.FilterDel(found); err != nil {
			return fmt.Errorf("delete filter %s: %w", hook.name, err)
		}
	}
	return nil
}

func (h clsactHook) filter(ifindex int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: ifindex, Parent: h.parent,
			Handle: filterHandle, Protocol: unix.ETH_P_ALL, Priority: filterPriority},
		Fd: h.prog.FD(), Name: h.name, DirectAction: true,
	}
}

// attached is true if our program is the filter at our place, in direct-action
// mode; there is no place before it.
func (h clsactHook) attached(ifindex int) (bool, error) {
	found, err := h.find(ifindex)
	if err != nil || found == nil {
		return false, err
	}
	return h.runs(found), nil
}

func (h clsactHook) runs(found *netlink.BpfFilter) bool {
	return found.DirectAction && found.Id == int(h.id)
}

// find returns the filter of our name at our place, or nil.
func (h clsactHook) find(ifindex int) (*netlink.BpfFilter, error) {
	dev, err := findLinkByIndex(ifindex)
	if err != nil || dev == nil {
		return nil, err
	}
	filters, err := dump(func() ([]netlink.Filter, error) { return netlink.FilterList(dev, h.parent) })
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	for _, f := range filters {
		bpf, ok := f.(*netlink.BpfFilter)
		if ok && bpf.Priority == filterPriority && bpf.Handle == filterHandle && bpf.Name == h.name {
			return bpf, nil
		}
	}
	return nil, nil
}
