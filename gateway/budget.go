package gateway

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"gatewayd/gateway/http2"
)

// Defaults of [Budget]: what one bottle may take of the gateway, so that it cannot starve the others.
const (
	DefaultFlows            = 1024 // connections at once
	DefaultHellos           = 256  // connections at once whose ClientHello is still being read, each up to 64 KB
	DefaultHandshakes       = 32   // TLS handshakes at once
	DefaultFlowsPerSecond   = 2000 // new connections per second
	DefaultFlowBurst        = 4000 // new connections at once after a quiet time
	DefaultDenialsPerSecond = 10   // certificates per second minted for names outside the plan, to explain a denial
	DefaultDenialBurst      = 50   // the same, at once after a quiet time

	DefaultH2Connections   = 128    // HTTP/2 connections at once, each with up to 1 MB of bodies that wait; beyond, a guest is offered HTTP/1.1 alone
	DefaultStreams         = 1024   // HTTP/2 requests at once over all connections, however long they take: as many as HTTP/1.1 has room for
	DefaultFramesPerSecond = 2000   // HTTP/2 frames per second that carry nothing and that no bytes of bodies pay for
	DefaultFrameBurst      = 10_000 // the same, at once after a quiet time
	DefaultResetsPerSecond = 100    // HTTP/2 streams per second that one side resets, so requests that are begun for nothing
	DefaultResetBurst      = 1000   // the same, at once after a quiet time
)

// bottleBodies is the total memory of one bottle's bodies under way over HTTP/2: those of responses that its guest does not take, and
// those of requests that their servers do not. Over HTTP/1.1 they wait in the kernel, and no more than a buffer of each here.
const bottleBodies = maxH2PerBottle*upstreamConnWindow + DefaultH2Connections*http2.DefaultConnWindow

// Budget is what one bottle may take. A zero or negative field means its default: there is no unlimited bottle.
type Budget struct {
	Flows            int
	Hellos           int
	Handshakes       int
	FlowsPerSecond   int
	FlowBurst        int
	DenialsPerSecond int
	DenialBurst      int
	H2Connections    int
	Streams          int
	FramesPerSecond  int
	FrameBurst       int
	ResetsPerSecond  int
	ResetBurst       int
}

// withDefaults returns b with every unset field at its default.
func (b Budget) withDefaults() Budget {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&b.Flows, DefaultFlows},
		{&b.Hellos, DefaultHellos},
		{&b.Handshakes, DefaultHandshakes},
		{&b.FlowsPerSecond, DefaultFlowsPerSecond},
		{&b.FlowBurst, DefaultFlowBurst},
		{&b.DenialsPerSecond, DefaultDenialsPerSecond},
		{&b.DenialBurst, DefaultDenialBurst},
		{&b.H2Connections, DefaultH2Connections},
		{&b.Streams, DefaultStreams},
		{&b.FramesPerSecond, DefaultFramesPerSecond},
		{&b.FrameBurst, DefaultFrameBurst},
		{&b.ResetsPerSecond, DefaultResetsPerSecond},
		{&b.ResetBurst, DefaultResetBurst},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	return b
}

// meter is the running account of one bottle's [Budget].
type meter struct {
	flows      slots
	hellos     slots
	handshakes slots
	h2         slots // connections
	streams    slots // requests on them
	frames     allowance
	resets     allowance
	rate       *rate.Limiter
	denials    *rate.Limiter
}

// newMeter returns an unused account of b, which must have its defaults filled in.
func newMeter(b Budget) *meter {
	return &meter{
		flows:      make(slots, b.Flows),
		hellos:     make(slots, b.Hellos),
		handshakes: make(slots, b.Handshakes),
		h2:         make(slots, b.H2Connections),
		streams:    make(slots, b.Streams),
		frames:     allowance{rate.NewLimiter(rate.Limit(b.FramesPerSecond), b.FrameBurst)},
		resets:     allowance{rate.NewLimiter(rate.Limit(b.ResetsPerSecond), b.ResetBurst)},
		rate:       rate.NewLimiter(rate.Limit(b.FlowsPerSecond), b.FlowBurst),
		denials:    rate.NewLimiter(rate.Limit(b.DenialsPerSecond), b.DenialBurst),
	}
}

// allowance is a rate that can be overdrawn, by as much as can be saved up: what was done is charged, and who did it waits.
type allowance struct{ limiter *rate.Limiter }

// charge takes n and returns how long it is until nothing is owed.
func (a allowance) charge(n int) time.Duration {
	now := time.Now()
	if a.limiter.TokensAt(now) <= -float64(a.limiter.Burst()) {
		n = 0
	}
	return a.limiter.ReserveN(now, n).DelayFrom(now)
}

// slots is a counting semaphore: as many holders at once as its capacity.
type slots chan struct{}

// try takes a slot if one is free and reports whether it did. It does not block.
func (s slots) try() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// take waits for a slot until ctx ends and reports whether it got one.
func (s slots) take(ctx context.Context) bool {
	if s.try() {
		return true
	}
	select {
	case s <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// give returns a slot. Giving one that was not taken would block for ever on an empty account; it is a bug.
func (s slots) give() { <-s }
