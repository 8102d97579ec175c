package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"gatewayd/cmd/gatewayd/internal/daemon"
)

// runCommand is the daemon.
func (a *app) runCommand() *cobra.Command {
	var level slog.LevelVar
	var form string
	c := &cobra.Command{
		Use:   "run",
		Short: "run the gateway (root)",
		Long: `Run captures the links of all bottles whose manifests are in bottles_dir and carries what
their plans allow. Manifests are watched: a change takes effect at once, a broken manifest
changes nothing, and one that is emptied or deleted shuts its bottle. SIGHUP looks at all of
them again and reopens the audit file. SIGTERM lets what is under way
finish for 10 s and leaves the links shut; only 'gatewayd uninstall' removes anything.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.config()
			if err != nil {
				return err
			}
			if err := cfg.CanResolve(); err != nil {
				return err
			}
			o := &slog.HandlerOptions{Level: &level}
			var h slog.Handler = slog.NewTextHandler(a.err, o)
			if form == string(formatJSON) {
				h = slog.NewJSONHandler(a.err, o)
			} else if form != string(formatText) {
				return usagef("--log-format: write text or json, not %q", form)
			}
			return daemon.Run(c.Context(), daemon.Options{Config: cfg, Host: a.host, Log: slog.New(h), Version: programVersion()})
		},
	}
	c.Flags().TextVar(&level, "log-level", &slog.LevelVar{}, "least level logged: debug, info, warn or error")
	c.Flags().StringVar(&form, "log-format", string(formatText), "form of the log on standard error: text or json")
	return c
}

// versionCommand prints the version.
func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.out, "gatewayd", programVersion())
			return err
		},
	}
}
