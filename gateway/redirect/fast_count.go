package redirect

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// accounts has room for what all links together have begun.
type accounts struct {
	links [gatewayLimitsMAX_BOTTLES]uint32
	used  [gatewayLimitsMAX_BOTTLES]gatewayUsage
}

// idle tells whether no link has a flow, nor what is left of one: an account counts a flow before the map has it, until that has it no
// more. If it cannot be read, the answer is no.
func (t *fastTable) idle() bool {
	if t.accounts == nil {
		t.accounts = new(accounts)
	}
	var all ebpf.MapBatchCursor
	n, err := t.objects.Usages.BatchLookup(&all, t.accounts.links[:], t.accounts.used[:], nil)
	if !errors.Is(err, ebpf.ErrKeyNotExist) { // which is how it says that there are no more
		return false
	}
	for _, u := range t.accounts.used[:n] {
		if u.Flows != 0 {
			return false
		}
	}
	return true
}

// collect ends flows that are over. The program walks over all the room that there is for flows, which takes it a millisecond or two.
func (t *fastTable) collect() error {
	if t.idle() {
		return nil
	}
	if _, err := t.objects.CollectFlows.Run(nil); err != nil {
		return fmt.Errorf("collect flows: %w", err)
	}
	return nil
}

// CountFast returns how many flows the kernel carries now, by bottle; bottles without any are left out. It walks over the
// flows of all bottles, which takes some milliseconds for thousands. The caller owns the map.
func (r *Redirect) CountFast() (map[string]int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.objects == nil {
		return nil, ErrClosed
	}
	bottles := make(map[uint32]string, len(r.links))
	for bottle, state := range r.links {
		bottles[uint32(state.status.Ifindex)] = bottle
	}
	counts := make(map[string]int)
	err := r.fast.eachFlow(func(k gatewayFlowKey, f *gatewayFlow) {
		if bottle, ok := bottles[k.Ifindex]; ok && isOpen(f) {
			counts[bottle]++
		}
	})
	return counts, err
}

// isOpen tells flows from what is left of them.
func isOpen(f *gatewayFlow) bool {
	state := gatewayFlowState(f.State)
	return state == gatewayFlowStateFLOW_UNVERIFIED || state == gatewayFlowStateFLOW_VERIFIED
}
