package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"gatewayd/cmd/gatewayd/internal/admin"
	"gatewayd/cmd/gatewayd/internal/config"
	"gatewayd/cmd/gatewayd/internal/provision"
	"gatewayd/plan"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = ""

// environment is what a run of the program has of its process.
type environment struct {
	out, err io.Writer
	// terminal tells whether out is one that a person looks at: tables may then use colour.
	terminal bool
	host     plan.Host
}

// process is the environment of this process.
func process() environment {
	colour := term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return environment{out: os.Stdout, err: os.Stderr, terminal: colour, host: provision.Machine{}}
}

// app is one run of the program: its environment and the flags that every command has.
type app struct {
	environment
	flags *config.Flags
}

// run is the program: it returns the exit code. Commands other than run end at SIGINT and SIGTERM through the context;
// run takes signals itself.
func run(e environment, args []string) int {
	root := newRoot(e)
	root.SetArgs(args)
	ctx := context.Background()
	if len(args) == 0 || args[0] != "run" {
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
	}
	err := root.ExecuteContext(ctx)
	var silent *exitError
	if said := errors.As(err, &silent) && silent.err == nil; err != nil && !said {
		hint := ""
		if os.Geteuid() != 0 && errors.Is(err, fs.ErrPermission) {
			hint = "; try it as root"
		}
		fmt.Fprintf(e.err, "gatewayd: %v%s\n", err, hint)
	}
	return exitCode(err)
}

// newRoot makes the tree of commands.
func newRoot(e environment) *cobra.Command {
	a := &app{environment: e}
	root := &cobra.Command{
		Use:   "gatewayd",
		Short: "egress gateway of microVMs that hold coding agents",
		Long: `gatewayd stands between microVMs (bottles) that hold coding agents and the internet.
All that a bottle sends is captured on the host's side of its link; a plan made from
the bottle's manifest decides what passes, what passes undecrypted, and where the
host's real credentials replace the dummies that the bottle holds.`,
		SilenceUsage: true, SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no command %q; `gatewayd help` lists them", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetOut(e.out)
	root.SetErr(e.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w; see `%s --help`", err, c.CommandPath())
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetGlobalNormalizationFunc(config.Normalize)
	a.flags = config.Bind(root.PersistentFlags())
	root.AddCommand(
		a.runCommand(), a.planCommand(), a.checkCommand(), a.explainCommand(), a.scanCommand(), a.guestCommand(), a.imageCommand(), a.bottlesCommand(), a.releaseCommand(),
		a.flowsCommand(), a.logCommand(), a.topCommand(), a.uninstallCommand(), a.demoCommand(), a.demoClientCommand(), a.vmCommand(), a.vmInitCommand(),
		a.schemaCommand(), a.versionCommand(), a.manCommand(),
	)
	return root
}

// config reads the configuration file and the flags.
func (a *app) config() (config.Config, error) {
	src, err := config.Load(a.flags.Path)
	if err != nil {
		return config.Config{}, &exitError{code: exitRefused, err: err}
	}
	changed := a.flags.Apply(&src.File)
	return src.Resolve(changed, config.HostNameservers("/etc/resolv.conf"))
}

// client talks to the daemon of this configuration.
func (a *app) client() (admin.Client, config.Config, error) {
	c, err := a.config()
	return admin.Client{Socket: filepath.Join(c.RunDir, admin.SocketName)}, c, err
}

// programVersion is the linker's, else what the Go command noted of the module.
func programVersion() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "unknown"
}

// noArgs, oneArg and upTo judge the number of arguments.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q is one argument too many", args[0])
	}
	return nil
}

func oneArg(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("%s takes one argument, %s", c.CommandPath(), what)
		}
		return nil
	}
}
