package provision

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatewayd/cmd/gatewayd/internal/config"
	"gatewayd/cmd/gatewayd/internal/pool"
	"gatewayd/gateway"
	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
	"gatewayd/plan"
)

// nowhere is a host without files, variables or a home.
type nowhere struct{}

func (nowhere) ReadFile(string) ([]byte, error) { return nil, fs.ErrNotExist }
func (nowhere) Getenv(string) string            { return "" }
func (nowhere) Home() string                    { return "/root" }
func (nowhere) Now() time.Time                  { return time.Unix(1790000000, 0) }

func testConfig(t *testing.T) config.Config {
	t.Helper()
	return config.Config{Instance: config.DefaultInstance, StateDir: filepath.Join(t.TempDir(), "state"), Pool: netip.MustParsePrefix("198.19.0.0/24")}
}

func planned(t *testing.T, text string) Planned {
	t.Helper()
	p, err := FromText("x.bottle.yaml", []byte(text), nowhere{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"dev.bottle.yaml":    "bottle: dev\nlink: {netns: /run/netns/dev}\n",
		"odd.bottle.yaml":    "bottle: other\nlink: {netns: /run/netns/other}\n",
		"broken.bottle.yaml": "bottle: broken\nnonsense: 1\n",
		"t1.bottle.yaml":     "bottle: twin\n",
		"t2.bottle.yaml":     "bottle: twin\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ arg, bottle, problem string }{
		{"dev", "dev", ""},
		{"other", "other", ""},
		{filepath.Join(dir, "odd.bottle.yaml"), "other", ""},
		{"odd", "", "there is dev, other, twin"},
		{"broken", "", "broken.bottle.yaml:2: nonsense"},
		{"twin", "", "is named by"},
		{filepath.Join(dir, "none.yaml"), "", "no such file"},
		{"none.bottle.yaml", "", "no such file"},
	} {
		p, err := Find(c.arg, dir, nowhere{})
		if c.problem == "" && (err != nil || p.Plan.Bottle != c.bottle) {
			t.Errorf("%s: %v, %v", c.arg, p.Plan, err)
		}
		if c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)) {
			t.Errorf("%s: got %v, want %q", c.arg, err, c.problem)
		}
	}
	_, err := Find("odd", dir, nowhere{})
	var unknown *UnknownBottleError
	if !errors.As(err, &unknown) {
		t.Errorf("got %T", err)
	}
}

func TestLinkOfEachKind(t *testing.T) {
	c := testConfig(t)
	for _, k := range []struct {
		link string
		want redirect.Link
	}{
		{"{tap: gw-a}", redirect.Link{Kind: redirect.Tap, Name: "gw-a", Owner: -1, MTU: 1500}},
		{"{tap: gw-a, owner: '1000', mtu: 1400}", redirect.Link{Kind: redirect.Tap, Name: "gw-a", Owner: 1000, MTU: 1400}},
		{"{tap: gw-a, owner: root}", redirect.Link{Kind: redirect.Tap, Name: "gw-a", Owner: 0, MTU: 1500}},
		{"{netns: /run/netns/a}", redirect.Link{Kind: redirect.Netns, Name: "gw-dev", Netns: "/run/netns/a", Owner: -1, MTU: 1500}},
		{"{interface: vnet7}", redirect.Link{Kind: redirect.Existing, Name: "vnet7", Owner: -1, MTU: 1500}},
	} {
		l, err := Link(c, planned(t, "bottle: dev\nlink: "+k.link+"\n").Plan)
		if err != nil {
			t.Errorf("%s: %v", k.link, err)
			continue
		}
		if err := l.Validate(); err != nil {
			t.Errorf("%s: %v", k.link, err)
		}
		if l.Kind != k.want.Kind || l.Name != k.want.Name || l.Netns != k.want.Netns || l.Owner != k.want.Owner || l.MTU != k.want.MTU {
			t.Errorf("%s: got %+v", k.link, l)
		}
	}
	if l, err := Link(c, planned(t, "bottle: dev\nlink: {tap: gw-a, multi_queue: true}\n").Plan); err != nil || !l.MultiQueue {
		t.Errorf("several queues: %+v, %v", l, err)
	}
	gone := filepath.Join(t.TempDir(), "gone")
	if _, err := Link(c, planned(t, "bottle: dev\nlink: {netns: "+gone+", adopt: true}\n").Plan); err == nil ||
		err.Error() != "bottle dev: adopt namespace "+gone+": there is none (create it and its eth0: it is adopted as soon as it appears; or leave out adopt, and gatewayd makes it)" {
		t.Errorf("a namespace that is not there: %v", err)
	}
	if _, err := Link(c, planned(t, "bottle: dev\nlink: {tap: gw-a, owner: no-such-user-here}\n").Plan); err == nil || !strings.Contains(err.Error(), "no user") {
		t.Errorf("unknown owner: %v", err)
	}
}

