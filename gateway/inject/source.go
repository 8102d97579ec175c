package inject

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gatewayd/gateway/needle"
	"gatewayd/gateway/routes"
)

// maxSecret bounds what is read from any source, in bytes.
const maxSecret = 64 << 10

// Source fetches one secret from the host whenever it is asked, so that a
// credential rotated on the host is used from the next request on. It may be
// used by any number of goroutines.
type Source interface {
	// Secret returns the current value. It may read a file or run a command,
	// and blocks until that is done, its own timeout has passed or ctx ends.
	// The error is a *MissingError, which wraps ctx's error if that was the
	// cause, or an *ExpiredError.
	Secret(ctx context.Context) (Secret, error)
	// Ref returns the reference that the source was made from.
	Ref() routes.SecretRef
}

// NewSource returns the source that the reference names. It reads nothing
// yet. A reference without exactly one source, or with a JSON pointer that is
// none, is an error.
//
// An environment variable is read at every call. A file is read again when its
// device, inode, size or modification time has changed, or when it was too
// young at the last reading for that to tell. A command is run without a shell
// and its output kept for a minute, or until the token in it is about to
// expire; it may take ten seconds.
//
// Of the value, one line break at the end is cut off. A value that is shorter
// than needle.MinLength (it could not be masked), longer than 64 KB, or holds
// a control byte or a space at either end is refused.
func NewSource(ref routes.SecretRef) (Source, error) {
	s, err := sourceOf(ref)
	if err != nil {
		return nil, err // not s: a nil *source in an interface is not nil
	}
	return s, nil
}

// sourceOf is NewSource.
func sourceOf(ref routes.SecretRef) (*source, error) {
	if n := ref.Sources(); n != 1 {
		return nil, fmt.Errorf("make credential source: the reference has %d sources, not one", n)
	}
	s := &source{ref: ref, now: time.Now}
	switch {
	case ref.Env != "":
		s.fetch = func(context.Context) (string, error) { return readEnv(ref.Env) }
	case ref.File != "":
		f := &file{path: ref.File, parse: func(b []byte) (string, error) { return string(b), nil }}
		s.fetch = f.fetch
	case ref.JSON != nil:
		pointer, err := parsePointer(ref.JSON.Pointer)
		if err != nil {
			return nil, fmt.Errorf("make credential source %s: %w", ref, err)
		}
		f := &file{path: ref.JSON.Path, parse: pointer.find}
		s.fetch = f.fetch
	default:
		s.fetch = newCommand(ref.Command).fetch
	}
	return s, nil
}

// source is the part that all kinds share: what a value must be like.
type source struct {
	ref   routes.SecretRef
	fetch func(context.Context) (string, error)
	now   func() time.Time
	seen  func(value string) // takes every usable value, expired or not; may be nil

	last    atomic.Pointer[judged]
	judging sync.Mutex // orders what is seen with what last is
}

// judged is what was made of what a source holds. Nearly always it is the same as the last time.
type judged struct {
	raw, secret Secret
	expires     time.Time
	ends        bool // at expires
}

func (s *source) Ref() routes.SecretRef { return s.ref }

func (s *source) Secret(ctx context.Context) (Secret, error) {
	v, err := s.value(ctx)
	if err != nil {
		return Secret{}, &MissingError{Ref: s.ref, Err: err}
	}
	if v.ends && !v.expires.After(s.now()) {
		return Secret{}, &ExpiredError{Ref: s.ref, At: v.expires}
	}
	return v.secret, nil
}

// value returns the current value, which may have expired. Its errors hold nothing of it.
func (s *source) value(ctx context.Context) (*judged, error) {
	raw, err := s.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if v := s.last.Load(); v != nil && v.raw.Reveal() == raw {
		return v, nil
	}
	value := trimLine(raw)
	if err := usable(value); err != nil {
		return nil, err
	}
	v := &judged{raw: NewSecret(raw), secret: NewSecret(value)}
	v.expires, v.ends = expiry(value)
	s.judging.Lock()
	defer s.judging.Unlock()
	if s.seen != nil {
		s.seen(value)
	}
	s.last.Store(v)
	return v, nil
}

// trimLine cuts off one line break at the end: editors and echo leave one.
func trimLine(s string) string {
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
}

// usable returns why a value can be no credential. The errors hold nothing of
// the value.
func usable(value string) error {
	switch {
	case value == "":
		return errors.New("it is empty")
	case len(value) < needle.MinLength:
		return fmt.Errorf("it has %d bytes; fewer than %d cannot be masked in responses, nor looked for in requests", len(value), needle.MinLength)
	case len(value) > maxSecret:
		return errors.New("it is longer than 64 KB")
	case strings.Trim(value, " \t") != value:
		return errors.New("it begins or ends with a space")
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; c < ' ' || c == 0x7f {
			return fmt.Errorf("it holds a control byte (%#02x) at offset %d", c, i)
		}
	}
	return nil
}

// expiry returns the exp claim (RFC 7519 section 4.1.4) of a value that is a
// JWT and has one. Nothing is verified: the token is the host's own.
func expiry(value string) (time.Time, bool) {
	if strings.Count(value, ".") != 2 {
		return time.Time{}, false
	}
	claims := jwt.MapClaims{}
	// An algorithm that the library does not know is an error of its own,
	// after the claims were read; it does not matter here.
	if _, _, err := jwt.NewParser().ParseUnverified(value, claims); errors.Is(err, jwt.ErrTokenMalformed) {
		return time.Time{}, false
	}
	exp, err := claims.GetExpirationTime()
	if err != nil || exp == nil {
		return time.Time{}, false
	}
	return exp.Time, true
}

func readEnv(name string) (string, error) {
	value, ok := os.LookupEnv(name)
	if !ok {
		return "", errors.New("the variable is not set")
	}
	return value, nil
}
