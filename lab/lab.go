// Package lab makes, on one host and as root, a small world to try gatewayd
// in: a network namespace for the gateway, one for "the internet" with its own
// DNS, certificate authority and servers, and the means to run ordinary
// programs in the bottles' namespaces that gatewayd makes. What reaches the
// internet is counted by a packet socket on the far side of the uplink.
//
// Nothing is made in the caller's own network namespace. Every world has a
// name of its own, so several can exist side by side, and the name says which
// process made it, so that the leftovers of a crashed run are known for what
// they are and removed by the next New.
package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
)

// Addresses of the world. All lie in 198.18.0.0/15, the range that RFC 2544
// sets aside for tests, so a packet that escapes is a packet to nowhere.
var (
	// Bottles is where bottles' links take their addresses from.
	Bottles = netip.MustParsePrefix("198.18.0.0/16")
	// Public holds the internet's servers: gatewayd must be told to treat it
	// as public (allow_ranges).
	Public = netip.MustParsePrefix("198.19.0.0/16")
	// Resolver is the internet's DNS server, on UDP and TCP port 53.
	Resolver = netip.MustParseAddrPort("198.19.0.53:53")
	// GatewayUplink is the gateway's address on the uplink.
	GatewayUplink = netip.MustParseAddr("198.19.255.2")
	// Far is the internet's address on the uplink.
	Far = netip.MustParseAddr("198.19.255.1")
	// Private and Metadata are special-purpose addresses at which the
	// internet really listens: what must not reach them would arrive.
	Private  = netip.MustParseAddr("10.77.0.1")
	Metadata = netip.MustParseAddr("169.254.169.254")
)

// Uplink is the name of the gateway's interface towards the internet.
const Uplink = "uplink0"

const farLink = "far0"

// Options of a world.
type Options struct {
	// Parent is the directory in which the world's own directory is made;
	// os.TempDir() when empty.
	Parent string
	// Log receives what the world does; discarded when nil.
	Log *slog.Logger
}

// World is one gateway namespace and one internet, joined by a veth pair.
type World struct {
	// ID is unique on this host and short enough to prefix names with.
	ID string
	// Dir is a directory, mode 0755, that Close removes with all it holds.
	Dir string
	// Gateway is the namespace where gatewayd runs.
	Gateway *Namespace
	// Internet is everything beyond the uplink.
	Internet *Internet

	log *slog.Logger

	settling sync.Mutex // one mark under way at a time

	mu      sync.Mutex
	closers []func() error
}

// New removes what crashed worlds left behind, then makes one. The caller
// closes it. It needs root, and blocks for some tens of milliseconds.
func New(ctx context.Context, o Options) (*World, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Parent == "" {
		o.Parent = os.TempDir()
	}
	for _, name := range RemoveStale(o.Parent) {
		o.Log.Info("removed what a crashed world left behind", "name", name)
	}
	id, err := newID()
	if err != nil {
		return nil, err
	}
	w := &World{ID: id, Dir: filepath.Join(o.Parent, id), log: o.Log}
	if err := w.build(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *World) build(ctx context.Context) error {
	if err := os.Mkdir(w.Dir, 0o755); err != nil {
		return fmt.Errorf("make world directory: %w", err)
	}
	w.onClose(func() error { return os.RemoveAll(w.Dir) })
	if err := mountBPF(w.Dir); err != nil {
		return err
	}
	w.onClose(func() error { return unmountBPF(w.Dir) })
	// Namespaces that gatewayd made for bottles carry the world's name too.
	w.onClose(func() error { return removeNamespaces(w.ID) })
	gw, err := NewNamespace(w.ID + "-gw")
	if err != nil {
		return err
	}
	w.Gateway = gw
	inet, err := NewNamespace(w.ID + "-inet")
	if err != nil {
		return err
	}
	if err := joinUplink(gw, inet); err != nil {
		return err
	}
	w.Internet, err = newInternet(ctx, inet, w.log)
	if err != nil {
		return err
	}
	w.onClose(w.Internet.Close)
	return nil
}

// BottleNetns is the path for the link.netns of a bottle's manifest. The
// namespace itself is made by gatewayd and removed by Close.
func (w *World) BottleNetns(bottle string) string {
	return filepath.Join(netnsDir, w.ID+"-"+bottle)
}

// BPFDir is where gatewayd may pin BPF objects in this world: in a BPF file
// system of the world's own, which Close unmounts with all that is in it.
func (w *World) BPFDir() string { return filepath.Join(w.Dir, bpffsName, "gatewayd") }

// onClose registers f to run, in reverse order, when the world is closed.
func (w *World) onClose(f func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closers = append(w.closers, f)
}

// Close stops all that the world started and removes all that it made, the
// bottles' namespaces included, and returns what could not be removed. A
// second call does nothing.
func (w *World) Close() error {
	w.mu.Lock()
	closers := w.closers
	w.closers = nil
	w.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	return errors.Join(errs...)
}
