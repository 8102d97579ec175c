package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const iperfPort = 5201

// startIperf starts iperf3's server beside the bench's own at an address.
func (w *world) startIperf(ctx context.Context, o *options, addr netip.Addr) error {
	path, err := o.packages.find(ctx, "iperf3")
	if err != nil {
		return err
	}
	p, err := w.run(ctx, w.Internet.Netns, o.packages.env(), nil, path, "-s", "-B", addr.String(), "-p", strconv.Itoa(iperfPort))
	if err != nil {
		return err
	}
	w.iperf = path
	return p.answers(ctx, w.Internet.Netns, netip.AddrPortFrom(addr, iperfPort))
}

// runIperf runs iperf3's client in the peers' bottle, over the forwarding kernel.
func (w *world) runIperf(ctx context.Context, o *options, l load) (Result, error) {
	g := w.guest(viaIperf)
	g.Env = append(append([]string{}, g.Env...), o.packages.env()...)
	args := []string{w.iperf, "-c", w.raw.String(), "-p", strconv.Itoa(iperfPort), "-J", "-t", strconv.Itoa(max(1, int(o.duration.Seconds())))}
	args = append(args, "-C", congestion(l.name))
	if strings.HasPrefix(l.name, "down") {
		args = append(args, "-R")
	}
	out, err := runIn(ctx, g, o.duration+clientPatience, args...)
	if err != nil {
		return Result{}, err
	}
	return parseIperf(out)
}

// parseIperf reads what iperf3's receiver has got.
func parseIperf(out []byte) (Result, error) {
	var report struct {
		End struct {
			Received struct {
				Bytes, Seconds float64
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return Result{}, fmt.Errorf("read iperf3's report: %w", err)
	}
	r := report.End.Received
	if r.Bytes <= 0 || r.Seconds <= 0 {
		return Result{}, fmt.Errorf("read iperf3's report: %v bytes in %v s", r.Bytes, r.Seconds)
	}
	return Result{Units: r.Bytes, Seconds: r.Seconds, Connections: 1}, nil
}
