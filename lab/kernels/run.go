package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"gatewayd/lab/privileged"
)

// runSuites runs what was asked for and keeps the results of each suite as it ends. A suite that could not be run, or not to
// its end, has failed, and the next one runs all the same.
func (m machine) runSuites(ctx context.Context, o *options, b *built, k *Kernel, run runner) error {
	for _, s := range suites {
		if !o.takes(s.title()) {
			continue
		}
		begin := time.Now()
		p := m.runSuite(ctx, o, b, s, run)
		if ctx.Err() != nil {
			return fmt.Errorf("run tests of %s: %w", s.title(), context.Cause(ctx))
		}
		p.Mark = newMark(b.commit)
		p.Seconds = time.Since(begin).Seconds()
		k.Packages = append(k.Packages, *p)
		o.say("%-5s %-17s %s", m.name, s.title(), p.counts())
		for _, t := range p.Tests {
			if t.Outcome == failed {
				o.say("%s: %s of %s failed:\n%s", m.name, t.Name, s.title(), t.Reason)
			}
		}
		if err := o.save(k); err != nil {
			return err
		}
	}
	if !o.takes(benchName) {
		return nil
	}
	return errors.Join(m.measure(ctx, o, b, k, run), o.save(k))
}

// wholePackage is the name of a test that fails with what is no test's fault.
const wholePackage = "the whole package"

// runSuite runs the tests of one suite.
func (m machine) runSuite(ctx context.Context, o *options, b *built, s suite, run runner) *Package {
	p := &Package{Name: s.title()}
	binary, gatewayd, other := b.tests[s.pkg], b.gatewayd, b.other
	env := []string{privileged.Variable + "=1"}
	if m.dir != "" {
		binary, gatewayd, other = inGuest(binary), inGuest(gatewayd), inGuest(other)
		env = append(env, "GATEWAYD_TEST_CLASSIFIER=matchall") // its module is loaded
	}
	argv := append([]string{binary}, s.arguments(o, m)...)
	env = append(env, "GATEWAYD_TEST_BINARY="+gatewayd, "GATEWAYD_TEST_OTHER_BINARY="+other)
	var out, errOut bytes.Buffer
	code, err := run(ctx, s.pkg, env, argv, io.MultiWriter(&out, &follower{say: o.say, name: m.name}), &errOut)
	tests, unread := convert(context.WithoutCancel(ctx), &out) // also what came before an error
	p.Tests = tests
	said := strings.TrimSpace(errOut.String())
	said = said[max(0, len(said)-mostSaid):]
	switch {
	case err != nil || unread != nil:
		p.fail(strings.TrimSpace(errors.Join(err, unread).Error() + "\n" + said))
	case code != 0 && (!p.failed() || said != ""): // it did not end with its tests
		p.fail(fmt.Sprintf("exit code %d: %s", code, said))
	}
	for pattern, why := range m.lacks[s.title()] {
		p.Tests = append(p.Tests, Test{Name: pattern, Outcome: skipped, Reason: why})
	}
	return p
}

func (p *Package) fail(why string) {
	p.Tests = append(p.Tests, Test{Name: wholePackage, Outcome: failed, Reason: why})
}

// convert reads what a test's binary printed. The Go tool has the converter.
func convert(ctx context.Context, in io.Reader) ([]Test, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-t")
	cmd.Stdin = in
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run go tool test2json: %w: %s", err, errOut.String())
	}
	return readResults(bytes.NewReader(out))
}
