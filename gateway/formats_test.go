package gateway

import (
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"gatewayd/gateway/formats"
	"gatewayd/gateway/routes"
)

// builtinFormats are the default rules, compiled once for all tests.
var builtinFormats = sync.OnceValues(formats.Default)

// formToken returns a token of a known form, put together so that no file holds one.
func formToken() string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	body := "q7Xv2LmN9bT4sKd8WzR1yHc5JfGp3A"
	sum := crc32.ChecksumIEEE([]byte(body))
	check := make([]byte, 6)
	for i := 5; i >= 0; i-- {
		check[i] = digits[sum%62]
		sum /= 62
	}
	return "gh" + "p_" + body + string(check)
}

// modelRequest is a request of ordinary work.
var modelRequest = `{"model":"m-1","stream":true,"prompt_cache_key":"0198d3f2-7c3e-7a41-9d58-3b6f0d7c21ab","input":[{"role":"user","content":"` +
	strings.Repeat(`func tokenOf(key string) (apiKey, error) {\n\treturn lookup(\"auth_token\", key) // sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n}\n`, 200) + `"}]}`

// formStage is a stage whose bottle looks for forms.
func formStage(t testing.TB, change func(*routes.Route), handler http.HandlerFunc) *stage {
	t.Helper()
	s := newStage(t, change, handler)
	s.b.Formats = builtinSet(t)
	s.apply(t, s.b)
	return s
}

func builtinSet(t testing.TB) *formats.Set {
	t.Helper()
	set, err := builtinFormats()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestTokenFormIsBlocked(t *testing.T) {
	s := formStage(t, nil, func(w http.ResponseWriter, r *http.Request) { readAll(r) })
	bothVersions(t, func(t *testing.T, h2 bool) {
		c := s.client(t, h2)
		for name, body := range map[string]string{
			"json":    `{"note":"` + formToken() + `"}`,
			"late":    modelRequest + formToken(),
			"escaped": `{"note":"\u0067h` + formToken()[2:] + `"}`,
		} {
			resp, text := do(t, c, s.ask(t, http.MethodPost, "/v1/notes", strings.NewReader(body)))
			p, rec := s.explained(t, resp, text, http.StatusForbidden, ReasonLeak)
			if !strings.Contains(p.Detail, "github-pat") || !strings.HasPrefix(rec.Finding, "github-pat in body: ") {
				t.Errorf("%s: neither %q nor %q name the rule", name, p.Detail, rec.Finding)
			}
			if strings.Contains(text+rec.Finding, formToken()[4:12]) {
				t.Errorf("%s: the explanation holds the token", name)
			}
		}
		resp, text := do(t, c, s.ask(t, http.MethodPost, "/v1/responses", strings.NewReader(modelRequest)))
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("ordinary request: %d %s", resp.StatusCode, text)
		}
		r := s.ask(t, http.MethodGet, "/", nil)
		r.SetBasicAuth("x-access-token", formToken())
		resp, text = do(t, c, r)
		s.explained(t, resp, text, http.StatusForbidden, ReasonLeak)
	})
}

