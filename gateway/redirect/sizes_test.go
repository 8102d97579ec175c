package redirect

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"gatewayd/lab/privileged"
)

// What the verifier takes at most (kernel/bpf/verifier.c, BPF_COMPLEXITY_LIMIT_INSNS, MAX_BPF_STACK): the programs keep far
// from the first, so that another kernel's verifier, which follows other paths, takes them as well.
const (
	mostVerified = 1_000_000 / 4
	mostStack    = 512
)

var stackDepth = regexp.MustCompile(`(?m)^stack depth ([\d+]+)`)

// TestProgramSizes loads every program as the kernel's verifier sees it, and reports the figures as attributes, which the table
// of all kernels is made of.
func TestProgramSizes(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF)
	must(t, rlimit.RemoveMemlock())
	spec, err := loadGateway()
	must(t, err)
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
	must(t, err)
	defer c.Close()
	for name, p := range c.Programs {
		info, err := p.Info()
		must(t, err)
		verified, ok := info.VerifiedInstructions()
		if !ok || verified == 0 || verified > mostVerified {
			t.Errorf("%s: %d instructions verified, want 1 to %d", name, verified, mostVerified)
		}
		jited, err := info.JitedSize()
		must(t, err)
		translated, err := info.TranslatedSize()
		must(t, err)
		found := stackDepth.FindStringSubmatch(p.VerifierLog)
		if found == nil {
			t.Fatalf("%s: no stack depth in the verifier's log: %q", name, p.VerifierLog)
		}
		for part := range strings.SplitSeq(found[1], "+") {
			if n, err := strconv.Atoi(part); err != nil || n > mostStack {
				t.Errorf("%s: a function's stack of %s bytes, want at most %d", name, part, mostStack)
			}
		}
		t.Attr(name+".verified", fmt.Sprint(verified))
		t.Attr(name+".instructions", fmt.Sprint(translated/instructionSize))
		t.Attr(name+".jited", fmt.Sprint(jited))
		t.Attr(name+".stack", found[1])
	}
}

// instructionSize is that of one BPF instruction in bytes (RFC 9669 section 3).
const instructionSize = 8
