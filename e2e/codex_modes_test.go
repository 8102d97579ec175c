package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatewayd/lab"
)

// codexModeBench is newCodexBench for another manifest and another auth.json
// on the host, which accepts bearer.
func codexModeBench(t *testing.T, forward, bearer string, hostAuth []byte) *codexBench {
	t.Helper()
	c := &codexBench{binary: requireCodex(t), bench: newBench(t, nil)}
	c.api = newAgentAPI(t, c.World)
	c.api.set(func(a *agentAPI) { a.bearer = bearer })
	writeFile(t, c.authFile(), hostAuth)
	c.start("agent_provider: { template: codex, forward_host_credentials: " + forward + " }\n")
	return c
}

// TestCodexLent: the guest holds the short-lived token itself, nothing is
// decrypted, and the refresh token stays at home.
func TestCodexLent(t *testing.T) {
	host := newHostTokens(t, time.Now().Add(time.Hour), "lent")
	c := codexModeBench(t, "lend", host.Access, host.authJSON())
	trustInternet(c.bench)
	r := c.exec()
	if _, _, problems := c.api.counts(); r.Failed != nil || !strings.Contains(r.Out, answerText) || len(problems) > 0 {
		t.Errorf("codex exec: %q: %v", problems, r)
	}
	got := c.guestAuth().Tokens
	if got.Access != host.Access {
		t.Error("the guest does not hold the lent token")
	}
	if strings.Contains(got.Refresh, host.Refresh) || got.ID == host.ID {
		t.Error("more than the access token was lent")
	}
	c.mustHaveLane("chatgpt.com", "relay", "fastpath")
}

// TestCodexSignedInByItself: the bottle has tokens of its own, the host's are
// not its business, and nothing is decrypted.
func TestCodexSignedInByItself(t *testing.T) {
	host := newHostTokens(t, time.Now().Add(time.Hour), "host")
	guest := newHostTokens(t, time.Now().Add(time.Hour), "guest")
	c := codexModeBench(t, "false", guest.Access, host.authJSON())
	trustInternet(c.bench)
	writeFile(t, filepath.Join(c.guestEnv("CODEX_HOME"), "auth.json"), guest.authJSON())
	r := c.exec()
	if _, _, problems := c.api.counts(); r.Failed != nil || !strings.Contains(r.Out, answerText) || len(problems) > 0 {
		t.Errorf("codex exec: %q: %v", problems, r)
	}
	c.mustNotHold(r, host)
	c.mustHaveLane("chatgpt.com", "relay", "fastpath")
}

// TestCodexAPIKey: a host that signs in with a key.
func TestCodexAPIKey(t *testing.T) {
	const key = "sk-host-0000-the-real-one"
	c := codexModeBench(t, "true", key, []byte(`{"auth_mode":"apikey","OPENAI_API_KEY":"`+key+`"}`))
	r := c.exec()
	if _, _, problems := c.api.counts(); r.Failed != nil || !strings.Contains(r.Out, answerText) || len(problems) > 0 {
		t.Errorf("codex exec: %q: %v", problems, r)
	}
	if n := len(c.api.Platform.Requests()); n == 0 {
		t.Error("the API host saw no request")
	}
	auth, err := os.ReadFile(filepath.Join(c.guestEnv("CODEX_HOME"), "auth.json"))
	if err != nil || strings.Contains(string(auth)+r.Out+r.Err, key) {
		t.Errorf("the bottle holds the host's key (%v)", err)
	}
}

// record is what the tests read of the audit file.
type record struct {
	Type     string `json:"type"`
	ID       string `json:"id"`
	Bottle   string `json:"bottle"`
	Host     string `json:"host"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	Status   int    `json:"status"`
	Decision string `json:"decision"`
	Lane     string `json:"lane"`
	Rule     string `json:"rule"`
	Reason   string `json:"reason"`
	Injected bool   `json:"injected"`
}

// records reads the audit file.
func (b *bench) records() []record {
	b.t.Helper()
	data, err := os.ReadFile(b.Gateway.AuditFile)
	if err != nil {
		b.t.Fatal(err)
	}
	var list []record
	for line := range strings.Lines(string(data)) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			b.t.Fatalf("record %q: %v", line, err)
		}
		list = append(list, r)
	}
	return list
}

// mustHaveLane checks that flows to a host were carried, and by no other lane.
func (b *bench) mustHaveLane(host string, lanes ...string) {
	b.t.Helper()
	found := func() (n int) {
		for _, r := range b.records() {
			if r.Type != "flow" || r.Host != host {
				continue
			}
			n++
			if !strings.Contains(strings.Join(lanes, " "), r.Lane) || r.Lane == "" {
				b.t.Errorf("a flow to %s took the lane %q, want one of %q", host, r.Lane, lanes)
			}
		}
		return n
	}
	eventually(b.t, func() error {
		if found() == 0 {
			return os.ErrNotExist
		}
		return nil
	})
}

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
