package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"gatewayd/gateway/dns"
	"gatewayd/gateway/redirect"
)

// Memory is a Redirector that remembers, beyond the life of the process, what bottles were told. *redirect.Redirect
// satisfies it.
type Memory interface {
	// Remember keeps names, each at its address, until it expires; on an error it keeps none of them.
	Remember(bottle string, names []redirect.Told) error
	// Recall returns what is remembered and has not expired. The error wraps redirect.ErrUnknownBottle while the bottle
	// has no link.
	Recall(bottle string) ([]redirect.Told, error)
}

// recall takes in what an earlier process told the bottle, once its link is known. Until then no address is pinned in the
// kernel: another name might live there. The caller holds fastMu.
func (b *bottle) recall() {
	if b.recalled {
		return
	}
	if b.g.memory != nil {
		told, err := b.g.memory.Recall(b.name)
		if err != nil {
			if !errors.Is(err, redirect.ErrUnknownBottle) {
				b.log.Error("what the bottle was told before is not known; the relay serves it", slog.Any("error", err))
			}
			return
		}
		pins := make([]dns.Pin, 0, len(told))
		for _, t := range told {
			pins = append(pins, dns.Pin{Addr: t.Addr, Name: t.Name, Expires: t.Expires})
		}
		b.pins.Restore(pins)
	}
	b.recalled = true
	close(b.known)
}

// remember keeps all that the bottle knows addr by. What cannot be kept is forgotten as a whole: an address that is known by
// some of its names alone could be taken for one at which all pass through. The caller holds fastMu.
func (b *bottle) remember(addr netip.Addr) {
	if b.g.memory == nil {
		return
	}
	pins := b.pins.At(addr)
	told := make([]redirect.Told, 0, len(pins))
	for _, p := range pins {
		told = append(told, redirect.Told{Name: p.Name, Addr: p.Addr, Expires: p.Expires})
	}
	if err := b.g.memory.Remember(b.name, told); err != nil && !errors.Is(err, redirect.ErrUnknownBottle) {
		b.log.Debug("an address will be unknown after a restart", slog.String("address", addr.String()), slog.Any("error", err))
	}
}

// namesAt returns the names that the bottle knows addr by. It waits until it is known what an earlier process told, which is as
// soon as the bottle's link is looked after, but no longer than ctx and a dial's time.
func (b *bottle) namesAt(ctx context.Context, addr netip.Addr) []string {
	select {
	case <-b.known:
		return b.pins.Names(addr)
	default:
	}
	b.fastMu.Lock()
	b.recall()
	b.fastMu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, b.g.waits.Dial)
	defer cancel()
	select {
	case <-b.known:
	case <-ctx.Done():
	}
	return b.pins.Names(addr)
}
