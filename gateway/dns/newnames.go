package dns

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxSeen is how many names under wildcards a bottle may ask again without spending its budget of new ones.
const maxSeen = 1024

// newNames is a bottle's budget of names under wildcards that it has not asked for lately. Each new name is a message to
// whoever runs the zone; one that was asked before says little more.
type newNames struct {
	limit *rate.Limiter

	mu     sync.Mutex // guards the two below
	seen   map[string]*list.Element
	recent *list.List // of string, most recently used first
}

func newNewNames(perMinute int) *newNames {
	return &newNames{
		limit: rate.NewLimiter(rate.Every(time.Minute/time.Duration(perMinute)), perMinute),
		seen:  make(map[string]*list.Element), recent: list.New(),
	}
}

// allow tells whether the name may be asked for at the time now, and counts it.
func (n *newNames) allow(name string, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e, ok := n.seen[name]; ok {
		n.recent.MoveToFront(e)
		return true
	}
	if !n.limit.AllowN(now, 1) {
		return false
	}
	n.seen[name] = n.recent.PushFront(name)
	if n.recent.Len() > maxSeen {
		oldest := n.recent.Back()
		n.recent.Remove(oldest)
		delete(n.seen, oldest.Value.(string))
	}
	return true
}
