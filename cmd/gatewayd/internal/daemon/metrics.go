package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"gatewayd/cmd/gatewayd/internal/manifests"
)

// metrics are the daemon's own counters, in the gateway's registry.
type metrics struct {
	reloads   *prometheus.CounterVec // result
	refusals  *prometheus.CounterVec // bottle
	manifests *prometheus.GaugeVec   // state
}

// RegisterMetrics registers the daemon's own counters with r, for who wants to know them all.
func RegisterMetrics(r *prometheus.Registry, version string) { newMetrics(r, version) }

// newMetrics registers the counters with r.
func newMetrics(r *prometheus.Registry, version string) *metrics {
	m := &metrics{
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatewayd_reloads_total", Help: "Looks at the manifests, by result: ok or failed.",
		}, []string{"result"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatewayd_manifest_refusals_total", Help: "Manifests that were refused; one that stays refused for the same reason counts once.",
		}, []string{"bottle"}),
		manifests: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gatewayd_manifests", Help: "Manifests by state: running, stale (the plan of before is in force) or shut.",
		}, []string{"state"}),
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gatewayd_build_info", Help: "1, with the version as a label."}, []string{"version"})
	info.WithLabelValues(version).Set(1)
	r.MustRegister(m.reloads, m.refusals, m.manifests, info)
	m.states(nil)
	return m
}

func (m *metrics) reloaded(result string) { m.reloads.WithLabelValues(result).Inc() }

func (m *metrics) refused(bottle string) {
	if bottle == "" {
		bottle = "unknown"
	}
	m.refusals.WithLabelValues(bottle).Inc()
}

func (m *metrics) states(n map[manifests.State]int) {
	for _, s := range []manifests.State{manifests.Running, manifests.Stale, manifests.Shut} {
		m.manifests.WithLabelValues(string(s)).Set(float64(n[s]))
	}
}
