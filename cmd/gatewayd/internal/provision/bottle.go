package provision

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"strings"

	"gatewayd/cmd/gatewayd/internal/config"
	"gatewayd/gateway"
	"gatewayd/gateway/inject"
	"gatewayd/gateway/pipelock"
	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
	"gatewayd/plan"
	"gatewayd/plan/provider/codex"
)

// Bottle makes what the gateway runs from a plan. It writes to the state directory: the address, and the certificate
// authority if there is none yet.
func Bottle(c config.Config, p Planned, host plan.Host, log *slog.Logger) (gateway.Bottle, error) {
	table, err := routes.NewTable(p.Plan.Routes)
	if err != nil {
		return gateway.Bottle{}, err
	}
	b := gateway.Bottle{Name: p.Plan.Bottle, Table: table, PlanDigest: p.Plan.Digest(), DeniedDNS: gateway.DeniedBlock}
	// The plan's own default is not the manifest's word: what the manifest leaves open, the configuration decides.
	if said := p.Manifest.DNS.Denied; said == string(plan.DeniedNXDOMAIN) || said == "" && c.DeniedNXDomain {
		b.DeniedDNS = gateway.DeniedNXDomain
	}
	if b.Answerers, err = answerers(p, host, log); err != nil {
		return gateway.Bottle{}, err
	}
	for _, t := range p.Plan.Canaries {
		b.CanaryTokens = append(b.CanaryTokens, pipelock.Token{Name: t.Name, Value: t.Value, Homes: t.Homes})
	}
	for _, s := range p.Plan.Secrets {
		b.Secrets = append(b.Secrets, inject.Held{Ref: s.Secret, Homes: s.Homes})
	}
	if b.Link, err = Link(c, p.Plan); err != nil {
		return gateway.Bottle{}, err
	}
	if b.CA, err = CA(c, p.Plan.Bottle); err != nil {
		return gateway.Bottle{}, err
	}
	return b, nil
}

// answerers makes the handlers that the plan's answering routes name. This is the only place that knows which provider
// brings which.
func answerers(p Planned, host plan.Host, log *slog.Logger) (map[string]http.Handler, error) {
	out := map[string]http.Handler{}
	for answer, from := range p.Plan.Answers {
		switch answer {
		case codex.AnswerName:
			out[answer] = codex.NewAnswerer(codex.AnswererConfig{
				Bottle: p.Plan.Bottle, CredentialsFile: hostPath(p.Manifest.AgentProvider.CredentialsFile, host),
				Host: host, Log: log.With("bottle", p.Plan.Bottle),
			})
		default:
			return nil, fmt.Errorf("bottle %s: provider %s answers %q, which this gatewayd has no answerer for", p.Plan.Bottle, from, answer)
		}
	}
	return out, nil
}

// hostPath resolves a leading ~/.
func hostPath(file string, host plan.Host) string {
	if rest, ok := strings.CutPrefix(file, "~/"); ok {
		return path.Join(host.Home(), rest)
	}
	return file
}

// guestPrefix is the guest's address with the link's prefix length.
func guestPrefix(l redirect.Link) netip.Prefix { return netip.PrefixFrom(l.Guest, l.Bits) }
