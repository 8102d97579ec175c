package plan

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"

	"gatewayd/gateway/routes"
	"gatewayd/plan/provider"
)

// Provision resolves the manifest m and its agent provider on host h into a
// plan. It is deterministic: the same manifest and the same answers of h give
// an equal plan, except for notes that speak of time. A host credential that
// is missing or broken is no error (the guest will meet a 503 that names it)
// but a note. Errors are *ManifestError where the manifest is at fault, and
// routes' own typed errors where manifest and provider contradict each other.
// It blocks on the host's file system only.
func Provision(m *Manifest, h Host) (*Plan, error) {
	if m == nil {
		return nil, errors.New("provision bottle: no manifest")
	}
	manifest, err := m.routes(h)
	if err != nil {
		return nil, err
	}
	c, err := m.contribution(manifest, h)
	if err != nil {
		return nil, err
	}
	p := &Plan{
		Bottle: m.Bottle, Provider: orWord(m.AgentProvider.Template, noProvider),
		Mode: provider.Mode(m.AgentProvider.ForwardHostCredentials),
		Link: m.link(), DNS: DNSSpec{Denied: DeniedDNS(orWord(m.DNS.Denied, string(DeniedBlock)))},
		Files: c.Files, Watch: c.Watch, Answers: c.Answers, Secrets: c.Secrets, Notes: c.Notes,
		HasProviderAuth: routes.HasProviderAuth(manifest),
	}
	if p.Routes, err = m.merge(manifest, c.Routes); err != nil {
		return nil, err
	}
	if p.Env, err = m.environment(manifest, c.Env); err != nil {
		return nil, err
	}
	p.Canaries = append(canaries(manifest), c.Canaries...)
	for i, value := range m.Pipelock.Canaries {
		p.Canaries = append(p.Canaries, Canary{Name: fmt.Sprintf("canary %d of the manifest", i+1), Value: value, Homes: []string{}})
	}
	p.Notes = append(p.Notes, plaintextNotes(p.Routes)...)
	if i := p.Link.Interface; i != "" && !strings.HasPrefix(i, tapPrefix) {
		p.Notes = append(p.Notes, "interface "+i+" is shut only once gatewayd has seen it: a name that begins with "+tapPrefix+" is shut before")
	}
	if p.Link.Adopt {
		p.Watch = append(p.Watch, p.Link.Netns)
		p.Notes = append(p.Notes, "namespace "+p.Link.Netns+" is as open as its maker left it until gatewayd has adopted it: start the VM after that")
	}
	p.tidy()
	return p, nil
}

// contribution asks the agent provider.
func (m *Manifest) contribution(manifest []routes.Route, h Host) (provider.Contribution, error) {
	name := orWord(m.AgentProvider.Template, noProvider)
	from, ok := builtin(name)
	if !ok {
		return provider.Contribution{}, m.refusal("agent_provider.template", quote(name)+" is no agent provider", suggest(name, templates()))
	}
	file, err := m.hostFile("agent_provider.credentials_file", m.AgentProvider.CredentialsFile, h)
	if err != nil {
		return provider.Contribution{}, err
	}
	c, err := from.Provision(provider.Request{
		Bottle: m.Bottle, Mode: provider.Mode(m.AgentProvider.ForwardHostCredentials),
		CredentialsFile: file, Manifest: manifest, Host: h,
	})
	if err != nil {
		return provider.Contribution{}, fmt.Errorf("provision bottle %s: %w", m.Bottle, err)
	}
	return c, nil
}

// merge joins the two sets of routes and checks that the result can be
// enforced.
func (m *Manifest) merge(manifest, from []routes.Route) ([]routes.Route, error) {
	merged, err := routes.Merge(manifest, from)
	if err != nil {
		return nil, fmt.Errorf("provision bottle %s: %w", m.Bottle, err)
	}
	for i, r := range merged {
		if i < len(manifest) && r.Decision() == routes.Passthrough && (r.Methods != nil || r.Paths != nil) {
			return nil, m.refusal(fmt.Sprintf("egress.routes[%d].host", i),
				"the agent provider passes "+r.Host+" through undecrypted, so nobody could enforce methods or paths",
				"remove methods and paths from the route, or write forward_host_credentials: true")
		}
	}
	if _, err := routes.NewTable(merged); err != nil {
		return nil, fmt.Errorf("provision bottle %s: %w", m.Bottle, err)
	}
	return merged, nil
}

