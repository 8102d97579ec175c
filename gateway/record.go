package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"sync"
	"time"

	"gatewayd/gateway/routes"
)

// RecordType says what a [Record] is about.
type RecordType string

// The record types.
const (
	RecordFlow    RecordType = "flow"    // one TCP connection of a guest, written when it ends
	RecordRequest RecordType = "request" // one HTTP request, written when its response ended
	RecordDNS     RecordType = "dns"     // one refused DNS question
	RecordEvent   RecordType = "event"   // something about a bottle as a whole: a budget that ran out, a plan that was swapped
)

// Lane is the mechanism that carried a decision.
type Lane string

// The lanes. LaneNone means that no byte went anywhere.
const (
	LaneNone      Lane = "none"
	LaneFastPath  Lane = "fastpath"
	LaneRelay     Lane = "relay"
	LaneIntercept Lane = "intercept"
)

// Record is the one form of everything the gateway reports about a flow, a request, a DNS question or a bottle. Every
// field is written as JSON under the name in its tag; docs/OPERATIONS.md describes each. It never holds a secret, and
// never bytes of a guest that did not pass a canonicaliser, but for Path, which is the raw request path as matched.
type Record struct {
	Time        time.Time       `json:"time"`                   // when the flow or request ended, UTC
	Type        RecordType      `json:"type"`                   // flow, request, dns or event
	ID          string          `json:"id"`                     // f-… or r-… : what a denial shows and `explain` takes
	Flow        string          `json:"flow,omitempty"`         // the flow that carried a request
	Bottle      string          `json:"bottle"`                 // the bottle's name
	Plan        string          `json:"plan,omitempty"`         // digest of the plan that decided
	Src         netip.AddrPort  `json:"src,omitzero"`           // the guest's end
	Dst         netip.AddrPort  `json:"dst,omitzero"`           // where the guest wanted to connect
	Host        string          `json:"host,omitempty"`         // canonical name, "" if none was learned
	Port        uint16          `json:"port,omitempty"`         // port the guest called
	Protocol    routes.Protocol `json:"protocol,omitempty"`     // https, http or tcp
	Method      string          `json:"method,omitempty"`       // HTTP method
	Path        string          `json:"path,omitempty"`         // HTTP path without query
	Status      int             `json:"status,omitempty"`       // HTTP status that the guest got
	Decision    routes.Decision `json:"decision"`               // deny, passthrough or intercept
	Lane        Lane            `json:"lane"`                   // none, fastpath, relay or intercept
	Rule        string          `json:"rule,omitempty"`         // the route that matched, pattern:port
	Reason      routes.Reason   `json:"reason,omitempty"`       // why, as one word of a fixed list
	Remedy      string          `json:"remedy,omitempty"`       // manifest lines that would allow it
	Injected    bool            `json:"injected,omitempty"`     // a credential was set by the gateway
	Finding     string          `json:"finding,omitempty"`      // what the scanner found: rule, place, redacted excerpt
	Upstream    netip.AddrPort  `json:"upstream,omitzero"`      // the address that was dialled
	TLSVersion  string          `json:"tls_version,omitempty"`  // version agreed with the guest
	ALPN        string          `json:"alpn,omitempty"`         // application protocol agreed with the guest
	BytesUp     int64           `json:"bytes_up"`               // bytes from guest to upstream
	BytesDown   int64           `json:"bytes_down"`             // bytes from upstream to guest
	PacketsUp   int64           `json:"packets_up,omitempty"`   // of a fast-path flow: segments from guest to upstream
	PacketsDown int64           `json:"packets_down,omitempty"` // likewise to the guest
	DurationMS  int64           `json:"duration_ms"`            // milliseconds from accept, or from the request's first byte
	Count       uint64          `json:"count,omitempty"`        // how many alike a dns or event record stands for
	Error       string          `json:"error,omitempty"`        // what failed, in words
}

// Recorder takes records. Record must not block: it is called on the path of the traffic. It may be called by many
// goroutines at once.
type Recorder interface {
	Record(Record)
}

// ReadyRecorder is a [Recorder] that can say whether it would take another record. When records are required
// ([Options].AuditRequired), a flow is refused while Ready is false.
type ReadyRecorder interface {
	Recorder
	Ready() bool
}

// idBytes is the length of the random part of an id, before hex.
const idBytes = 16

// newID returns prefix followed by 128 random bits in hex: "f-" for flows, "r-" for requests. It never fails:
// crypto/rand ends the process when the kernel has no randomness.
func newID(prefix string) string {
	r := randoms.Get().(*random)
	if len(r.left) == 0 {
		rand.Read(r.bytes[:])
		r.left = r.bytes[:]
	}
	var room [2 + 2*idBytes]byte
	id := hex.AppendEncode(append(room[:0], prefix...), r.left[:idBytes])
	r.left = r.left[idBytes:]
	randoms.Put(r)
	return string(id)
}

// random is random bytes of which each is used once.
type random struct {
	bytes [32 * idBytes]byte
	left  []byte
}

// randoms holds what is not in use: randomness for one id alone costs nearly as much as for many.
var randoms = sync.Pool{New: func() any { return new(random) }}
