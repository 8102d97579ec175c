package inject

import (
	"fmt"
	"time"

	"gatewayd/gateway/routes"
)

// MissingError reports that the host does not have a usable credential where
// the plan says that it is.
type MissingError struct {
	// Ref is where it was looked for.
	Ref routes.SecretRef
	// Err is the cause. It holds no part of what was found.
	Err error
}

// Error names the reference and the cause.
func (e *MissingError) Error() string { return fmt.Sprintf("read credential %s: %v", e.Ref, e.Err) }

// Unwrap returns the cause.
func (e *MissingError) Unwrap() error { return e.Err }

// Remedy says in one sentence what to do on the host.
func (e *MissingError) Remedy() string { return remedy(e.Ref) }

// ExpiredError reports that the host's credential is a JWT past its time.
type ExpiredError struct {
	// Ref is where it was found.
	Ref routes.SecretRef
	// At is when it expired.
	At time.Time
}

// Error names the reference and the time.
func (e *ExpiredError) Error() string {
	return fmt.Sprintf("use credential %s: it expired at %s", e.Ref, e.At.UTC().Format(time.RFC3339))
}

// Remedy says in one sentence what to do on the host.
func (e *ExpiredError) Remedy() string { return remedy(e.Ref) }

func remedy(ref routes.SecretRef) string {
	switch {
	case ref.Remedy != "":
		return ref.Remedy
	case ref.Env != "":
		return "set " + ref.Env + " in the environment of gatewayd on the host and restart it"
	case ref.File != "":
		return "write the current credential to " + ref.File + " on the host"
	case ref.JSON != nil:
		return "put a current credential at " + ref.JSON.Pointer + " of " + ref.JSON.Path + " on the host, by signing in there"
	case len(ref.Command) > 0:
		return "see on the host why " + ref.Command[0] + " prints no current credential"
	}
	return "name a source for the credential in the manifest"
}
