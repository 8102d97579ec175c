package pipelock

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"gatewayd/gateway/formats"
)

// Inspected is one finding, for a person who wants to know why.
type Inspected struct {
	Finding
	// Offset is where the token begins, in bytes of what was looked at: the body without its content coding, a part without
	// its own, or a message or field of one. In what was written in base64 or hexadecimal it is right within a few bytes.
	Offset int64 `json:"offset"`
	// Entropy is how random the token is, in bits per byte.
	Entropy float64 `json:"entropy"`
	// Doubtful says that it has the form of one issuer's tokens and a checksum that is not theirs.
	Doubtful bool `json:"doubtful,omitempty"`

	secret string // so that what is looked at in two ways is reported once
}

// inspect adds to a finding what it was made of.
func inspect(g Finding, f formats.Finding) Inspected {
	return Inspected{Finding: g, Offset: f.Offset, Entropy: f.Entropy(), Doubtful: f.Doubtful, secret: string(f.Text[f.From:f.To])}
}

// Inspect reads r, the body of a request with the header h, to its end and calls found for everything that looks like a token
// in it, whatever is to be done about each. Known tokens are not looked for. Its errors are those of r and [Scanner.RequestBody];
// what was found before them is told. It blocks as r does.
func (s *Scanner) Inspect(place string, h http.Header, r io.Reader, found func(Inspected)) error {
	if s == nil {
		return nil
	}
	only := New(nil).WithFormats(s.formats, s.policy)
	b, err := only.RequestBody("", h, r)
	if err != nil {
		return fmt.Errorf("scan %s: %w", place, err)
	}
	media, _, _ := mediaType(h["Content-Type"]) // which RequestBody could read, as it could the framing
	framing, _ := messageFraming(media, h)
	apart := strings.HasPrefix(media, "multipart/") || framing != nil || isProtobuf(media)
	seen := map[string]bool{}
	b.stream.notes.all = func(f Inspected) {
		f.Place = place
		if key := f.Rule + "\x00" + f.secret; !apart || !seen[key] {
			seen[key] = true
			found(f)
		}
	}
	if _, err := io.Copy(io.Discard, b); err != nil {
		return fmt.Errorf("scan %s: %w", place, err)
	}
	return nil
}
