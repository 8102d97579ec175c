package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// When gatewayd is at rest: in five looks in a row, together more than it takes to give memory back after a burst, it has used less than a
// tenth of a CPU.
const (
	restLook     = 500 * time.Millisecond
	restLooks    = 5
	restUsed     = restLook / 10
	restPatience = 20 * time.Second
)

// prepare waits until gatewayd is at rest before a load that passes through, and then has the load run once over plain forwarding, so
// that the round's first path does not find the machine colder than the others.
func (w *world) prepare(ctx context.Context, o *options, l load, round int) error {
	if !l.passes() {
		return nil
	}
	if err := w.atRest(ctx); err != nil || !slices.Contains(l.paths, viaKernel) {
		return err
	}
	_, _, err := w.load(ctx, o, l.over(viaKernel), viaKernel, round)
	return err
}

// atRest waits until gatewayd has done what earlier loads left it to do, so that the CPU of a load's row is the load's.
func (w *world) atRest(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, restPatience, fmt.Errorf("gatewayd is not at rest after %s", restPatience))
	defer cancel()
	quiet := 0
	last, err := cpuTime(w.gatewayd.Pid())
	if err != nil {
		return err
	}
	for quiet < restLooks {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(restLook):
		}
		now, err := cpuTime(w.gatewayd.Pid())
		if err != nil {
			return err
		}
		if quiet++; now-last > restUsed {
			quiet = 0
		}
		last = now
	}
	return nil
}
