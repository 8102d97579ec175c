package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"gatewayd/vmimage/qemu"
)

// virtual is what is needed of a VM.
type virtual interface {
	Run(ctx context.Context, c qemu.Command, stdout, stderr io.Writer) (int, error)
	Console() string
	Close() error
	Kill() error
}

// guest runs programs in a VM, which boots when there is none: at first, and after one was lost.
type guest struct {
	boot func(context.Context) (virtual, error)
	vm   virtual
}

// run is a runner.
func (g *guest) run(ctx context.Context, dir string, env, argv []string, stdout, stderr io.Writer) (int, error) {
	if g.vm == nil {
		vm, err := g.boot(ctx)
		if err != nil {
			return 0, err
		}
		g.vm = vm
	}
	code, err := g.vm.Run(ctx, qemu.Command{Argv: argv, Env: env, Dir: path.Join(guestTree, dir)}, stdout, stderr)
	if err != nil { // whatever it was, the next program has nothing to do with it
		err = errors.Join(fmt.Errorf("%w; the console ends with:\n%s", err, g.vm.Console()), g.vm.Kill())
		g.vm = nil
	}
	return code, err
}

func (g *guest) close() error {
	if g.vm == nil {
		return nil
	}
	return g.vm.Close()
}
