package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

// LookupKind says how a lookup failed. The zero value is ServFail.
type LookupKind uint8

// The kinds of LookupError.
const (
	// ServFail: no upstream gave a usable answer.
	ServFail LookupKind = iota
	// NXDomain: the name does not exist (RFC 8020).
	NXDomain
	// NoData: the name exists and has no address of the family asked for (RFC 2308 §2.2).
	NoData
	// Timeout: no upstream answered in time, or the caller's context ended.
	Timeout
	// BadName: the name is not canonical; nothing was asked.
	BadName
)

// String returns the kind as one lower-case word, fit for a metric label.
func (k LookupKind) String() string {
	switch k {
	case NXDomain:
		return "nxdomain"
	case NoData:
		return "nodata"
	case Timeout:
		return "timeout"
	case BadName:
		return "bad_name"
	}
	return "servfail"
}

// LookupError is the only error type of a Resolver's lookups. It is shared by callers and must not be changed.
type LookupError struct {
	// Name is what was asked for.
	Name string
	// Kind is what a caller decides on.
	Kind LookupKind
	// Err is the cause in words; nil for NXDomain and NoData.
	Err error
}

// Error gives "look up NAME: KIND: cause".
func (e *LookupError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("look up %q: %s", e.Name, e.Kind)
	}
	return fmt.Sprintf("look up %q: %s: %v", e.Name, e.Kind, e.Err)
}

// Unwrap returns the cause.
func (e *LookupError) Unwrap() error { return e.Err }

// asLookupError gives an error of the network or of a message its kind.
func asLookupError(name string, err error) *LookupError {
	var le *LookupError
	if errors.As(err, &le) {
		return le
	}
	kind := ServFail
	var ne net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() {
		kind = Timeout
	}
	return &LookupError{Name: name, Kind: kind, Err: err}
}
