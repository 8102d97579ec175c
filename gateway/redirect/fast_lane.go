package redirect

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// conntrackFunctions are the C functions that ask connection tracking.
var conntrackFunctions = [...]string{"read_translation", "release_translation", "open_lane"}

// withoutConntrack puts "there is nothing" in place of what the programs ask
// connection tracking, for kernels that cannot be asked. Then no flow is ever
// redirected; all are forwarded.
func withoutConntrack(spec *ebpf.CollectionSpec) {
	for _, p := range spec.Programs {
		for _, name := range conntrackFunctions {
			begin := slices.IndexFunc(p.Instructions, func(i asm.Instruction) bool { return i.Symbol() == name })
			if begin < 0 {
				continue
			}
			end := begin + 1
			for end < len(p.Instructions) && p.Instructions[end].Symbol() == "" {
				end++
			}
			nothing := asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}
			nothing[0].Metadata = p.Instructions[begin].Metadata
			p.Instructions = slices.Replace(p.Instructions, begin, end, nothing...)
		}
	}
}

// ctGetStatsCPU is IPCTNL_MSG_CT_GET_STATS_CPU (linux/netfilter/nfnetlink_conntrack.h).
const ctGetStatsCPU = 4

// wakeConntrack has the kernel load the module that connection tracking is in:
// the programs' functions are looked for there. Without it they are not found,
// which is no error.
func wakeConntrack() {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|ctGetStatsCPU, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET})
	_, _ = req.Execute(unix.NETLINK_NETFILTER, 0)
}

// FastLane says in words why packets of fast-path flows are forwarded by the
// stack, "" if those of verified flows are redirected past it.
func (r *Redirect) FastLane() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.noLane
}

// ensureLane tells the programs where to redirect flows, or that they must not,
// and reports whether that has changed. The program at the uplink stays while
// there is no reason to redirect: it takes only what flows were redirected for.
func (r *Redirect) ensureLane() (changed bool, err error) {
	want, reason, err := r.findLane()
	if err != nil {
		reason, want = err.Error(), gatewayLane{}
	}
	if r.noLane != reason {
		r.noLane = reason
		if reason != "" && r.fast.obstacle == "" {
			r.options.Log.Info("fast-path flows are forwarded, not redirected", "reason", reason)
		}
	}
	var now gatewayLane
	if err := r.objects.Lanes.Lookup(uint32(0), &now); err != nil {
		return false, fmt.Errorf("read lane: %w", err)
	}
	want.Generation = now.Generation
	if now == want && want.Generation != 0 {
		return false, nil
	}
	if want.Generation++; want.Generation == 0 {
		want.Generation = 1
	}
	if err := r.objects.Lanes.Put(uint32(0), want); err != nil {
		return false, fmt.Errorf("write lane: %w", err)
	}
	return true, nil
}

// findLane guards the uplink, and returns what flows may be redirected to, or
// why none may.
func (r *Redirect) findLane() (lane gatewayLane, reason string, err error) {
	if r.laneless {
		return lane, r.noLane, nil
	}
	if r.fast.obstacle != "" {
		return lane, r.fast.obstacle, nil
	}
	dev, err := findLink(r.options.Uplink)
	if err != nil || dev == nil {
		return lane, "there is no interface " + r.options.Uplink, err
	}
	if dev.Attrs().EncapType != "ether" {
		return lane, "uplink " + r.options.Uplink + " is no Ethernet", nil
	}
	index := dev.Attrs().Index
	if err := r.forgetUplinks(index); err != nil {
		return lane, "", err
	}
	attached, err := r.uplink.update(index)
	if err == nil && !attached {
		if err = r.uplink.attach(index); err == nil {
			attached, err = r.uplink.attached(index)
		}
	}
	if err != nil || !attached {
		return lane, "the program is not the first at uplink " + r.options.Uplink, err
	}
	lane.Uplink = uint32(index)
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(dev, netlink.FAMILY_V4) })
	if err != nil {
		return gatewayLane{}, "", fmt.Errorf("list addresses of %s: %w", r.options.Uplink, err)
	}
	for i, a := range addrs {
		if b := a.IP.To4(); b != nil && i < len(lane.Addrs) {
			lane.Addrs[i] = networkOrder32(netip.AddrFrom4([4]byte(b)))
		}
	}
	lane.Routes, err = digestRoutes()
	return lane, "", err
}

// digestRoutes is a number that changes with the routes and rules: every flow
// then asks again for its next hop.
func digestRoutes() (uint64, error) {
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, all, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	lines := make([]string, 0, len(routes))
	for _, r := range routes {
		if r.Type == unix.RTN_UNICAST {
			lines = append(lines, fmt.Sprint(r.Table, r.Dst, r.Gw, r.LinkIndex, r.Priority, r.MultiPath))
		}
	}
	slices.Sort(lines)
	sum := fnv.New64a()
	for _, l := range lines {
		fmt.Fprintln(sum, l)
	}
	return sum.Sum64(), nil
}

// forgetUplinks unpins the links of interfaces that are the uplink no more.
func (r *Redirect) forgetUplinks(but int) error {
	indices, err := pinnedUplinks(r.dir)
	if err != nil {
		return err
	}
	for _, index := range indices {
		if index == but {
			continue
		}
		if err := r.uplink.detach(index); err != nil {
			return err
		}
	}
	return nil
}

// pinnedUplinks returns the interfaces that the program at the uplink is pinned
// for.
func pinnedUplinks(dir *pinDir) (indices []int, err error) {
	entries, err := os.ReadDir(dir.join(linksDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read link directory: %w", err)
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), uplinkPin+"_")
		if !ok {
			continue
		}
		if index, err := strconv.Atoi(number); err == nil {
			indices = append(indices, index)
		}
	}
	return indices, nil
}

// releaseUplinks takes the program off the uplink.
func (u *uninstaller) releaseUplinks(dir *pinDir, o *gatewayObjects) error {
	indices, err := pinnedUplinks(dir)
	if err != nil {
		return err
	}
	var lane gatewayLane
	if err := o.Lanes.Lookup(uint32(0), &lane); err == nil && lane.Uplink != 0 {
		indices = append(indices, int(lane.Uplink))
	}
	for _, index := range indices {
		clsact, tcx := &clsactHooks{points: onUplink(o)}, &tcxHooks{dir: dir, points: onUplink(o)}
		if err := errors.Join(clsact.detach(index), tcx.detach(index)); err != nil {
			return err
		}
	}
	if len(indices) > 0 {
		u.note("program on uplink %s", u.options.Uplink)
	}
	return nil
}
