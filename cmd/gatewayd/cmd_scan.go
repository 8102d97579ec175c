package main

import (
	"cmp"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"gatewayd/cmd/gatewayd/internal/provision"
	"gatewayd/gateway/formats"
	"gatewayd/gateway/pipelock"
)

// scanned is one finding of scan.
type scanned struct {
	pipelock.Finding
	Offset int64 `json:"offset"`
}

// scanCommand runs the leak scanner by hand.
func (a *app) scanCommand() *cobra.Command {
	rules := false
	c := &cobra.Command{
		Use:   "scan FILE|- | scan --rules",
		Short: "look for tokens in a file as the gateway does in requests",
		Long: `Scan reads a file, or the standard input for '-', and says of each token that it finds by its form
which rule knows it, what becomes of a request that holds it, where it is and whether in base64 or
hexadecimal, with an excerpt that does not show it. The rules are the built-in ones and those of pipelock.rules. With --rules it
lists their ids, which a route's pipelock.disable takes. No daemon is asked, and known secrets and
dummies of bottles are not looked for. The exit code is 5 if a request with this body is blocked.`,
		Args: func(_ *cobra.Command, args []string) error {
			if want := 1; rules && len(args) == 0 || !rules && len(args) == want {
				return nil
			}
			return usagef("scan takes a file, or '-', or --rules alone")
		},
	}
	c.Flags().BoolVar(&rules, "rules", false, "list the rules")
	form := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := a.config()
		if err != nil {
			return err
		}
		set, err := provision.Formats(cfg)
		if err != nil {
			return &exitError{code: exitRefused, err: err}
		}
		if rules {
			return a.listRules(set, *form)
		}
		return a.scanFile(args[0], c.InOrStdin(), set, *form)
	}
	return c
}

// listRules prints the ids and what their findings lead to.
func (a *app) listRules(set *formats.Set, form format) error {
	t := table{head: []string{"RULE", "ACTION"}}
	type row struct {
		Rule   string          `json:"rule"`
		Action pipelock.Action `json:"action"`
	}
	var all []row
	for _, id := range set.IDs() {
		r := row{Rule: id}
		if set.Advisory(id) {
			r.Action = pipelock.Warn
		}
		all = append(all, r)
		t.add(text(id), text(r.Action.String()))
	}
	if form == formatJSON {
		return a.printJSON(all)
	}
	return t.write(a.out, a.terminal)
}

// scanFile scans one file.
func (a *app) scanFile(name string, stdin io.Reader, set *formats.Set, form format) error {
	in, place := stdin, "standard input"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in, place = f, name
	}
	all := []scanned{}
	blocked := false
	scanner := pipelock.New(nil).WithFormats(set, set.Policy(nil, false))
	err := scanner.Inspect(place, in, func(f pipelock.Finding, offset int64) {
		all = append(all, scanned{f, offset})
		blocked = blocked || f.Action == pipelock.Block
	})
	if err != nil {
		return err
	}
	if form == formatJSON {
		err = a.printJSON(all)
	} else if len(all) > 0 {
		t := table{head: []string{"RULE", "ACTION", "BYTE", "ENCODING", "EXCERPT"}}
		for _, f := range all {
			s := yellow
			if f.Action == pipelock.Block {
				s = red
			}
			t.add(cell{f.Rule, bold}, cell{f.Action.String(), s}, text(strconv.FormatInt(f.Offset, 10)), text(cmp.Or(f.Encoding, "-")), text(f.Excerpt))
		}
		err = t.write(a.out, a.terminal)
	}
	if err == nil && blocked {
		return &exitError{code: exitDenied}
	}
	return err
}
