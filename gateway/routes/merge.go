package routes

import "fmt"

// ConflictError reports that a manifest route and a provider route for the
// same host and port both bring a credential.
type ConflictError struct {
	// Rule is "pattern:port".
	Rule string
	// Manifest and Provider say where the two routes were written.
	Manifest, Provider Origin
}

// Error names both origins and what to do.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("merge route %s: %s and %s both set auth; remove one of them", e.Rule, e.Manifest, e.Provider)
}

// Merge returns the manifest's routes in their order, followed by the
// provider's routes for hosts that the manifest does not have. A provider
// route for a host and port that the manifest has fills only the fields that
// the manifest left unset: protocol, methods, paths, auth, pipelock and answer.
// TLSPassthrough is true if either says so. AllowPrivate is the operator's to
// give: a provider cannot add it to a manifest route. Auth from both is a
// *ConflictError.
//
// Hosts are compared in canonical form and ports with their defaults, so a
// host that is not canonical is an error here (a *RouteError that wraps a
// *NameError). Merge judges nothing else: NewTable does. The inputs are not
// changed; the result shares their slices.
func Merge(manifest, provider []Route) ([]Route, error) {
	merged := make([]Route, 0, len(manifest)+len(provider))
	at := make(map[hostPort]int, len(manifest))
	for _, r := range manifest {
		k, err := keyOf(r)
		if err != nil {
			return nil, err
		}
		r.Host = k.host
		at[k] = len(merged)
		merged = append(merged, r)
	}
	for _, p := range provider {
		k, err := keyOf(p)
		if err != nil {
			return nil, err
		}
		p.Host = k.host
		i, both := at[k]
		if !both {
			merged = append(merged, p)
			continue
		}
		if merged[i].Auth != nil && p.Auth != nil {
			return nil, &ConflictError{Rule: merged[i].Rule(), Manifest: merged[i].Origin, Provider: p.Origin}
		}
		merged[i] = fill(merged[i], p)
	}
	return merged, nil
}

// HasProviderAuth tells whether the manifest itself supplies the agent
// provider's credential, by a route whose auth has the role RoleProvider. It
// is to be asked of the manifest's own routes, before Merge.
func HasProviderAuth(manifest []Route) bool {
	for _, r := range manifest {
		if r.Auth != nil && r.Auth.Role == RoleProvider {
			return true
		}
	}
	return false
}

// hostPort is what makes two routes the same route.
type hostPort struct {
	host string
	port uint16
}

func keyOf(r Route) (hostPort, error) {
	host, err := CanonicalPattern(r.Host)
	if err != nil {
		return hostPort{}, &RouteError{Rule: quoted(r.Rule()), Origin: r.Origin, Field: "host", Err: err}
	}
	return hostPort{host, r.port()}, nil
}

// fill returns m with the fields that it leaves unset taken from p.
func fill(m, p Route) Route {
	m.Port = m.port() // before a protocol is filled in that would change the default
	m.TLSPassthrough = m.TLSPassthrough || p.TLSPassthrough
	if m.Protocol == "" {
		m.Protocol = p.Protocol
	}
	if m.Methods == nil {
		m.Methods = p.Methods
	}
	if m.Paths == nil {
		m.Paths = p.Paths
	}
	if m.Auth == nil {
		m.Auth = p.Auth
	}
	if m.Pipelock.IsZero() {
		m.Pipelock = p.Pipelock
	}
	if m.Answer == "" {
		m.Answer = p.Answer
	}
	return m
}
