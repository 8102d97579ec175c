package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"sync"

	"gatewayd/gateway/formats"
	"gatewayd/gateway/inject"
	"gatewayd/gateway/pipelock"
	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
)

// snapshot is everything that a decision reads of one plan. It is immutable, but for the values of secrets and scanners that are made when they are needed: a reload builds a new one and swaps a
// pointer. Whoever decides something loads it once and uses that one to the end of the decision.
type snapshot struct {
	bottle     string
	digest     string                              // digest of the plan
	table      *routes.Table                       // never nil; an empty table denies all
	injectors  map[*routes.Route]*inject.Injector  // one for each route with auth, by the table's own pointers
	scanners   map[*routes.Route]*pipelock.Scanner // one for each route that is scanned, likewise
	names      sync.Map                            // of *pipelock.Scanner for host names, by the rules that are off; all that they find is a leak
	formats    *formats.Set                        // that the scanners look for
	known      *known                              // what must not leave, byte for byte
	trip       int                                 // blocked leaks that cut the bottle off; 0 is no end
	ca         *gwtls.CA                           // nil if nothing can be intercepted
	answerers  map[string]http.Handler             // by Route.Answer; complete for the table
	httpPorts  map[uint16]bool                     // ports of protocol http routes
	httpsPorts map[uint16]bool                     // ports of protocol https routes
	poolKeys   map[poolIdentity]bool               // upstream pools that this plan may use
}

// newSnapshot builds the snapshot of b, or says why its plan cannot be used. old, which may be nil, is the snapshot in
// force: an injector whose credential did not change is taken over, so that what its source has cached is kept.
// Secrets that cost little are read, and log takes which could not be.
func newSnapshot(b Bottle, old *snapshot, log *slog.Logger) (*snapshot, error) {
	if b.Table == nil {
		return nil, errors.New("build snapshot: bottle has no route table")
	}
	var before *inject.Keyring
	if old != nil {
		before = old.known.keys
	}
	keys, err := inject.NewKeyring(held(b), before, log)
	if err != nil {
		return nil, fmt.Errorf("build snapshot: %w", err)
	}
	s := &snapshot{
		bottle:     b.Name,
		digest:     b.PlanDigest,
		table:      b.Table,
		trip:       b.Trip,
		formats:    b.Formats,
		known:      &known{fixed: canaries(b), keys: keys},
		ca:         b.CA,
		injectors:  map[*routes.Route]*inject.Injector{},
		scanners:   map[*routes.Route]*pipelock.Scanner{},
		answerers:  b.Answerers,
		httpPorts:  map[uint16]bool{},
		httpsPorts: map[uint16]bool{},
		poolKeys:   map[poolIdentity]bool{},
	}
	var errs []error
	all := b.Table.Routes() // the table's own array, so that a verdict's Route is a key of injectors
	for i := range all {
		r := &all[i]
		switch r.Protocol {
		case routes.HTTP:
			s.httpPorts[r.Port] = true
		case routes.TCP:
		default:
			s.httpsPorts[r.Port] = true
		}
		s.poolKeys[identify(r)] = true
		if r.Answer != "" && b.Answerers[r.Answer] == nil {
			errs = append(errs, fmt.Errorf("route %s (%v): no answerer named %q", r.Host, r.Origin, r.Answer))
		}
		if r.Auth == nil {
			continue
		}
		injector, err := s.injectorFor(r, old)
		if err != nil {
			errs = append(errs, fmt.Errorf("route %s (%v): %w", r.Host, r.Origin, err))
			continue
		}
		s.injectors[r] = injector
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("build snapshot: %w", errors.Join(errs...))
	}
	s.known.now()
	exact := pipelock.Live(s.known.tokens)
	for i := range all {
		if r := &all[i]; r.Scan() {
			s.scanners[r] = exact.WithFormats(b.Formats, b.Formats.Policy(r.Pipelock.Disable, r.Pipelock.Action == routes.WarnAction))
		}
	}
	return s, nil
}

// injectorFor returns the injector of r: the one of old if that route's credential is the same, else a new one.
func (s *snapshot) injectorFor(r *routes.Route, old *snapshot) (*inject.Injector, error) {
	if old != nil {
		for o, i := range old.injectors {
			if o.Host == r.Host && o.Port == r.Port && reflect.DeepEqual(o.Auth, r.Auth) {
				return i, nil
			}
		}
	}
	return inject.New(*r.Auth, s.known.keys.Source(r.Auth.Secret))
}