// TestTokenFormIsLetGo: a route may let a form go with a note, or not look for a rule's, in heads, bodies and messages alike.
// The rule of another route, or another rule of this one, is as it was.
func TestTokenFormIsLetGo(t *testing.T) {
	for name, p := range map[string]routes.Pipelock{
		"block":          {},
		"warn":           {Action: routes.WarnAction},
		"disable":        {Disable: []string{"github-pat"}},
		"disable others": {Disable: []string{"gitlab-pat", "jwt"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newEcho(t, func(r *routes.Route) { r.Pipelock = p })
			s.b.Formats = builtinSet(t)
			s.apply(t, s.b)
			passes, noted := name == "warn" || name == "disable", name == "warn"
			for place, put := range map[string]func(*http.Request){
				"url":           func(r *http.Request) { r.URL.RawQuery = "k=" + formToken() },
				"header X-Note": func(r *http.Request) { r.Header.Set("X-Note", formToken()) },
				"body":          func(r *http.Request) { r.Method = http.MethodPost; setBody(r, formToken()) },
				"header X-Late": func(r *http.Request) {
					r.Method = http.MethodPost
					setBody(r, "x")
					r.ContentLength, r.Trailer = -1, http.Header{"X-Late": {formToken()}}
				},
			} {
				path := "/" + strings.ReplaceAll(place, " ", "/")
				r := s.ask(t, http.MethodGet, path, nil)
				put(r)
				resp, _ := do(t, s.client(t, false), r)
				rec := s.request(t, func(r Record) bool { // one with a finding in its URL has no path
					return r.Path == path || place == "url" && strings.Contains(r.Finding, " in url: ")
				})
				checkLetGo(t, place, rec, passes, noted)
				if (resp.StatusCode == http.StatusUpgradeRequired) != passes {
					t.Errorf("%s: %d", place, resp.StatusCode)
				}
			}
			ws, _, err := s.dialWS(t, "/ws", nil)
			if err != nil {
				t.Fatal(err)
			}
			read(t, ws)
			if err := ws.Write(soon(t), websocket.MessageText, []byte(formToken())); err != nil {
				t.Fatal(err)
			}
			_, _, err = ws.Read(soon(t))
			if (err == nil) != passes {
				t.Errorf("message: %v", err)
			}
			ws.Close(websocket.StatusNormalClosure, "")
			checkLetGo(t, "websocket message", s.request(t, func(r Record) bool { return r.Path == "/ws" }), passes, noted)
		})
	}
}

// checkLetGo compares a record with what a route is to do with github-pat in a place.
func checkLetGo(t *testing.T, place string, rec Record, passes, noted bool) {
	t.Helper()
	want := "github-pat in " + place + ": "
	switch {
	case noted:
		want = "let go: " + want
	case passes:
		want = ""
	}
	if (rec.Reason == ReasonLeak) == passes || !strings.HasPrefix(rec.Finding, want) || want == "" && rec.Finding != "" {
		t.Errorf("%s: reason %s, finding %q, want %q", place, rec.Reason, rec.Finding, want)
	}
}

