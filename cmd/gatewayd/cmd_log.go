package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gatewayd/cmd/gatewayd/internal/admin"
	"gatewayd/cmd/gatewayd/internal/audit"
)

// logCommand shows records.
func (a *app) logCommand() *cobra.Command {
	var follow bool
	var n int
	c := &cobra.Command{
		Use: "log [-f] [BOTTLE]", Short: "show the latest records, and with -f those to come", Args: upToOne("a bottle"),
		Long: `Log shows one line for each flow, request, refused name and event. It asks the daemon, which
remembers a few thousand of each bottle; without a daemon it reads the audit file. With -o json each
line is the whole record, whose fields docs/OPERATIONS.md describes.`,
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new records until interrupted")
	c.Flags().IntVarP(&n, "lines", "n", 20, "how many of the latest records to begin with")
	form := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if n < 0 {
			return usagef("--lines: write a number from 0 on")
		}
		client, cfg, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{"n": {strconv.Itoa(n)}}
		if follow {
			q.Set("follow", "1")
		}
		bottle := ""
		if len(args) > 0 {
			bottle = args[0]
			q.Set("bottle", bottle)
		}
		show := func(line []byte) error { return a.showLine(*form, bottle, line) }
		err = client.Lines(c.Context(), "/log?"+q.Encode(), show)
		if is[*admin.NotRunningError](err) && cfg.AuditFile != "" && !follow {
			return a.logFromFile(cfg.AuditFile, n, show)
		}
		return err
	}
	return c
}

// logFromFile shows the end of the audit file.
func (a *app) logFromFile(path string, n int, show func([]byte) error) error {
	lines, err := audit.Tail(path, n)
	if err != nil {
		return err
	}
	for _, l := range lines {
		if err := show(l); err != nil {
			return err
		}
	}
	return nil
}

// showLine prints one record. A line that is no record, such as the torn end of a crash, is passed over.
func (a *app) showLine(form format, bottle string, line []byte) error {
	r, ok := parseRecord(line)
	if !ok || bottle != "" && r.Bottle != bottle {
		return nil
	}
	if form == formatJSON {
		_, err := fmt.Fprintf(a.out, "%s\n", line)
		return err
	}
	t := table{}
	decision := stateWords(r.Decision)
	decision.text = fmt.Sprintf("%-11s", decision.text)
	t.add(text(r.Time.Local().Format("15:04:05.000")), text(fmt.Sprintf("%-8s", r.Bottle)), text(fmt.Sprintf("%-7s", r.Type)), decision, text(recordWords(r)))
	return t.writeRows(a.out, a.terminal)
}

// parseRecord reads a line of the log; false if it is no record.
func parseRecord(line []byte) (r admin.Record, ok bool) {
	err := json.Unmarshal(line, &r)
	return r, err == nil
}

// recordWords says in one line what a record is about.
func recordWords(r admin.Record) string {
	to := r.Host
	if to == "" && r.Dst.IsValid() {
		to = r.Dst.Addr().String()
	}
	if r.Port != 0 {
		to += ":" + strconv.Itoa(int(r.Port))
	}
	words := []string{to}
	if r.Method != "" {
		words = append(words, r.Method, r.Path)
	}
	if r.Status != 0 {
		words = append(words, strconv.Itoa(r.Status))
	}
	if r.Injected {
		words = append(words, "injected")
	}
	if r.BytesUp+r.BytesDown > 0 {
		words = append(words, "↑"+size(r.BytesUp), "↓"+size(r.BytesDown))
	}
	if r.Decision == "deny" {
		words = append(words, string(r.Reason), r.Finding, r.Error, r.ID)
	}
	return strings.Join(nonEmpty(words), " ")
}

func nonEmpty(list []string) []string {
	out := list[:0]
	for _, s := range list {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}
