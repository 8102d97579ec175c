package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gatewayd/gateway/tls"
	"gatewayd/lab"
	"gatewayd/lab/privileged"
	"gatewayd/lab/vm"
	"gatewayd/vmimage/qemu"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" { // this binary, started again as an end of a load
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

const testCache = "../.cache/bench"

// havePeers is met when every program of the bench is installed or can be unpacked.
func havePeers() error {
	dir, err := filepath.Abs(testCache)
	if err != nil {
		return err
	}
	p := &packages{dir: dir, say: func(string, ...any) {}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var missing []error
	for name := range packageOf {
		if _, err := p.find(ctx, name); err != nil {
			missing = append(missing, err)
		}
	}
	return errors.Join(missing...)
}

// shortest runs the loads for which take is true, once, and returns the report. flags are added to the command.
func shortest(t *testing.T, take func(load) bool, flags ...string) Report {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "gatewayd")
	build := exec.Command("go", "build", "-o", binary, "gatewayd/cmd/gatewayd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // it runs in a VM too
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build gatewayd: %v\n%s", err, out)
	}
	var want []load
	var asked []string
	if i := slices.Index(flags, "-paths"); i >= 0 {
		asked = strings.Split(flags[i+1], ",")
	}
	for _, l := range allLoads() {
		l.paths = slices.DeleteFunc(slices.Clone(l.paths), func(via string) bool {
			return len(asked) == 0 && via == viaFlowtable || len(asked) > 0 && !slices.Contains(asked, via)
		})
		if take(l) {
			want = append(want, l)
		}
	}
	var out, progress bytes.Buffer
	code := run(append([]string{"-rounds", "1", "-seconds", "0.3", "-o", "json", "-gatewayd", binary, "-cache", testCache}, flags...), &out, &progress)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, progress.String())
	}
	var r Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if len(r.Loads) != len(want) || r.CPU == "" || r.Kernel == "" || len(r.Versions) < 5 {
		t.Errorf("report of %d loads on %q, %q, with versions %v", len(r.Loads), r.CPU, r.Kernel, r.Versions)
	}
	for i, l := range r.Loads {
		if len(l.Rows) != len(want[i].paths) {
			t.Errorf("%s has %d rows, want %d", l.Name, len(l.Rows), len(want[i].paths))
		}
		for _, row := range l.Rows {
			checkRow(t, l, row)
		}
	}
	return r
}

// names are those of loads, for -only.
func names(take func(load) bool) string {
	var some []string
	for _, l := range allLoads() {
		if take(l) {
			some = append(some, l.name)
		}
	}
	return strings.Join(some, ",")
}

// The shortest run has figures in every row, gatewayd's rows name the lanes that its plan claims, and nothing stays.
func TestShortestRun(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF, havePeers)
	document := filepath.Join(t.TempDir(), "BENCHMARKS.md")
	near := func(l load) bool { return !l.vm() && l.name != manyIdleName && l.name != "h1-64k" }
	var paths []string
	for _, l := range allLoads() {
		paths = append(paths, l.paths...)
	}
	slices.Sort(paths)
	paths = slices.DeleteFunc(slices.Compact(paths), func(via string) bool {
		return slices.Contains([]string{viaFlowtable, viaNginxTLS, viaSquid, viaMitmproxy}, via) // TestInterceptPeers has the last three
	})
	r := shortest(t, near, "-document", document, "-only", names(near), "-paths", strings.Join(paths, ","))
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# Benchmarks", r.Command, r.CPU, "| gatewayd, intercept |", "load average"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the document does not have %q", want)
		}
	}
	if strings.Contains(string(text), filepath.Dir(document)) || strings.Contains(string(text), "/tmp/") {
		t.Error("the document names a path of this machine")
	}
}

// Each peer that decrypts carries requests, handshakes and sockets. Loads of a fixed least of work alone: on a busy machine wrk
// may be done before a slow peer has answered once.
func TestInterceptPeers(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF, havePeers)
	some := func(l load) bool { return slices.Contains([]string{"h1-full", socketName, "h1-sse"}, l.name) }
	shortest(t, some, "-only", names(some))
}

