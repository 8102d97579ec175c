package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gatewayd/cmd/gatewayd/internal/admin"
	"gatewayd/cmd/gatewayd/internal/daemon"
	"gatewayd/gateway/redirect"
)

// uninstallCommand removes what run has set up in the kernel.
func (a *app) uninstallCommand() *cobra.Command {
	var state bool
	c := &cobra.Command{
		Use: "uninstall", Short: "remove everything that run has set up in the kernel (root)", Args: noArgs,
		Long: `Uninstall removes the instance's links, programs, pins, firewall table, rules and routes, and says
what it removed. It refuses while the daemon runs, and while a bottle does: a machine that has a tap
open, a process in a namespace. Certificate authorities and addresses stay in state_dir unless
--state is given; manifests and the audit file always stay.`,
	}
	c.Flags().BoolVar(&state, "state", false, "also remove state_dir: guests must be given new files afterwards")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := a.config()
		if err != nil {
			return err
		}
		if daemon.Locked(cfg.RunDir) {
			return fmt.Errorf("the daemon of instance %s runs; stop it first", cfg.Instance)
		}
		removed, err := redirect.Uninstall(c.Context(), daemon.RedirectOptions(cfg, slog.New(slog.DiscardHandler)))
		for _, what := range removed {
			fmt.Fprintln(a.out, "removed", what)
		}
		if err != nil {
			return err
		}
		paths := []string{filepath.Join(cfg.RunDir, admin.SocketName), filepath.Join(cfg.RunDir, "gatewayd.lock")}
		if state {
			paths = append(paths, filepath.Join(cfg.StateDir, "bottles"), filepath.Join(cfg.StateDir, "pool.json"), filepath.Join(cfg.StateDir, "pool.lock"))
		}
		n, err := a.removePaths(paths)
		if err != nil {
			return err
		}
		if n+len(removed) == 0 {
			fmt.Fprintln(a.out, "nothing to remove: instance", cfg.Instance, "has nothing here")
		}
		return nil
	}
	return c
}

// removePaths removes what exists of paths and says so.
func (a *app) removePaths(paths []string) (n int, err error) {
	for _, p := range paths {
		if _, err := os.Lstat(p); err != nil {
			continue
		}
		if err := os.RemoveAll(p); err != nil {
			return n, err
		}
		fmt.Fprintln(a.out, "removed", p)
		n++
	}
	return n, nil
}
