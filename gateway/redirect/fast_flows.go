package redirect

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
)

// FastReason is why a fast-path flow was refused or ended. Its numbers come from
// the C enum flow_reason; the words of String do not change.
type FastReason uint8

// Why flows were refused or ended.
const (
	FastNotTLS       = FastReason(gatewayFlowReasonREASON_NOT_TLS)       // the first bytes are no handshake record
	FastMalformed    = FastReason(gatewayFlowReasonREASON_MALFORMED)     // a ClientHello that breaks the protocol, or spans records
	FastTooLarge     = FastReason(gatewayFlowReasonREASON_TOO_LARGE)     // a ClientHello beyond 16 KB
	FastNoName       = FastReason(gatewayFlowReasonREASON_NO_NAME)       // no server name
	FastName         = FastReason(gatewayFlowReasonREASON_NAME)          // a name that is not pinned to this address
	FastEarlyData    = FastReason(gatewayFlowReasonREASON_EARLY_DATA)    // offers early data, which only the relay carries
	FastChanged      = FastReason(gatewayFlowReasonREASON_CHANGED)       // other bytes where the judged hello was
	FastUrgent       = FastReason(gatewayFlowReasonREASON_URGENT)        // urgent data in the handshake
	FastOption       = FastReason(gatewayFlowReasonREASON_OPTION)        // a TCP option that makes upstreams ignore segments
	FastRevoked      = FastReason(gatewayFlowReasonREASON_REVOKED)       // the permission was withdrawn
	FastInternal     = FastReason(gatewayFlowReasonREASON_INTERNAL)      // state that should be there is not
	FastClosed       = FastReason(gatewayFlowReasonREASON_CLOSED)        // both sides ended
	FastReset        = FastReason(gatewayFlowReasonREASON_RESET)         // either side sent RST
	FastIdle         = FastReason(gatewayFlowReasonREASON_IDLE)          // nothing for a long time
	FastHelloTimeout = FastReason(gatewayFlowReasonREASON_HELLO_TIMEOUT) // no whole ClientHello in time
	FastReplaced     = FastReason(gatewayFlowReasonREASON_REPLACED)      // a new connection took the same addresses and ports
	FastLost         = FastReason(gatewayFlowReasonREASON_LOST)          // connection tracking has forgotten how it was translated
)

var fastReasonWords = [gatewayFlowReasonREASONS]string{
	"none", "not_tls", "malformed", "too_large", "no_name", "name", "early_data", "changed", "urgent", "option",
	"revoked", "internal", "closed", "reset", "idle", "hello_timeout", "replaced", "lost",
}

// String returns the reason as one word of lower-case letters and '_'.
func (r FastReason) String() string {
	if int(r) < len(fastReasonWords) {
		return fastReasonWords[r]
	}
	return fmt.Sprintf("reason_%d", uint8(r))
}

// FastFlow is one connection that the kernel carries.
type FastFlow struct {
	ID       string // 32 hexadecimal digits, random
	Bottle   string
	Src, Dst netip.AddrPort
	Name     string // what the ClientHello named; "" while it is not judged
	Verified bool   // the hello was judged and is good
	Began    time.Time
	Seen     time.Time // when the last packet passed
	// Bytes are TCP payload, retransmissions included; packets are segments.
	UpPackets, UpBytes     uint64
	DownPackets, DownBytes uint64
}

// FastEvent says that a flow is over.
type FastEvent struct {
	Flow    FastFlow
	Refused bool // it was refused, and both sides were reset
	Reason  FastReason
}

// SetFast makes pins all that the bottle's new connections may be to addr on the
// fast path; nil means none. It returns once the kernel has them. Addresses that
// the kernel cannot or must not forward to (special-purpose ranges, no route by
// the uplink) get none, which is no error: the gateway's sockets serve them.
func (r *Redirect) SetFast(bottle string, addr netip.Addr, pins []FastPin) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	index, err := r.indexOf(bottle)
	if err != nil || index == 0 {
		return err
	}
	addr = addr.Unmap()
	if !addr.Is4() {
		return nil
	}
	if len(pins) > 0 && (r.fast.obstacle != "" || !r.forwardable(addr)) {
		pins = nil
	}
	return r.fast.set(uint32(index), addr, pins)
}

// indexOf returns the bottle's interface, 0 if it has none now.
func (r *Redirect) indexOf(bottle string) (int, error) {
	if r.objects == nil {
		return 0, ErrClosed
	}
	state := r.links[bottle]
	if state == nil {
		return 0, fmt.Errorf("find link of %q: %w", bottle, ErrUnknownBottle)
	}
	return state.status.Ifindex, nil
}

// forwardable tells whether the second layer would let a packet to addr leave,
// and the route to it is by the uplink.
func (r *Redirect) forwardable(addr netip.Addr) bool {
	for _, p := range specialRanges {
		if p.Contains(addr) {
			return false
		}
	}
	uplink, err := r.routes.indexOf(r.options.Uplink)
	return err == nil && r.routes.leavesBy(addr, uplink)
}

// RevokeFast cuts every fast-path flow of the bottle, and withdraws every pin,
// for which keep is false; a nil keep keeps none. What it does not keep carries
// no packet any more when it returns, and both its sides are reset as soon as
// the bottle answers to a probe.
func (r *Redirect) RevokeFast(bottle string, keep func(name string, port uint16) bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	index, err := r.indexOf(bottle)
	if err != nil || index == 0 {
		return err
	}
	l := r.links[bottle].status.Link
	known := len(r.fast.grants)
	err = r.fast.revoke(uint32(index), keep)
	if len(r.fast.grants) == known {
		return err
	}
	if err := r.fast.wake(index, l, hostMAC(r.options.Instance, l)); err != nil {
		r.options.Log.Warn("flows that were cut are reset when the bottle speaks", "bottle", bottle, "error", err)
	}
	return err
}