// From a VM every lane is taken as its row says, and compared with the VM's other card.
func TestLoadsFromVM(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF, havePeers, privileged.Program(qemu.Program), func() error {
		_, err := vm.FindKernel()
		return err
	})
	for _, l := range shortest(t, load.vm, "-only", names(load.vm)).Loads {
		for _, row := range l.Rows {
			want := []string{strings.TrimPrefix(row.Path, "vm-")}
			if row.Path == viaVMKernel {
				want = nil
			}
			if got := slices.Collect(maps.Keys(row.Lanes)); !slices.Equal(got, want) {
				t.Errorf("%s over %s: lanes %q", l.Name, row.Path, got)
			}
		}
	}
}

func checkRow(t *testing.T, l LoadReport, row Row) {
	t.Helper()
	name := l.Name + " over " + row.Path
	grows := slices.Contains([]string{"hold", idleName, manyIdleName, h2IdleName, socketIdleName, volumeName}, l.Name) // memory may have been there before
	switch {
	case row.Absent != "":
		t.Errorf("%s is absent: %s", name, row.Absent)
	case row.Value < 0, row.Value == 0 && !grows:
		t.Errorf("%s: value %v", name, row.Value)
	case row.Path != viaGatewayd && row.Path != viaVMKernel && !grows && l.Name != openName && row.Gatewayd+row.Forwarding <= 0:
		t.Errorf("%s: no comparison", name)
	case row.Path != viaKernel && row.Path != viaIperf && row.Path != viaVMKernel && row.ResidentBytes <= 0:
		t.Errorf("%s: no memory", name)
	}
	if isVM(row.Path) {
		return
	}
	if !isGatewayd(row.Path) {
		if len(row.Lanes) > 0 {
			t.Errorf("%s: lanes %v of a peer", name, row.Lanes)
		}
		return
	}
	want := []string{"relay", "fastpath"}
	switch {
	case row.Path == viaRelay:
		want = []string{"relay"}
	case l.Name == "crr" || l.Name == "tls-new": // each connection has a port that none had of late
		want = []string{"fastpath"}
	}
	if l.Name[0] == 'h' && (l.Name[1] == '1' || l.Name[1] == '2') {
		want = []string{"intercept"}
	}
	for lane := range row.Lanes {
		if !slices.Contains(want, lane) {
			t.Errorf("%s: lane %q, want one of %q", name, lane, want)
		}
		if lane != "fastpath" && l.CPUUnit != "" && row.CPU <= 0 {
			t.Errorf("%s: CPU %v on lane %s", name, row.CPU, lane)
		}
	}
	if len(row.Lanes) == 0 && openPaths[row.Path] > 0 {
		t.Errorf("%s: no lane", name)
	}
}

// What the clients send first is a hello that a gate reads a name from.
func TestHelloIsReal(t *testing.T) {
	hello, err := clientHello(t.Context(), rawName)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tls.ParseHello(hello[recordHeader:])
	if err != nil || got.ServerName != rawName {
		t.Errorf("name %q, %v", got.ServerName, err)
	}
	if len(hello) <= 1448 { // a segment over Ethernet, with timestamps; see the preface of the document
		t.Errorf("%d bytes fit into one segment", len(hello))
	}
}

func TestReadRecord(t *testing.T) {
	good := message(askPour, 1, 2, 3, 4)
	if len(good) != messageSize {
		t.Errorf("a message has %d bytes", len(good))
	}
	kind, payload, err := readRecord(bytes.NewReader(good))
	if err != nil || kind != recordData || !bytes.Equal(payload[:5], []byte{askPour, 1, 2, 3, 4}) {
		t.Errorf("type %d, payload %x, %v", kind, payload, err)
	}
	for n := range len(good) {
		if _, _, err := readRecord(bytes.NewReader(good[:n])); err == nil {
			t.Errorf("%d bytes of a record were taken for one", n)
		}
	}
	if _, _, err := readRecord(bytes.NewReader(record(recordData, mostHello+1))); err == nil {
		t.Error("a record larger than any was read")
	}
	if b := bulk(); len(b)%(recordHeader+bulkRecord) != 0 || len(b) < bulkWrite {
		t.Errorf("%d bytes of bulk are not whole records", len(b))
	}
}

