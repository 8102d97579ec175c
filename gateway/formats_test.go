package gateway

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

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

func TestTokenFormIsLetGo(t *testing.T) {
	for name, p := range map[string]routes.Pipelock{
		"warn":    {Action: routes.WarnAction},
		"disable": {Disable: []string{"github-pat"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := formStage(t, func(r *routes.Route) { r.Pipelock = p }, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, readAll(r)) })
			resp, text := do(t, s.client(t, false), s.ask(t, http.MethodPost, "/x", strings.NewReader(formToken())))
			if resp.StatusCode != http.StatusOK || text != formToken() {
				t.Fatalf("%d %s", resp.StatusCode, text)
			}
			rec := s.request(t, func(r Record) bool { return r.Path == "/x" })
			if noted := strings.HasPrefix(rec.Finding, "let go: github-pat in body: "); noted != (name == "warn") {
				t.Errorf("the record says %q", rec.Finding)
			}
		})
	}
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
