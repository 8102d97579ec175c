package gateway

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"gatewayd/gateway/routes"
)

// metricValue returns the sum over all labels of a metric.
func metricValue(t testing.TB, w *world, name string) float64 {
	t.Helper()
	families, err := w.g.metrics.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// fill counts one of everything, so that every metric has a value.
func fill(m *Metrics) {
	for _, r := range []Record{
		{Type: RecordFlow, Bottle: "dev", Decision: routes.Passthrough, Lane: LaneRelay, Reason: routes.RouteMatched, BytesUp: 3, BytesDown: 4, DurationMS: 5},
		{Type: RecordRequest, Bottle: "dev", Decision: routes.Intercept, Reason: routes.RouteMatched, Status: 204, Injected: true, Finding: "x"},
		{Type: RecordDNS, Bottle: "dev", Reason: "dns_denied", Count: 7},
	} {
		m.record(&r)
	}
	m.turnedAway("dev", ReasonFlowBudget)
	m.planFailed("dev")
	m.listenerLost("dev", "tcp")
}

func TestMetricsLint(t *testing.T) {
	w := newWorld(t, nil)
	w.apply(t, testBottle(t))
	fill(w.g.metrics)
	problems, err := testutil.GatherAndLint(w.g.metrics.Registry())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestMetricsCount(t *testing.T) {
	w := newWorld(t, nil)
	w.apply(t, testBottle(t))
	fill(w.g.metrics)
	want := `
# HELP gatewayd_flows_total Flows that ended, by what was decided, what carried them and why.
# TYPE gatewayd_flows_total counter
gatewayd_flows_total{bottle="dev",decision="passthrough",lane="relay",reason="route"} 1
# HELP gatewayd_requests_total HTTP requests, by decision, reason and class of the status the guest got.
# TYPE gatewayd_requests_total counter
gatewayd_requests_total{bottle="dev",code="2xx",decision="intercept",reason="route"} 1
# HELP gatewayd_dns_refusals_total Refused or failed DNS questions.
# TYPE gatewayd_dns_refusals_total counter
gatewayd_dns_refusals_total{bottle="dev",reason="dns_denied"} 7
# HELP gatewayd_link_up Whether the capture link is attached and up.
# TYPE gatewayd_link_up gauge
gatewayd_link_up{bottle="dev"} 1
`
	if err := testutil.GatherAndCompare(w.g.metrics.Registry(), strings.NewReader(want),
		"gatewayd_flows_total", "gatewayd_requests_total", "gatewayd_dns_refusals_total", "gatewayd_link_up"); err != nil {
		t.Error(err)
	}
	if got := metricValue(t, w, "gatewayd_link_drops_total"); got != 3 {
		t.Errorf("drops of the link: %v, want what redirect counts", got)
	}
	w.apply(t)
	if got := metricValue(t, w, "gatewayd_flows_open"); got != 0 {
		t.Errorf("open flows of a bottle that is gone: %v", got)
	}
}

// TestMetricsAreDocumented reads the operator's page: every metric of the gateway must be there, as `name`.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, nil)
	w.apply(t, testBottle(t))
	fill(w.g.metrics)
	families, err := w.g.metrics.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "gatewayd_") && !strings.Contains(string(page), "`"+f.GetName()+"`") {
			t.Errorf("docs/OPERATIONS.md does not describe the metric `%s`", f.GetName())
		}
	}
}

// TestMetricLabelsAreBounded tries to make label values out of what a guest says.
func TestMetricLabelsAreBounded(t *testing.T) {
	m := NewMetrics()
	if got := m.reason("evil.test"); got != "other" {
		t.Errorf("reason %q: want a host name to count as other", got)
	}
	for i := range 10 * maxReasons {
		m.reason(routes.Reason(fmt.Sprintf("made_up_%d", i)))
	}
	if len(m.reasons) > maxReasons {
		t.Errorf("%d different reasons", len(m.reasons))
	}
	m.record(&Record{Type: RecordFlow, Bottle: "dev", Host: "secret-host.test", Path: "/secret-path", Lane: LaneNone})
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{"bottle": true, "decision": true, "lane": true, "reason": true, "code": true, "direction": true, "socket": true}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			for _, l := range metric.GetLabel() {
				if strings.HasPrefix(f.GetName(), "gatewayd_") && !allowed[l.GetName()] {
					t.Errorf("%s has the label %s", f.GetName(), l.GetName())
				}
				if strings.Contains(l.GetValue(), "secret") {
					t.Errorf("%s has the label value %q", f.GetName(), l.GetValue())
				}
			}
		}
	}
}
