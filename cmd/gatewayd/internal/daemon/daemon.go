// Package daemon is `gatewayd run`: it brings the machine under control, keeps the bottles in line with their manifests,
// answers operators, and lets go of nothing when it ends.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gatewayd/cmd/gatewayd/internal/admin"
	"gatewayd/cmd/gatewayd/internal/config"
	"gatewayd/cmd/gatewayd/internal/manifests"
	"gatewayd/cmd/gatewayd/internal/provision"
	"gatewayd/gateway"
	"gatewayd/gateway/dns"
	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
	"gatewayd/plan"
)

const (
	// drainDeadline is how long what is under way may go on after SIGTERM. With gateway.DefaultDrain and flushDeadline it is
	// less than the unit's TimeoutStopSec.
	drainDeadline = 10 * time.Second
	// flushDeadline is how long the last records may take to reach the audit file.
	flushDeadline = 3 * time.Second
	// watchAgain is the pause before the watch over the datapath is begun again after it failed.
	watchAgain = time.Second
	// metricsHeaderDeadline ends a client of metrics.listen that connects and does not ask.
	metricsHeaderDeadline = 5 * time.Second
	// spareHeap is held and never touched, so that it takes addresses and no memory. The runtime collects garbage when the heap
	// has doubled: one of 10 MB, as small bottles have it, is full several times a second under load, and this lets it grow by
	// as much again. Unlike a larger GOGC, it makes nothing of a large heap larger than this.
	spareHeap = 32 << 20
)

// Options are what Run needs.
type Options struct {
	Config  config.Config
	Host    plan.Host
	Log     *slog.Logger
	Version string
	// Signals are HUP, TERM and INT as they arrive; nil means those of the process.
	Signals <-chan os.Signal
}

// daemon is a running one.
type daemon struct {
	Options
	started  time.Time
	redirect *redirect.Redirect
	counters counter // redirect, but in tests
	gateway  *gateway.Gateway
	audit    *gateway.FileRecorder // nil without an audit file
	metrics  *gateway.Metrics
	rules    *rulebook
	keeper   *keeper
	watcher  *manifests.Watcher
}

