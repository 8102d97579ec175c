package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gatewayd/cmd/gatewayd/internal/admin"
	"gatewayd/cmd/gatewayd/internal/audit"
	"gatewayd/cmd/gatewayd/internal/explain"
	"gatewayd/gateway/routes"
)

// explainCommand says why.
func (a *app) explainCommand() *cobra.Command {
	var method string
	c := &cobra.Command{
		Use:   "explain BOTTLE URL|HOST:PORT | explain [BOTTLE] ID",
		Short: "say what would happen to a request, or why one ended as it did",
		Long: `With a URL or HOST:PORT, explain judges it by the bottle's manifest as it is now; no daemon is
needed and nothing is sent. With the id that a denial showed (r-…, f-…), it shows the record, from
the daemon's memory or else from the audit file. The exit code is 5 if the answer is deny.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 2 || len(args) == 1 && explain.IsID(args[0]) {
				return nil
			}
			return usagef("explain takes a bottle and a URL, HOST:PORT or id; or an id alone")
		},
	}
	c.Flags().StringVarP(&method, "method", "X", "", "HTTP method of the request (default GET)")
	form := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		what := args[len(args)-1]
		if explain.IsID(what) {
			return a.explainRecord(c, what, *form)
		}
		return a.explainTarget(args[0], what, method, *form)
	}
	return c
}

// explainTarget judges a URL or HOST:PORT.
func (a *app) explainTarget(bottle, target, method string, form format) error {
	p, err := a.find(bottle)
	if err != nil {
		return err
	}
	t, err := routes.NewTable(p.Plan.Routes)
	if err != nil {
		return err
	}
	ans, err := explain.Target(t, target, method)
	if err != nil {
		return err
	}
	ans.Bottle, ans.Plan = p.Plan.Bottle, p.Plan.Digest()
	if form == formatJSON {
		err = a.printJSON(ans)
	} else {
		err = a.showAnswer(ans)
	}
	if err == nil && ans.Decision == routes.Deny {
		return &exitError{code: exitDenied}
	}
	return err
}

func (a *app) showAnswer(x explain.Answer) error {
	request := "connection"
	if x.Method != "" {
		request = x.Method + " " + x.Path
	}
	credential := "none is put in"
	if x.Inject != "" {
		credential = "put in from " + x.Inject
	}
	scan := "no"
	if x.Scan {
		scan = "yes, before anything is put in"
	}
	f := fields{
		{"decision", x.Decision.String(), decisionStyle(x.Decision.String())},
		{"bottle", x.Bottle, plain},
		{"to", fmt.Sprintf("%s:%d (%s)", x.Host, x.Port, x.Protocol), plain},
		{"request", request, plain},
		{"reason", string(x.Reason) + ": " + reasonWords(x.Reason), plain},
		{"route", x.Rule, plain},
		{"written in", x.Origin, plain},
		{"name", x.Name, plain},
	}
	if x.Decision == routes.Intercept {
		f = append(f, field{"credential", credential, plain}, field{"scanned", scan, plain}, field{"answered by", x.Answer, plain})
	}
	return f.write(a, x.Remedy)
}

// explainRecord shows the record with an id.
func (a *app) explainRecord(c *cobra.Command, id string, form format) error {
	client, cfg, err := a.client()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	err = client.Get(c.Context(), "/explain?id="+url.QueryEscape(id), &raw)
	if is[*admin.NotRunningError](err) && cfg.AuditFile != "" {
		line, ferr := audit.Find(cfg.AuditFile, id)
		switch {
		case ferr != nil:
			err = errors.Join(err, ferr)
		case line == nil:
			err = fmt.Errorf("no record in %s has the id %s", cfg.AuditFile, id)
		default:
			raw, err = line, nil
		}
	}
	if err != nil {
		return err
	}
	var r admin.Record
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("read record %s: %w", id, err)
	}
	if form == formatJSON {
		err = a.printJSON(raw)
	} else {
		err = a.showRecord(r)
	}
	if err == nil && r.Decision == routes.Deny.String() {
		return &exitError{code: exitDenied}
	}
	return err
}

func (a *app) showRecord(r admin.Record) error {
	to := r.Host
	if to == "" && r.Dst.IsValid() {
		to = r.Dst.Addr().String()
	}
	if r.Port != 0 { // a name that was asked for has none
		to = fmt.Sprintf("%s:%d (%s)", to, r.Port, r.Protocol)
	}
	request := string(r.Type)
	if r.Method != "" {
		request = strings.TrimSpace(r.Method + " " + r.Path)
	}
	f := fields{
		{"decision", r.Decision, decisionStyle(r.Decision)},
		{"id", r.ID, plain},
		{"time", r.Time.Format(time.RFC3339), plain},
		{"bottle", r.Bottle, plain},
		{"to", to, plain},
		{"request", request, plain},
		{"lane", string(r.Lane), plain},
		{"reason", string(r.Reason) + ": " + reasonWords(r.Reason), plain},
		{"route", r.Rule, plain},
		{"finding", r.Finding, red},
		{"error", r.Error, red},
		{"plan", r.Plan, plain},
	}
	if r.Status != 0 {
		f = append(f, field{"status", fmt.Sprint(r.Status), plain})
	}
	return f.write(a, r.Remedy)
}

// field is one line of an explanation.
type field struct {
	name, value string
	style       style
}

type fields []field

// write prints the fields that have a value, then the remedy.
func (f fields) write(a *app, remedy string) error {
	t := table{}
	for _, l := range f {
		if l.value != "" {
			t.add(text(l.name), cell{l.value, l.style})
		}
	}
	if err := t.writeRows(a.out, a.terminal); err != nil {
		return err
	}
	if remedy == "" {
		return nil
	}
	_, err := fmt.Fprintf(a.out, "\nThese lines of the manifest would allow it:\n\n%s\n", indent(remedy))
	return err
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimRight(s, "\n")) {
		b.WriteString("  " + printable(strings.TrimRight(line, "\n")) + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

func decisionStyle(s string) style {
	if s == routes.Deny.String() {
		return red
	}
	return green
}
