package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// FastPin is one name that a bottle may call on the fast path, at the address
// that it is given with.
type FastPin struct {
	// Name is the canonical host name, 1 to 253 bytes.
	Name string
	// Port is the TCP port.
	Port uint16
	// For is how long new flows may begin; more than 0.
	For time.Duration
}

// maxBottlePins is the most pins that one bottle has in the kernel. What is
// beyond is served by the gateway's sockets.
const maxBottlePins = 4096

// grantKey is what a permission is for. Flows refer to it by number.
type grantKey struct {
	ifindex uint32
	port    uint16 // in network order, as the maps have it
	name    string
}

type grant struct {
	id    uint32
	epoch uint64
}

// holder is what a number was given to, and with which epoch.
type holder struct {
	grantKey
	epoch uint64
}

// fastTable is the Go side of the fast path's maps. Redirect.mu guards it.
type fastTable struct {
	objects  *gatewayObjects
	obstacle string // why new flows do not take the fast path; "" if they do

	grants map[grantKey]grant
	taken  map[uint32]holder // what each number stands for, withdrawn ones too while a flow may refer to them
	next   uint32            // where the search for a free number begins
	// reclaimed is when unused numbers were last looked for.
	reclaimed time.Time
	pins      map[place]map[grantKey]gatewayPin // what the kernel has
	counts    map[uint32]int                    // pins by ifindex
	soonest   uint64                            // no pin runs out before; 0 if there is none
	accounts  *accounts                         // where idle reads them
}

// place is an address as one link knows it.
type place struct{ ifindex, addr uint32 }

// key is the kernel's for the pin of k there.
func (p place) key(k grantKey) gatewayPinKey {
	key := gatewayPinKey{Ifindex: p.ifindex, Daddr: p.addr, Dport: k.port, NameLen: uint16(len(k.name))}
	copy(key.Name[:], k.name)
	return key
}

// destination is the kernel's key for what the pin of k is at.
func (p place) destination(k grantKey) gatewayDestinationKey {
	return gatewayDestinationKey{Ifindex: p.ifindex, Daddr: p.addr, Dport: k.port}
}

// pinSlack is how far from its time a pin may end, in nanoseconds. What is that near is not written again: one address can have
// many names, and a new one of them leaves the others as they are.
const pinSlack = uint64(100 * time.Millisecond)

// newFastTable forgets the pins of an earlier process, which its successor does
// not know the reasons of, and keeps its flows with their permissions.
func newFastTable(o *gatewayObjects) (*fastTable, error) {
	t := &fastTable{objects: o, obstacle: "no link is set up yet", grants: make(map[grantKey]grant),
		taken: make(map[uint32]holder), pins: make(map[place]map[grantKey]gatewayPin), counts: make(map[uint32]int)}
	if err := clearMap[gatewayDestinationKey, gatewayDestination](o.Destinations); err != nil {
		return nil, err
	}
	if err := clearMap[gatewayPinKey, gatewayPin](o.Pins); err != nil {
		return nil, err
	}
	err := t.eachFlow(func(k gatewayFlowKey, f *gatewayFlow) {
		if f.Grant == 0 {
			return
		}
		var name gatewayName
		if _, known := t.taken[f.Grant]; known || o.Names.Lookup(f.Grant, &name) != nil || name.Epoch != f.Epoch {
			return
		}
		h := holder{grantKey{k.Ifindex, k.Dport, nameText(&name)}, name.Epoch}
		t.taken[f.Grant] = h
		var epoch uint64
		if o.Grants.Lookup(f.Grant, &epoch) == nil && epoch == h.epoch {
			t.grants[h.grantKey] = grant{f.Grant, epoch}
		}
	})
	return t, err
}

// clearMap deletes every entry.
func clearMap[K comparable, V any](m *ebpf.Map) error {
	var keys []K
	var key K
	var value V
	it := m.Iterate()
	for it.Next(&key, &value) {
		keys = append(keys, key)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("list entries: %w", err)
	}
	for _, k := range keys {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete entry: %w", err)
		}
	}
	return nil
}

// eachFlow calls f for every entry, those that are over included. An entry that
// is deleted meanwhile can make the walk begin again, so f may see one twice.
func (t *fastTable) eachFlow(f func(gatewayFlowKey, *gatewayFlow)) error {
	var key gatewayFlowKey
	var value gatewayFlow
	it := t.objects.Flows.Iterate()
	for it.Next(&key, &value) {
		f(key, &value)
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("list flows: %w", err)
	}
	return nil
}

func nameText(n *gatewayName) string { return string(n.Name[:min(int(n.Len), len(n.Name))]) }

// flowName is what the flow was judged by, "" while it is not.
func (t *fastTable) flowName(f *gatewayFlow) string {
	if h := t.taken[f.Grant]; h.epoch == f.Epoch {
		return h.name
	}
	return ""
}