// TestHandedOutTokensPass: what a server handed out may be brought back, as a pull from a registry of containers does, and the
// record says so.
func TestHandedOutTokensPass(t *testing.T) {
	s := formStage(t, nil, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Authorization")) })
	enc := base64.RawURLEncoding.EncodeToString
	token := enc([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + enc([]byte(`{"aud":"registry.test","exp":1790000000}`)) + "." + enc([]byte(strings.Repeat("signature", 20)))
	bothVersions(t, func(t *testing.T, h2 bool) {
		path := fmt.Sprintf("/v2/alpine/manifests/%t", h2)
		r := s.ask(t, http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		resp, text := do(t, s.client(t, h2), r)
		rec := s.request(t, func(r Record) bool { return r.Path == path })
		if resp.StatusCode != http.StatusOK || text != "Bearer "+token || !strings.HasPrefix(rec.Finding, "let go: jwt in header Authorization: ") {
			t.Errorf("%d %s, finding %q", resp.StatusCode, text, rec.Finding)
		}
		r = s.ask(t, http.MethodGet, "/v2/other", nil)
		r.Header.Set("X-Token", token)
		resp, text = do(t, s.client(t, h2), r)
		s.explained(t, resp, text, http.StatusForbidden, ReasonLeak)
	})
}

// readAll returns a request's body, as far as it came.
func readAll(r *http.Request) string {
	b, _ := io.ReadAll(r.Body) // a body that was cut off is part of some tests
	return string(b)
}

// tripMemory is a store that outlives the gateway.
type tripMemory struct {
	mu      sync.Mutex
	tripped map[string]bool
	broken  error
}

func (m *tripMemory) Tripped(bottle string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tripped[bottle]
}

func (m *tripMemory) SetTripped(bottle string, tripped bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tripped[bottle] = tripped
	return m.broken
}

// TestTripOutlivesTheProcess cuts a bottle off, takes it out and puts it in again, as a restart does, and lets it go on.
func TestTripOutlivesTheProcess(t *testing.T) {
	s := formStage(t, nil, func(w http.ResponseWriter, r *http.Request) { readAll(r) })
	memory := &tripMemory{tripped: map[string]bool{}}
	s.g.trips = memory
	s.b.Trip = 1
	s.apply(t, s.b)
	do(t, s.client(t, false), s.ask(t, http.MethodPost, "/", strings.NewReader(formToken())))
	s.records.wait(t, func(r Record) bool { return r.Reason == ReasonTripped && r.Type == RecordEvent })
	if got := metricValue(t, s.world, "gatewayd_bottle_cut_off"); got != 1 {
		t.Errorf("the metric says %v", got)
	}
	s.apply(t)
	s.apply(t, s.b)
	resp, text := do(t, s.client(t, false), s.ask(t, http.MethodGet, "/clean", nil))
	s.explained(t, resp, text, http.StatusForbidden, ReasonTripped)
	memory.broken = errors.New("disk full")
	if err := s.g.Release(s.b.Name); err == nil {
		t.Error("released, though a restart would cut it off again")
	}
	resp, text = do(t, s.client(t, false), s.ask(t, http.MethodGet, "/clean", nil))
	s.explained(t, resp, text, http.StatusForbidden, ReasonTripped)
	memory.broken = nil
	if err := s.g.Release(s.b.Name); err != nil || memory.Tripped(s.b.Name) {
		t.Errorf("release: %v", err)
	}
	if resp, text := do(t, s.client(t, false), s.ask(t, http.MethodGet, "/clean", nil)); resp.StatusCode != http.StatusOK {
		t.Errorf("after the operator let it go on: %d %s", resp.StatusCode, text)
	}
}

// TestTripCutsOff counts blocked requests until the bottle is cut off, and lets the operator undo that.
func TestTripCutsOff(t *testing.T) {
	s := formStage(t, nil, func(w http.ResponseWriter, r *http.Request) { readAll(r) })
	s.b.Trip = 3
	s.apply(t, s.b)
	c := s.client(t, false)
	for range 3 {
		resp, text := do(t, c, s.ask(t, http.MethodPost, "/", strings.NewReader(formToken())))
		s.explained(t, resp, text, http.StatusForbidden, ReasonLeak)
	}
	s.records.wait(t, func(r Record) bool { return r.Type == RecordEvent && r.Reason == ReasonTripped && r.Count == 3 })
	for _, fresh := range []bool{false, true} {
		if fresh {
			c = s.client(t, true)
		}
		resp, text := do(t, c, s.ask(t, http.MethodGet, "/clean", nil))
		s.explained(t, resp, text, http.StatusForbidden, ReasonTripped)
	}
	if i := s.g.Bottles(); len(i) != 1 || !i[0].CutOff {
		t.Errorf("the bottle is shown as %+v", i)
	}
	if err := s.g.Release(s.b.Name); err != nil {
		t.Fatal(err)
	}
	s.records.wait(t, func(r Record) bool { return r.Type == RecordEvent && r.Reason == ReasonReleased })
	if s.g.Release(s.b.Name) == nil || s.g.Release("nobody") == nil {
		t.Error("a bottle that is not cut off was released")
	}
	for _, h2 := range []bool{false, true} {
		if resp, text := do(t, s.client(t, h2), s.ask(t, http.MethodGet, "/clean", nil)); resp.StatusCode != http.StatusOK {
			t.Errorf("after the operator let it go on: %d %s", resp.StatusCode, text)
		}
	}
}
