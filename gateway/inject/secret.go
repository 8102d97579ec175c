package inject

import (
	"fmt"
	"log/slog"
)

// redacted is what every rendering of a Secret shows.
const redacted = "[REDACTED]"

// Secret holds a credential and does not show it: every verb of fmt, slog and
// the text and JSON encoders get a fixed placeholder, also when the Secret is
// an unexported field of a struct that is printed whole. Only Reveal returns
// the value. Secrets are immutable and may be copied; they cannot be compared
// with ==. The zero Secret is empty.
type Secret struct {
	// A closure, since fmt and reflection print the fields of unexported
	// struct members without asking for methods, and cannot look into this.
	reveal func() string
}

// NewSecret returns a Secret that holds value. The empty value makes the zero
// Secret.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{reveal: func() string { return value }}
}

// Reveal returns the value itself. It is to be called where the bytes are put
// on the wire, or compared with others of the host's, and nowhere else.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// IsZero tells whether the Secret is empty.
func (s Secret) IsZero() bool { return s.reveal == nil }

// String returns the placeholder.
func (s Secret) String() string { return redacted }

// GoString returns the placeholder.
func (s Secret) GoString() string { return redacted }

// Format writes the placeholder, whatever the verb and flags.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue returns the placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON returns the placeholder as a JSON string. It never fails.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText returns the placeholder. It never fails.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
