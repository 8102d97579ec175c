package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gatewayd/cmd/gatewayd/internal/config"
)

// manual makes gatewayd.8 (man(7)) from the tree of commands, so that the two cannot differ.
func manual(root *cobra.Command) []byte {
	var b bytes.Buffer
	b.WriteString(".\\\" Made by `make generate` from the commands themselves; do not edit.\n")
	b.WriteString(".TH GATEWAYD 8 \"\" gatewayd \"System Administration\"\n")
	section(&b, "NAME")
	fmt.Fprintf(&b, "gatewayd \\- %s\n", roff(root.Short))
	section(&b, "SYNOPSIS")
	b.WriteString(".B gatewayd\n.I command\n[\\fIoption\\fR ...] [\\fIargument\\fR ...]\n")
	section(&b, "DESCRIPTION")
	paragraph(&b, root.Long)
	section(&b, "COMMANDS")
	for _, c := range root.Commands() {
		if !c.IsAvailableCommand() || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		manualCommand(&b, c, "")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				manualCommand(&b, sub, c.Name()+" ")
			}
		}
	}
	section(&b, "OPTIONS")
	b.WriteString("Every command takes these; each but \\fB\\-\\-config\\fR is also a key of the configuration file, and wins over it.\n")
	options(&b, root.PersistentFlags())
	manualFiles(&b)
	return b.Bytes()
}

// manualCommand writes one command; of is the command that it belongs to, if any.
func manualCommand(b *bytes.Buffer, c *cobra.Command, of string) {
	fmt.Fprintf(b, ".SS %s\n", roff(of+c.Use))
	if c.Long != "" {
		paragraph(b, c.Long)
	} else {
		paragraph(b, strings.ToUpper(c.Short[:1])+c.Short[1:]+".")
	}
	options(b, c.LocalNonPersistentFlags())
}

// options writes the flags of a set.
func options(b *bytes.Buffer, fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		b.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(b, "\\fB\\-%s\\fR, ", f.Shorthand)
		}
		fmt.Fprintf(b, "\\fB\\-\\-%s\\fR", roff(f.Name))
		if t := valueWord(f.Value.Type()); t != "" {
			fmt.Fprintf(b, " \\fI%s\\fR", roff(t))
		}
		fmt.Fprintf(b, "\n%s.\n", roff(strings.ToUpper(f.Usage[:1])+f.Usage[1:]))
	})
}

// valueWord is how a flag's value is called in the manual; "" for a flag without one.
func valueWord(t string) string {
	switch t {
	case "bool":
		return ""
	case "":
		return "word"
	case "stringSlice":
		return "list"
	}
	return t
}

// manualFiles writes the sections about files, signals and exit codes.
func manualFiles(b *bytes.Buffer) {
	terms := func(name string, list [][2]string) {
		section(b, name)
		for _, t := range list {
			fmt.Fprintf(b, ".TP\n\\fB%s\\fR\n%s\n", roff(t[0]), roff(t[1]))
		}
	}
	terms("FILES", [][2]string{
		{config.DefaultPath, "The configuration: YAML with the keys " + strings.Join(config.Keys(), ", ") + ", where a.b is key b in section a. Unknown keys are refused. It may be absent."},
		{"/etc/gatewayd/bottles/NAME.bottle.yaml", "The manifest of a bottle. `gatewayd schema` prints its JSON Schema."},
		{"/var/lib/gatewayd/bottles/NAME/", "The certificate authority of a bottle, made once. Whoever reads ca-key.pem can impersonate any host to that bottle."},
		{"/var/lib/gatewayd/bottles/NAME/cut-off", "Is there while the bottle is cut off for leaks; `gatewayd release NAME` removes it."},
		{"/var/lib/gatewayd/pool.json", "Which bottle has which address."},
		{"/run/gatewayd/admin.sock", "Where the other commands ask the daemon; for root and the daemon's user."},
		{"/sys/fs/bpf/gatewayd/", "Programs, maps and links, which outlive the daemon."},
	})
	terms("SIGNALS", [][2]string{
		{"SIGHUP", "Look at all manifests again, and reopen the audit file."},
		{"SIGTERM, SIGINT", "Take nothing new, let what is under way finish for 10 s, and leave the links as they are, which is shut. A second one does not wait for flows."},
	})
	terms("EXIT STATUS", [][2]string{
		{fmt.Sprint(exitOK), "Done; for explain: it is allowed; for check: no line is fail."},
		{fmt.Sprint(exitFailed), "What was asked for could not be done."},
		{fmt.Sprint(exitUsage), "The command line is wrong."},
		{fmt.Sprint(exitRefused), "The configuration or a manifest is refused, or there is no such bottle."},
		{fmt.Sprint(exitNotRunning), "No daemon answers."},
		{fmt.Sprint(exitDenied), "explain: the answer is deny; scan: a request with this body is refused."},
		{fmt.Sprint(exitInterrupted), "vm run: a signal came. Otherwise vm run ends with the status of the command in the VM."},
	})
	terms("ENVIRONMENT", [][2]string{
		{"NO_COLOR", "If set, tables on a terminal have no colour."},
		{"NOTIFY_SOCKET", "Where run tells a service manager that it is ready; see sd_notify(3)."},
	})
	section(b, "SEE ALSO")
	b.WriteString("docs/OPERATIONS.md for records, metrics and procedures; docs/ARCHITECTURE.md for how it works; nft(8), ip(8), bpftool(8)\n")
}

func section(b *bytes.Buffer, name string) { fmt.Fprintf(b, ".SH %s\n", name) }

// paragraph writes running text; indented lines stay as they are.
func paragraph(b *bytes.Buffer, s string) {
	for line := range strings.Lines(s) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "":
			b.WriteString(".PP\n")
		case strings.HasPrefix(line, "  "):
			fmt.Fprintf(b, ".RS\n.nf\n%s\n.fi\n.RE\n", roff(strings.TrimSpace(line)))
		default:
			b.WriteString(roff(line) + "\n")
		}
	}
}

// roff escapes text for man(7).
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...", "→", "->").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
