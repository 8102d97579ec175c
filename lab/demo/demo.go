// Package demo is the engine of `gatewayd demo`: it builds a small internet
// and a bottle on this machine, lets real clients try six things, and says of
// each whether it went as it should.
package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"gatewayd/lab"
)

// ClientCommand is the name of the hidden subcommand by which the gatewayd
// binary runs Client: the demo starts its own binary again inside the bottle,
// since nothing but that binary may be assumed to be on the machine.
const ClientCommand = "demo-client"

// deadline bounds a whole run; it takes a few seconds on an idle machine.
const deadline = 90 * time.Second

// bootDeadline is added for a VM, which takes a few seconds with KVM and some
// tens without.
const bootDeadline = 150 * time.Second

//go:embed demo.bottle.yaml
var manifest string

// Options of a run.
type Options struct {
	// Gatewayd is the path of the gatewayd binary; required.
	Gatewayd string
	// VM is "qemu" for a bottle that is a VM under QEMU; "" for one that is a
	// network namespace.
	VM string
	// Kernel is a directory with the VM's kernel and its modules, as
	// vm.Options takes it.
	Kernel string
	// Out receives the report; required.
	Out io.Writer
	// JSON asks for one JSON document in place of the screen.
	JSON bool
	// Colour asks for terminal colours; ignored with JSON.
	Colour bool
}

// Unexpected is the error of a run that worked but did not show what it
// should: the report says which outcome is at fault.
type Unexpected struct {
	// Outcomes is how many outcomes were not as expected.
	Outcomes int
	// LeftBehind is what could not be removed.
	LeftBehind []string
}

// Error implements error.
func (e *Unexpected) Error() string {
	if len(e.LeftBehind) > 0 {
		return fmt.Sprintf("run demo: %d outcomes not as expected, left behind: %q", e.Outcomes, e.LeftBehind)
	}
	return fmt.Sprintf("run demo: %d outcomes not as expected", e.Outcomes)
}

// Run shows the demo and returns *Unexpected when any outcome was not as
// expected, or another error when the machine cannot run it. It needs root,
// takes a few seconds, and removes everything that it made before it returns.
func Run(ctx context.Context, o Options) error {
	if os.Geteuid() != 0 {
		return errors.New("run demo: it makes network namespaces and loads BPF programs, so it needs root (try: sudo gatewayd demo)")
	}
	most := deadline
	if o.VM != "" {
		most += bootDeadline
	}
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("the demo took more than %s", most))
	defer cancel()
	before, err := takeInventory()
	if err != nil {
		return err
	}
	screen := newScreen(o)
	screen.begin()
	s, err := build(ctx, o)
	if err != nil {
		return errors.Join(err, s.close())
	}
	screen.built(s)
	bad := 0
	for _, step := range steps {
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("run demo: %w", context.Cause(ctx)), s.close())
		}
		outcome := step(ctx, s)
		screen.show(outcome)
		if !outcome.OK {
			bad++
		}
	}
	if bad > 0 {
		screen.log(s.gateway.Log())
	}
	left, err := tidy(s, before)
	if err != nil {
		return err
	}
	if err := screen.end(left); err != nil {
		return err
	}
	if bad > 0 || len(left) > 0 {
		return &Unexpected{Outcomes: bad, LeftBehind: left}
	}
	return nil
}

// tidy removes the scene and returns what is left of it.
func tidy(s *scene, before inventory) ([]string, error) {
	if err := s.close(); err != nil {
		return nil, err
	}
	after, err := takeInventory()
	if err != nil {
		return nil, err
	}
	return append(lab.Leftovers(s.world.ID, os.TempDir()), after.beyond(before)...), nil
}
