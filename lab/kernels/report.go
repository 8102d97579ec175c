package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Report is what the tests showed on all kernels.
type Report struct {
	Suites  []Suite
	Kernels []Kernel
}

// Suite is a package, and the tests of it that run on no kernel here, with the reason.
type Suite struct {
	Name, Why string
	LeftOut   []string
}

// Kernel is what they showed on one.
type Kernel struct {
	// Name is short, Release what uname -r prints, How says what it ran on.
	Name, Release, How string
	Packages           []Package
	Loads              []Load
	// Measured marks Loads.
	Measured Mark
}

// Package is the tests of one package on one kernel.
type Package struct {
	Name    string
	Mark    Mark
	Seconds float64
	Tests   []Test
}

func (p *Package) count(outcome string) int {
	n := 0
	for _, t := range p.Tests {
		if t.Outcome == outcome {
			n++
		}
	}
	return n
}

func (p *Package) failed() bool { return p.count(failed) > 0 }

func (p *Package) counts() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped in %.0f s", p.count(passed), p.count(failed), p.count(skipped), p.Seconds)
}

// failure names the tests that failed.
func (r *Report) failure() error {
	var errs []error
	for _, k := range r.Kernels {
		for _, p := range k.Packages {
			for _, t := range p.Tests {
				if t.Outcome == failed {
					errs = append(errs, fmt.Errorf("%s of %s failed on Linux %s", t.Name, p.Name, k.Release))
				}
			}
			if p.count(passed) == 0 {
				errs = append(errs, fmt.Errorf("no test of %s passed on Linux %s", p.Name, k.Release))
			}
		}
	}
	return errors.Join(errs...)
}

const preface = `# Kernels

Written by ` + "`make test-kernels`" + `; a run of some kernels (ONLY=6.1,…) or suites (PACKAGES=programs,e2e,bench,…) renews their rows and leaves the others, which is why each row names its time and commit.

gatewayd's floor is Linux 6.1. The tests that depend on the kernel run here on this machine's own and on those of two Debian releases, under QEMU, where the tests' binaries and the few programs that they start lie in the VM's memory. An emulated machine (TCG) is many times slower than a real one: its seconds say nothing of speed. QEMU emulates both CPUs in one thread: with a thread for each, versions before 8.1 can run a kernel into a breakpoint that it has taken away already, as it patches itself under traffic (QEMU's commit deba78709a). One run of Linux 6.12 with a thread for each CPU ended in a panic ("Fatal exception in interrupt") between TestRulesFlushed and TestProgramDetached of e2e, where the kernel does patch itself; the trace was not kept, so that this is the likely cause and no more. Nine later runs of each of the two, with a thread for each CPU still, had no panic. A skip is of a whole test or of one of its subtests, and has its reason below. Where a VM was lost, what its suite had shown until then counts, "the whole package" has failed, and the next suite had a VM of its own.

`

// markdown is the document.
func (r *Report) markdown() string {
	var b strings.Builder
	b.WriteString(preface)
	b.WriteString("## Tests\n\n| kernel | on | of | package | passed | failed | skipped | seconds |\n|---|---|---|---|---:|---:|---:|---:|\n")
	for _, k := range r.Kernels {
		for _, p := range k.Packages {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %d | %d | %d | %.0f |\n", k.Release, k.How, p.Mark, p.Name, p.count(passed), p.count(failed), p.count(skipped), p.Seconds)
		}
	}
	r.missing(&b)
	r.failures(&b)
	r.skips(&b)
	r.programs(&b)
	r.forwarding(&b)
	return b.String()
}

