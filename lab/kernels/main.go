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
	progress io.Writer
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
	if r != nil {
		_, errPrint := io.WriteString(out, r.markdown())
		err = errors.Join(err, errPrint)
	}
	if err == nil && o.document != "" {
		if err = os.WriteFile(o.document, []byte(r.markdown()), 0o644); err != nil {
			err = fmt.Errorf("write document: %w", err)
		}
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
	f.StringVar(&o.document, "document", "", "Markdown file to write the tables to")
	f.StringVar(&o.only, "only", "", "kernels to run on, comma-separated: "+strings.Join(kernelNames(), ", ")+"; all when empty")
	f.StringVar(&o.tests, "run", "", "regular expression of tests to run, and nothing else; everything when empty")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("read arguments: %q is not a flag", f.Arg(0))
	}
	if _, err := o.kernels(); err != nil {
		return nil, err
	}
	if o.document != "" && (o.only != "" || o.tests != "") {
		return nil, errors.New("read arguments: -document is for a run of all tests on all kernels")
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

// runAll builds the tests and runs them on one kernel after another. A report comes back as soon as any kernel has run.
func runAll(ctx context.Context, o *options) (r *Report, err error) {
	kernels, err := o.kernels()
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
	r = newReport()
	for _, s := range suites {
		left, err := s.leftOut(ctx, b)
		if err != nil {
			return nil, err
		}
		r.Suites = append(r.Suites, Suite{Name: s.pkg, Why: s.why, LeftOut: left})
	}
	for _, k := range kernels {
		result, err := k.run(ctx, o, b)
		if result != nil {
			r.Kernels = append(r.Kernels, *result)
		}
		if err != nil {
			return r, fmt.Errorf("run tests on %s: %w", k.name, err)
		}
	}
	return r, r.failure()
}