func TestParseWrk(t *testing.T) {
	const good = `Running 1s test @ https://web.bench.example:443/1k
  1 threads and 16 connections
  20000 requests in 2.00s, 24.0MB read
Requests/sec:  10000.00
Transfer/sec:     12.0MB
`
	r, err := parseWrk(good)
	if err != nil || r.Units != 20000 || r.Seconds != 2 || r.Connections != wrkConnections {
		t.Errorf("%+v, %v", r, err)
	}
	for what, text := range map[string]string{
		"nothing":        "",
		"no request":     strings.ReplaceAll(strings.ReplaceAll(good, "20000", "0"), "10000.00", "0.00"),
		"failed answers": good + "  Non-2xx or 3xx responses: 7\n",
		"broken sockets": good + "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
	} {
		if r, err := parseWrk(text); err == nil {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

// No client has a port that another in its bottle had of late.
func TestNextPorts(t *testing.T) {
	w := &world{ports: map[string]int{}}
	here, there := lab.Guest{Netns: "/run/netns/here"}, lab.Guest{Netns: "/run/netns/there"}
	recent := map[int]bool{}
	for i := range 100 {
		if i%9 == 0 {
			clear(recent) // nine clients ago
		}
		var p ports
		var err error
		if p.first, err = strconv.Atoi(w.nextPorts(here, mostConnects)[1]); err != nil {
			t.Fatal(err)
		}
		for range mostConnects {
			port := p.dialer().LocalAddr.(*net.TCPAddr).Port
			if recent[port] || port < firstPort || port > lastPort {
				t.Fatalf("client %d has port %d", i, port)
			}
			recent[port] = true
		}
	}
	if got := w.nextPorts(there, 1)[1]; got != strconv.Itoa(firstPort) {
		t.Errorf("another bottle's first port is %s", got)
	}
	if d := new(ports).dialer(); d.LocalAddr != nil {
		t.Errorf("nobody asked for %v", d.LocalAddr)
	}
}

func TestCountLanes(t *testing.T) {
	l := load{host: rawName}
	text := `{"type":"flow","host":"raw.bench.example","lane":"relay"}
{"type":"flow","host":"first-3.raw.bench.example","lane":"fastpath"}
{"type":"request","host":"raw.bench.example","lane":"intercept"}
{"type":"flow","host":"web.bench.example","lane":"relay"}
{"type":"flow","host":"raw.bench.example","la`
	lanes, n, err := countLanes([]byte(text), l)
	if err != nil || n != 2 || lanes["relay"] != 1 || lanes["fastpath"] != 1 || len(lanes) != 2 {
		t.Errorf("%v, %d, %v", lanes, n, err)
	}
	if _, _, err := countLanes([]byte("{]\n"), l); err == nil {
		t.Error("a broken record was passed over")
	}
}

// Factors compare within a round and say how many times better gatewayd is, whichever way the value is read.
func TestRow(t *testing.T) {
	own := []sample{{Value: 10, CPU: 1, Units: 1e6}, {Value: 20, CPU: 2, Units: 1e6}, {Value: 40, CPU: 2, Units: 1e6}}
	peer := []sample{
		{Value: 20, CPU: 2, Units: 1e6, Resident: 5}, {Value: 20, CPU: 2, Units: 1e6, Resident: 7}, {Value: 20, CPU: 1, Units: 1e6, Resident: 6},
	}
	rate, latency := load{name: "x", unit: requests, scale: 1}, load{name: "y", unit: requests, latency: true}
	tl := &tally{samples: map[string][]sample{key(rate, viaNginx): peer, key(latency, viaNginx): peer}}
	got := row(rate, viaNginx, tl, own)
	if got.Value != 20 || got.CPU != 2 || got.ResidentBytes != 6 || got.Gatewayd != 1 || got.GatewaydCPU != 1 {
		t.Errorf("%+v", got)
	}
	own[1].Value = 40
	if got := row(rate, viaNginx, tl, own).Gatewayd; got != 2 {
		t.Errorf("twice the rate is %v times better", got)
	}
	if got := row(latency, viaNginx, tl, own).Gatewayd; got != 0.5 {
		t.Errorf("twice the time is %v times better", got)
	}
	tl.absent = map[string]error{key(rate, viaNginx): errors.New("no /etc/x/y here")}
	r := Report{Loads: []LoadReport{{Rows: []Row{row(rate, viaNginx, tl, own)}}}}
	if text := r.markdown(); !strings.Contains(text, "absent: no … here") {
		t.Errorf("an absent row does not say why, or names a path:\n%s", text)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 12345.6: "12346", 45.67: "45.7", 0.012345: "0.0123", 9.999: "10.00", 100: "100"} {
		if got := figure(v); got != want {
			t.Errorf("%v is written %s, want %s", v, got, want)
		}
	}
}

func TestWrongArguments(t *testing.T) {
	for _, args := range [][]string{
		{"-rounds", "0"}, {"-seconds", "61"}, {"-seconds", "0.01"}, {"-o", "xml"}, {"-only", "rr,nothing"}, {"-paths", "kernel,nothing"}, {"more"}, {"-gatewayd", "nowhere/gatewayd"},
	} {
		var out, errOut bytes.Buffer
		if code := run(args, &out, &errOut); code != 2 || errOut.Len() == 0 {
			t.Errorf("%q: exit code %d, %q", args, code, errOut.String())
		}
	}
}

// A flow's CPU is its process's and its children's.
func TestUsage(t *testing.T) {
	cpu, resident, err := usage(os.Getpid())
	if err != nil || cpu < 0 || resident <= 0 {
		t.Errorf("%v s, %d bytes, %v", cpu, resident, err)
	}
	if _, _, err := usage(-1); err == nil {
		t.Error("a process that is not there has used something")
	}
	if got := family(os.Getpid()); !slices.Contains(got, os.Getpid()) {
		t.Errorf("family %v", got)
	}
	if _, err := softirq(); err != nil {
		t.Error(err)
	}
}

func TestParseIperf(t *testing.T) {
	got, err := parseIperf([]byte(`{"end":{"sum_sent":{"seconds":1,"bytes":9},"sum_received":{"seconds":2,"bytes":8}}}`))
	if err != nil || got.Units != 8 || got.Seconds != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"error":"unable to connect"}`} {
		if _, err := parseIperf([]byte(bad)); err == nil {
			t.Errorf("%q was taken for a report", bad)
		}
	}
}

func TestParseH2load(t *testing.T) {
	const good = `finished in 500.00ms, 9000.50 req/s, 9.5MB/s
requests: 4500 total, 4516 started, 4500 done, 4500 succeeded, 0 failed, 0 errored, 0 timeout
`
	r, err := parseH2load(good)
	if err != nil || r.Units != 4500 || r.Seconds != 0.5 || r.Connections != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	for what, text := range map[string]string{
		"nothing":    "",
		"no request": strings.ReplaceAll(good, "4500 succeeded", "0 succeeded"),
		"failed":     strings.ReplaceAll(good, "0 failed", "1 failed"),
		"errored":    strings.ReplaceAll(good, "0 errored", "1 errored"),
		"timeout":    strings.ReplaceAll(good, "0 timeout", "2 timeout"),
	} {
		if r, err := parseH2load(text); err == nil {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		took []time.Duration
		want float64
	}{
		{[]time.Duration{3000, 1000, 2000}, 2},
		{[]time.Duration{0, 0, 0, 4 * time.Millisecond}, 1000}, // a clock of 4 ms
	} {
		if got := median(c.took); got != c.want {
			t.Errorf("median of %v: %v µs, want %v", c.took, got, c.want)
		}
	}
}