// grantFor returns the permission for k, a new one if there is none.
func (t *fastTable) grantFor(k grantKey) (grant, error) {
	if g, ok := t.grants[k]; ok {
		return g, nil
	}
	if len(t.taken) >= int(gatewayLimitsMAX_GRANTS)-1 || t.grantsOf(k.ifindex) >= maxBottlePins {
		if err := t.reclaim(); err != nil {
			return grant{}, err
		}
		if n := t.grantsOf(k.ifindex); n >= maxBottlePins {
			return grant{}, fmt.Errorf("allocate permission: the bottle has %d", n)
		}
	}
	for range gatewayLimitsMAX_GRANTS {
		if t.next++; t.next >= uint32(gatewayLimitsMAX_GRANTS) {
			t.next = 1 // 0 is none
		}
		if _, ok := t.taken[t.next]; ok {
			continue
		}
		g := grant{id: t.next}
		var err error
		if g.epoch, err = t.advance(g.id); err != nil {
			return grant{}, err
		}
		name := gatewayName{Epoch: g.epoch, Len: uint32(len(k.name))}
		copy(name.Name[:], k.name)
		if err := t.objects.Names.Put(g.id, name); err != nil {
			return grant{}, fmt.Errorf("write name of permission: %w", err)
		}
		t.grants[k], t.taken[g.id] = g, holder{k, g.epoch}
		return g, nil
	}
	return grant{}, fmt.Errorf("allocate permission: all %d are taken", gatewayLimitsMAX_GRANTS)
}

// grantsOf is how many permissions a link has. They outlive its pins while its
// flows refer to them.
func (t *fastTable) grantsOf(ifindex uint32) int {
	if len(t.grants) < maxBottlePins {
		return len(t.grants) // not more than that
	}
	n := 0
	for k := range t.grants {
		if k.ifindex == ifindex {
			n++
		}
	}
	return n
}

// advance gives a permission its next epoch: whatever refers to it is cut.
func (t *fastTable) advance(id uint32) (uint64, error) {
	var epoch uint64
	if err := t.objects.Grants.Lookup(id, &epoch); err != nil {
		return 0, fmt.Errorf("read permission: %w", err)
	}
	epoch++
	if err := t.objects.Grants.Put(id, epoch); err != nil {
		return 0, fmt.Errorf("write permission: %w", err)
	}
	return epoch, nil
}

// reclaim takes back permissions that neither a pin nor a flow refers to. It
// walks over all flows, so it does that once a second at most: a bottle that
// wants more and more must not keep the others waiting.
func (t *fastTable) reclaim() error {
	if time.Since(t.reclaimed) < time.Second {
		return nil
	}
	t.reclaimed = time.Now()
	used := make(map[uint32]bool)
	for _, here := range t.pins {
		for _, pin := range here {
			used[pin.Grant] = true
		}
	}
	if err := t.eachFlow(func(_ gatewayFlowKey, f *gatewayFlow) { used[f.Grant] = true }); err != nil {
		return err
	}
	for id, h := range t.taken {
		if used[id] {
			continue
		}
		if _, err := t.advance(id); err != nil {
			return err
		}
		if err := t.objects.Names.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete name of permission: %w", err)
		}
		if t.grants[h.grantKey].id == id {
			delete(t.grants, h.grantKey)
		}
		delete(t.taken, id)
	}
	return nil
}

// set makes pins all that the link may call at addr.
func (t *fastTable) set(ifindex uint32, addr netip.Addr, pins []FastPin) error {
	now, err := monotonic()
	if err != nil {
		return err
	}
	at := place{ifindex, networkOrder32(addr)}
	want := make(map[grantKey]uint64, len(pins))
	until := make(map[gatewayDestinationKey]uint64)
	for _, p := range pins {
		if len(p.Name) == 0 || len(p.Name) > 253 || p.Port == 0 || p.For <= 0 {
			return fmt.Errorf("pin %q port %d: not a name, a port and a time", p.Name, p.Port)
		}
		k := grantKey{ifindex, networkOrder16(p.Port), p.Name}
		want[k] = now + uint64(p.For)
		d := at.destination(k)
		until[d] = max(until[d], want[k])
	}
	err = t.dropAt(at, func(k grantKey, _ gatewayPin) bool {
		_, wanted := want[k]
		return !wanted
	}, until)
	if err != nil {
		return err
	}
	for k, expires := range want {
		if err := t.pin(at, k, expires); err != nil {
			return err
		}
	}
	for d, expires := range until {
		if err := t.objects.Destinations.Put(d, gatewayDestination{Expires: expires}); err != nil {
			return fmt.Errorf("write destination: %w", err)
		}
	}
	return nil
}

