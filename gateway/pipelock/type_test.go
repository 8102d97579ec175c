package pipelock

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

// A body that a server could take apart in another way than the scanner is refused before any of it is read.
func TestTypesThatCannotBeRead(t *testing.T) {
	for _, c := range []struct {
		name  string
		types []string
		wrong bool
	}{
		{"none", nil, false},
		{"no media type", []string{"/;="}, false},
		{"multipart", []string{`multipart/form-data; boundary="b"`}, false},
		{"multipart without a boundary", []string{"multipart/form-data"}, true},
		{"an empty boundary", []string{`multipart/form-data; boundary=""`}, true},
		{"a parameter that cannot be read", []string{"multipart/related; boundary=b; start=<a@b>"}, true},
		{"two boundaries", []string{"multipart/mixed; boundary=a; boundary=b"}, true},
		{"two types", []string{"text/plain", "multipart/mixed; boundary=b"}, true},
	} {
		_, err := (&Scanner{}).RequestBody("api.example.org", http.Header{"Content-Type": c.types}, strings.NewReader("a"))
		var refused *EncodingError
		if got := errors.As(err, &refused) && refused.Kind == Malformed; got != c.wrong || err != nil && !got {
			t.Errorf("%s: %v, want refused: %v", c.name, err, c.wrong)
		}
	}
}
