package main

import (
	"context"
	"fmt"
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
