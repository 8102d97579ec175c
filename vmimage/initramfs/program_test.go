package initramfs

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatewayd/lab/privileged"
)

// A program comes with its libraries and its loader, and a static one alone.
func TestProgram(t *testing.T) {
	privileged.Require(t, privileged.Program("ldd"), privileged.File("/bin/sh"))
	got, err := Program(t.Context(), "/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if got[0] != (Payload{Host: "/bin/sh", At: "/bin/sh"}) {
		t.Errorf("%+v", got)
	}
	if !slices.ContainsFunc(got, func(p Payload) bool { return strings.HasPrefix(filepath.Base(p.At), "ld-") }) {
		t.Errorf("no loader in %+v", got)
	}
	static := program(t)
	if got, err := Program(t.Context(), static); err != nil || !slices.Equal(got, []Payload{{Host: static, At: static}}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Program(t.Context(), "no-such-program"); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("got %v", err)
	}
}
