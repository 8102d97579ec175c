package gateway

import (
	"crypto/tls"
	"encoding/base32"
	"encoding/hex"
	"log/slog"
	"strings"
	"testing"

	"gatewayd/gateway/pipelock"
	"gatewayd/gateway/routes"
)

const longToken = "Dummy-Token_Of-The-Bottle.Which-Is-Longer-Than-A-Label-Can-Be-0123456789-ABCDEF"

// inLabels cuts s into labels of at most 60 characters under suffix.
func inLabels(s, suffix string) string {
	var b strings.Builder
	for len(s) > 60 {
		b.WriteString(s[:60] + ".")
		s = s[60:]
	}
	return b.String() + s + "." + suffix
}

func TestNameLeak(t *testing.T) {
	b := testBottle(t, routes.Route{Host: "*.wild.test", TLSPassthrough: true})
	b.CanaryTokens = []pipelock.Token{{Name: "token", Value: longToken, Homes: []string{"home.wild.test"}}}
	b.Formats = builtinSet(t)
	s, err := newSnapshot(b, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for what, label := range map[string]string{
		"form":   "gl" + "pat-1x2y3z4w5v6u7t8s9r0q",
		"base32": strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(longToken))),
		"hex":    hex.EncodeToString([]byte(longToken)),
	} {
		name := inLabels(label, "wild.test")
		if got := s.nameLeak(name); got == "" || strings.Contains(got, label[:20]) {
			t.Errorf("%s in %s: found %q; want a finding that does not repeat it", what, name, got)
		}
	}
	for _, name := range []string{"www.wild.test", "cdn-0123456789abcdef.wild.test", "a.b.c.wild.test", "api-key-9f86d081884c7d659a2feaa0c55ad015.wild.test", "0198d3f2-7c3e-7a41-9d58-3b6f0d7c21ab.auth-token.wild.test"} {
		if got := s.nameLeak(name); got != "" {
			t.Errorf("%s: found %q", name, got)
		}
	}
}

// TestNameLeakRulesTurnedOff asks for names that hold a token's form under wildcards that turn its rule off.
func TestNameLeakRulesTurnedOff(t *testing.T) {
	off := routes.Pipelock{Disable: []string{"gitlab-pat", "jwt"}}
	b := testBottle(t,
		routes.Route{Host: "*.wild.test", Pipelock: off},
		routes.Route{Host: "*.pass.test", TLSPassthrough: true, Pipelock: off},
		routes.Route{Host: "*.half.test", Pipelock: off}, routes.Route{Host: "*.half.test", Port: 8443},
		routes.Route{Host: "*.strict.wild.test"},
		routes.Route{Host: "*.warn.test", Pipelock: routes.Pipelock{Action: routes.WarnAction}},
	)
	b.CanaryTokens = []pipelock.Token{{Name: "token", Value: canaryDummy}}
	b.Formats = builtinSet(t)
	s, err := newSnapshot(b, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	gitlab, runner := "gl"+"pat-1x2y3z4w5v6u7t8s9r0q", "gl"+"rt-1x2y3z4w5v6u7t8s9r0q"
	for name, leaks := range map[string]bool{
		gitlab + ".wild.test":        false,
		gitlab + ".a.wild.test":      false,
		runner + ".wild.test":        true, // another rule's
		canaryDummy + ".wild.test":   true, // known byte for byte
		gitlab + ".pass.test":        false,
		gitlab + ".half.test":        true, // on another port the rule is in force
		gitlab + ".strict.wild.test": true, // of its own route
		gitlab + ".warn.test":        true, // a note is for requests
		gitlab + ".elsewhere.test":   true, // in no route: records do not have it
	} {
		for range 2 { // the second finds a scanner that is there
			if got := s.nameLeak(name); (got != "") != leaks {
				t.Errorf("%s: found %q", name, got)
			}
		}
	}
	scanners := 0
	s.names.Range(func(any, any) bool { scanners++; return true })
	if scanners != 2 { // nothing off, and those two
		t.Errorf("%d scanners were made", scanners)
	}
}

func TestTokenInTheServerNameIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	b := testBottle(t, routes.Route{Host: "*.wild.test", TLSPassthrough: true})
	b.CanaryTokens = []pipelock.Token{{Name: "token", Value: canaryDummy}}
	w.apply(t, b)
	c := w.sockets.call(t, b.Link, anywhere(443))
	if err := tls.Client(c, &tls.Config{ServerName: canaryDummy + ".wild.test"}).Handshake(); err == nil {
		t.Fatal("the handshake succeeded")
	}
	r := w.records.flowOf(t, c)
	if r.Reason != ReasonLeak || r.Decision != routes.Deny || r.Finding == "" || r.Rule == "" {
		t.Errorf("record %+v; want a leak", r)
	}
	if strings.Contains(asJSON(t, r), canaryDummy) {
		t.Errorf("record %s repeats the token", asJSON(t, r))
	}
}
