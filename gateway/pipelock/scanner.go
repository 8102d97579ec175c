// Package pipelock scans what leaves a bottle for credentials on their way to
// where they do not belong.
package pipelock

import (
	"io"
	"net/http"

	"gatewayd/gateway/routes"
)

// PassthroughHosts returns the hosts of the routes with TLSPassthrough, in
// order and each once. It reads that field and nothing else: those hosts are
// never scanned, whatever else their routes say.
func PassthroughHosts(rs []routes.Route) []string {
	var hosts []string
	seen := make(map[string]bool)
	for _, r := range rs {
		if r.TLSPassthrough && !seen[r.Host] {
			seen[r.Host] = true
			hosts = append(hosts, r.Host)
		}
	}
	return hosts
}

// Token is one string that must not leave, except to its homes.
type Token struct {
	// Name is how findings call it, such as "dummy:api.example.org".
	Name string
	// Value is the string itself. It never shows in a finding.
	Value string
	// Homes are the canonical hosts that it may go to.
	Homes []string
}

// Finding says what was found and where. It never holds a token.
type Finding struct {
	// Rule is the token's name.
	Rule string `json:"rule"`
	// Place is where it was: "url", "header NAME", "body", ….
	Place string `json:"place"`
	// Excerpt is what surrounds it, with the token and whatever looks like
	// one replaced.
	Excerpt string `json:"excerpt"`
}

// Scanner knows the tokens of one plan. It is immutable and may be used by
// any number of goroutines. A nil Scanner knows none.
type Scanner struct{}

// New returns a scanner for the tokens.
func New(tokens []Token) *Scanner { return &Scanner{} }

// Scan returns what is found in b, on its way to host.
func (s *Scanner) Scan(host, place string, b []byte) []Finding { return nil }

// Request scans a request's URL and header values; skip names headers that
// the gateway itself fills.
func (s *Scanner) Request(host, url string, h http.Header, skip []string) []Finding { return nil }

// LeakError reports a token in a stream.
type LeakError struct{ Finding Finding }

// Error names rule and place.
func (e *LeakError) Error() string { return "scan " + e.Finding.Place + ": found " + e.Finding.Rule }

// BodyReader reads a body and scans it on the way.
type BodyReader struct{}

// Read reads the next bytes that are clean, or a *LeakError.
func (b *BodyReader) Read(p []byte) (int, error) { return 0, io.ErrClosedPipe }

// Body returns a reader of r's bytes on their way to host.
func (s *Scanner) Body(host string, r io.Reader) *BodyReader { return &BodyReader{} }

// EncodedBody is Body for a body with a Content-Encoding: r's bytes are
// returned as they are, and scanned as they are and decoded.
func (s *Scanner) EncodedBody(host, encoding string, r io.Reader) (*BodyReader, error) {
	return &BodyReader{}, nil
}
