package redirect

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Redirect is one instance of the datapath. Its methods are safe for
// concurrent use.
type Redirect struct {
	options Options
	dir     *pinDir
	hooks   hooks  // of capture links
	uplink  hooks  // of the uplink
	noLane  string // why flows are not redirected, "" if they are
	wall    firewall
	table   bottleTable
	fast    *fastTable // nil until objects are loaded
	told    *toldTable // likewise
	routes  *routeQuery
	unread  string // why the fast path's programs cannot read the kernel's structures

	laneless bool // for good: the kernel has not what it takes

	mu      sync.Mutex
	objects *gatewayObjects // nil after Close
	config  Config
	// configured is set by the first Set.
	configured bool
	links      map[string]*linkState // by bottle; kept for bottles that are gone
	repairs    int
}

// linkState is what is remembered of a bottle's link from one reconciliation to
// the next.
type linkState struct {
	status LinkStatus
	// past is what was counted on earlier interfaces of the same link, and
	// last the one before, whose flows may not be reported yet.
	past Counters
	last int
}

// Open loads the instance's programs and maps, or adopts those that an earlier
// process pinned, and puts the second layer in force, before it returns. Links
// that are attached already go on as they are until the first Set.
//
// It needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN for namespaces, CAP_NET_RAW
// so that RevokeFast resets promptly) and a mounted BPF file system. The error wraps ErrLocked if another process has the
// instance, or is a *StateError if the pins belong to another namespace. The
// caller must Close the result, which removes nothing.
func Open(ctx context.Context, o Options) (*Redirect, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := openPinDir(o.BPFFS)
	if err != nil {
		return nil, err
	}
	r := &Redirect{options: o, dir: dir, wall: firewall{instance: o.Instance, uplink: o.Uplink}, links: make(map[string]*linkState)}
	if err := r.open(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Redirect) open() error {
	if err := r.dir.sweep(); err != nil {
		return err
	}
	var err error
	if r.routes, err = newRouteQuery(); err != nil {
		return err
	}
	if r.objects, r.noLane, err = loadObjects(r.dir, r.options); err != nil {
		return err
	}
	r.laneless = r.noLane != ""
	if err := claimNamespace(r.dir, r.objects); err != nil {
		return err
	}
	r.table = bottleTable{r.objects.Bottles, r.objects.Stats}
	if err := r.table.makeStats(strangers); err != nil {
		return err
	}
	if r.hooks, err = pickHooks(r.options.Attach, r.dir, r.objects, onCapture(r.objects)); err != nil {
		return err
	}
	if r.uplink, err = pickHooks(r.hooks.mode(), r.dir, r.objects, onUplink(r.objects)); err != nil {
		return err
	}
	if r.fast, err = newFastTable(r.objects); err != nil {
		return err
	}
	if r.told, err = newToldTable(r.objects.Told); err != nil {
		return err
	}
	if err := learnLayout(r.objects.Layouts); err != nil {
		r.unread = err.Error()
	}
	if r.hadFlows() {
		r.checkFastPath() // so that they go on
	}
	if _, err = r.ensureNamespace(nil); err != nil {
		return err
	}
	_, err = r.ensureLane()
	return err
}

// Set makes c the desired state: links are found or made, guarded and only then
// set up, links that are no longer configured are shut. It is idempotent, and
// takes the time of a few dozen system calls per link.
//
// An error that concerns one link is in its LinkStatus, and that link is shut.
// An error returned means that nothing was changed (the Config is not valid), or
// that the layers which all links share could not be put in place; then every
// link is shut.
func (r *Redirect) Set(ctx context.Context, c Config) (Status, error) {
	if err := c.Validate(); err != nil {
		return r.Status(), err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.objects == nil {
		return Status{}, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return r.status(), err
	}
	r.config, r.configured = Config{Links: append([]Link(nil), c.Links...)}, true
	err := r.reconcile(false)
	return r.status(), err
}

// Status returns the state of every configured link as of the last Set or the
// last look of Watch. It does not ask the kernel.
func (r *Redirect) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status()
}

func (r *Redirect) status() Status {
	s := Status{Repairs: r.repairs, Links: make([]LinkStatus, 0, len(r.config.Links))}
	for _, l := range r.config.Links {
		if state := r.links[l.Bottle]; state != nil {
			s.Links = append(s.Links, state.status)
		}
	}
	return s
}

// Counters reads what the datapath counted for the bottle's link. The error
// wraps ErrUnknownBottle if no Set ever named the bottle.
func (r *Redirect) Counters(bottle string) (Counters, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.objects == nil {
		return Counters{}, ErrClosed
	}
	state := r.links[bottle]
	if state == nil {
		return Counters{}, fmt.Errorf("read counters of %q: %w", bottle, ErrUnknownBottle)
	}
	now, err := r.table.read(state.status.Ifindex)
	if err != nil {
		return Counters{}, err
	}
	now.add(state.past)
	return now, nil
}

// Strangers reads what was dropped on links that run the program but have no
// entry, which is none unless somebody else attached it.
func (r *Redirect) Strangers() (Counters, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.objects == nil {
		return Counters{}, ErrClosed
	}
	return r.table.read(strangers)
}

// Close closes descriptors and gives up the lock. Nothing is removed: what is
// pinned goes on, and without listeners it drops. Close twice does nothing.
func (r *Redirect) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	if r.objects != nil {
		err = r.objects.Close()
		r.objects = nil
	}
	if r.routes != nil {
		err = errors.Join(err, r.routes.Close())
		r.routes = nil
	}
	if r.dir != nil {
		err = errors.Join(err, r.dir.Close())
		r.dir = nil
	}
	return err
}
