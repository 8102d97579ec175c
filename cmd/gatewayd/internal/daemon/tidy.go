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
	quietLooks = 4                      // how many looks apart little must have been made for freed memory to be given back to the system
	quietBytes = 4 << 20                // how little: more than the datapath's watcher, which looks at everything every three seconds
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
	collected uint64             // bytes made until the last collection
	given     uint64             // bytes made until memory was given back last
	made      [quietLooks]uint64 // bytes made until the last looks, of which looks%quietLooks is the oldest
	looks     int
}

// look decides what is to be done.
func (t *tidiness) look(now heapUse) tidying {
	before := &t.made[t.looks%quietLooks]
	t.looks++
	quiet := t.looks >= quietLooks && now.made-*before <= quietBytes
	*before = now.made
	if now.cycles != t.seen.cycles {
		t.collected = now.made
	}
	t.seen = now
	switch {
	case quiet && now.made-t.given >= max(keptBytes, now.live/tidyShare):
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