// pin writes a pin, unless it is there as it should be.
func (t *fastTable) pin(at place, k grantKey, expires uint64) error {
	old, known := t.pins[at][k]
	if !known && t.counts[at.ifindex] >= maxBottlePins {
		return fmt.Errorf("write pin: the bottle has %d", maxBottlePins)
	}
	g, err := t.grantFor(k)
	if err != nil {
		return err
	}
	p := gatewayPin{Expires: expires, Epoch: g.epoch, Grant: g.id}
	if known && p.Epoch == old.Epoch && p.Grant == old.Grant && max(expires, old.Expires)-min(expires, old.Expires) < pinSlack {
		return nil
	}
	if err := t.objects.Pins.Put(at.key(k), p); err != nil {
		return fmt.Errorf("write pin: %w", err)
	}
	if !known {
		t.counts[at.ifindex]++
	}
	if t.pins[at] == nil {
		t.pins[at] = make(map[grantKey]gatewayPin, 1)
	}
	t.pins[at][k] = p
	if t.soonest == 0 || p.Expires < t.soonest {
		t.soonest = p.Expires
	}
	return nil
}

// drop deletes the pins that unwanted names, wherever they are. See dropAt.
func (t *fastTable) drop(unwanted func(place, grantKey, gatewayPin) bool, keep map[gatewayDestinationKey]uint64) error {
	for at := range t.pins {
		if err := t.dropAt(at, func(k grantKey, p gatewayPin) bool { return unwanted(at, k, p) }, keep); err != nil {
			return err
		}
	}
	return nil
}

// dropAt deletes the pins of a place that unwanted names, and first the
// destinations of theirs that are not among keep, so that no flow begins that
// has no pin.
func (t *fastTable) dropAt(at place, unwanted func(grantKey, gatewayPin) bool, keep map[gatewayDestinationKey]uint64) error {
	for k, p := range t.pins[at] {
		if !unwanted(k, p) {
			continue
		}
		d := at.destination(k)
		if _, ok := keep[d]; !ok {
			if err := t.objects.Destinations.Delete(d); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("delete destination: %w", err)
			}
		}
		if err := t.objects.Pins.Delete(at.key(k)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete pin: %w", err)
		}
		delete(t.pins[at], k)
		if t.counts[at.ifindex]--; t.counts[at.ifindex] == 0 {
			delete(t.counts, at.ifindex)
		}
	}
	if len(t.pins[at]) == 0 {
		delete(t.pins, at)
	}
	return nil
}

// revoke cuts every flow of the link, and withdraws every pin, that keep does
// not name. The flows are cut by the time it returns: the programs compare
// epochs with each packet.
func (t *fastTable) revoke(ifindex uint32, keep func(name string, port uint16) bool) error {
	var errs []error
	gone := make(map[grantKey]bool)
	for k, g := range t.grants {
		if k.ifindex != ifindex || keep != nil && keep(k.name, hostOrder16(k.port)) {
			continue
		}
		if _, err := t.advance(g.id); err != nil {
			errs = append(errs, err)
			continue
		}
		gone[k] = true
		delete(t.grants, k)
	}
	errs = append(errs, t.drop(func(_ place, k grantKey, _ gatewayPin) bool { return gone[k] }, nil))
	return errors.Join(errs...)
}

// expire deletes pins that have run out. A destination that another pin still
// holds open may go with them: the next answer brings it back.
func (t *fastTable) expire() error {
	now, err := monotonic()
	if err != nil || t.soonest == 0 || now < t.soonest {
		return err
	}
	live := make(map[gatewayDestinationKey]uint64)
	soonest := uint64(0)
	for at, here := range t.pins {
		for k, p := range here {
			if p.Expires <= now {
				continue
			}
			live[at.destination(k)] = p.Expires
			if soonest == 0 || p.Expires < soonest {
				soonest = p.Expires
			}
		}
	}
	if err := t.drop(func(_ place, _ grantKey, p gatewayPin) bool { return p.Expires <= now }, live); err != nil {
		return err
	}
	t.soonest = soonest
	return nil
}

// dropAddrs deletes the pins of every address that is not usable.
func (t *fastTable) dropAddrs(usable func(netip.Addr) bool) error {
	known := make(map[uint32]bool)
	return t.drop(func(at place, _ grantKey, _ gatewayPin) bool {
		ok, asked := known[at.addr]
		if !asked {
			ok = usable(addrOf(at.addr))
			known[at.addr] = ok
		}
		return !ok
	}, nil)
}

// begin makes a link's account, without which it has no fast path.
func (t *fastTable) begin(ifindex uint32) error {
	err := t.objects.Usages.Update(ifindex, gatewayUsage{}, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("create account: %w", err)
	}
	return nil
}

// monotonic reads the clock that the programs use, in nanoseconds.
func monotonic() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("read monotonic clock: %w", err)
	}
	return uint64(ts.Nano()), nil
}