func TestLinkTakesWhatTheManifestFixes(t *testing.T) {
	c := testConfig(t)
	l, err := Link(c, planned(t, "bottle: dev\nlink: {tap: gw-a, guest: 198.18.5.2/30, mac: '02:00:00:00:00:09'}\n").Plan)
	if err != nil || l.Guest.String() != "198.18.5.2" || l.Gateway.String() != "198.18.5.1" || l.Bits != 30 || l.MAC.String() != "02:00:00:00:00:09" {
		t.Errorf("got %+v, %v", l, err)
	}
	_, err = Link(c, planned(t, "bottle: two\nlink: {tap: gw-b, guest: 198.18.5.2/30}\n").Plan)
	var collision *pool.CollisionError
	if !errors.As(err, &collision) {
		t.Errorf("a second bottle at the same address: %v", err)
	}
}

func TestNamesAndAddressesDiffer(t *testing.T) {
	seen := map[string]bool{}
	for _, instance := range []string{"gatewayd", "two"} {
		for _, bottle := range []string{"a", "dev", "a-very-long-bottle-name-indeed", "a-very-long-bottle-name-too"} {
			name, mac := vethName(instance, bottle), hardwareAddr(instance, bottle)
			if len(name) > 15 || !strings.HasPrefix(name, "gw-") || mac[0] != 2 || seen[name] || seen[mac.String()] {
				t.Errorf("%s %s: %s %s", instance, bottle, name, mac)
			}
			seen[name], seen[mac.String()] = true, true
		}
	}
}

func TestBottle(t *testing.T) {
	c := testConfig(t)
	text := "bottle: dev\nlink: {netns: /run/netns/dev}\negress: {routes: [{host: api.example.com, auth: {scheme: bearer, secret: {env: T}}}]}\n"
	p := planned(t, text)
	b, err := Bottle(c, p, nowhere{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if b.Name != "dev" || b.Link.Bottle != "dev" || b.PlanDigest != p.Plan.Digest() || b.CA == nil || b.DeniedDNS != gateway.DeniedBlock {
		t.Errorf("got %+v", b)
	}
	if b.Table.DecideFlow("api.example.com", 443, routes.HTTPS).Decision != routes.Intercept {
		t.Error("the route is not in the table")
	}
	if !slices.ContainsFunc(p.Plan.Canaries, func(c plan.Canary) bool { return c.Value == b.CanaryTokens[0].Value }) {
		t.Error("the dummies are not watched for")
	}
}

func TestDeniedNames(t *testing.T) {
	for _, k := range []struct {
		manifest string
		config   bool
		want     string
	}{
		{"", false, gateway.DeniedBlock},
		{"", true, gateway.DeniedNXDomain},
		{"dns: {denied: block}\n", true, gateway.DeniedBlock},
		{"dns: {denied: nxdomain}\n", false, gateway.DeniedNXDomain},
	} {
		c := testConfig(t)
		c.DeniedNXDomain = k.config
		b, err := Bottle(c, planned(t, "bottle: dev\nlink: {netns: /run/netns/dev}\n"+k.manifest), nowhere{}, slog.New(slog.DiscardHandler))
		if err != nil || b.DeniedDNS != k.want {
			t.Errorf("manifest %q, configuration %v: %q, %v", k.manifest, k.config, b.DeniedDNS, err)
		}
	}
}

func TestAnswererOfNobody(t *testing.T) {
	p := planned(t, "bottle: dev\nlink: {netns: /run/netns/dev}\n")
	p.Plan.Answers = map[string]string{"unheard-of": "nobody"}
	if _, err := Bottle(testConfig(t), p, nowhere{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "unheard-of") {
		t.Errorf("got %v", err)
	}
}

func TestMachineBoundsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(maxHostFile + 1); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := (Machine{}).ReadFile(path); err == nil {
		t.Error("a file beyond the bound was read")
	}
	if _, err := (Machine{}).ReadFile(path + "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// A bottle gets the rules and the number of leaks that cut it off; a route that turns off a rule that is not there is
// refused, with where it is written.
func TestScanned(t *testing.T) {
	c := testConfig(t)
	c.PipelockTrip = 7
	set, err := Formats(c)
	if err != nil {
		t.Fatal(err)
	}
	for id, good := range map[string]bool{"jwt": true, "jwtt": false} {
		text := "bottle: dev\nlink: {netns: /run/netns/dev}\negress: {routes: [{host: api.example.com, pipelock: {disable: [" + id + "]}}]}\n"
		b, err := Bottle(c, planned(t, text), nowhere{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		err = Scanned(&b, c, nil, set)
		if good && (err != nil || b.Formats != set || b.Trip != 7) || !good && (err == nil || !strings.Contains(err.Error(), `"jwtt"`) || b.Formats != nil) {
			t.Errorf("%s: %v, %d", id, err, b.Trip)
		}
	}
	for _, said := range []int{0, 2} {
		b, err := Bottle(c, planned(t, "bottle: dev\nlink: {netns: /run/netns/dev}\n"), nowhere{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := Scanned(&b, c, &said, set); err != nil || b.Trip != said {
			t.Errorf("the manifest says %d: %d, %v", said, b.Trip, err)
		}
	}
	c.PipelockRules = filepath.Join(t.TempDir(), "none.toml")
	if _, err := Formats(c); err == nil || !strings.Contains(err.Error(), "none.toml") {
		t.Errorf("a file that is not there: %v", err)
	}
}
