package main

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strconv"
)

const wrkConnections = 16

var (
	wrkTotal  = regexp.MustCompile(`(\d+) requests in `)
	wrkRate   = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkFailed = regexp.MustCompile(`(?m)^\s+(Non-2xx or 3xx responses: .*|Socket errors: .*)$`)
)

// runWrk runs wrk in the path's bottle. It takes the server's address from /etc/hosts, or from gatewayd's DNS.
func (w *world) runWrk(ctx context.Context, o *options, l load, via string) (Result, error) {
	if err := w.absent["wrk"]; err != nil {
		return Result{}, err
	}
	g, port, err := w.named(o, l, via)
	if err != nil {
		return Result{}, err
	}
	out, err := runIn(ctx, g, o.duration+clientPatience, w.wrk, "-t1", "-c"+strconv.Itoa(wrkConnections),
		"-d"+strconv.Itoa(max(1, int(o.duration.Seconds()))), "-H", "Authorization: Bearer "+w.dummy,
		fmt.Sprintf("https://%s:%d%s", l.host, port, cmp.Or(l.file, smallPath)))
	if err != nil {
		return Result{}, err
	}
	return parseWrk(string(out))
}

// parseWrk reads wrk's report. Any request that failed fails the whole.
func parseWrk(out string) (Result, error) {
	if m := wrkFailed.FindStringSubmatch(out); m != nil {
		return Result{}, fmt.Errorf("wrk: %s", m[1])
	}
	total, rate := wrkTotal.FindStringSubmatch(out), wrkRate.FindStringSubmatch(out)
	if total == nil || rate == nil {
		return Result{}, fmt.Errorf("wrk: no rate in %q", out)
	}
	n, errTotal := strconv.ParseFloat(total[1], 64)
	perSecond, errRate := strconv.ParseFloat(rate[1], 64)
	if errTotal != nil || errRate != nil || n <= 0 || perSecond <= 0 {
		return Result{}, fmt.Errorf("wrk: no rate in %q", out)
	}
	return Result{Units: n, Seconds: n / perSecond, Connections: wrkConnections}, nil
}
