package privileged

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// recorder is a test that only notes what would become of it.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()                           {}
func (r *recorder) Skipf(format string, args ...any)  { r.skipped = fmt.Sprintf(format, args...) }
func (r *recorder) Fatalf(format string, args ...any) { r.failed = fmt.Sprintf(format, args...) }

func TestRequire(t *testing.T) {
	met := func() error { return nil }
	missing := func(what string) Requirement {
		return func() error { return errors.New(what + " is missing") }
	}
	for _, c := range []struct {
		name            string
		variable        string
		needs           []Requirement
		skipped, failed []string
	}{
		{"all met", "", []Requirement{met, met}, nil, nil},
		{"all met, demanded", "1", []Requirement{met}, nil, nil},
		{"missing", "", []Requirement{met, missing("this"), missing("that")}, []string{"this is missing", "that is missing"}, nil},
		{"missing, demanded", "1", []Requirement{missing("this"), met}, nil, []string{Variable, "this is missing"}},
		{"missing, not demanded", "0", []Requirement{missing("this")}, []string{"this is missing"}, nil},
	} {
		t.Setenv(Variable, c.variable)
		r := &recorder{}
		Require(r, c.needs...)
		for _, outcome := range []struct {
			got  string
			want []string
		}{{r.skipped, c.skipped}, {r.failed, c.failed}} {
			if (outcome.got == "") != (len(outcome.want) == 0) {
				t.Errorf("%s: %q, want %q", c.name, outcome.got, outcome.want)
			}
			for _, w := range outcome.want {
				if !strings.Contains(outcome.got, w) {
					t.Errorf("%s: %q does not name %q", c.name, outcome.got, w)
				}
			}
		}
	}
}

func TestProgram(t *testing.T) {
	if err := Program("sh")(); err != nil {
		t.Error(err)
	}
	err := Program("sh", "no-such-program-1", "no-such-program-2")()
	if err == nil || !strings.Contains(err.Error(), "no-such-program-1") || !strings.Contains(err.Error(), "no-such-program-2") {
		t.Errorf("%v, want both named", err)
	}
}