// routes returns the manifest's routes in routes' own terms.
func (m *Manifest) routes(h Host) ([]routes.Route, error) {
	list := make([]routes.Route, 0, len(m.Egress.Routes))
	for i, r := range m.Egress.Routes {
		at := fmt.Sprintf("egress.routes[%d]", i)
		route := routes.Route{
			Host: r.Host, Port: uint16(r.Port), Protocol: routes.Protocol(r.Protocol),
			Methods: slices.Clone(r.Methods), Paths: slices.Clone(r.Paths), AllowPrivate: r.AllowPrivate,
			TLSPassthrough: r.Pipelock != nil && r.Pipelock.TLSPassthrough,
			Origin:         routes.Origin{File: m.file, Line: m.lines[at]},
		}
		if r.Pipelock != nil {
			route.Pipelock.Disable = slices.Clone(r.Pipelock.Disable)
			if r.Pipelock.Action == routes.WarnAction {
				route.Pipelock.Action = routes.WarnAction
			}
		}
		if r.Auth != nil {
			auth, err := m.auth(at+".auth", r.Auth, h)
			if err != nil {
				return nil, err
			}
			route.Auth = auth
		}
		list = append(list, route)
	}
	return list, nil
}

// auth resolves one auth section.
func (m *Manifest) auth(at string, a *AuthManifest, h Host) (*routes.Auth, error) {
	ref, err := m.secret(at+".secret", a.Secret, h)
	if err != nil {
		return nil, err
	}
	dummy := a.Dummy
	if dummy == "" {
		// Two hosts that share one secret share one dummy: the guest's client
		// has one variable for both.
		dummy = provider.Dummy(m.Bottle, strings.Join(append([]string{ref.String()}, ref.Command...), "\x00"))
	}
	header := a.Header
	if s := routes.Scheme(a.Scheme); s == routes.Bearer || s == routes.Basic {
		header = "Authorization"
	}
	return &routes.Auth{
		Scheme: routes.Scheme(a.Scheme), Header: header, Query: a.Query, User: a.User,
		Secret: ref, Role: a.Role, Dummies: routes.Dummies{Values: []string{dummy}},
	}, nil
}

// secret resolves one reference, and says what to do when it leads nowhere.
func (m *Manifest) secret(at string, s SecretManifest, h Host) (ref routes.SecretRef, err error) {
	switch {
	case s.Env != "":
		ref.Env = s.Env
		ref.Remedy = "set " + s.Env + " in gatewayd's environment and restart it"
	case s.File != "":
		ref.File, err = m.hostFile(at+".file", s.File, h)
		ref.Remedy = "write the secret into " + ref.File
	case s.JSON != nil:
		ref.JSON = &routes.JSONRef{Pointer: s.JSON.Pointer}
		ref.JSON.Path, err = m.hostFile(at+".json.path", s.JSON.Path, h)
		ref.Remedy = "renew " + ref.JSON.Path + ", with a string at " + s.JSON.Pointer
	default:
		ref.Command = slices.Clone(s.Command)
		if len(s.Command) > 0 {
			ref.Remedy = "run " + s.Command[0] + " on the host as gatewayd's user and see what it says"
		}
	}
	if err == nil && ref.Sources() != 1 {
		err = m.refusal(at, "names no source", "write one of env, file, json and command")
	}
	return ref, err
}

// hostFile resolves a leading ~/ of a path on the host.
func (m *Manifest) hostFile(at, file string, h Host) (string, error) {
	rest, home := strings.CutPrefix(file, "~/")
	if !home {
		return file, nil
	}
	if !path.IsAbs(h.Home()) {
		return "", m.refusal(at, "begins with ~/, but the gateway's user has no home directory", "write the whole path, or set HOME for gatewayd")
	}
	return path.Join(h.Home(), rest), nil
}

