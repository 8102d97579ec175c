package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"gatewayd/lab"
)

// idleManifest is that of one of the bottles that hold idle connections together.
func (w *world) idleManifest(name string) string {
	return fmt.Sprintf("bottle: %s\nlink: { netns: %s }\negress:\n  routes:\n    - { host: %s, auth: { scheme: bearer, secret: { env: BENCH_TOKEN } } }\n",
		name, w.BottleNetns(name), apiName)
}

// startIdleBottles gives gatewayd the bottles of the loads of idle connections that one may not have, if one is asked for.
func (w *world) startIdleBottles(ctx context.Context, o *options) error {
	loads, _ := o.loads() // wrong arguments were found before
	wanted := false
	for _, l := range loads {
		wanted = wanted || l.name == manyIdleName || l.name == h2IdleName
	}
	if !wanted {
		return nil
	}
	var names []string
	for i := range manyIdle / manyPerBottle {
		name := fmt.Sprintf("idle%d", i+1)
		names = append(names, name)
		if err := w.gatewayd.WriteManifest(name, w.idleManifest(name)); err != nil {
			return err
		}
	}
	for _, name := range names {
		b, err := w.enterBottle(ctx, name)
		if err != nil {
			return err
		}
		w.idle = append(w.idle, b)
	}
	return nil
}

// holdMany measures how much memory manyIdle connections take: gatewayd's are of several bottles, a peer's of its one.
func (w *world) holdMany(ctx context.Context, o *options, l load, via string) (Result, int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 4*clientPatience, fmt.Errorf("not done after %s", 4*clientPatience))
	defer cancel()
	before, err := w.settled(ctx, via)
	if err != nil {
		return Result{}, 0, err
	}
	total := Result{}
	var holders []*held
	var errs []error
	for _, b := range w.holdersOf(via) {
		h, err := w.holdIn(ctx, o, l, via, b.bottle, b.count)
		if err != nil {
			errs = append(errs, err)
			break
		}
		holders = append(holders, h)
		var r Result
		errs = append(errs, json.NewDecoder(h.output).Decode(&r))
		total.Units += r.Units
		total.Connections += r.Connections
	}
	during, errSpent := w.settled(ctx, via)
	errs = append(errs, errSpent)
	for _, h := range holders {
		errs = append(errs, h.release())
	}
	return total, during - before, errors.Join(errs...)
}

type holder struct {
	bottle *lab.Bottle
	count  int
}

// holdersOf are the bottles that hold a path's connections.
func (w *world) holdersOf(via string) []holder {
	if !isGatewayd(via) {
		return []holder{{nil, manyIdle}}
	}
	var all []holder
	for _, b := range w.idle {
		all = append(all, holder{b, manyPerBottle})
	}
	return all
}

// dummyOf is what a bottle sends for the credential.
func dummyOf(b *lab.Bottle) string {
	for _, kv := range b.Env {
		if v, ok := strings.CutPrefix(kv, "BENCH_TOKEN="); ok {
			return v
		}
	}
	return ""
}
