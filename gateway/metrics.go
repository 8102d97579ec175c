package gateway

import (
	"maps"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gatewayd/gateway/routes"
)

// maxReasons bounds the values of the label reason. Reasons are constants of this program; should one ever be made of
// something else, it is counted as "other" beyond this.
const maxReasons = 128

// Metrics are a gateway's counters, in a registry of their own. Labels are bounded: a bottle's name, and words of fixed
// lists. Never a host, a path or an address.
type Metrics struct {
	registry *prometheus.Registry

	flows      *prometheus.CounterVec   // bottle, decision, lane, reason
	turned     *prometheus.CounterVec   // bottle, reason
	requests   *prometheus.CounterVec   // bottle, decision, reason, code
	injected   *prometheus.CounterVec   // bottle
	findings   *prometheus.CounterVec   // bottle
	bytes      *prometheus.CounterVec   // bottle, lane, direction
	seconds    *prometheus.HistogramVec // bottle, lane
	names      *prometheus.CounterVec   // bottle, reason
	planFails  *prometheus.CounterVec   // bottle
	listenFail *prometheus.CounterVec   // bottle, socket

	mu      sync.Mutex
	reasons map[routes.Reason]string
	counted atomic.Pointer[map[requestKey]*requestCounters] // replaced under mu, never changed
}

// requestKey is what requests are counted by.
type requestKey struct {
	bottle   string
	reason   string
	decision routes.Decision
	code     uint8 // of codeClasses
}

// requestCounters are those of requests of one key. It is dear to ask the vectors for them at each request.
type requestCounters struct{ requests, injected prometheus.Counter }

// NewMetrics returns counters at zero, registered with a registry that also has the Go runtime's and the process's own.
func NewMetrics() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "gatewayd", Name: name, Help: help}, labels)
	}
	m := &Metrics{
		registry:   prometheus.NewRegistry(),
		flows:      counter("flows_total", "Flows that ended, by what was decided, what carried them and why.", "bottle", "decision", "lane", "reason"),
		turned:     counter("connections_turned_away_total", "Connections refused before they became a flow.", "bottle", "reason"),
		requests:   counter("requests_total", "HTTP requests, by decision, reason and class of the status the guest got.", "bottle", "decision", "reason", "code"),
		injected:   counter("requests_injected_total", "HTTP requests on which a credential was set.", "bottle"),
		findings:   counter("findings_total", "Requests, messages and names in which the scanner found something.", "bottle"),
		bytes:      counter("bytes_total", "Bytes of ended flows between guest and gateway, by lane and direction.", "bottle", "lane", "direction"),
		names:      counter("dns_refusals_total", "Refused or failed DNS questions.", "bottle", "reason"),
		planFails:  counter("plan_failures_total", "New plans that were not taken.", "bottle"),
		listenFail: counter("listener_failures_total", "Listeners that ended while their bottle was running.", "bottle", "socket"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "gatewayd", Name: "flow_duration_seconds", Help: "How long ended flows were open.",
			Buckets: []float64{0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600},
		}, []string{"bottle", "lane"}),
		reasons: map[routes.Reason]string{},
	}
	m.counted.Store(&map[requestKey]*requestCounters{})
	m.registry.MustRegister(m.flows, m.turned, m.requests, m.injected, m.findings, m.bytes, m.seconds, m.names,
		m.planFails, m.listenFail, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Registry returns the registry, for more collectors. The caller must keep their labels bounded.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Handler serves the metrics in the formats of Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// watch adds what is read from g when the metrics are: the kernel's counters, pins, lost records. A second gateway with
// the same metrics adds nothing.
func (m *Metrics) watch(g *Gateway) {
	_ = m.registry.Register(newGatewayCollector(g)) // the only error is that one is there already
}

// reason returns the label for why: itself if it is a word of a bounded set, else "other".
func (m *Metrics) reason(why routes.Reason) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.label(why)
}

// request returns the counters of requests such as r.
func (m *Metrics) request(r *Record) *requestCounters {
	key := requestKey{r.Bottle, string(r.Reason), r.Decision, codeClass(r.Status)}
	if c := (*m.counted.Load())[key]; c != nil {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key.reason = m.label(r.Reason)
	counted := *m.counted.Load()
	if c := counted[key]; c != nil {
		return c
	}
	c := &requestCounters{
		m.requests.WithLabelValues(key.bottle, key.decision.String(), key.reason, codeClasses[key.code]),
		m.injected.WithLabelValues(key.bottle),
	}
	counted = maps.Clone(counted)
	counted[key] = c
	m.counted.Store(&counted)
	return c
}

// label is reason. m.mu is held.
func (m *Metrics) label(why routes.Reason) string {
	if l, ok := m.reasons[why]; ok {
		return l
	}
	if !isWord(string(why)) || len(m.reasons) >= maxReasons {
		return "other"
	}
	m.reasons[why] = string(why)
	return string(why)
}

// isWord tells whether s is 1 to 40 of a-z, 0-9 and _.
func isWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 40
}

// record counts what r reports.
func (m *Metrics) record(r *Record) {
	switch r.Type {
	case RecordFlow:
		why := m.reason(r.Reason)
		lane := string(r.Lane)
		m.flows.WithLabelValues(r.Bottle, r.Decision.String(), lane, why).Inc()
		m.bytes.WithLabelValues(r.Bottle, lane, "up").Add(float64(max(r.BytesUp, 0)))
		m.bytes.WithLabelValues(r.Bottle, lane, "down").Add(float64(max(r.BytesDown, 0)))
		m.seconds.WithLabelValues(r.Bottle, lane).Observe(float64(r.DurationMS) / 1000)
	case RecordRequest:
		c := m.request(r)
		c.requests.Inc()
		if r.Injected {
			c.injected.Inc()
		}
		if r.Finding != "" {
			m.findings.WithLabelValues(r.Bottle).Inc()
		}
	case RecordDNS:
		m.names.WithLabelValues(r.Bottle, m.reason(r.Reason)).Add(float64(max(r.Count, 1)))
		if r.Finding != "" {
			m.findings.WithLabelValues(r.Bottle).Inc()
		}
	case RecordEvent: // counted where it happens, since its record may stand for many
	}
}

// codeClass returns which of codeClasses a status belongs to.
func codeClass(status int) uint8 {
	if status < 100 || status >= 600 {
		return 0
	}
	return uint8(status / 100)
}

// codeClasses are the values of the label code; the first is for a guest that got no status.
var codeClasses = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

// turnedAway counts a connection that did not become a flow.
func (m *Metrics) turnedAway(bottle string, why routes.Reason) {
	m.turned.WithLabelValues(bottle, m.reason(why)).Inc()
}

// planFailed counts a plan that was not taken.
func (m *Metrics) planFailed(bottle string) { m.planFails.WithLabelValues(bottle).Inc() }

// listenerLost counts a listener that ended by itself.
func (m *Metrics) listenerLost(bottle, socket string) {
	m.listenFail.WithLabelValues(bottle, socket).Inc()
}