// FastObstacle says in words why new connections do not take the fast path, ""
// if they do.
func (r *Redirect) FastObstacle() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fast.obstacle
}

// FastFlows returns the flows that the kernel carries for the bottle, in no
// order. The caller owns the slice.
func (r *Redirect) FastFlows(bottle string) ([]FastFlow, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	index, err := r.indexOf(bottle)
	if err != nil || index == 0 {
		return nil, err
	}
	guest := r.links[bottle].status.Link.Guest
	clock, err := newClock()
	if err != nil {
		return nil, err
	}
	found := make(map[string]FastFlow)
	err = r.fast.eachFlow(func(k gatewayFlowKey, f *gatewayFlow) {
		if k.Ifindex == uint32(index) && isOpen(f) {
			flow := clock.flow(bottle, guest, k, f, r.fast.flowName(f))
			found[flow.ID] = flow
		}
	})
	flows := make([]FastFlow, 0, len(found))
	for _, f := range found {
		flows = append(flows, f)
	}
	return flows, err
}

// clock turns the kernel's monotonic time into the time of day.
type clock struct {
	now  time.Time
	mono uint64
}

func newClock() (clock, error) {
	mono, err := monotonic()
	return clock{time.Now(), mono}, err
}

func (c clock) time(mono uint64) time.Time { return c.now.Add(-time.Duration(c.mono - mono)) }

func (c clock) flow(bottle string, guest netip.Addr, k gatewayFlowKey, f *gatewayFlow, judged string) FastFlow {
	return FastFlow{
		ID: hex.EncodeToString(f.Id[:]), Bottle: bottle, Name: judged,
		Src:      netip.AddrPortFrom(guest, hostOrder16(k.Sport)),
		Dst:      netip.AddrPortFrom(addrOf(k.Daddr), hostOrder16(k.Dport)),
		Verified: gatewayFlowState(f.State) == gatewayFlowStateFLOW_VERIFIED || f.Grant != 0,
		Began:    c.time(f.Began), Seen: c.time(f.Seen),
		UpPackets: f.UpPackets, UpBytes: f.UpBytes, DownPackets: f.DownPackets, DownBytes: f.DownBytes,
	}
}

func addrOf(networkOrder uint32) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], networkOrder)
	return netip.AddrFrom4(b)
}

func hostOrder16(p uint16) uint16 { return networkOrder16(p) } // its own inverse

// CollectFast ends flows that are over, and deletes pins that have run out. It
// should be called about once a second; nothing is less safe without it.
func (r *Redirect) CollectFast() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.objects == nil {
		return ErrClosed
	}
	return errors.Join(r.fast.collect(), r.fast.expire())
}

// FastEvents hands every flow that is over to handle until ctx ends, and then
// returns nil. It should be called after the first Set: before, flows that ended
// while no process was there are of no bottle that is known. It blocks, handle is called on its goroutine, and there must be
// only one call at a time. What conntrack holds for flows that were cut is
// deleted, so that the upstream's next packet is answered with RST.
func (r *Redirect) FastEvents(ctx context.Context, handle func(FastEvent)) error {
	r.mu.Lock()
	if r.objects == nil {
		r.mu.Unlock()
		return ErrClosed
	}
	reader, err := ringbuf.NewReader(r.objects.Events)
	r.mu.Unlock()
	if err != nil {
		return fmt.Errorf("open events: %w", err)
	}
	defer reader.Close()
	stop := context.AfterFunc(ctx, func() { reader.Flush() }) // ends Read; only this goroutine may close
	defer stop()
	tracked, err := newTracker()
	if err != nil {
		return err
	}
	defer tracked.Close()
	failing := false // and that was said
	var record ringbuf.Record
	for {
		err := reader.ReadInto(&record)
		if errors.Is(err, ringbuf.ErrFlushed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read event: %w", err)
		}
		event, ok := r.event(record.RawSample)
		if !ok {
			continue
		}
		if r.lingers(event) {
			err := tracked.forget(event.Flow.Src, event.Flow.Dst)
			if err != nil && !failing {
				r.options.Log.Warn("connection tracking keeps flows that were cut", "error", err)
			}
			failing = err != nil
		}
		handle(event)
	}
}

// event reads one record of the ring. One of a link that no bottle has had since
// the process began names no bottle. It returns false for one that it cannot read.
func (r *Redirect) event(raw []byte) (FastEvent, bool) {
	var e gatewayEvent
	if len(raw) < int(unsafe.Sizeof(e)) {
		return FastEvent{}, false
	}
	e = *(*gatewayEvent)(unsafe.Pointer(&raw[0])) // many a second: encoding/binary would take longer than the rest
	clock, err := newClock()
	if err != nil {
		return FastEvent{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	name, guest := "", netip.Addr{}
	for bottle, state := range r.links {
		if index := int(e.Key.Ifindex); state.status.Ifindex == index || state.last == index {
			name, guest = bottle, state.status.Link.Guest
		}
	}
	return FastEvent{
		Flow:    clock.flow(name, guest, e.Key, &e.Flow, nameText(&e.Name)),
		Refused: gatewayEventKind(e.Kind) == gatewayEventKindEVENT_REFUSED, Reason: FastReason(e.Reason),
	}, true
}

// lingers tells whether conntrack can still have a flow, since it ended without
// both sides knowing.
func (r *Redirect) lingers(e FastEvent) bool {
	switch {
	case e.Reason == FastClosed: // conntrack has seen the FINs as well
		return false
	case e.Reason == FastReplaced && !r.laneless: // the program has had it forgotten
		return false
	}
	return e.Flow.Bottle != "" // else its address is not known
}