// environment joins what the guest needs to trust the gateway, the dummies of
// the manifest, and the provider's variables.
func (m *Manifest) environment(manifest []routes.Route, from []EnvVar) ([]EnvVar, error) {
	byName := map[string]EnvVar{}
	for _, e := range append(trustEnv(), from...) {
		byName[e.Name] = e
	}
	for i, r := range m.Egress.Routes {
		if r.Auth == nil {
			continue
		}
		name, at := orWord(r.Auth.Env, r.Auth.Secret.Env), fmt.Sprintf("egress.routes[%d].auth", i)
		if name == "" {
			continue
		}
		e := EnvVar{Name: name, Value: manifest[i].Auth.Dummies.Values[0]}
		if other, taken := byName[name]; taken && other != e {
			return nil, m.refusal(at, "the guest's variable "+name+" has another value already",
				"write env: with another name, or give both routes the same secret and dummy")
		}
		byName[name] = e
	}
	env := make([]EnvVar, 0, len(byName))
	for _, e := range byName {
		env = append(env, e)
	}
	return env, nil
}

// link resolves the link section.
func (m *Manifest) link() LinkSpec {
	l := LinkSpec{Tap: m.Link.Tap, Netns: m.Link.Netns, Adopt: m.Link.Adopt, Interface: m.Link.Interface,
		Owner: m.Link.Owner, MultiQueue: m.Link.MultiQueue, MTU: m.Link.MTU}
	// Both were checked when the manifest was parsed; unset, they stay zero.
	l.Guest, _ = netip.ParsePrefix(m.Link.Guest)
	l.MAC, _ = net.ParseMAC(m.Link.MAC)
	return l
}

// refusal returns one refusal of the value at the given place.
func (m *Manifest) refusal(at, problem, remedy string) error {
	d := decoder{lines: m.lines}
	return &ManifestError{File: m.file, Line: d.line(at), Field: at, Problem: problem, Remedy: remedy}
}

// canaries returns the dummies of routes with the hosts where each may go.
func canaries(list []routes.Route) []Canary {
	homes := map[string][]string{}
	for _, r := range list {
		if r.Auth == nil {
			continue
		}
		for _, v := range r.Auth.Dummies.Values {
			homes[v] = append(homes[v], r.Host)
		}
	}
	var out []Canary
	for value, hosts := range homes {
		slices.Sort(hosts)
		out = append(out, Canary{Name: "dummy for " + hosts[0], Value: value, Homes: slices.Compact(hosts)})
	}
	return out
}

// plaintextNotes warns of credentials that travel unencrypted.
func plaintextNotes(list []routes.Route) []string {
	var notes []string
	for _, r := range list {
		if r.Auth != nil && r.Protocol == routes.HTTP {
			notes = append(notes, "the credential for "+r.Rule()+" travels unencrypted, to an upstream that nothing identifies ("+r.Origin.String()+")")
		}
	}
	return notes
}

// tidy puts what has no order of its own into one, so that plans compare, and
// makes empty lists print as such.
func (p *Plan) tidy() {
	slices.SortFunc(p.Env, func(a, b EnvVar) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(p.Files, func(a, b GuestFile) int { return cmp.Compare(a.Path, b.Path) })
	slices.SortFunc(p.Canaries, func(a, b Canary) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
	})
	slices.Sort(p.Watch)
	p.Watch = slices.Compact(p.Watch)
	p.Routes = orEmpty(p.Routes)
	p.Env = orEmpty(p.Env)
	p.Files = orEmpty(p.Files)
	p.Watch = orEmpty(p.Watch)
	p.Canaries = orEmpty(p.Canaries)
	p.Secrets = orEmpty(p.Secrets)
	p.Notes = orEmpty(p.Notes)
	if p.Answers == nil {
		p.Answers = map[string]string{}
	}
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
