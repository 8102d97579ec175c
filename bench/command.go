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
	"time"
)

// roleVariable makes this binary a client or the server of a load.
const roleVariable = "GATEWAYD_BENCH_ROLE"

// options of a run.
type options struct {
	rounds   int
	duration time.Duration
	only     string
	paths    string
	output   string
	document string
	gatewayd string
	cache    string
	lane     string

	self     string
	packages *packages
	progress io.Writer
}

// run is the whole command. It returns the exit code: 2 for wrong arguments, 1 when something could not be measured.
func run(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch role := os.Getenv(roleVariable); role {
	case "server":
		err = serve(ctx)
	case "steer":
		err = steer(args)
	case "taker":
		err = take(ctx)
	case "client":
		err = client(ctx, args, os.Stdin, out)
	case "":
		return bench(ctx, args, out, errOut)
	default:
		err = fmt.Errorf("%s: no role is called %q", roleVariable, role)
	}
	if err != nil {
		fmt.Fprintln(errOut, err)
		return 1
	}
	return 0
}

func bench(ctx context.Context, args []string, out, errOut io.Writer) int {
	o, err := parseOptions(args, errOut)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(errOut, "bench:", err)
		return 2
	}
	report, err := measureAll(ctx, o)
	if err != nil {
		o.document = "" // what is there is better than a table with holes
	}
	if report != nil {
		if errWrite := report.write(o, out); errWrite != nil {
			err = errors.Join(err, errWrite)
		}
	}
	if err != nil {
		fmt.Fprintln(errOut, "bench:", err)
		return 1
	}
	return 0
}

func parseOptions(args []string, errOut io.Writer) (*options, error) {
	o := &options{progress: errOut}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(errOut)
	seconds := 0.0
	f.IntVar(&o.rounds, "rounds", 5, "how often everything is measured, 1 to 50")
	f.Float64Var(&seconds, "seconds", 2, "how long one load runs over one path, 0.1 to 60; those of wrk and h2load a second at least")
	f.StringVar(&o.only, "only", "", "loads to measure, comma-separated; all when empty")
	f.StringVar(&o.paths, "paths", "", "paths to measure, comma-separated, e.g. gatewayd,kernel,flowtable; all but flowtable when empty")
	f.StringVar(&o.output, "o", "table", "what is printed: table or json")
	f.StringVar(&o.document, "document", "", "Markdown file to write the tables to")
	f.StringVar(&o.gatewayd, "gatewayd", "bin/gatewayd", "the gatewayd to measure")
	f.StringVar(&o.lane, "lane", "redirect", "gatewayd's fast_lane: redirect or forward")
	f.StringVar(&o.cache, "cache", ".cache/bench", "where Debian's packages are unpacked")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("read arguments: %q is not a flag", f.Arg(0))
	case o.rounds < 1 || o.rounds > 50:
		return nil, fmt.Errorf("read arguments: -rounds is %d; write 1 to 50", o.rounds)
	case seconds < 0.1 || seconds > 60:
		return nil, fmt.Errorf("read arguments: -seconds is %v; write 0.1 to 60", seconds)
	case o.output != "table" && o.output != "json":
		return nil, fmt.Errorf("read arguments: -o is %q; write table or json", o.output)
	}
	if _, err := o.loads(); err != nil {
		return nil, err
	}
	o.duration = time.Duration(seconds * float64(time.Second))
	var err error
	if o.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	for _, path := range []*string{&o.gatewayd, &o.cache} {
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, fmt.Errorf("find %s: %w", *path, err)
		}
	}
	if _, err := os.Stat(o.gatewayd); err != nil {
		return nil, fmt.Errorf("find gatewayd (`make build` makes it): %w", err)
	}
	o.packages = &packages{dir: o.cache, say: o.say}
	if os.Geteuid() != 0 {
		return nil, errors.New("it makes network namespaces and loads BPF programs, so it needs root (try: sudo make bench)")
	}
	return o, nil
}

// say reports progress.
func (o *options) say(format string, args ...any) {
	fmt.Fprintf(o.progress, "bench: "+format+"\n", args...)
}

// loads are the ones asked for, with the paths asked for.
func (o *options) loads() ([]load, error) {
	all := allLoads()
	some := all
	if o.only != "" {
		some = nil
		for name := range strings.SplitSeq(o.only, ",") {
			i := slices.IndexFunc(all, func(l load) bool { return l.name == name })
			if i < 0 {
				return nil, fmt.Errorf("read arguments: -only names %q, which is no load", name)
			}
			some = append(some, all[i])
		}
	}
	asked := strings.FieldsFunc(o.paths, func(r rune) bool { return r == ',' })
	for _, via := range asked {
		if !slices.ContainsFunc(all, func(l load) bool { return slices.Contains(l.paths, via) }) {
			return nil, fmt.Errorf("read arguments: -paths names %q, which is no path", via)
		}
	}
	for i := range some {
		some[i].paths = slices.DeleteFunc(slices.Clone(some[i].paths), func(via string) bool {
			return len(asked) == 0 && via == viaFlowtable || len(asked) > 0 && !slices.Contains(asked, via)
		})
	}
	return slices.DeleteFunc(some, func(l load) bool { return len(l.paths) == 0 }), nil
}

