package redirect

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// kernelTypes is where the kernel publishes its type information.
const kernelTypes = "/sys/kernel/btf/vmlinux"

// skbWindow is how many bytes of it the programs read at once, SKB_WINDOW in bpf/checksum.h.
const skbWindow = 64

// learnLayout tells the programs where the members of the kernel's struct sk_buff are that they read, unless they know: a map
// that was pinned before is of the same kernel.
func learnLayout(m *ebpf.Map) error {
	var l gatewaySkbLayout
	if err := m.Lookup(uint32(0), &l); err != nil {
		return fmt.Errorf("read layout of struct sk_buff: %w", err)
	}
	if l.Known != 0 {
		return nil
	}
	l, err := skbLayout()
	if err != nil {
		return err
	}
	if err := m.Put(uint32(0), l); err != nil {
		return fmt.Errorf("write layout of struct sk_buff: %w", err)
	}
	return nil
}

// skbLayout finds the members in the kernel's type information.
func skbLayout() (gatewaySkbLayout, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return gatewaySkbLayout{}, fmt.Errorf("read the kernel's type information: %w", err)
	}
	var skb *btf.Struct
	if err := spec.TypeByName("sk_buff", &skb); err != nil {
		return gatewaySkbLayout{}, fmt.Errorf("find struct sk_buff: %w", err)
	}
	var errs []error
	bits := func(name string) uint32 {
		at, ok := memberOffset(skb.Members, name)
		if !ok {
			errs = append(errs, fmt.Errorf("find member %s of struct sk_buff: there is none", name))
		}
		return at
	}
	summed := bits("ip_summed")
	base := summed / 16 * 2
	l := gatewaySkbLayout{
		Known: 1, Summed: uint16(summed / 8), SummedBit: uint16(summed % 8),
		CsumStart: uint16(bits("csum_start") / 8), CsumOffset: uint16(bits("csum_offset") / 8),
		NetworkHeader: uint16(bits("network_header") / 8),
	}
	for _, at := range []uint16{l.CsumStart, l.CsumOffset, l.NetworkHeader} {
		if uint32(at) < base || uint32(at)-base > skbWindow-2 || at%2 != 0 {
			errs = append(errs, fmt.Errorf("read struct sk_buff: its members are not within %d bytes: %+v", skbWindow, l))
			break
		}
	}
	return l, errors.Join(errs...)
}

// memberOffset looks for a member in bits from the beginning, also within members that have no name.
func memberOffset(members []btf.Member, name string) (uint32, bool) {
	for _, m := range members {
		if m.Name == name {
			return uint32(m.Offset), true
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if at, ok := memberOffset(inner, name); ok {
			return uint32(m.Offset) + at, true
		}
	}
	return 0, false
}
