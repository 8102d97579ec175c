package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
)

// toldSweep is how often what has expired is deleted from the kernel's memory of names.
const toldSweep = time.Minute

// Told is a name that a bottle was told an address for, and goes on using the address by.
type Told struct {
	// Name is the canonical host name, 1 to 253 bytes.
	Name string
	// Addr is the address, IPv4.
	Addr netip.Addr
	// Expires is when the bottle has no more use of it. It needs a monotonic reading, as time.Now gives.
	Expires time.Time
}

// toldTable keeps what bottles were told in a pinned map, which outlives the process and not the machine. Redirect.mu
// guards it.
type toldTable struct {
	entries *ebpf.Map
	known   map[toldName]uint64 // what is in it, expired entries included: until when
	counts  map[uint32]int      // entries by ifindex
	swept   time.Time
}

// toldName is the key of an entry.
type toldName struct {
	place
	name string
}

// toldNameOf returns the key of n. The error says that it is none.
func toldNameOf(ifindex uint32, n Told) (toldName, error) {
	a := n.Addr.Unmap()
	if len(n.Name) == 0 || len(n.Name) > 253 || !a.Is4() {
		return toldName{}, fmt.Errorf("remember %q at %v: not a name and an IPv4 address", n.Name, n.Addr)
	}
	return toldName{place{ifindex, networkOrder32(a)}, n.Name}, nil
}

// key is n as the kernel has it.
func (n toldName) key() gatewayToldKey {
	k := gatewayToldKey{Ifindex: n.ifindex, Addr: n.addr, NameLen: uint16(len(n.name))}
	copy(k.Name[:], n.name)
	return k
}

// newToldTable takes over what an earlier process left.
func newToldTable(m *ebpf.Map) (*toldTable, error) {
	t := &toldTable{entries: m}
	return t, t.sweep(func(gatewayToldKey) bool { return false })
}

// sweep deletes what has expired or is unwanted, and counts the rest.
func (t *toldTable) sweep(unwanted func(gatewayToldKey) bool) error {
	now, err := monotonic()
	if err != nil {
		return err
	}
	var gone []gatewayToldKey
	counts, known := make(map[uint32]int), make(map[toldName]uint64)
	var k gatewayToldKey
	var expires uint64
	it := t.entries.Iterate()
	for it.Next(&k, &expires) {
		if expires <= now || unwanted(k) {
			gone = append(gone, k)
		} else {
			counts[k.Ifindex]++
			known[toldName{place{k.Ifindex, k.Addr}, string(k.Name[:min(int(k.NameLen), len(k.Name))])}] = expires
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("list remembered names: %w", err)
	}
	t.counts, t.known, t.swept = counts, known, time.Now()
	return t.delete(gone)
}

func (t *toldTable) delete(keys []gatewayToldKey) error {
	for _, k := range keys {
		if err := t.entries.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget name: %w", err)
		}
	}
	return nil
}

// forget deletes what is remembered for a link.
func (t *toldTable) forget(ifindex uint32) error {
	if t.counts[ifindex] == 0 {
		return nil
	}
	return t.sweep(func(k gatewayToldKey) bool { return k.Ifindex == ifindex })
}

// put remembers names, each at its address. What is there already is prolonged, never shortened. What would be by less than
// pinSlack is left alone: of all the names at an address mostly one alone is new.
func (t *toldTable) put(ifindex uint32, names []Told) error {
	now, err := newClock()
	if err != nil {
		return err
	}
	for _, n := range names {
		k, err := toldNameOf(ifindex, n)
		if err != nil {
			return err
		}
		expires := now.mono + uint64(max(0, n.Expires.Sub(now.now)))
		old, known := t.known[k]
		if known && old+pinSlack > expires {
			continue
		}
		if !known && t.counts[ifindex] >= int(gatewayLimitsMAX_BOTTLE_TOLD) {
			return fmt.Errorf("remember %q: the bottle has %d names at addresses remembered", n.Name, t.counts[ifindex])
		}
		if err := t.entries.Put(k.key(), expires); err != nil {
			return fmt.Errorf("remember %q: %w", n.Name, err)
		}
		if !known {
			t.counts[ifindex]++
		}
		t.known[k] = expires
	}
	return nil
}

// drop forgets names, each at its address. What it cannot name was never remembered.
func (t *toldTable) drop(ifindex uint32, names []Told) error {
	for _, n := range names {
		k, err := toldNameOf(ifindex, n)
		if err != nil {
			continue
		}
		err = t.entries.Delete(k.key())
		delete(t.known, k) // whatever came of it: what is not known is written again
		switch {
		case err == nil:
			t.counts[ifindex]--
		case !errors.Is(err, ebpf.ErrKeyNotExist):
			return fmt.Errorf("forget name: %w", err)
		}
	}
	return nil
}

// of returns what is remembered for a link.
func (t *toldTable) of(ifindex uint32) ([]Told, error) {
	now, err := newClock()
	if err != nil {
		return nil, err
	}
	var all []Told
	var k gatewayToldKey
	var expires uint64
	it := t.entries.Iterate()
	for it.Next(&k, &expires) {
		if k.Ifindex == ifindex && expires > now.mono && int(k.NameLen) <= len(k.Name) {
			all = append(all, Told{string(k.Name[:k.NameLen]), addrOf(k.Addr), now.time(expires)})
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list remembered names: %w", err)
	}
	return all, nil
}

// Remember keeps names beyond the life of the process, until each expires. They should be all that the bottle uses their
// addresses by, since what an address may be used for hangs on every name that it has. On an error, such as that the
// bottle's budget is used up, none of them is remembered. It returns once the kernel has them.
func (r *Redirect) Remember(bottle string, names []Told) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	index, err := r.indexOf(bottle)
	if err != nil || index == 0 {
		return err
	}
	if time.Since(r.told.swept) >= toldSweep {
		if err := r.told.sweep(func(gatewayToldKey) bool { return false }); err != nil {
			return err
		}
	}
	if err := r.told.put(uint32(index), names); err != nil {
		return errors.Join(err, r.told.drop(uint32(index), names))
	}
	return nil
}

// Recall returns what Remember was given for the bottle's link, by this process or an earlier one, and has not expired, in
// no order. The error wraps ErrUnknownBottle while there is no such link. The caller owns the slice.
func (r *Redirect) Recall(bottle string) ([]Told, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	index, err := r.indexOf(bottle)
	if err != nil {
		return nil, err
	}
	if index == 0 {
		return nil, fmt.Errorf("find interface of %q: %w", bottle, ErrUnknownBottle)
	}
	return r.told.of(uint32(index))
}
