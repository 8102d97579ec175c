package dns

import "sync/atomic"

// Outcome is what became of a query. Each query has exactly one.
type Outcome uint8

// The outcomes, in the order of Outcomes.
const (
	// Answered: the guest got addresses.
	Answered Outcome = iota
	// Blocked: a name outside the plan, answered with the block address.
	Blocked
	// Absent: NXDOMAIN, for a name outside the plan or one that upstream does not know.
	Absent
	// Empty: NODATA, for AAAA, HTTPS, SVCB and other types, or for a name without usable addresses.
	Empty
	// Declined: REFUSED, by type, class, labels or the budget of new names.
	Declined
	// Broken: FORMERR, NOTIMP or BADVERS.
	Broken
	// Unserved: SERVFAIL.
	Unserved
	// Garbage: not a query; nothing was sent.
	Garbage
	// OverBudget: the bottle asks too fast; nothing was sent.
	OverBudget
	// Busy: too many of the bottle's queries wait, or too many of its connections are open; nothing was sent.
	Busy
	// Panicked: a bug; nothing was sent.
	Panicked

	outcomes
)

var outcomeWords = [outcomes]string{
	"answered", "blocked", "nxdomain", "nodata", "refused", "format_error", "servfail", "garbage", "over_budget", "busy", "panic",
}

// String returns the outcome as one lower-case word, fit for a metric label.
func (o Outcome) String() string {
	if o >= outcomes {
		return "unknown"
	}
	return outcomeWords[o]
}

// counts has a counter for each outcome.
type counts [outcomes]atomic.Uint64

// Outcomes returns how many queries had each outcome since the server was made. The caller owns the map.
func (s *Server) Outcomes() map[Outcome]uint64 {
	m := make(map[Outcome]uint64, outcomes)
	for o := range outcomes {
		m[o] = s.counts[o].Load()
	}
	return m
}
