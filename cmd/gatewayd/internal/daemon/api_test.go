package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatewayd/cmd/gatewayd/internal/admin"
	"gatewayd/gateway"
	"gatewayd/gateway/redirect"
)

// noRedirect is a datapath without links.
type noRedirect struct{}

func (noRedirect) Set(context.Context, redirect.Config) (redirect.Status, error) {
	return redirect.Status{}, nil
}
func (noRedirect) Status() redirect.Status { return redirect.Status{} }
func (noRedirect) Counters(string) (redirect.Counters, error) {
	return redirect.Counters{}, redirect.ErrUnknownBottle
}

// newAPI answers for a daemon whose gateway runs nothing: its keeper is w's.
func newAPI(t *testing.T, w *world) *httptest.Server {
	t.Helper()
	d := &daemon{Options: Options{Log: slog.New(slog.DiscardHandler), Version: "v1"}, started: time.Now(), keeper: w.keeper, counters: noRedirect{}}
	d.Config.Instance = "test"
	d.metrics = gateway.NewMetrics()
	d.gateway = gateway.New(gateway.Options{Redirect: noRedirect{}, Metrics: d.metrics})
	s := httptest.NewServer(d.api())
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, s *httptest.Server, path string, want int) string {
	t.Helper()
	resp, err := s.Client().Get(s.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		t.Fatalf("%s: %s %s, %v, want %d", path, resp.Status, b, err, want)
	}
	return string(b)
}

func TestStatusAndBottles(t *testing.T) {
	w := newWorld(t)
	w.write("good", manifest("good", before))
	w.write("bad", "bottle: bad\nnonsense: 1\n")
	if err := w.look(); err != nil {
		t.Fatal(err)
	}
	s := newAPI(t, w)
	var status admin.Status
	if err := json.Unmarshal([]byte(get(t, s, "/status", 200)), &status); err != nil {
		t.Fatal(err)
	}
	if status.Version != "v1" || status.Manifests["running"] != 1 || status.Manifests["shut"] != 1 || !status.AuditReady {
		t.Errorf("got %+v", status)
	}
	var list []admin.Bottle
	if err := json.Unmarshal([]byte(get(t, s, "/bottles", 200)), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || filepath.Base(list[0].Manifest) != "bad.bottle.yaml" || !strings.Contains(list[0].Error, "nonsense") {
		t.Fatalf("got %+v", list)
	}
	// The gateway here runs nothing, so that the one with a good manifest is shown as what it is.
	if list[1].Bottle != "good" || list[1].State != "shut" || list[1].Guest == "" {
		t.Errorf("got %+v", list[1])
	}
	if got := get(t, s, "/flows", 200); strings.TrimSpace(got) != "[]" {
		t.Errorf("flows %s", got)
	}
	if got := get(t, s, "/metrics", 200); !strings.Contains(got, "go_goroutines ") {
		t.Errorf("metrics %.100s", got)
	}
}

func TestAPIRefuses(t *testing.T) {
	s := newAPI(t, newWorld(t))
	get(t, s, "/explain?id=r-1", http.StatusNotFound)
	get(t, s, "/explain", http.StatusNotFound)
	get(t, s, "/log", http.StatusBadRequest)
	get(t, s, "/log?n=-1", http.StatusBadRequest)
	get(t, s, "/nothing", http.StatusNotFound)
	resp, err := s.Client().Post(s.URL+"/status", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}

func TestLogEndsWithoutFollow(t *testing.T) {
	s := newAPI(t, newWorld(t))
	if got := get(t, s, "/log?n=5", 200); got != "" {
		t.Errorf("got %q", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/log?n=5&follow=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err == nil {
		t.Error("a record came from nowhere")
	}
}
