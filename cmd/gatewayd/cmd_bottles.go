package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gatewayd/cmd/gatewayd/internal/admin"
	"gatewayd/gateway/routes"
)

// bottlesCommand lists the manifests and what runs of them.
func (a *app) bottlesCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "bottles", Short: "list the bottles of the running daemon", Args: noArgs,
		Long: `Bottles lists every manifest that the daemon has found: running, stale (the manifest as it stands
is refused, and what it said before is in force) or shut (nothing passes), and why.`,
	}
	form := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, _, err := a.client()
		if err != nil {
			return err
		}
		var list []admin.Bottle
		if err := client.Get(c.Context(), "/bottles", &list); err != nil {
			return err
		}
		if *form == formatJSON {
			return a.printJSON(list)
		}
		return bottleTable(list).write(a.out, a.terminal)
	}
	return c
}

// releaseCommand lets a bottle go on.
func (a *app) releaseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "release BOTTLE", Short: "let a bottle go on that was cut off for leaks",
		Long: `Release lets a bottle go on that was cut off, since more of its requests than pipelock.trip allows
held what must not leave. Everything of such a bottle is denied until then, also after a restart.
Look at what it tried before: gatewayd log BOTTLE, and gatewayd explain ID.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%s takes one argument, a bottle", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			client, _, err := a.client()
			if err != nil {
				return err
			}
			if err := client.Post(c.Context(), "/release?bottle="+url.QueryEscape(args[0])); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "bottle %s may go on\n", args[0])
			return nil
		},
	}
}

func bottleTable(list []admin.Bottle) *table {
	t := &table{head: []string{"BOTTLE", "STATE", "LINK", "GUEST", "ROUTES", "FLOWS", "DROPPED", "PLAN", "PROBLEM"}}
	styles := map[string]style{"running": green, "stale": yellow, "shut": red}
	for _, b := range list {
		name, problem, state := b.Bottle, b.Error, b.State
		if name == "" {
			name = "(" + filepath.Base(b.Manifest) + ")"
		}
		if problem == "" {
			problem = b.LinkError
		}
		s := styles[state]
		switch {
		case b.CutOff:
			state, s = "cut off", red
		case state == "running" && !b.Up:
			state, s = "link shut", yellow
		}
		var drops uint64
		for _, n := range b.Drops {
			drops += n
		}
		t.add(cell{name, bold}, cell{state, s}, text(b.Link), text(b.Guest), text(b.Routes), text(b.Flows), text(drops), text(shortDigest(b.Plan)), text(problem))
	}
	return t
}

// shortDigest gives the first digits of "sha256:…".
func shortDigest(s string) string {
	const prefix, digits = len("sha256:"), 12
	if len(s) < prefix+digits {
		return s
	}
	return s[prefix : prefix+digits]
}

// flowsCommand lists open flows.
func (a *app) flowsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "flows [BOTTLE]", Short: "list the open flows of the running daemon", Args: upToOne("a bottle"),
	}
	form := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		client, _, err := a.client()
		if err != nil {
			return err
		}
		list, err := getFlows(c.Context(), client, args)
		if err != nil {
			return err
		}
		if *form == formatJSON {
			return a.printJSON(list)
		}
		return flowTable(list, a.host.Now()).write(a.out, a.terminal)
	}
	return c
}

func getFlows(ctx context.Context, client admin.Client, args []string) ([]admin.Flow, error) {
	path := "/flows"
	if len(args) > 0 {
		path += "?bottle=" + url.QueryEscape(args[0])
	}
	list := []admin.Flow{}
	return list, client.Get(ctx, path, &list)
}

func flowTable(list []admin.Flow, now time.Time) *table {
	t := &table{head: []string{"BOTTLE", "TO", "DECISION", "LANE", "UP", "DOWN", "AGE", "ID"}}
	for _, f := range list {
		to := f.Host
		if to == "" {
			to = f.Dst.Addr().String()
		}
		t.add(text(f.Bottle), cell{fmt.Sprintf("%s:%d", to, f.Port), bold}, cell{f.Decision, decisionStyle(f.Decision)}, text(f.Lane),
			text(size(f.BytesUp)), text(size(f.BytesDown)), text(now.Sub(f.Since).Round(time.Second)), text(f.ID))
	}
	return t
}

// upToOne judges the number of arguments of a command that takes one or none.
func upToOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("%s takes one argument at most, %s", c.CommandPath(), what)
		}
		return nil
	}
}

// topInterval is how often top looks.
const topInterval = time.Second

// topCommand shows bottles and flows until it is interrupted.
func (a *app) topCommand() *cobra.Command {
	return &cobra.Command{
		Use: "top", Short: "show bottles and flows, again every second, until interrupted", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, _, err := a.client()
			if err != nil {
				return err
			}
			tick := time.NewTicker(topInterval)
			defer tick.Stop()
			for {
				if err := a.topScreen(c.Context(), client); err != nil {
					return err
				}
				select {
				case <-c.Context().Done():
					return nil
				case <-tick.C:
				}
			}
		},
	}
}

func (a *app) topScreen(ctx context.Context, client admin.Client) error {
	var bottles []admin.Bottle
	if err := client.Get(ctx, "/bottles", &bottles); err != nil {
		return err
	}
	flows, err := getFlows(ctx, client, nil)
	if err != nil {
		return err
	}
	if a.terminal {
		_, _ = io.WriteString(a.out, "\x1b[H\x1b[2J") // home, then erase all (ECMA-48 CUP, ED)
	}
	if err := bottleTable(bottles).write(a.out, a.terminal); err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	return flowTable(flows, a.host.Now()).write(a.out, a.terminal)
}

// stateWords is how a record's decision is shown in a line of the log.
func stateWords(decision string) cell {
	if decision == routes.Deny.String() {
		return cell{"DENY", red}
	}
	return cell{decision, green}
}