// missing lists the rows that no run has filled.
func (r *Report) missing(b *strings.Builder) {
	b.WriteString("\n### What has not run to its end\n\n")
	none := true
	for _, m := range machines {
		var k Kernel
		if i := slices.IndexFunc(r.Kernels, func(k Kernel) bool { return k.Name == m.name }); i >= 0 {
			k = r.Kernels[i]
		}
		var names []string
		for _, s := range suites {
			if !slices.ContainsFunc(k.Packages, func(p Package) bool { return p.Name == s.title() }) {
				names = append(names, s.title())
			}
		}
		if len(k.Loads) == 0 {
			names = append(names, "the comparison of forwarding")
		}
		if len(names) > 0 {
			none = false
			fmt.Fprintf(b, "- %s: %s\n", m.name, strings.Join(names, ", "))
		}
	}
	if none {
		b.WriteString("Nothing.\n")
	}
}

// failures lists what failed.
func (r *Report) failures(b *strings.Builder) {
	b.WriteString("\n### What failed\n\n")
	if r.failure() == nil {
		b.WriteString("Nothing.\n")
	}
	for _, k := range r.Kernels {
		for _, p := range k.Packages {
			for _, t := range p.Tests {
				if t.Outcome == failed {
					fmt.Fprintf(b, "- %s, %s: `%s`\n", k.Release, p.Name, t.Name)
				}
			}
		}
	}
}

// mostNames is up to how many tests that are left out have their names listed.
const mostNames = 80

// skips lists what did not run, one line for each reason.
func (r *Report) skips(b *strings.Builder) {
	b.WriteString("\n### What was skipped\n\n")
	none := true
	for _, k := range r.Kernels {
		for _, p := range k.Packages {
			byReason := map[string][]string{}
			for _, t := range p.Tests {
				if t.Outcome == skipped {
					byReason[t.Reason] = append(byReason[t.Reason], "`"+t.Name+"`")
				}
			}
			for _, why := range slices.Sorted(maps.Keys(byReason)) {
				none = false
				fmt.Fprintf(b, "- %s, %s: %s: %s\n", k.Release, p.Name, cmp.Or(why, "no reason given"), strings.Join(byReason[why], ", "))
			}
		}
	}
	if none {
		b.WriteString("Nothing.\n")
	}
	b.WriteString("\n### What is left to `make test`\n\n")
	for _, s := range r.Suites {
		if n := len(s.LeftOut); n > mostNames {
			fmt.Fprintf(b, "- %d tests of %s: %s\n", n, s.Name, s.Why)
		} else if n > 0 {
			fmt.Fprintf(b, "- of %s, since %s: %s\n", s.Name, s.Why, strings.Join(s.LeftOut, ", "))
		}
	}
}

// programsTest is the test that reports the programs' sizes as its attributes, one for each program and figure.
const programsTest = "TestProgramSizes"

// figures are the attributes behind a program's name and a full stop, and their columns.
var figures = []struct{ key, title string }{
	{"verified", "instructions verified"}, {"instructions", "instructions"}, {"jited", "bytes JITed"}, {"stack", "stack, bytes"},
}

// programs is the table of the BPF programs.
func (r *Report) programs(b *strings.Builder) {
	b.WriteString("\n## Programs\n\nAs each kernel's verifier and compiler saw them. The verifier gives up at 1,000,000 instructions, and at 512 bytes of stack of one function and those that it calls; a stack is given function by function.\n\n| program | kernel |")
	for _, f := range figures {
		b.WriteString(" " + f.title + " |")
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---:|", len(figures)) + "\n")
	var lines []string
	for n, k := range r.Kernels {
		for _, p := range k.Packages {
			for _, t := range p.Tests {
				if t.Name != programsTest {
					continue
				}
				for key := range t.Attributes {
					if name, ok := strings.CutSuffix(key, "."+figures[0].key); ok {
						lines = append(lines, fmt.Sprintf("%s\x00%d\x00%s", name, n, programRow(name, k.Release, t.Attributes)))
					}
				}
			}
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		b.WriteString(l[strings.LastIndexByte(l, 0)+1:])
	}
}

func programRow(name, release string, attributes map[string]string) string {
	row := fmt.Sprintf("| `%s` | %s |", name, release)
	for _, f := range figures {
		row += " " + attributes[name+"."+f.key] + " |"
	}
	return row + "\n"
}
