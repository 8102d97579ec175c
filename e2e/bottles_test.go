package e2e

import (
	"strings"
	"testing"

	"gatewayd/lab"
)

// TestTwoBottles: each has its own secret, its own dummy and its own CA, and
// neither reaches the other.
func TestTwoBottles(t *testing.T) {
	b := newBench(t, nil)
	b.Gateway.Env = append(b.Gateway.Env, "API_TOKEN="+apiToken, "OTHER_TOKEN=the-other-real-token")
	api := b.serve(&lab.Site{Names: []string{"api.example.org"}})
	other := strings.ReplaceAll(b.manifest(strings.ReplaceAll(clientsManifest, "API_TOKEN", "OTHER_TOKEN")), bottleName, "other")
	if err := b.Gateway.WriteManifest("other", strings.ReplaceAll(other, b.BottleNetns(bottleName), b.BottleNetns("other"))); err != nil {
		t.Fatal(err)
	}
	b.start(clientsManifest)
	first, firstDummy := b.Bottle, b.guestEnv("API_TOKEN")
	second := b.secondBottle("other")
	b.Bottle = second
	secondDummy := b.guestEnv("OTHER_TOKEN")
	if firstDummy == secondDummy || firstDummy == "" || secondDummy == "" {
		t.Fatalf("dummies %q and %q, want two", firstDummy, secondDummy)
	}
	for _, c := range []struct {
		bottle     *lab.Bottle
		own, alien string
		sent       string
	}{
		{first, firstDummy, secondDummy, apiTokenIn},
		{second, secondDummy, firstDummy, "Bearer the-other-real-token"},
	} {
		b.Bottle = c.bottle
		api.Forget()
		if seen := b.get("-header", "Authorization: Bearer "+c.own, "https://api.example.org/"); seen.Status != 200 {
			t.Errorf("%s with its own dummy: %+v", c.bottle.Name, seen)
		}
		if seen := b.get("-header", "Authorization: Bearer "+c.alien, "https://api.example.org/"); seen.Status != 403 {
			t.Errorf("%s with the other's dummy: %+v", c.bottle.Name, seen)
		}
		if got := api.Requests(); len(got) != 1 || got[0].Header.Get("Authorization") != c.sent {
			t.Errorf("%s: the server saw %+v", c.bottle.Name, got)
		}
	}
	b.Bottle = first
	for _, a := range []string{second.Gateway.String(), second.Gateway.Next().String(), first.Gateway.String(), lab.GatewayUplink.String()} {
		for _, port := range []string{"22", "53", "443", "15001"} {
			if seen := b.get("-connect", a+":"+port, "https://evil.example.org/"); seen.Status == 200 {
				t.Errorf("%s:%s answered: %+v", a, port, seen)
			}
		}
	}
	b.nothingElse(api.Addr)
}

// secondBottle takes the files of another bottle.
func (b *bench) secondBottle(name string) *lab.Bottle {
	b.t.Helper()
	eventually(b.t, func() error { _, err := lab.DefaultGateway(b.BottleNetns(name)); return err })
	files := b.GuestFiles(name)
	if _, err := b.Gateway.Command(b.t.Context(), "guest", name, "-o", files, "--at", files); err != nil {
		b.t.Fatal(err)
	}
	bottle, err := b.NewBottle(name)
	if err != nil {
		b.t.Fatal(err)
	}
	return bottle
}
