package vmimage

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"gatewayd/gateway/routes"
	"gatewayd/plan"
)

// LentError reports a credential that a file needs and that could not be read.
type LentError struct {
	File   string           // path in the guest directory
	Secret routes.SecretRef // what was asked for
	Err    error            // why it could not be had; never holds the value
}

// Error names the file and the reference, and what to run on the host.
func (e *LentError) Error() string {
	s := fmt.Sprintf("lend %s to %s: %v", e.Secret, e.File, e.Err)
	if e.Secret.Remedy != "" {
		s += ": " + e.Secret.Remedy
	}
	return s
}

// Unwrap returns Err.
func (e *LentError) Unwrap() error { return e.Err }

// fill returns the file's content with each mark replaced by its secret,
// escaped for the JSON string that it stands in.
func fill(f plan.GuestFile, secret func(routes.SecretRef) (string, error)) (string, error) {
	content := f.Content
	for _, l := range f.Fill {
		if secret == nil {
			return "", &LentError{File: f.Path, Secret: l.Secret, Err: errors.New("no secrets at hand")}
		}
		value, err := secret(l.Secret)
		if err == nil && value == "" {
			err = errors.New("it is empty")
		}
		if err == nil && strings.Count(content, l.Mark) != 1 {
			err = fmt.Errorf("the file has no single place for it")
		}
		if err != nil {
			return "", &LentError{File: f.Path, Secret: l.Secret, Err: err}
		}
		quoted, err := json.Marshal(value)
		if err != nil {
			return "", &LentError{File: f.Path, Secret: l.Secret, Err: errors.New("it is no text")}
		}
		content = strings.Replace(content, l.Mark, string(quoted[1:len(quoted)-1]), 1)
	}
	return content, nil
}
