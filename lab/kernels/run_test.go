package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"gatewayd/vmimage/qemu"
)

var errLost = errors.New("the kernel panicked")

// dying is a VM that is lost with the first program that runs in it.
type dying struct{ booted *int }

func (d dying) Run(_ context.Context, c qemu.Command, stdout, _ io.Writer) (int, error) {
	fmt.Fprint(stdout, "\x16=== RUN   TestGood\n\x16--- PASS: TestGood (0.25s)\n\x16=== RUN   TestCut\n")
	if *d.booted == 1 {
		return 127, fmt.Errorf("run %s: %w", c.Argv[0], errLost)
	}
	fmt.Fprint(stdout, "\x16--- PASS: TestCut (0.25s)\n\x16PASS\n")
	return 0, nil
}
func (d dying) Console() string { return "end of the console" }
func (d dying) Close() error    { return nil }
func (d dying) Kill() error     { return nil }

// A VM that is lost costs the suite that ran and nothing else: what that one had shown is kept, another boots for the next,
// and all of it is on disk.
func TestLostMachine(t *testing.T) {
	booted := 0
	g := &guest{boot: func(context.Context) (virtual, error) {
		booted++
		return dying{&booted}, nil
	}}
	o := &options{cache: t.TempDir(), packages: "gateway,lab,e2e", progress: io.Discard}
	k := &Kernel{Name: "6.1", Release: "6.1.0-9"}
	m := machine{name: "6.1", dir: "bookworm"}
	if err := m.runSuites(t.Context(), o, &built{commit: "abc"}, k, g.run); err != nil {
		t.Fatal(err)
	}
	if booted != 2 {
		t.Errorf("%d boots", booted)
	}
	kept, err := o.earlier("6.1")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range kept.Packages {
		for _, test := range p.Tests {
			got = append(got, p.Name+" "+test.Name+" "+test.Outcome)
		}
	}
	want := []string{"gateway TestGood pass", "gateway TestCut fail", "gateway the whole package fail",
		"lab TestGood pass", "lab TestCut pass", "e2e TestGood pass", "e2e TestCut pass"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if reason := kept.Packages[0].Tests[2].Reason; !strings.Contains(reason, errLost.Error()) || !strings.Contains(reason, "end of the console") {
		t.Errorf("the reason is %q", reason)
	}
}

// What does not boot has failed, and is tried again for the next suite.
func TestMachineThatDoesNotBoot(t *testing.T) {
	g := &guest{boot: func(context.Context) (virtual, error) { return nil, errLost }}
	o := &options{cache: t.TempDir(), packages: "gateway,lab", progress: io.Discard}
	k := &Kernel{Name: "6.1"}
	if err := (machine{name: "6.1", dir: "x"}).runSuites(t.Context(), o, &built{}, k, g.run); err != nil {
		t.Fatal(err)
	}
	r := Report{Kernels: []Kernel{*k}}
	if err := r.failure(); len(k.Packages) != 2 || err == nil || !strings.Contains(err.Error(), "the whole package of lab failed") {
		t.Errorf("%+v, %v", k.Packages, err)
	}
}

// A run that is given up keeps the suites that ran to their end.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	run := func(_ context.Context, dir string, _, _ []string, stdout, _ io.Writer) (int, error) {
		fmt.Fprint(stdout, "\x16=== RUN   TestGood\n\x16--- PASS: TestGood (0.25s)\n")
		if dir == "lab" {
			cancel(errLost)
		}
		return 0, nil
	}
	o := &options{cache: t.TempDir(), packages: "gateway,lab,e2e", progress: io.Discard}
	k := &Kernel{Name: "6.1"}
	if err := (machine{name: "6.1", dir: "x"}).runSuites(ctx, o, &built{}, k, run); !errors.Is(err, errLost) {
		t.Errorf("%v", err)
	}
	if kept, err := o.earlier("6.1"); err != nil || len(kept.Packages) != 1 || kept.Packages[0].Name != "gateway" {
		t.Errorf("%+v, %v", kept, err)
	}
}

// A kernel that is missing keeps nothing from the others, and what was found before is still told.
func TestMissingKernel(t *testing.T) {
	o := &options{cache: t.TempDir(), progress: io.Discard}
	if err := o.save(&Kernel{Name: "6.12", Release: "6.12.0-1", Packages: []Package{{Name: "lab"}}}); err != nil {
		t.Fatal(err)
	}
	r := &Report{}
	err := r.runOn(t.Context(), o, &built{}, machines[1:])
	if err == nil || !strings.Contains(err.Error(), "on 6.1:") || !strings.Contains(err.Error(), "on 6.12:") {
		t.Errorf("%v", err)
	}
	var out bytes.Buffer
	if err := r.write(&out, ""); err != nil || !strings.Contains(out.String(), "| 6.12.0-1 |") {
		t.Errorf("%s, %v", out.String(), err)
	}
}