// takes says whether some load asked for takes one of the paths.
func (o *options) takes(paths ...string) bool {
	loads, _ := o.loads() // wrong arguments were found before
	return slices.ContainsFunc(loads, func(l load) bool {
		return slices.ContainsFunc(l.paths, func(via string) bool { return slices.Contains(paths, via) })
	})
}

// web says whether some load asked for needs the web server.
func (o *options) web() bool {
	loads, _ := o.loads()
	return slices.ContainsFunc(loads, func(l load) bool { return l.host != rawName })
}

// measureAll makes the world, measures in interleaved rounds, and removes the world.
func measureAll(ctx context.Context, o *options) (r *Report, err error) {
	loads, err := o.loads()
	if err != nil {
		return nil, err
	}
	r, err = newReport(o)
	if err != nil {
		return nil, err
	}
	o.say("making a bottle, two gateways and an internet")
	w, err := newWorld(ctx, o, o.rounds*firstsPerRound)
	defer func() { err = errors.Join(err, w.close()) }()
	if err != nil {
		return nil, err
	}
	r.Versions = w.versions(ctx, o)
	t := &tally{samples: map[string][]sample{}, absent: map[string]error{}}
	near := slices.DeleteFunc(slices.Clone(loads), load.vm)
	err = measureLoads(ctx, w, o, near, t)
	if far := slices.DeleteFunc(slices.Clone(loads), func(l load) bool { return !l.vm() }); err == nil && len(far) > 0 {
		// A VM that idles takes time as well: it comes when nothing else is measured any more.
		if err = w.bootVM(ctx, o); err == nil {
			if w.vm != nil {
				r.Versions["the VM"] = "Linux " + w.vm.Kernel + ", " + w.vm.How
			}
			err = measureLoads(ctx, w, o, far, t)
		}
	}
	if err != nil {
		return nil, errors.Join(t.failed, err)
	}
	r.finish(loads, t)
	o.say("measured %d loads in %s", len(loads), r.Took)
	return r, t.failed
}

// measureLoads measures the loads in interleaved rounds. An error says that there is no going on.
func measureLoads(ctx context.Context, w *world, o *options, loads []load, t *tally) error {
	for round := range o.rounds {
		for _, l := range loads {
			if l.once && round > 0 {
				continue
			}
			if err := w.prepare(ctx, o, l, round); err != nil {
				return err
			}
			for i := range l.paths {
				// Each round begins with another path: what comes second finds other caches than what comes first.
				via := l.paths[(i+round)%len(l.paths)]
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				t.take(ctx, w, o, l, via, round)
				if w.gatewayd.Pid() == 0 {
					return fmt.Errorf("gatewayd has ended: %s", w.gatewayd.Log())
				}
			}
		}
	}
	return nil
}

// tally is what was measured so far.
type tally struct {
	samples map[string][]sample // by load and path
	absent  map[string]error
	failed  error // the run fails
}

func key(l load, via string) string { return l.name + " " + via }

// take measures once. A row that failed once is not tried again.
func (t *tally) take(ctx context.Context, w *world, o *options, l load, via string, round int) {
	k := key(l, via)
	if t.absent[k] != nil {
		return
	}
	err := w.missing(via)
	if err == nil {
		var s sample
		if s, err = w.measure(ctx, o, l, via, round); err != nil && redirected[via] != 0 && ctx.Err() == nil {
			o.say("%s over %s once more: %v", l.name, via, err)
			s, err = w.measure(ctx, o, l, via, round)
		}
		if err == nil {
			t.samples[k] = append(t.samples[k], s)
			o.say("round %d of %d  %-8s  %-17s  %s %s", round+1, o.rounds, l.name, via, figure(s.Value), l.value)
			return
		}
		if redirected[via] == 0 { // squid and mitmproxy may fail beside the others; their row says why
			t.failed = errors.Join(t.failed, err)
		}
	}
	t.absent[k] = err
	o.say("round %d of %d  %-8s  %-17s  absent: %v", round+1, o.rounds, l.name, via, err)
}

// missing is why a path is not there.
func (w *world) missing(via string) error {
	if via == viaReencrypt {
		via = viaHAProxy
	}
	return w.absent[via]
}
