package gateway

import (
	"cmp"
	"crypto/tls"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"gatewayd/gateway/routes"
	"gatewayd/lab/privileged"
)

// h2specVariable names the program h2spec, which .ci/deps builds and the Makefile names.
const h2specVariable = "GATEWAYD_TEST_H2SPEC"

// TestH2Spec runs h2spec against a bottle and against net/http: what net/http does right, the gateway does.
func TestH2Spec(t *testing.T) {
	program := os.Getenv(h2specVariable)
	privileged.Require(t, privileged.File(cmp.Or(program, h2specVariable)), privileged.Program("unshare"))
	answer := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(rw, "what h2spec asks for")
	})
	plain := httptest.NewUnstartedServer(answer)
	plain.EnableHTTP2 = true
	plain.Config.ErrorLog = log.New(io.Discard, "", 0)
	plain.StartTLS()
	defer plain.Close()
	w, port := h2specBottle(t, answer)
	defer w.apply(t) // ends the connections to the origin
	reports := make(chan h2specResult, 1)
	go func() { reports <- h2spec(t, program, addrPortOf(plain.Listener.Addr()).Port(), h2specWait) }()
	ours := h2spec(t, program, port, h2specWait)
	theirs := <-reports
	if ours.err == nil && theirs.err == nil && len(ours.beyond(theirs)) > 0 {
		t.Logf("beyond net/http's, on a machine that may be busy: %q", ours.beyond(theirs))
		ours = h2spec(t, program, port, 5*h2specWait)
	}
	if ours.err != nil || theirs.err != nil {
		t.Fatal(ours.err, theirs.err)
	}
	w.records.wait(t, func(r Record) bool { return r.Type == RecordRequest && r.Status == http.StatusOK })
	t.Logf("the gateway passes %d of %d, net/http %d of %d", len(ours.cases)-len(ours.failed), len(ours.cases), len(theirs.cases)-len(theirs.failed), len(theirs.cases))
	if len(ours.cases) < 140 || len(ours.cases) != len(theirs.cases) {
		t.Errorf("%d and %d cases were run", len(ours.cases), len(theirs.cases))
	}
	for name := range theirs.failed {
		t.Logf("net/http fails %s; the gateway too: %v", name, ours.failed[name])
	}
	for _, name := range ours.beyond(theirs) {
		t.Errorf("the gateway fails %s, net/http does not", name)
	}
}

// h2specWait is how long h2spec waits for an answer; where none is right, it waits for that long.
const h2specWait = 2 * time.Second

// h2specBottle is a bottle that reaches answer at h2spec.test by the port that is returned.
func h2specBottle(t *testing.T, answer http.Handler) (*world, uint16) {
	t.Helper()
	w := newWorld(t, nil)
	b := testBottle(t)
	w.apply(t, b)
	port := addrPortOf(w.sockets.tcp[listenerOf(b)].Addr()).Port()
	w.sockets.mu.Lock()
	w.sockets.always = anywhere(port)
	w.sockets.mu.Unlock()
	w.names.set("h2spec.test", "127.0.0.2")
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "h2spec.test")
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", strconv.Itoa(int(port)))) // h2spec asks for the port that it connects to
	if err != nil {
		t.Fatal(err)
	}
	origin := httptest.NewUnstartedServer(answer)
	origin.Listener.Close()
	origin.Listener = l
	origin.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	origin.EnableHTTP2 = true
	origin.StartTLS()
	t.Cleanup(origin.Close)
	table, err := routes.NewTable([]routes.Route{{Host: "h2spec.test", Port: port}})
	if err != nil {
		t.Fatal(err)
	}
	b.Table, b.PlanDigest = table, "digest-2"
	w.apply(t, b)
	return w, port
}

// h2specResult is what h2spec reports, by the names of its cases.
type h2specResult struct {
	cases, failed map[string]bool
	err           error
}

// beyond returns the cases that fail here and not there.
func (r h2specResult) beyond(there h2specResult) (names []string) {
	for name := range r.failed {
		if !there.failed[name] {
			names = append(names, name)
		}
	}
	return names
}

// h2spec runs every case against a port of this machine.
func h2spec(t *testing.T, program string, port uint16, wait time.Duration) h2specResult {
	report := filepath.Join(t.TempDir(), "report.xml")
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost h2spec.test\n"), 0o644); err != nil {
		return h2specResult{err: err}
	}
	// It has no option for a server's name other than the one that it looks up.
	out, err := exec.CommandContext(t.Context(), "unshare", "-rm", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts,
		program, "-t", "-k", "-h", "h2spec.test", "-p", strconv.Itoa(int(port)), "-j", report, "-o", strconv.Itoa(int(wait/time.Second))).CombinedOutput()
	raw, rerr := os.ReadFile(report)
	if rerr != nil {
		return h2specResult{err: fmt.Errorf("h2spec reported nothing: %w: %w\n%s", rerr, err, out)}
	}
	var suites struct {
		Suites []struct {
			Package string `xml:"package,attr"`
			Cases   []struct {
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(raw, &suites); err != nil {
		return h2specResult{err: fmt.Errorf("parse h2spec's report: %w", err)}
	}
	r := h2specResult{cases: map[string]bool{}, failed: map[string]bool{}}
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			name := s.Package + ": " + c.Name
			r.cases[name] = true
			if c.Failure != nil || c.Error != nil {
				r.failed[name] = true
			}
		}
	}
	return r
}
