package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"gatewayd/cmd/gatewayd/internal/config"
	"gatewayd/cmd/gatewayd/internal/daemon"
	"gatewayd/cmd/gatewayd/internal/manifests"
	"gatewayd/cmd/gatewayd/internal/provision"
	"gatewayd/gateway/inject"
	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
	"gatewayd/plan"
)

// checked is one line of check.
type checked struct {
	Name   string               `json:"name"`
	Status redirect.CheckStatus `json:"status"`
	Detail string               `json:"detail"`
	Remedy string               `json:"remedy,omitempty"`
}

// checkCommand looks at everything that run depends on.
func (a *app) checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "look at the configuration, the manifests and the machine, and change nothing",
		Long: `Check says line by line what 'gatewayd run' will find: the configuration, every manifest, the
kernel and its features, capabilities, other people's firewall rules. Each line is pass, warn or
fail, with what to do about it. The exit code is 1 if any line is fail.`,
		Args: noArgs,
	}
	form := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := a.config()
		if err != nil {
			return err
		}
		list := a.checkFiles(cfg)
		list = append(list, checkMachine(c.Context(), cfg)...)
		if err := a.showChecks(*form, list); err != nil {
			return err
		}
		for _, l := range list {
			if l.Status == redirect.Fail {
				return &exitError{code: exitFailed}
			}
		}
		return nil
	}
	return c
}

// checkFiles looks at the configuration and the manifests.
func (a *app) checkFiles(cfg config.Config) []checked {
	where := cfg.Path
	if where == "" {
		where = "no file; every value is a default or a flag"
	}
	out := []checked{{Name: "configuration", Status: redirect.Pass, Detail: where}}
	if err := cfg.CanResolve(); err != nil {
		out = append(out, checked{"resolvers", redirect.Fail, err.Error(), ""})
	} else {
		out = append(out, checked{Name: "resolvers", Status: redirect.Pass, Detail: fmt.Sprint(cfg.DNSUpstreams)})
	}
	if roots, err := gwtls.LoadRoots(cfg.UpstreamRoots); err != nil {
		out = append(out, checked{"upstream roots", redirect.Fail, err.Error(), "install ca-certificates, or mend tls.upstream_roots"})
	} else if len(roots.PEM()) == 0 {
		out = append(out, checked{"upstream roots", redirect.Fail, "there are none, so that no upstream can be verified", "install ca-certificates, or name some in tls.upstream_roots"})
	} else {
		out = append(out, checked{Name: "upstream roots", Status: redirect.Pass, Detail: "loaded"})
	}
	out = append(out, checkClock(a.host.Now()))
	files, err := manifests.Scan(cfg.BottlesDir)
	if err != nil {
		return append(out, checked{"manifests", redirect.Fail, err.Error(), "make " + cfg.BottlesDir + " readable to gatewayd"})
	}
	if len(files) == 0 {
		out = append(out, checked{"manifests", redirect.Warn, "none in " + cfg.BottlesDir, "write " + filepath.Join(cfg.BottlesDir, "NAME"+manifests.Suffix)})
	}
	seen := map[string]string{}
	for _, f := range files {
		c, p := a.checkManifest(f, seen)
		out = append(out, c)
		if p != nil {
			out = append(out, checkSecrets(p)...)
		}
	}
	return out
}

// checkManifest looks at one manifest, and returns its plan if it has one; seen maps bottles to the files that named them.
func (a *app) checkManifest(f manifests.File, seen map[string]string) (checked, *plan.Plan) {
	c := checked{Name: "manifest " + filepath.Base(f.Path), Status: redirect.Fail}
	if f.Blank() {
		return checked{c.Name, redirect.Warn, "is empty: its bottle is shut", "delete it, or write a manifest"}, nil
	}
	if f.Err != nil {
		c.Detail = f.Err.Error()
		return c, nil
	}
	p, err := provision.FromText(f.Path, f.Text, a.host)
	if err != nil {
		c.Detail = err.Error()
		return c, nil
	}
	if other, twice := seen[p.Plan.Bottle]; twice {
		c.Detail, c.Remedy = fmt.Sprintf("bottle %s is also named by %s", p.Plan.Bottle, other), "give one of them another name"
		return c, nil
	}
	seen[p.Plan.Bottle] = filepath.Base(f.Path)
	if fi, err := os.Stat(f.Path); err == nil && fi.Mode().Perm()&0o022 != 0 {
		return checked{c.Name, redirect.Warn, "may be written by others than its owner, who thereby decide what passes", "chmod go-w " + f.Path}, p.Plan
	}
	c.Status, c.Detail = redirect.Pass, fmt.Sprintf("bottle %s, %d routes", p.Plan.Bottle, len(p.Plan.Routes))
	return c, p.Plan
}

// checkSecrets says which of a plan's secrets cannot be used now, nor looked for in what leaves. Programs are not run.
func checkSecrets(p *plan.Plan) []checked {
	var out []checked
	var seen []routes.SecretRef
	look := func(ref routes.SecretRef) {
		if len(ref.Command) > 0 || slices.ContainsFunc(seen, func(s routes.SecretRef) bool { return reflect.DeepEqual(s, ref) }) {
			return
		}
		seen = append(seen, ref)
		src, err := inject.NewSource(ref)
		if err == nil {
			_, err = src.Secret(context.Background())
		}
		var why interface{ Remedy() string }
		if errors.As(err, &why) {
			out = append(out, checked{"secret of " + p.Bottle, redirect.Warn, err.Error(), why.Remedy()})
		} else if err != nil {
			out = append(out, checked{"secret of " + p.Bottle, redirect.Fail, err.Error(), ""})
		}
	}
	for _, r := range p.Routes {
		if r.Auth != nil {
			look(r.Auth.Secret)
		}
	}
	for _, s := range p.Secrets {
		look(s.Secret)
	}
	return out
}

// checkClock looks for a clock that was never set: certificates would not verify, and leaves would not be valid yet.
func checkClock(now time.Time) checked {
	if now.Year() < 2026 {
		return checked{"date", redirect.Fail, "this machine believes that it is " + now.UTC().Format(time.DateOnly), "set the clock; start time synchronisation"}
	}
	return checked{Name: "date", Status: redirect.Pass, Detail: now.UTC().Format(time.DateOnly)}
}

// checkMachine looks at the kernel and at what others have set up.
func checkMachine(ctx context.Context, cfg config.Config) []checked {
	var out []checked
	if daemon.Locked(cfg.RunDir) {
		out = append(out, checked{Name: "daemon", Status: redirect.Pass, Detail: "runs"})
	} else {
		out = append(out, checked{"daemon", redirect.Warn, "does not run; bottles reach nothing", "start it: gatewayd run"})
	}
	for _, p := range redirect.Probe(ctx, daemon.RedirectOptions(cfg, slog.New(slog.DiscardHandler))) {
		out = append(out, checked{p.Name, p.Status, p.Detail, p.Remedy})
	}
	return out
}

// showChecks prints the lines.
func (a *app) showChecks(form format, list []checked) error {
	if form == formatJSON {
		return a.printJSON(list)
	}
	styles := map[redirect.CheckStatus]style{redirect.Pass: green, redirect.Warn: yellow, redirect.Fail: red}
	t := table{head: []string{"STATUS", "WHAT", "FOUND"}}
	for _, l := range list {
		t.add(cell{string(l.Status), styles[l.Status]}, text(l.Name), text(l.Detail))
		if l.Remedy != "" && l.Status != redirect.Pass {
			t.add(text(""), text(""), cell{"→ " + l.Remedy, bold})
		}
	}
	return t.write(a.out, a.terminal)
}
