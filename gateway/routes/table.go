package routes

import (
	"iter"
	"slices"
	"strings"
)

// Table is a set of routes compiled for lookup. It never changes and may be
// read by any number of goroutines. A nil Table, like one made from no routes,
// denies everything.
type Table struct {
	routes []Route
	// byHost maps a canonical name, or a wildcard's suffix with its leading
	// dot, to the routes for it: indices into routes, one per port.
	byHost map[string][]entry
	tcp    map[uint16]bool
}

// entry is one route with what was compiled from it.
type entry struct {
	index int
	port  uint16
	rule  string // of the route
	paths []pathPattern
}

// NewTable validates the routes and compiles them. It takes its own copy of
// the slice, with hosts, ports and protocols in canonical form, and shares
// what the routes point at; the caller must not change that afterwards. No
// routes at all make a table that denies everything.
//
// The error is a *RouteError for a route that is wrong in itself, that says
// the same host and port as another, or that allows less than a wildcard
// covering it (then removing the line would widen what passes, and so would a
// manifest cut short). Passing a request unread counts as allowing it no more
// than intercepting it does.
func NewTable(rs []Route) (*Table, error) {
	t := &Table{
		routes: make([]Route, 0, len(rs)),
		byHost: make(map[string][]entry, len(rs)),
		tcp:    make(map[uint16]bool),
	}
	for _, r := range rs {
		r, err := r.Canonical()
		if err != nil {
			return nil, err
		}
		key := strings.TrimPrefix(r.Host, "*")
		for _, e := range t.byHost[key] {
			if e.port == r.Port {
				return nil, routeErrorf(r, "host", "%s already has a route for this host and port; write one of them", t.routes[e.index].Origin)
			}
		}
		e := entry{index: len(t.routes), port: r.Port, rule: r.Rule()}
		for _, p := range r.Paths {
			e.paths = append(e.paths, compilePattern(p))
		}
		t.byHost[key] = append(t.byHost[key], e)
		t.routes = append(t.routes, r)
		if r.Protocol == TCP {
			t.tcp[r.Port] = true
		}
	}
	if err := t.checkShadows(); err != nil {
		return nil, err
	}
	return t, nil
}

// Routes returns the table's routes in the order they were given, in
// canonical form. The slice belongs to the table and is read only;
// &Routes()[i] is the pointer that verdicts carry.
func (t *Table) Routes() []Route {
	if t == nil {
		return nil
	}
	return t.routes[:len(t.routes):len(t.routes)]
}

// TCP tells whether some route with the protocol TCP has this port: only then
// may a flow be decided without waiting for the guest's first bytes.
func (t *Table) TCP(port uint16) bool { return t != nil && t.tcp[port] }

// names tells whether some route names exactly this host, byte for byte.
func (t *Table) names(host string) bool {
	return t != nil && host != "" && host[0] != '.' && len(t.byHost[host]) > 0
}

// lookup returns the most specific entry for a canonical host on a port: the
// exact one, else the wildcard with the longest suffix. named tells whether
// any route names the host on whatever port.
func (t *Table) lookup(host string, port uint16) (found *entry, named bool) {
	for key := host; ; {
		es := t.byHost[key]
		named = named || len(es) > 0
		for i := range es {
			if es[i].port == port {
				return &es[i], true
			}
		}
		dot := strings.IndexByte(key[1:], '.')
		if dot < 0 {
			return nil, named
		}
		key = key[1+dot:]
	}
}

// NameRule is what the plan says of a host name before any connection.
type NameRule struct {
	// Pattern is the host of the most specific route that names it.
	Pattern string
	// Wildcard tells that Pattern is a wildcard, so that the guest chose part
	// of the name itself.
	Wildcard bool
	// AllowPrivate is true if any route that can govern the host, on any
	// port, allows private addresses. The dialer asks its own route again.
	AllowPrivate bool
	// Passthrough is true if every route that can govern the host passes
	// through, so that its addresses may take the fast path.
	Passthrough bool
	// Answered is true if every route that can govern the host is answered by
	// the gateway itself, so that nobody upstream need know the name.
	Answered bool
}

