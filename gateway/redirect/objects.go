package redirect

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// loadObjects loads the programs and maps, or adopts those that are pinned.
// Pinned maps are kept if their layout fits, pinned programs if they are the
// very same; anything new is pinned before it returns. Maps of another layout that
// flows depend on are an error, unless replace. The caller closes.
//
// noLane says why the programs cannot redirect flows on this kernel, "" if they
// can.
func loadObjects(dir *pinDir, options Options) (o *gatewayObjects, noLane string, err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, "", fmt.Errorf("raise memory lock limit: %w", err)
	}
	spec, err := loadGateway()
	if err != nil {
		return nil, "", fmt.Errorf("read embedded object: %w", err)
	}
	maps, err := dir.pinnedMaps(spec, options.replace)
	if err != nil {
		return nil, "", err
	}
	defer closeMaps(maps) // the collection has clones of those that it uses
	o, noLane, err = loadForKernel(spec, maps, options.Forward)
	if err != nil {
		return nil, "", fmt.Errorf("load programs: %w", err)
	}
	if maps[gatewayMapSlots] == nil {
		if err := fillSlots(o); err != nil {
			return nil, "", errors.Join(err, o.Close())
		}
	}
	if err := adoptOrPin(dir, o, len(maps) == len(spec.Maps)); err != nil {
		return nil, "", errors.Join(err, o.Close())
	}
	return o, noLane, nil
}

// loadUnpinned loads programs and maps of their own, for a look at them. The
// caller closes.
func loadUnpinned() (o *gatewayObjects, noLane string, err error) {
	programs, err := loadGateway()
	if err != nil {
		return nil, "", fmt.Errorf("read embedded object: %w", err)
	}
	o, noLane, err = loadForKernel(programs, nil, false)
	if err != nil {
		return nil, "", fmt.Errorf("load programs: %w", err)
	}
	return o, noLane, nil
}

// loadForKernel loads the programs whole, or without what they ask connection
// tracking where the kernel refuses that.
func loadForKernel(spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map, forward bool) (o *gatewayObjects, noLane string, err error) {
	o = new(gatewayObjects)
	options := &ebpf.CollectionOptions{MapReplacements: maps}
	var whole error
	if !forward {
		wakeConntrack()
		if whole = spec.Copy().LoadAndAssign(o, options); whole == nil {
			return o, "", nil
		}
	}
	withoutConntrack(spec)
	if err := spec.LoadAndAssign(o, options); err != nil {
		return nil, "", errors.Join(err, whole)
	}
	if forward {
		return o, "by configuration", nil
	}
	return o, "the kernel does not tell how it translates: " + whole.Error(), nil
}

// adoptOrPin goes for the pinned programs if the maps are the pinned ones, and
// pins the set anew if any part of it is new.
func adoptOrPin(dir *pinDir, o *gatewayObjects, mapsPinned bool) error {
	if mapsPinned {
		ingress, err1 := dir.adoptProgram(gatewayProgCaptureIngress, &o.CaptureIngress)
		egress, err2 := dir.adoptProgram(gatewayProgCaptureEgress, &o.CaptureEgress)
		guard, err3 := dir.adoptProgram(gatewayProgGuardListeners, &o.GuardListeners)
		collect, err4 := dir.adoptProgram(gatewayProgCollectFlows, &o.CollectFlows)
		uplink, err5 := dir.adoptProgram(gatewayProgUplinkIngress, &o.UplinkIngress)
		if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
			return err
		}
		if ingress && egress && guard && collect && uplink {
			return nil
		}
	}
	return dir.replaceObjects(o)
}

// claimNamespace records the network namespace in the pinned state. State of
// another namespace is refused while anything of it is attached, and forgotten
// otherwise.
func claimNamespace(dir *pinDir, o *gatewayObjects) error {
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	var found gatewayInstance
	if err := o.Instances.Lookup(uint32(0), &found); err != nil {
		return fmt.Errorf("read instance: %w", err)
	}
	if found.NetnsCookie == cookie {
		return nil
	}
	if found.NetnsCookie != 0 {
		if err := forgetNamespace(dir, o); err != nil {
			return err
		}
	}
	found.NetnsCookie = cookie
	if err := o.Instances.Put(uint32(0), found); err != nil {
		return fmt.Errorf("write instance: %w", err)
	}
	return nil
}

func forgetNamespace(dir *pinDir, o *gatewayObjects) error {
	live, err := dir.liveLinks()
	if err != nil {
		return err
	}
	if len(live) > 0 {
		return &StateError{Object: dir.path,
			Cause:  "it belongs to another network namespace, where " + strings.Join(live, ", ") + " are attached",
			Remedy: "give each namespace its own instance name and bpffs directory"}
	}
	if err := os.RemoveAll(dir.join(linksDir)); err != nil {
		return fmt.Errorf("remove stale links: %w", err)
	}
	if err := os.Mkdir(dir.join(linksDir), 0o700); err != nil {
		return fmt.Errorf("create link directory: %w", err)
	}
	return errors.Join(emptyMap[gatewayBottle](o.Bottles), emptyMap[[]gatewayLinkStats](o.Stats),
		clearMap[gatewayFlowKey, gatewayFlow](o.Flows), emptyMap[gatewayUsage](o.Usages), fillSlots(o),
		clearMap[uint32, gatewayName](o.Names),
		clearMap[gatewayReverseKey, gatewayReverse](o.Reverses), o.Lanes.Put(uint32(0), gatewayLane{}),
		clearMap[gatewayToldKey, uint64](o.Told))
}

// fillSlots makes the buffers free that no flow has, and no others.
func fillSlots(o *gatewayObjects) error {
	var free gatewaySlotSet
	for i := range free.Free {
		free.Free[i] = ^uint64(0)
	}
	t := fastTable{objects: o}
	if err := t.eachFlow(func(_ gatewayFlowKey, f *gatewayFlow) {
		if i := int(f.Slot) - 1; i >= 0 && i < 64*len(free.Free) {
			free.Free[i/64] &^= 1 << (i % 64)
		}
	}); err != nil {
		return err
	}
	if err := o.Slots.Put(uint32(0), free); err != nil {
		return fmt.Errorf("write free buffers: %w", err)
	}
	return nil
}

// emptyMap deletes every entry of a map that is keyed by ifindex.
func emptyMap[V any](m *ebpf.Map) error {
	var keys []uint32
	var key uint32
	var value V
	for it := m.Iterate(); it.Next(&key, &value); {
		keys = append(keys, key)
	}
	for _, key := range keys {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete stale entry %d: %w", key, err)
		}
	}
	return nil
}

// netnsCookie returns the number that the kernel gave to the network namespace
// of the calling thread (SO_NETNS_COOKIE, Linux 5.14). It is never reused while
// the machine runs, as an inode number is.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read namespace cookie: %w", err)
	}
	return cookie, nil
}
