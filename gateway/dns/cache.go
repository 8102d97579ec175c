package dns

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

// maxCached is how many answers a resolver keeps, one name and type each. An answer has about 300 bytes.
const maxCached = 4096

// cacheKey is a question.
type cacheKey struct {
	name  string // canonical
	qtype uint16
}

// cached is an answer that is kept.
type cached struct {
	key     cacheKey
	answer  Answer
	err     error // *LookupError of kind NXDomain or NoData, else nil
	expires time.Time
}

// cache keeps the answers last used. Safe for use by many goroutines.
type cache struct {
	max int

	mu      sync.Mutex
	entries map[cacheKey]*list.Element // of *cached
	recent  *list.List                 // most recently used first
}

func newCache(max int) *cache {
	return &cache{max: max, entries: make(map[cacheKey]*list.Element), recent: list.New()}
}

// get returns a live answer, or the error that was the answer, with the TTL that it has left.
func (c *cache) get(key cacheKey, now time.Time) (Answer, error, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return Answer{}, nil, false
	}
	v := e.Value.(*cached)
	if !now.Before(v.expires) {
		c.recent.Remove(e)
		delete(c.entries, key)
		return Answer{}, nil, false
	}
	c.recent.MoveToFront(e)
	return Answer{Addrs: slices.Clone(v.answer.Addrs), TTL: v.expires.Sub(now)}, v.err, true
}

// put keeps an answer until expires, and lets go of the one least recently used when there are too many.
func (c *cache) put(key cacheKey, a Answer, err error, expires time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := &cached{key: key, answer: Answer{Addrs: slices.Clone(a.Addrs), TTL: a.TTL}, err: err, expires: expires}
	if e, ok := c.entries[key]; ok {
		e.Value = v
		c.recent.MoveToFront(e)
		return
	}
	c.entries[key] = c.recent.PushFront(v)
	if c.recent.Len() > c.max {
		oldest := c.recent.Back()
		c.recent.Remove(oldest)
		delete(c.entries, oldest.Value.(*cached).key)
	}
}