// Resolve tells whether the host may be resolved, and under which rule. The
// host is taken in any case; one that is not canonical is in no plan.
func (t *Table) Resolve(host string) (NameRule, bool) {
	host, err := CanonicalHost(host)
	if t == nil || err != nil {
		return NameRule{}, false
	}
	rule, named := NameRule{Passthrough: true, Answered: true}, false
	for r := range t.governing(host) {
		if !named {
			rule.Pattern, rule.Wildcard = r.Host, r.Wildcard()
		}
		named = true
		rule.AllowPrivate = rule.AllowPrivate || r.AllowPrivate
		rule.Passthrough = rule.Passthrough && r.Decision() == Passthrough
		rule.Answered = rule.Answered && r.Answer != ""
	}
	if !named {
		return NameRule{}, false
	}
	return rule, true
}

// Disabled returns the ids of the rules that are not used on the host's name: those that every route which can govern the
// host turns off, since a name is asked for before it is known by which port it is called.
func (t *Table) Disabled(host string) []string {
	host, err := CanonicalHost(host)
	if t == nil || err != nil {
		return nil
	}
	var off []string
	first := true
	for r := range t.governing(host) {
		if first {
			off, first = slices.Clone(r.Pipelock.Disable), false
			continue
		}
		off = slices.DeleteFunc(off, func(id string) bool { return !slices.Contains(r.Pipelock.Disable, id) })
	}
	return off
}

// governing yields the routes that can govern a canonical host, one for each port, the most specific first.
func (t *Table) governing(host string) iter.Seq[*Route] {
	return func(yield func(*Route) bool) {
		governed := make(map[uint16]bool)
		for key := host; ; {
			for _, e := range t.byHost[key] {
				if governed[e.port] {
					continue // a more specific route has this port
				}
				governed[e.port] = true
				if !yield(&t.routes[e.index]) {
					return
				}
			}
			dot := strings.IndexByte(key[1:], '.')
			if dot < 0 {
				return
			}
			key = key[1+dot:]
		}
	}
}

// checkShadows refuses a route that allows less than a wildcard which would
// govern its hosts if it were not there.
func (t *Table) checkShadows() error {
	for i := range t.routes {
		r := &t.routes[i]
		host := strings.TrimPrefix(r.Host, "*")
		dot := strings.IndexByte(host[1:], '.')
		if dot < 0 {
			continue
		}
		e, _ := t.lookup(host[1+dot:], r.Port)
		if e == nil {
			continue
		}
		if wide := &t.routes[e.index]; allowsLess(r, wide) {
			return routeErrorf(*r, "host", "it allows less than %s (%s), which covers it, so removing it would widen what passes; "+
				"give the wildcard no more methods, paths or private addresses than this route, the same protocol, or list its hosts one by one",
				wide.Rule(), wide.Origin)
		}
	}
	return nil
}

// allowsLess tells whether some request might pass under wide but not under
// narrow. It compares lists of paths as lists, so it errs towards true.
func allowsLess(narrow, wide *Route) bool {
	return narrow.Protocol != wide.Protocol ||
		wide.AllowPrivate && !narrow.AllowPrivate ||
		!covers(narrow.Methods, wide.Methods) ||
		!covers(narrow.Paths, wide.Paths)
}

// covers tells whether every request that the list part lets through is let
// through by the list all; nil lets everything through.
func covers(all, part []string) bool {
	if all == nil {
		return true
	}
	if part == nil {
		return false
	}
	have := make(map[string]bool, len(all))
	for _, s := range all {
		have[s] = true
	}
	for _, s := range part {
		if !have[s] {
			return false
		}
	}
	return true
}
