package http2

import (
	"io"
	"math"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// TestIdleMemory holds connections open after one request each and looks at what they take of heap and stacks.
func TestIdleMemory(t *testing.T) {
	const count = 200
	s := serverOf(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	before := inUse()
	peers := make([]*peer, count)
	for i := range peers {
		p := newPeer(t, s)
		p.ask(1, "GET", "/", true, "authorization", "Bearer something", "user-agent", "a test")
		if a := p.answers(1)[1]; string(a.body) != "ok" {
			t.Fatalf("answered %+v", a)
		}
		peers[i] = p
	}
	client := 0
	for _, p := range peers { // the client's end is freed here, so that the server's alone is counted
		p.Framer, p.enc, p.conn = nil, nil, nil
	}
	each := (inUse() - before - client) / count
	t.Logf("%d bytes for each of %d idle connections", each, count)
	if each > idleBudget {
		t.Errorf("an idle connection holds %d bytes, want at most %d", each, idleBudget)
	}
	runtime.KeepAlive(peers)
}

// inUse is what heap and stacks hold after everything that nobody needs is gone. That takes some collections: a stack is halved by each,
// and pools are emptied by the second.
func inUse() int {
	var m runtime.MemStats
	least := math.MaxInt
	for again := 4; again > 0; again-- {
		time.Sleep(10 * time.Millisecond) // for those that are on their way to where they wait
		runtime.GC()
		runtime.ReadMemStats(&m)
		if now := int(m.HeapAlloc + m.StackInuse); now < least-4<<10 {
			least, again = now, 4
		}
	}
	return least
}
