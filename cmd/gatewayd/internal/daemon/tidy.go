package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

// The runtime collects garbage when the heap is full, which spareHeap makes late, and keeps what it was once given. So what a burst of
// connections leaves, the memory of their handshakes and the stacks that these needed, would stay until as much again is made.
const (
	tidyEvery  = 500 * time.Millisecond // how often it is looked
	tidyBytes  = 8 << 20                // what has to be made since the last collection for another to be worth it: some 150 handshakes
	tidyShare  = 2                      // and that part of what is in use, one in so many, so that a large heap is not collected for little
	quietBytes = 1 << 20                // what may be made from one look to the next if the daemon is to count as quiet
	quietLooks = 4                      // how many such looks in a row have freed memory given back to the system
	keptBytes  = 4 << 20                // what has to be made since that was done last
)

// tidy collects garbage early, and gives memory back in quiet times, until ctx ends. Under load the runtime collects more often than
// this looks, and there is nothing to do.
func tidy(ctx context.Context) {
	t := time.NewTicker(tidyEvery)
	defer t.Stop()
	var state tidiness
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		switch state.look(readHeapUse()) {
		case collect:
			runtime.GC()
		case giveBack:
			debug.FreeOSMemory()
		case leave:
		}
	}
}

// tidying is what is to be done.
type tidying uint8

const (
	leave    tidying = iota
	collect          // garbage
	giveBack         // what is free, to the system; it collects before
)

// tidiness is what was seen at the last look, and the decisions since.
type tidiness struct {
	seen      heapUse
	collected uint64 // bytes made until the last collection
	given     uint64 // bytes made until memory was given back last
	quiet     int    // looks in a row
}

// look decides what is to be done.
func (t *tidiness) look(now heapUse) tidying {
	if t.quiet++; now.made-t.seen.made > quietBytes {
		t.quiet = 0
	}
	if now.cycles != t.seen.cycles {
		t.collected = now.made
	}
	t.seen = now
	switch {
	case t.quiet >= quietLooks && now.made-t.given >= max(keptBytes, now.live/tidyShare):
		t.collected, t.given = now.made, now.made
		return giveBack
	case now.made-t.collected >= max(tidyBytes, now.live/tidyShare):
		t.collected = now.made
		return collect
	}
	return leave
}

// heapUse is what the runtime says of the heap so far.
type heapUse struct {
	cycles, made uint64 // collections, and bytes
	live         uint64 // bytes that the last collection found in use
}

// readHeapUse reads it.
func readHeapUse() heapUse {
	s := [...]runtimemetrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(s[:])
	return heapUse{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64() - min(spareHeap, s[2].Value.Uint64())}
}
