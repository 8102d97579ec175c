package redirect

import (
	"errors"
	"fmt"
)

// ErrLocked says that another process holds the instance's pins.
var ErrLocked = errors.New("another process holds this instance")

// ErrUnknownBottle says that no link of that bottle is configured.
var ErrUnknownBottle = errors.New("unknown bottle")

// ErrClosed says that the Redirect was closed.
var ErrClosed = errors.New("redirect is closed")

// LinkError is what went wrong with one capture link. The link it names is
// shut: down, or without an entry in the datapath's table of bottles.
type LinkError struct {
	Bottle string // the bottle whose link it is
	Link   string // the host-side interface name
	Op     string // what was tried, e.g. "attach program"
	Remedy string // what an operator can do about it, or ""
	Err    error  // the cause
}

// Error returns `OP link NAME of bottle BOTTLE: cause`, and the remedy.
func (e *LinkError) Error() string {
	s := fmt.Sprintf("%s link %s of bottle %s: %v", e.Op, e.Link, e.Bottle, e.Err)
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *LinkError) Unwrap() error { return e.Err }

// StateError says that the pinned state or an object of the machine belongs to
// somebody else, so that it was neither adopted nor removed.
type StateError struct {
	Object string // what was found, e.g. a directory or an interface
	Cause  string // why it is not ours
	Remedy string // what an operator can do about it
}

// Error returns `adopt OBJECT: cause (remedy)`.
func (e *StateError) Error() string {
	return fmt.Sprintf("adopt %s: %s (%s)", e.Object, e.Cause, e.Remedy)
}

type linkErrors []error

func (e linkErrors) join() error { return errors.Join(e...) }
