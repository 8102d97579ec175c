package plan

import "errors"

// Provision resolves the manifest m and its agent provider on host h.
func Provision(m *Manifest, h Host) (*Plan, error) {
	return nil, errors.New("provision bottle: not written yet")
}
