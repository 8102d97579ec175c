// Command kernels runs the tests that depend on the kernel on several kernels: on this machine's own, and on those of
// Debian's releases in a VM under QEMU, each with the tests' binaries and the host's tools in its memory. It needs root, and
// leaves nothing behind but its table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// options of a run.
type options struct {
	cache    string // kernels lie in directories below it
	document string
	only     string // names of kernels, comma-separated
	tests    string // as of go test -run
	packages string // comma-separated, bench among them
	progress io.Writer
}

// takes says whether the tests of a package run, or the bench.
func (o *options) takes(pkg string) bool {
	if o.packages == "" {
		return o.tests == "" || pkg != benchName
	}
	return slices.Contains(strings.Split(o.packages, ","), pkg)
}

// say reports progress.
func (o *options) say(format string, args ...any) {
	fmt.Fprintf(o.progress, "kernels: "+format+"\n", args...)
}

// run is the whole command. It returns the exit code: 2 for wrong arguments, 1 when a test failed or could not be run.
func run(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parseOptions(args, errOut)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(errOut, "kernels:", err)
		return 2
	}
	r, err := runAll(ctx, o)
	if r != nil { // what ran before an error is told as well
		err = errors.Join(err, r.write(out, o.document), r.failure())
	}
	if err != nil {
		fmt.Fprintln(errOut, "kernels:", err)
		return 1
	}
	return 0
}

func parseOptions(args []string, errOut io.Writer) (*options, error) {
	o := &options{progress: errOut}
	f := flag.NewFlagSet("kernels", flag.ContinueOnError)
	f.SetOutput(errOut)
	f.StringVar(&o.cache, "cache", ".cache/kernels", "where `.ci/deps kernels` unpacked kernels")
	f.StringVar(&o.document, "document", "", "Markdown file to write the tables to, with what earlier runs found where this one tries only some")
	f.StringVar(&o.only, "only", "", "kernels to run on, comma-separated: "+strings.Join(kernelNames(), ", ")+"; all when empty")
	f.StringVar(&o.tests, "run", "", "regular expression of tests to run, and nothing else; everything when empty")
	f.StringVar(&o.packages, "packages", "", "suites that run, comma-separated: packages, programs for the sizes of the BPF programs, fastpath for those tests of gateway/redirect, and bench for the comparison of forwarding; all when empty")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("read arguments: %q is not a flag", f.Arg(0))
	}
	if _, err := o.kernels(); err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(o.packages, ",") {
		if name != "" && name != benchName && !slices.ContainsFunc(suites, func(s suite) bool { return s.title() == name }) {
			return nil, fmt.Errorf("read arguments: -packages names %q, whose tests do not run here", name)
		}
	}
	if o.document != "" && o.tests != "" {
		return nil, errors.New("read arguments: -document is not for some tests of a package")
	}
	var err error
	if o.cache, err = filepath.Abs(o.cache); err != nil {
		return nil, fmt.Errorf("find kernels: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("the tests make network namespaces and load BPF programs, so it needs root (try: sudo make test-kernels)")
	}
	return o, nil
}

// runAll builds the tests and runs them on one kernel after another. A test that fails is no error, and an error on one
// kernel keeps nothing from the others: there is a report all the same.
func runAll(ctx context.Context, o *options) (r *Report, err error) {
	asked, err := o.kernels()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gatewayd-kernels")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.say("building the tests")
	b, err := build(ctx, dir)
	if err != nil {
		return nil, err
	}
	r = &Report{}
	for _, s := range suites {
		left, err := s.leftOut(ctx, b)
		if err != nil {
			return nil, err
		}
		r.Suites = append(r.Suites, Suite{Name: s.title(), Why: s.why, LeftOut: left})
	}
	return r, r.runOn(ctx, o, b, asked)
}

// runOn runs the tests on some kernels, and adds what is known of all.
func (r *Report) runOn(ctx context.Context, o *options, b *built, asked []machine) error {
	var errs []error
	for _, m := range asked {
		k, err := m.run(ctx, o, b)
		if err != nil {
			errs = append(errs, fmt.Errorf("run tests on %s: %w", m.name, err))
		}
		if k != nil && o.tests != "" {
			r.Kernels = append(r.Kernels, *k)
		}
	}
	if o.tests == "" {
		errs = append(errs, r.read(o))
	}
	return errors.Join(errs...)
}

// read takes what this run and earlier ones kept.
func (r *Report) read(o *options) error {
	for _, m := range machines {
		k, err := o.earlier(m.name)
		if err != nil {
			return err
		}
		if k != nil {
			r.Kernels = append(r.Kernels, *k)
		}
	}
	return nil
}

// write writes the report to out, and to a file if one is named.
func (r *Report) write(out io.Writer, document string) error {
	text := r.markdown()
	_, err := io.WriteString(out, text)
	if document != "" {
		err = errors.Join(err, os.WriteFile(document, []byte(text), 0o644))
	}
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
