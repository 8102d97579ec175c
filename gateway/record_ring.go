package gateway

import "sync"

// ringSize is how many records of each bottle are kept for `explain`. A record takes about half a kilobyte.
const ringSize = 2048

// Ring keeps the newest records in memory. It is a [Recorder]; safe for use by many goroutines.
type Ring struct {
	mu   sync.Mutex
	size int
	buf  []Record // grows to size, then is overwritten from next
	next int
}

// NewRing returns an empty ring for size records, at least one.
func NewRing(size int) *Ring { return &Ring{size: max(size, 1)} }

// Record takes r in place of the oldest record once the ring is full.
func (r *Ring) Record(rec Record) { r.put(&rec) }

// put is Record.
func (r *Ring) put(rec *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.buf) < r.size {
		r.buf = append(r.buf, *rec)
		return
	}
	r.buf[r.next] = *rec
	r.next = (r.next + 1) % r.size
}

// Find returns the record with this id, if it is still there.
func (r *Ring) Find(id string) (Record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.buf {
		if r.buf[i].ID == id {
			return r.buf[i], true
		}
	}
	return Record{}, false
}

// Recent returns up to n of the newest records, oldest first. The caller owns the slice.
func (r *Ring) Recent(n int) []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = min(max(n, 0), len(r.buf))
	out := make([]Record, 0, n)
	for i := len(r.buf) - n; i < len(r.buf); i++ {
		out = append(out, r.buf[(r.next+i)%len(r.buf)])
	}
	return out
}
