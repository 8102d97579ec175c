package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"gatewayd/lab"
)

// firstsPerRound is how many first connections one path makes in one round.
const firstsPerRound = 10

// sample is one load over one path in one round.
type sample struct {
	Value    float64
	CPU      float64 // seconds
	Units    float64
	Resident int64
	Lanes    map[string]int
}

// measure does one load over one path once.
func (w *world) measure(ctx context.Context, o *options, l load, via string, round int) (s sample, err error) {
	l = l.over(via)
	if l.name == openName {
		return w.measureOpen(ctx, o, l, via)
	}
	if l.held > 0 {
		if err := w.renew(ctx, o, via); err != nil {
			return sample{}, fmt.Errorf("%s over %s: %w", l.name, via, err)
		}
	}
	mark, err := w.auditSize()
	if err != nil {
		return sample{}, err
	}
	if via == viaFlowtable {
		remove, errSet := w.setFlowtable(ctx, o)
		if errSet != nil {
			return sample{}, errSet
		}
		defer func() { err = errors.Join(err, remove()) }()
	}
	if port := redirected[via]; port != 0 {
		remove, errSet := w.redirect(ctx, o, port)
		if errSet != nil {
			return sample{}, errSet
		}
		defer func() { err = errors.Join(err, remove()) }()
	}
	before, _, err := w.spent(via)
	if err != nil {
		return sample{}, err
	}
	r, grown, err := w.load(ctx, o, l, via, round)
	if err != nil {
		return sample{}, fmt.Errorf("%s over %s: %w", l.name, via, err)
	}
	var lanes map[string]int
	if isGatewayd(via) { // first: to collect flows and record them is part of the work
		if lanes, err = w.lanes(ctx, mark, l, r.Connections); err != nil {
			return sample{}, err
		}
	}
	after, resident, err := w.spent(via)
	if err != nil {
		return sample{}, err
	}
	s = sample{Lanes: lanes, CPU: after - before, Units: r.Units, Resident: resident, Value: r.Median}
	switch {
	case l.memory:
		s.Value = float64(max(0, grown)) / 1024 / r.Units
	case l.costs:
		s.Value = s.CPU
	case !l.latency:
		s.Value = r.Units / r.Seconds * l.scale
	}
	return s, nil
}

// load makes the load and returns what it did, and by how many bytes the memory of what works for the path has grown, if it holds
// connections.
func (w *world) load(ctx context.Context, o *options, l load, via string, round int) (r Result, grown int64, err error) {
	switch {
	case l.name == manyIdleName:
		r, grown, err = w.holdMany(ctx, o, l, via)
	case l.held > 0:
		r, grown, err = w.holdMore(ctx, o, l, via)
	case l.memory:
		r, grown, err = w.hold(ctx, o, l, via)
	case via == viaIperf:
		r, err = w.runIperf(ctx, o, l)
	case isVM(via):
		r, err = w.runVM(ctx, o, l, via)
	case l.h2load:
		r, err = w.runH2load(ctx, o, l, via)
	case l.wrk:
		r, err = w.runWrk(ctx, o, l, via)
	default:
		r, err = w.runClient(ctx, o, l, via, round)
	}
	return r, grown, err
}

// spent is the CPU time so far and the memory of whatever works for a path. Of the kernel it is all software interrupts
// of the machine.
func (w *world) spent(via string) (cpu float64, resident int64, err error) {
	switch via {
	case viaGatewayd, viaRelay, viaUnscanned, viaQuiet, viaVMFast, viaVMRelay, viaVMIntercept:
		return usage(w.gatewayd.Pid())
	case viaHAProxy, viaReencrypt:
		return usage(w.peers["haproxy"].cmd.Process.Pid)
	case viaNginx, viaNginxTLS, viaSquid, viaMitmproxy:
		return usage(w.peers[via].cmd.Process.Pid)
	}
	cpu, err = softirq()
	return cpu, 0, err
}

// entry is where a client of a path connects to, "" for what DNS says, and port 443.
func entry(via string) (port int, near bool) {
	switch via {
	case viaHAProxy:
		return haproxyPort, true
	case viaNginx:
		return nginxPort, true
	case viaReencrypt:
		return reencryptPort, true
	case viaNginxTLS:
		return nginxTLSPort, true
	}
	return 443, false
}

// guest is where the clients of a path run.
func (w *world) guest(via string) lab.Guest {
	if isGatewayd(via) {
		return w.bottle.Guest
	}
	return lab.Guest{Netns: w.peerBottle.Path, Env: []string{"PATH=" + os.Getenv("PATH")}}
}

// clientCommand is how this binary's client does a load over a path.
func (w *world) clientCommand(o *options, l load, via string, round int) (lab.Guest, []string) {
	g := w.guest(via)
	g.Env = append(append([]string{}, g.Env...), roleVariable+"=client")
	resolver, ca := g.Resolver, w.file("ca.pem")
	if isGatewayd(via) && decrypts(l.host) { // the others are not decrypted
		ca = w.bottle.Files + "/ca.pem"
	}
	if redirected[via] != 0 {
		ca = w.file(bumpCert)
	}
	if !isGatewayd(via) {
		resolver = lab.Resolver.Addr().String()
	}
	args := []string{o.self, "-load", l.name, "-name", l.host, "-resolver", resolver, "-ca", ca,
		"-authorization", "Bearer " + w.dummy, "-streams", strconv.Itoa(max(1, l.streams)),
		"-duration", o.duration.String(),
		"-from", strconv.Itoa(round * firstsPerRound), "-count", strconv.Itoa(firstsPerRound)}
	args = append(args, l.arguments()...)
	if port, near := entry(via); near {
		args = append(args, "-connect", netip.AddrPortFrom(peerNear.Addr(), uint16(port)).String())
	}
	return g, args
}

func (w *world) runClient(ctx context.Context, o *options, l load, via string, round int) (Result, error) {
	g, args := w.clientCommand(o, l, via, round)
	if l.unit == connections {
		args = append(args, w.nextPorts(g, mostConnects)...)
	}
	out, err := runIn(ctx, g, o.duration+2*clientPatience, args...)
	if err != nil {
		return Result{}, err
	}
	var r Result
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("read the client's result: %w", err)
	}
	return r, nil
}

// runIn runs a program in a bottle to its end and returns what it printed.
func runIn(ctx context.Context, g lab.Guest, limit time.Duration, argv ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	var out, errOut bytes.Buffer
	p, err := g.Start(ctx, nil, &out, &errOut, argv...)
	if err != nil {
		return nil, err
	}
	if err := p.Wait(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, bytes.TrimSpace(errOut.Bytes())), context.Cause(ctx))
	}
	return out.Bytes(), nil
}
