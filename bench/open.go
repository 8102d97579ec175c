package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"gatewayd/lab"
)

const openName = "open"

// openPaths are rows of the load that holds connections on the fast path: how many there are.
var openPaths = map[string]int{"gatewayd-open-0": 0, "gatewayd-open-1000": 1000, "gatewayd-open-10000": 10000}

// openLoad is gatewayd's memory while the kernel carries connections for it.
func openLoad() load {
	return load{name: openName, title: "gatewayd's memory while connections are open on the fast path", value: "MiB",
		unit: tooFew, host: rawName, paths: []string{"gatewayd-open-0", "gatewayd-open-1000", "gatewayd-open-10000"}, once: true, costs: true}
}

// held is a client that holds connections until its input ends.
type held struct {
	p            *lab.Process
	errOut       bytes.Buffer
	keep, output *os.File // what ends it; what it prints
}

// measureOpen reads gatewayd's memory while half of the path's connections are open in each of two bottles: together they
// are more than one may have.
func (w *world) measureOpen(ctx context.Context, o *options, l load, via string) (sample, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, clientPatience, fmt.Errorf("not done after %s", clientPatience))
	defer cancel()
	mark, err := w.auditSize()
	if err != nil {
		return sample{}, err
	}
	count := openPaths[via]
	var holders []*held
	var errs []error
	for _, b := range []*lab.Bottle{w.bottle, w.second} {
		if count == 0 {
			break
		}
		h, err := w.holdIn(ctx, o, l, viaGatewayd, b, count/2)
		if err != nil {
			errs = append(errs, err)
			break
		}
		holders = append(holders, h)
	}
	for _, h := range holders {
		var r Result
		errs = append(errs, json.NewDecoder(h.output).Decode(&r))
	}
	_, resident, err := w.spent(viaGatewayd)
	errs = append(errs, err)
	for _, h := range holders {
		errs = append(errs, h.release())
	}
	if err := errors.Join(errs...); err != nil {
		return sample{}, fmt.Errorf("%s over %s: %w", l.name, via, err)
	}
	s := sample{Value: float64(resident) / (1 << 20), Units: 1, Resident: resident}
	if s.Lanes, err = w.lanes(ctx, mark, l, count); err == nil && s.Lanes["fastpath"] != count {
		err = fmt.Errorf("%s over %s: of %d connections the lanes are %v", l.name, via, count, s.Lanes)
	}
	return s, err
}

// holdIn starts a client in a bottle, or where the path's clients run if that is nil, that holds count connections.
func (w *world) holdIn(ctx context.Context, o *options, l load, via string, b *lab.Bottle, count int) (*held, error) {
	in, keep, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer in.Close()
	output, print, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe: %w", err), keep.Close())
	}
	defer print.Close()
	h := &held{keep: keep, output: output}
	g, args := w.clientCommand(o, l, via, 0)
	args = append(args, "-count", strconv.Itoa(count), "-duration", (4 * clientPatience).String())
	if b != nil {
		g = b.Guest
		g.Env = append(append([]string{}, g.Env...), roleVariable+"=client")
		args = append(args, "-resolver", b.Resolver, "-authorization", "Bearer "+dummyOf(b), "-ca", b.Files+"/ca.pem")
	}
	if l.name == openName {
		args = append(args, w.nextPorts(g, count)...)
	}
	if h.p, err = g.Start(ctx, in, print, &h.errOut, args...); err != nil {
		return nil, errors.Join(err, keep.Close(), output.Close())
	}
	return h, nil
}

// release ends the client and its connections.
func (h *held) release() error {
	err := h.keep.Close()
	if errWait := h.p.Wait(); errWait != nil {
		err = errors.Join(err, fmt.Errorf("%w: %s", errWait, bytes.TrimSpace(h.errOut.Bytes())))
	}
	return errors.Join(err, h.output.Close())
}
