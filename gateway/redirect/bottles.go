package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
)

// bottleTable is the datapath's table of bottles and their counters, keyed by
// ifindex.
type bottleTable struct {
	bottles *ebpf.Map
	stats   *ebpf.Map
}

// strangers is the key that counts what links without an entry send.
const strangers = 0

// entry builds what the datapath must know of a link. linkMAC is the host
// side's Ethernet address.
func entry(l Link, linkMAC net.HardwareAddr, open bool) (gatewayBottle, error) {
	if len(linkMAC) != 6 {
		return gatewayBottle{}, fmt.Errorf("hardware address %q: not an Ethernet interface", linkMAC)
	}
	e := gatewayBottle{
		Guest:         networkOrder32(l.Guest),
		Gateway:       networkOrder32(l.Gateway),
		InterceptPort: networkOrder16(l.InterceptPort),
		DnsPort:       networkOrder16(l.DNSPort),
		State:         uint8(gatewayBottleStateBOTTLE_SHUT),
	}
	if open {
		e.State = uint8(gatewayBottleStateBOTTLE_OPEN)
	}
	copy(e.GuestMac[:], l.MAC)
	copy(e.LinkMac[:], linkMAC)
	return e, nil
}

func networkOrder32(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func networkOrder16(p uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return binary.NativeEndian.Uint16(b[:])
}

// put writes the entry if it differs, counters first, and reports whether it
// did.
func (t bottleTable) put(ifindex int, e gatewayBottle) (changed bool, err error) {
	if err := t.makeStats(uint32(ifindex)); err != nil {
		return false, err
	}
	var now gatewayBottle
	err = t.bottles.Lookup(uint32(ifindex), &now)
	if err == nil && now == e {
		return false, nil
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, fmt.Errorf("read bottle entry: %w", err)
	}
	if err := t.bottles.Put(uint32(ifindex), e); err != nil {
		return false, fmt.Errorf("write bottle entry: %w", err)
	}
	return true, nil
}

// shut closes an entry if there is one; nothing passes afterwards.
func (t bottleTable) shut(ifindex int) error {
	var e gatewayBottle
	err := t.bottles.Lookup(uint32(ifindex), &e)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read bottle entry: %w", err)
	}
	if e.State == uint8(gatewayBottleStateBOTTLE_SHUT) {
		return nil
	}
	e.State = uint8(gatewayBottleStateBOTTLE_SHUT)
	if err := t.bottles.Put(uint32(ifindex), e); err != nil {
		return fmt.Errorf("shut bottle entry: %w", err)
	}
	return nil
}

// forget removes an entry and its counters, for an interface that is gone.
func (t bottleTable) forget(ifindex int) error {
	for _, m := range []*ebpf.Map{t.bottles, t.stats} {
		if err := m.Delete(uint32(ifindex)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete bottle entry: %w", err)
		}
	}
	return nil
}

// known returns the interfaces that have an entry.
func (t bottleTable) known() ([]int, error) {
	var all []int
	var key uint32
	var e gatewayBottle
	it := t.bottles.Iterate()
	for it.Next(&key, &e) {
		all = append(all, int(key))
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list bottle entries: %w", err)
	}
	return all, nil
}

// makeStats creates zeroed counters unless there are any.
func (t bottleTable) makeStats(ifindex uint32) error {
	zero := make([]gatewayLinkStats, ebpf.MustPossibleCPU())
	err := t.stats.Update(ifindex, zero, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("create counters: %w", err)
	}
	return nil
}

// read returns the sum over all CPUs, zero for an interface without counters.
func (t bottleTable) read(ifindex int) (Counters, error) {
	var perCPU []gatewayLinkStats
	err := t.stats.Lookup(uint32(ifindex), &perCPU)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Counters{}, nil
	}
	if err != nil {
		return Counters{}, fmt.Errorf("read counters: %w", err)
	}
	var sum Counters
	for i := range perCPU {
		sum.addStats(&perCPU[i])
	}
	return sum, nil
}
