package inject

import (
	"context"
	"errors"

	"gatewayd/gateway/routes"
)

// Source fetches one secret from the host whenever it is asked, so that a
// credential rotated on the host is used from the next request on. It may be
// used by any number of goroutines.
type Source interface {
	// Secret returns the current value. It may read a file or run a command,
	// and blocks until that is done, its own timeout has passed or ctx ends.
	// The error is a *MissingError or an *ExpiredError, or ctx's.
	Secret(ctx context.Context) (Secret, error)
	// Ref returns the reference that the source was made from.
	Ref() routes.SecretRef
}

// NewSource returns the source that the reference names. It reads nothing
// yet. A reference without exactly one source is an error.
func NewSource(ref routes.SecretRef) (Source, error) {
	return nil, errors.New("make source: not built yet")
}