// Run is the life of the daemon: it returns when ctx ends or a signal says so, with nil, or when it cannot begin. What it
// has set up in the kernel stays, shut: without the daemon's sockets nothing new passes.
func Run(ctx context.Context, o Options) error {
	d := &daemon{Options: o, started: time.Now()}
	spare := make([]byte, spareHeap)
	defer runtime.KeepAlive(spare)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	signals := o.Signals
	if signals == nil {
		c := make(chan os.Signal, 4)
		signal.Notify(c, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
		defer signal.Stop(c)
		signals = c
	}
	roots, err := gwtls.LoadRoots(o.Config.UpstreamRoots)
	if err != nil {
		return err
	}

	if d.rules, err = newRulebook(o.Config.PipelockRules); err != nil {
		return err
	}

	// ---- Above this line nothing of the machine was changed. ----

	unlock, err := d.prepare()
	if err != nil {
		return err
	}
	defer unlock()
	defer d.closeAudit()
	if d.redirect, err = redirect.Open(ctx, d.redirectOptions()); err != nil {
		return fmt.Errorf("take hold of the datapath: %w", err)
	}
	defer d.redirect.Close()
	d.counters = d.redirect
	o.Log.Info("second layer is in force; bottles' links are shut until they have a plan", "instance", o.Config.Instance)
	if err := d.build(roots); err != nil {
		return err
	}
	defer d.watcher.Close()
	go tidy(ctx)
	return d.serve(ctx, stop, signals)
}

func (d *daemon) redirectOptions() redirect.Options {
	o := RedirectOptions(d.Config, d.Log)
	if o.Uplink == "" {
		d.Log.Warn("no uplink is configured and there is no default route; nothing takes the fast path")
	}
	return o
}

// RedirectOptions gives the datapath's options of a configuration.
func RedirectOptions(c config.Config, log *slog.Logger) redirect.Options {
	uplink := c.Uplink
	if uplink == "" {
		uplink = DefaultUplink()
	}
	return redirect.Options{Instance: c.Instance, BPFFS: c.BPFFSDir, RunDir: c.RunDir, Uplink: uplink, Forward: c.FastForward, Log: log}
}

// prepare makes the directories, takes the lock and opens the audit file.
func (d *daemon) prepare() (unlock func(), err error) {
	// No core dump and no ptrace(2) by the user's other processes: this one holds credentials (prctl(2)).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("forbid core dumps: %w", err)
	}
	for _, dir := range []string{d.Config.RunDir, d.Config.StateDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if unlock, err = lock(d.Config.RunDir); err != nil {
		return nil, err
	}
	if d.Config.AuditFile != "" {
		if err := os.MkdirAll(filepath.Dir(d.Config.AuditFile), 0o700); err != nil {
			unlock()
			return nil, err
		}
		if d.audit, err = gateway.OpenFileRecorder(d.Config.AuditFile, 0, d.Log); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

func (d *daemon) closeAudit() {
	if d.audit == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushDeadline)
	defer cancel()
	if err := d.audit.Close(ctx); err != nil {
		d.Log.Error("last records were lost", "err", err)
	}
}

// build makes the gateway and the keeper of its bottles.
func (d *daemon) build(roots *gwtls.Roots) error {
	d.metrics = gateway.NewMetrics()
	o := gateway.Options{
		Redirect: d.redirect, Resolver: dns.NewResolver(d.Config.DNSUpstreams), Roots: roots,
		Guard: routes.Guard{AllowRanges: d.Config.AllowRanges}, AuditRequired: d.Config.AuditRequired,
		Metrics: d.metrics, Log: d.Log, Trips: provision.Trips{StateDir: d.Config.StateDir},
	}
	if d.audit != nil {
		o.Audit = d.audit
	}
	d.gateway = gateway.New(o)
	var err error
	if d.watcher, err = manifests.NewWatcher(d.Log); err != nil {
		return err
	}
	d.keeper = &keeper{
		dir: d.Config.BottlesDir, load: d.load, rules: d.rules, fleet: d.gateway, log: d.Log,
		metrics: newMetrics(d.metrics.Registry(), d.Version),
		settle:  func(files []string, unsettled bool) { d.watcher.Set(d.Config.BottlesDir, files, unsettled) },
	}
	return nil
}

// load makes a manifest into a bottle that can run.
func (d *daemon) load(f manifests.File) (string, loaded, error) {
	p, err := provision.FromText(f.Path, f.Text, d.Host)
	if err != nil {
		name := ""
		if p.Manifest != nil {
			name = p.Manifest.Bottle
		}
		return name, loaded{}, err
	}
	b, err := provision.Bottle(d.Config, p, d.Host, d.Log)
	if err != nil {
		return p.Plan.Bottle, loaded{}, err
	}
	if err := provision.Scanned(&b, d.Config, p.Manifest.Pipelock.Trip, d.rules.rules()); err != nil {
		return p.Plan.Bottle, loaded{}, err
	}
	return p.Plan.Bottle, loaded{bottle: b, watch: p.Plan.Watch, notes: p.Plan.Notes}, nil
}

// serve runs until ctx ends or a signal says so.
func (d *daemon) serve(ctx context.Context, stop context.CancelFunc, signals <-chan os.Signal) error {
	socket := filepath.Join(d.Config.RunDir, admin.SocketName)
	l, err := admin.Listen(socket)
	if err != nil {
		return err
	}
	metrics, err := d.listenMetrics(ctx)
	if err != nil {
		l.Close()
		return err
	}
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() { d.ended("admin socket", admin.Serve(ctx, l, admin.Operator(os.Geteuid()), d.api())) })
	if metrics != nil {
		group.Go(func() { d.serveMetrics(ctx, metrics) })
	}
	_ = d.keeper.look(ctx) // it was logged, and is tried again: other bottles run
	group.Go(func() { d.guardDatapath(ctx) })
	group.Go(func() { d.watcher.Run(ctx, func() { _ = d.keeper.look(ctx) }) }) // logged there
	d.Log.Info("ready", "version", d.Version, "admin", socket, "bottles", len(d.gateway.Bottles()), "took", time.Since(d.started).Round(time.Millisecond))
	notify("READY=1")
	d.await(ctx, signals)
	notify("STOPPING=1")
	return d.shutDown(signals)
}

// guardDatapath keeps the self-repair going for as long as the daemon lives.
func (d *daemon) guardDatapath(ctx context.Context) {
	for ctx.Err() == nil {
		d.ended("watch over the datapath", d.redirect.Watch(ctx))
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// ended logs the end of a part that should not end before the daemon.
func (d *daemon) ended(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		d.Log.Error(what+" ended", "err", err)
	}
}

// await returns when the daemon is to end.
func (d *daemon) await(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			if s != syscall.SIGHUP {
				d.Log.Info("shutting down; links stay as they are, which is shut", "signal", s)
				return
			}
			notify("RELOADING=1")
			d.Log.Info("reloading", "signal", s)
			if d.audit != nil {
				d.ended("reopening of the audit file", d.audit.Reopen())
			}
			_ = d.keeper.look(ctx) // logged there
			notify("READY=1")
		}
	}
}

// shutDown lets the flows end. A second signal cuts them off.
func (d *daemon) shutDown(signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainDeadline)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.gateway.Shutdown(ctx) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				d.Log.Warn("flows were cut", "err", err)
			}
			return nil
		case s := <-signals:
			if s != syscall.SIGHUP {
				cancel()
			}
		}
	}
}

// listenMetrics opens metrics.listen; nil without one.
func (d *daemon) listenMetrics(ctx context.Context) (net.Listener, error) {
	where := d.Config.MetricsListen
	if where == "" {
		return nil, nil
	}
	if path, ok := strings.CutPrefix(where, "unix:"); ok {
		return admin.Listen(path)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", where)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	return l, nil
}

func (d *daemon) serveMetrics(ctx context.Context, l net.Listener) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", d.metrics.Handler())
	s := &http.Server{Handler: mux, ReadHeaderTimeout: metricsHeaderDeadline}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		d.ended("metrics", err)
	}
}
