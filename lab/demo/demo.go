// Package demo is the engine of `gatewayd demo`: it builds a small internet
// and a bottle on this machine, lets real clients try six things, and says of
// each whether it went as it should.
package demo

import (
	"context"
	"errors"
	"io"
)

// ClientCommand is the name of the hidden subcommand by which the gatewayd
// binary runs Client: the demo starts its own binary again inside the bottle,
// since nothing but that binary may be assumed to be on the machine.
const ClientCommand = "demo-client"

// Options of a run.
type Options struct {
	// Gatewayd is the path of the gatewayd binary; required.
	Gatewayd string
	// Out receives the report; required.
	Out io.Writer
	// JSON asks for one JSON document in place of the screen.
	JSON bool
	// Colour asks for terminal colours; ignored with JSON.
	Colour bool
}

// Run shows the demo and returns an error when any outcome was not as
// expected, or when the machine cannot run it. It needs root, takes a few
// seconds, and removes everything that it made before it returns.
func Run(ctx context.Context, o Options) error {
	return errors.New("demo: not built yet")
}

// Client is what ClientCommand runs inside the bottle: args are the arguments
// after the subcommand's name. It writes one JSON document to out and returns
// the exit code.
func Client(args []string, out io.Writer) int { return 2 }
