package daemon

import (
	"bytes"

	"gatewayd/cmd/gatewayd/internal/manifests"
	"gatewayd/gateway/formats"
)

// rulebook keeps the scanner's rules in line with the operator's file. Whoever uses it has the keeper's lock. A nil one
// has no rules.
type rulebook struct {
	path string // of pipelock.rules; empty means the built-in rules alone, for good
	set  *formats.Set
	text []byte // of the file as last looked at
	err  error  // why that is not in force
}

// newRulebook reads and compiles the rules. An error names the file and the line.
func newRulebook(path string) (*rulebook, error) {
	r := &rulebook{path: path}
	if path == "" {
		r.set, r.err = formats.Default()
		return r, r.err
	}
	return r, r.look()
}

// look compiles the file if it has changed. After an error the rules of before are in force.
func (r *rulebook) look() error {
	if r == nil || r.path == "" {
		return nil
	}
	text, err := manifests.Read(r.path)
	if err != nil {
		return err // and it is read again: what is in force is none of its
	}
	if r.text != nil && bytes.Equal(text, r.text) {
		return r.err
	}
	r.text = append([]byte{}, text...)
	set, err := formats.Compile(r.path, text)
	if r.err = err; err == nil {
		r.set = set
	}
	return err
}

// rules returns what is in force.
func (r *rulebook) rules() *formats.Set {
	if r == nil {
		return nil
	}
	return r.set
}

// files returns what is to be watched.
func (r *rulebook) files() []string {
	if r == nil || r.path == "" {
		return nil
	}
	return []string{r.path}
}
