package main

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"

	"gatewayd/lab"
)

var (
	h2loadTime  = regexp.MustCompile(`finished in ([\d.]+)(us|ms|s), `)
	h2loadCount = regexp.MustCompile(`requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
)

// runH2load runs h2load in the path's bottle, with one connection that carries as many streams as the load says.
func (w *world) runH2load(ctx context.Context, o *options, l load, via string) (Result, error) {
	if err := w.absent["h2load"]; err != nil {
		return Result{}, err
	}
	g, port, err := w.named(o, l, via)
	if err != nil {
		return Result{}, err
	}
	out, err := runIn(ctx, g, o.duration+clientPatience, w.h2load, "-t1", "-c1", "-m"+strconv.Itoa(l.streams),
		"-D"+strconv.Itoa(max(1, int(o.duration.Seconds()))), "--groups=X25519", "--tls13-ciphers="+cipherSuite,
		"-H", "Authorization: Bearer "+w.dummy, fmt.Sprintf("https://%s:%d%s", l.host, port, smallPath))
	if err != nil {
		return Result{}, err
	}
	return parseH2load(string(out))
}

// parseH2load reads h2load's report. Any request that failed fails the whole.
func parseH2load(out string) (Result, error) {
	took, count := h2loadTime.FindStringSubmatch(out), h2loadCount.FindStringSubmatch(out)
	if took == nil || count == nil {
		return Result{}, fmt.Errorf("h2load: no rate in %q", out)
	}
	if count[2] != "0" || count[3] != "0" || count[4] != "0" {
		return Result{}, fmt.Errorf("h2load: %s", count[0])
	}
	seconds, errTime := strconv.ParseFloat(took[1], 64)
	n, errCount := strconv.ParseFloat(count[1], 64)
	if errTime != nil || errCount != nil || n <= 0 || seconds <= 0 {
		return Result{}, fmt.Errorf("h2load: no rate in %q", out)
	}
	seconds *= map[string]float64{"us": 1e-6, "ms": 1e-3, "s": 1}[took[2]]
	return Result{Units: n, Seconds: seconds, Connections: 1}, nil
}

// named is the guest of a path, for a program that finds the load's server by its name alone: from gatewayd's DNS, or, over
// a peer, from /etc/hosts.
func (w *world) named(o *options, l load, via string) (g lab.Guest, port int, err error) {
	g = w.guest(via)
	port, near := entry(via)
	if !isGatewayd(via) {
		addr := map[string]netip.Addr{webName: w.web, apiName: w.api, bothName: w.both}[l.host]
		if near {
			addr = peerNear.Addr()
		}
		hosts, err := w.write("hosts-"+via, fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", addr, l.host))
		if err != nil {
			return g, 0, err
		}
		g.Bind = map[string]string{"/etc/hosts": hosts}
	}
	g.Env = append(append([]string{}, g.Env...), o.packages.env()...)
	return g, port, nil
}
