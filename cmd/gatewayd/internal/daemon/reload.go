package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"gatewayd/cmd/gatewayd/internal/manifests"
	"gatewayd/gateway"
)

// fleet runs the bottles that the daemon decided on; *gateway.Gateway satisfies it.
type fleet interface {
	Apply(ctx context.Context, desired []gateway.Bottle) error
	Bottles() []gateway.BottleInfo
}

// loaded is what a manifest is made into.
type loaded struct {
	bottle gateway.Bottle
	watch  []string // host files whose change means: make the plan again
	notes  []string
}

// keeper brings the fleet in line with the manifests, again and again. Its methods may be called by many goroutines at
// once.
type keeper struct {
	dir     string
	load    manifests.Loader[loaded]
	rules   *rulebook // that load uses; nil when there are none
	fleet   fleet
	log     *slog.Logger
	metrics *metrics
	// settle is called after each look with what to watch.
	settle func(files []string, unsettled bool)

	view atomic.Pointer[view] // what entries gives, without waiting for a look that is at work

	mu      sync.Mutex
	book    manifests.Book[loaded]
	told    map[string]told // by file
	missing bool            // the directory was not there
	failure string          // why the last look as a whole failed
}

// told is what was last logged about a manifest: each change is said once.
type told struct {
	state manifests.State
	err   string
	plan  string
}

// look reads the manifests and applies what they say. What cannot be read changes nothing. The error is for the caller's
// log line at start; it has been logged, counted and kept for status.
func (k *keeper) look(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.show()
	files, err := manifests.Scan(k.dir)
	if err != nil {
		k.failed("list manifests", err)
		k.settle(k.watched(), true)
		return err
	}
	_, missing := os.Stat(k.dir)
	if missing != nil && !k.missing {
		k.log.Warn("directory of the manifests is not there; there are no bottles until it is", "dir", k.dir)
	}
	k.missing = missing != nil
	rules := k.rules.look()
	k.book.Update(files, k.load)
	var desired []gateway.Bottle
	for _, e := range k.book.Entries() {
		if e.State != manifests.Shut {
			desired = append(desired, e.Value.bottle)
		}
	}
	k.tell()
	k.show()
	err = k.fleet.Apply(ctx, desired)
	switch {
	case err != nil:
		k.failed("apply bottles", err)
	case rules != nil:
		k.failed("read pipelock.rules", rules)
	default:
		k.failure = ""
		k.metrics.reloaded("ok")
	}
	k.settle(k.watched(), err != nil || rules != nil || k.missing || k.book.Unsettled())
	return err
}

// failed notes that a look as a whole failed; a failure that repeats is logged once.
func (k *keeper) failed(what string, err error) {
	k.metrics.reloaded("failed")
	if errors.Is(err, context.Canceled) || k.failure == err.Error() {
		return
	}
	k.failure = err.Error()
	k.log.Error(what+" failed; what was in force stays", "err", err)
}

// watched lists the host files that plans and rules depend on.
func (k *keeper) watched() []string {
	out := k.rules.files()
	for _, e := range k.book.Entries() {
		out = append(out, e.Value.watch...)
	}
	return out
}

// tell logs what changed since the last look.
func (k *keeper) tell() {
	now := map[string]told{}
	states := map[manifests.State]int{}
	for _, e := range k.book.Entries() {
		states[e.State]++
		t := told{state: e.State, plan: e.Value.bottle.PlanDigest}
		if e.Err != nil {
			t.err = e.Err.Error()
		}
		now[e.File] = t
		before, had := k.told[e.File]
		if had && before == t {
			continue
		}
		log := k.log.With("bottle", e.Bottle, "manifest", filepath.Base(e.File))
		switch e.State {
		case manifests.Running:
			log.Info("bottle has a plan", "plan", t.plan, "routes", len(e.Value.bottle.Table.Routes()),
				"link", e.Value.bottle.Link.Name, "guest", e.Value.bottle.Link.Guest)
			for _, n := range e.Value.notes {
				log.Info("note on the plan", "note", n)
			}
		case manifests.Stale:
			k.metrics.refused(e.Bottle)
			log.Error("manifest refused; the plan of before stays in force", "plan", t.plan, "err", t.err)
		case manifests.Shut:
			k.metrics.refused(e.Bottle)
			log.Error("manifest refused; the bottle is shut", "err", t.err)
		}
	}
	for file := range k.told {
		if _, still := now[file]; !still {
			k.log.Warn("manifest is gone; its bottle is shut", "manifest", filepath.Base(file))
		}
	}
	k.told = now
	k.metrics.states(states)
}

// view is what is in force, as last looked at.
type view struct {
	entries []manifests.Entry[loaded]
	failure string
}

func (k *keeper) show() { k.view.Store(&view{k.book.Entries(), k.failure}) }

// entries lists what is in force for each manifest, and why the last look as a whole failed. It does not block.
func (k *keeper) entries() ([]manifests.Entry[loaded], string) {
	v := k.view.Load()
	if v == nil {
		return nil, ""
	}
	return v.entries, v.failure
}
