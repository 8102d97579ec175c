package gateway

import (
	"crypto/tls"
	"encoding/xml"
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
)

// h2specVariable names the program h2spec; `make h2spec` sets it.
const h2specVariable = "GATEWAYD_TEST_H2SPEC"

// TestH2Spec runs h2spec against a bottle and against net/http: what net/http does right, the gateway does.
func TestH2Spec(t *testing.T) {
	program := os.Getenv(h2specVariable)
	if program == "" {
		t.Skip("run `make h2spec`")
	}
	answer := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(rw, "what h2spec asks for")
	})
	plain := httptest.NewUnstartedServer(answer)
	plain.EnableHTTP2 = true
	plain.Config.ErrorLog = log.New(io.Discard, "", 0)
	plain.StartTLS()
	defer plain.Close()
	theirs := h2spec(t, program, addrPortOf(plain.Listener.Addr()).Port())

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
	defer origin.Close()
	table, err := routes.NewTable([]routes.Route{{Host: "h2spec.test", Port: port}})
	if err != nil {
		t.Fatal(err)
	}
	b.Table, b.PlanDigest = table, "digest-2"
	w.apply(t, b)
	ours := h2spec(t, program, port)
	w.records.wait(t, func(r Record) bool { return r.Type == RecordRequest && r.Status == http.StatusOK })
	w.apply(t) // ends the connections to the origin

	t.Logf("the gateway passes %d of %d, net/http %d of %d", len(ours.cases)-len(ours.failed), len(ours.cases), len(theirs.cases)-len(theirs.failed), len(theirs.cases))
	if len(ours.cases) < 140 || len(ours.cases) != len(theirs.cases) {
		t.Errorf("%d and %d cases were run", len(ours.cases), len(theirs.cases))
	}
	for name := range theirs.failed {
		t.Logf("net/http fails %s; the gateway too: %v", name, ours.failed[name])
	}
	for name := range ours.failed {
		if !theirs.failed[name] {
			t.Errorf("the gateway fails %s, net/http does not", name)
		}
	}
}

// h2specResult is what h2spec reports, by the names of its cases.
type h2specResult struct{ cases, failed map[string]bool }

// h2spec runs every case against a port of this machine.
func h2spec(t *testing.T, program string, port uint16) h2specResult {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.xml")
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost h2spec.test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// It has no option for a server's name other than the one that it looks up.
	out, err := exec.CommandContext(t.Context(), "unshare", "-rm", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts,
		program, "-t", "-k", "-h", "h2spec.test", "-p", strconv.Itoa(int(port)), "-j", report, "-o", "5").CombinedOutput()
	raw, rerr := os.ReadFile(report)
	if rerr != nil {
		t.Fatalf("h2spec reported nothing: %v: %v\n%s", rerr, err, out)
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
		t.Fatalf("parse h2spec's report: %v", err)
	}
	r := h2specResult{map[string]bool{}, map[string]bool{}}
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
