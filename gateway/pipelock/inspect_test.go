package pipelock

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// inspectAll returns what Inspect finds in a body.
func inspectAll(t *testing.T, h http.Header, body string) (all []Inspected, err error) {
	t.Helper()
	err = formScanner(t).Inspect("x", h, strings.NewReader(body), func(f Inspected) { all = append(all, f) })
	return all, err
}

// TestInspectFindsWhatIsBlocked: what stops a body, in whatever wrapping, Inspect names once, with its place.
func TestInspectFindsWhatIsBlocked(t *testing.T) {
	for rule, token := range formTokens() {
		for name, w := range wraps() {
			body := w.body(t, token)
			found := 0
			err := formScanner(t).Inspect("x", w.header, bytes.NewReader(body), func(f Inspected) {
				if f.Rule != rule {
					return
				}
				found++
				if f.Place != "x" || f.Action != Block || f.Entropy < 3 || f.Doubtful || strings.Contains(f.Excerpt, token[4:12]) {
					t.Errorf("%s, %s: %+v", rule, name, f)
				}
			})
			if err != nil || found != 1 {
				t.Errorf("%s, %s: found %d times, %v", rule, name, found, err)
			}
		}
	}
}

func TestInspect(t *testing.T) {
	token := formTokens()["gitlab-pat"]
	// Every occurrence in a text, however many, with its offset before what was escaped.
	body := strings.Repeat(`{"a":"\u0041\n`+token+`"}`, 2*maxFindings)
	all, err := inspectAll(t, asJSON, body)
	if err != nil || len(all) != 2*maxFindings {
		t.Fatalf("%d findings, %v", len(all), err)
	}
	at := 0
	for i, f := range all {
		at += strings.Index(body[at:], token)
		if f.Offset != int64(at) {
			t.Errorf("finding %d at %d, want %d", i, f.Offset, at)
		}
		at++
	}
	if all, err := inspectAll(t, nil, "x "+dummy+" "+secret); err != nil || len(all) != 0 {
		t.Errorf("known tokens: %+v, %v", all, err)
	}
	all, err = inspectAll(t, nil, githubToken("q7Xv2LmN9bT4sKd8WzR1yHc5JfGp3A", false))
	if err != nil || len(all) != 1 || !all[0].Doubtful || all[0].Action != Warn {
		t.Errorf("a wrong checksum: %+v, %v", all, err)
	}
	var encoding *EncodingError
	if _, err := inspectAll(t, http.Header{"Content-Encoding": {"gzip"}}, "no gzip"); !errors.As(err, &encoding) {
		t.Errorf("no gzip: %v", err)
	}
	if err := (*Scanner)(nil).Inspect("x", nil, strings.NewReader(token), nil); err != nil {
		t.Error(err)
	}
}
