package gateway

import "github.com/prometheus/client_golang/prometheus"

// gatewayCollector reads what others count at the moment that the metrics are read.
type gatewayCollector struct {
	g       *Gateway
	drops   *prometheus.Desc
	packets *prometheus.Desc
	bytes   *prometheus.Desc
	given   *prometheus.Desc
	fast    *prometheus.Desc
	up      *prometheus.Desc
	repairs *prometheus.Desc
	pins    *prometheus.Desc
	open    *prometheus.Desc
	cutOff  *prometheus.Desc
}

// newGatewayCollector returns the collector for g.
func newGatewayCollector(g *Gateway) *gatewayCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("gatewayd_"+name, help, labels, nil)
	}
	return &gatewayCollector{
		g:       g,
		drops:   desc("link_drops_total", "Frames that the kernel program dropped on a capture link.", "bottle", "reason"),
		packets: desc("link_packets_total", "Packets on a capture link, as seen from the guest.", "bottle", "direction"),
		bytes:   desc("link_bytes_total", "Bytes on a capture link, as seen from the guest.", "bottle", "direction"),
		given:   desc("link_assigned_total", "Packets that were given to the gateway's listeners.", "bottle"),
		fast:    desc("link_forwarded_total", "Frames from the guest that the kernel forwarded on the fast path.", "bottle"),
		up:      desc("link_up", "Whether the capture link is attached and up.", "bottle"),
		repairs: desc("link_repairs_total", "How often the capture link had to be put right.", "bottle"),
		pins:    desc("pins", "Pairs of name and address that the bottle was told and that are still valid.", "bottle"),
		open:    desc("flows_open", "Flows that are open, by what carries them; none: not decided yet, or being explained.", "bottle", "lane"),
		cutOff:  desc("bottle_cut_off", "Whether the bottle is cut off, since it tried too often to leak.", "bottle"),
	}
}

// Describe sends the descriptions.
func (c *gatewayCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.drops, c.packets, c.bytes, c.given, c.fast, c.up, c.repairs, c.pins, c.open, c.cutOff} {
		out <- d
	}
}

// Collect reads and sends the values. A bottle whose kernel counters cannot be read is left out of those.
func (c *gatewayCollector) Collect(out chan<- prometheus.Metric) {
	fast := c.g.countFast()
	for _, b := range c.g.running() {
		lanes := map[Lane]int{LaneNone: 0, LaneRelay: 0, LaneIntercept: 0, LaneFastPath: fast[b.name]}
		for _, f := range b.open() {
			lanes[f.info().Lane]++
		}
		for lane, n := range lanes {
			out <- prometheus.MustNewConstMetric(c.open, prometheus.GaugeValue, float64(n), b.name, string(lane))
		}
		out <- prometheus.MustNewConstMetric(c.pins, prometheus.GaugeValue, float64(len(b.pins.Snapshot())), b.name)
		cutOff := 0.0
		if b.isTripped() {
			cutOff = 1
		}
		out <- prometheus.MustNewConstMetric(c.cutOff, prometheus.GaugeValue, cutOff, b.name)
		c.collectLink(out, b.name)
	}
	if c.g.redirect == nil {
		return
	}
	for _, l := range c.g.redirect.Status().Links {
		up := 0.0
		if l.Up && l.Err == nil {
			up = 1
		}
		out <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up, l.Link.Bottle)
		out <- prometheus.MustNewConstMetric(c.repairs, prometheus.CounterValue, float64(l.Repairs), l.Link.Bottle)
	}
}

// collectLink sends the kernel's counters of one bottle's link.
func (c *gatewayCollector) collectLink(out chan<- prometheus.Metric, bottle string) {
	if c.g.redirect == nil {
		return
	}
	k, err := c.g.redirect.Counters(bottle)
	if err != nil {
		return
	}
	for reason, n := range k.Drops {
		out <- prometheus.MustNewConstMetric(c.drops, prometheus.CounterValue, float64(n), bottle, reason.String())
	}
	for _, v := range []struct {
		desc      *prometheus.Desc
		n         uint64
		direction string
	}{
		{c.packets, k.RxPackets, "up"}, {c.packets, k.TxPackets, "down"},
		{c.bytes, k.RxBytes, "up"}, {c.bytes, k.TxBytes, "down"},
	} {
		out <- prometheus.MustNewConstMetric(v.desc, prometheus.CounterValue, float64(v.n), bottle, v.direction)
	}
	out <- prometheus.MustNewConstMetric(c.given, prometheus.CounterValue, float64(k.Assigned), bottle)
	out <- prometheus.MustNewConstMetric(c.fast, prometheus.CounterValue, float64(k.Forwarded), bottle)
}
