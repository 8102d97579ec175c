package plan

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"gatewayd/gateway/routes"
	"gatewayd/plan/provider"
)

// Text writes the plan for people to read, with the digest first. It returns
// w's error.
func (p *Plan) Text(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "bottle %s  %s\n", p.Bottle, p.Digest())
	fmt.Fprintf(&b, "  link   %s\n", p.linkWords())
	fmt.Fprintf(&b, "  agent  %s\n", p.agentWords())
	fmt.Fprintf(&b, "  dns    names outside the plan: %s\n", p.DNS.Denied)
	p.textRoutes(&b)
	p.textEnv(&b)
	p.textFiles(&b)
	textList(&b, "looked for in what leaves, besides the credentials above", p.secretWords())
	textList(&b, "provision again when these change", p.Watch)
	textList(&b, "notes", p.Notes)
	_, err := w.Write(b.Bytes())
	return err
}

func (p *Plan) linkWords() string {
	words := []string{p.Link.String()}
	if p.Link.Guest.IsValid() {
		words = append(words, "guest "+p.Link.Guest.String())
	}
	if p.Link.MAC != nil {
		words = append(words, "mac "+p.Link.MAC.String())
	}
	if p.Link.MTU != 0 {
		words = append(words, fmt.Sprintf("mtu %d", p.Link.MTU))
	}
	if p.Link.Owner != "" {
		words = append(words, "owner "+p.Link.Owner)
	}
	return strings.Join(words, ", ")
}

func (p *Plan) agentWords() string {
	if p.Provider == noProvider {
		return "none"
	}
	switch {
	case p.HasProviderAuth:
		return p.Provider + ", with the manifest's own credential (auth.role: provider)"
	case p.Mode == provider.Inject:
		return p.Provider + ", the gateway injects the host's credentials; the guest holds dummies"
	case p.Mode == provider.Lend:
		return p.Provider + ", the guest is lent the host's access token"
	}
	return p.Provider + ", signs in by itself"
}

func (p *Plan) textRoutes(b *bytes.Buffer) {
	if len(p.Routes) == 0 {
		b.WriteString("routes: none, everything is denied\n")
		return
	}
	b.WriteString("routes (everything else is denied)\n")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  HOST:PORT\tDECISION\tCREDENTIAL\tSCANNED\tFROM\tMETHODS\tPATHS")
	for _, r := range p.Routes {
		paths := pathWords(r)
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Rule(), decisionWords(r),
			credentialWords(r.Auth), yesNo(r.Scan()), r.Origin, methodWords(r), paths[0])
		for _, more := range paths[1:] {
			fmt.Fprintf(t, "\t\t\t\t\t\t%s\n", more)
		}
	}
	_ = t.Flush() // a buffer takes everything
}

// decisionWords names the decision and what is unusual about it.
func decisionWords(r routes.Route) string {
	words := r.Decision().String()
	switch {
	case r.Answer != "":
		words = "answered here"
	case r.Protocol == routes.TCP || r.Protocol == routes.HTTP:
		words += " " + string(r.Protocol)
	}
	if r.AllowPrivate {
		words += ", private addresses too"
	}
	return words
}

func methodWords(r routes.Route) string {
	switch {
	case r.Decision() == routes.Passthrough:
		return "unseen"
	case r.Methods == nil:
		return "all"
	}
	return strings.Join(r.Methods, " ")
}

// pathWords returns at least one word.
func pathWords(r routes.Route) []string {
	switch {
	case r.Decision() == routes.Passthrough:
		return []string{"unseen"}
	case len(r.Paths) == 0:
		return []string{"all"}
	}
	return r.Paths
}

func credentialWords(a *routes.Auth) string {
	switch {
	case a == nil:
		return "-"
	case a.Scheme == routes.HeaderScheme:
		return a.Header + " <- " + a.Secret.String()
	case a.Scheme == routes.QueryScheme:
		return "?" + a.Query + " <- " + a.Secret.String()
	case a.Scheme == routes.Basic:
		return "basic " + a.User + " <- " + a.Secret.String()
	}
	return string(a.Scheme) + " <- " + a.Secret.String()
}

func (p *Plan) textEnv(b *bytes.Buffer) {
	b.WriteString("guest environment (DIR is where the guest finds its files)\n")
	for _, e := range p.Env {
		fmt.Fprintf(b, "  %s=%s\n", e.Name, e.Resolve("DIR"))
	}
}

func (p *Plan) textFiles(b *bytes.Buffer) {
	if len(p.Files) == 0 {
		return
	}
	b.WriteString("guest files\n")
	for _, f := range p.Files {
		fmt.Fprintf(b, "  %04o %s, %d bytes%s\n", uint32(f.Mode), f.Path, len(f.Content), fillWords(f))
	}
}

func fillWords(f GuestFile) string {
	words := ""
	for _, fill := range f.Fill {
		words += ", lent when written: " + fill.Secret.String()
	}
	return words
}

func (p *Plan) secretWords() []string {
	var out []string
	for _, s := range p.Secrets {
		words := s.Secret.String()
		if len(s.Homes) > 0 {
			words += ", but to " + strings.Join(s.Homes, " and ")
		}
		out = append(out, words)
	}
	return out
}

func textList(b *bytes.Buffer, title string, list []string) {
	if len(list) == 0 {
		return
	}
	b.WriteString(title + "\n")
	for _, s := range list {
		b.WriteString("  " + s + "\n")
	}
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
