package redirect

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
