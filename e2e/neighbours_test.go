package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatewayd/lab"
	"gatewayd/lab/privileged"
)

const (
	neighbourGrowth = 128 << 20       // bytes that a bottle with few connections may make gatewayd grow by
	neighbourMost   = 384 << 20       // with as many as it can have: 256 MiB of answers that it does not take, and their buffers
	neighbourRest   = 5 * time.Second // between its end and the last look at memory, where that is shown
)

// greedyWay is something that a bottle may do to have more than its part.
type greedyWay struct {
	name string
	argv []string // a program that .ci/deps unpacked, or else greedyClient's arguments; COUNT is how many connections
	full int      // connections of `make neighbours`
	held int      // connections with which a program has begun; 0 if that is when it says something
}

// slowhttptest says no server name, so that it gets nowhere by TLS; HTTP/1.1 is served by the same code without it.
const (
	greedyHost = "plain.example.org"
	slowURL    = "http://clear.example.org/bulk/"
)

var greedyWays = []greedyWay{
	{name: "nothing"},
	{"idle connections", []string{"idle", greedyHost, "COUNT"}, 10_000, 0},
	{"slowhttptest -H: slow heads", []string{"slowhttptest", "-H", "-c", "COUNT", "-r", "1000", "-i", "5", "-l", "600", "-u", slowURL + "down?n=9"}, 1000, 20},
	{"slowhttptest -B: slow bodies", []string{"slowhttptest", "-B", "-c", "COUNT", "-r", "1000", "-i", "5", "-s", "100000", "-l", "600", "-u", slowURL + "up"}, 1000, 20},
	{"slowhttptest -X: slow reading", []string{"slowhttptest", "-X", "-c", "COUNT", "-r", "1000", "-w", "1", "-y", "8", "-n", "5", "-z", "1", "-l", "600", "-u", slowURL + "down?n=10000000"}, 1000, 20},
	{"slowhttptest -R: ranges", []string{"slowhttptest", "-R", "-c", "COUNT", "-r", "1000", "-a", "1", "-b", "3000", "-l", "600", "-u", slowURL + "down?n=100000"}, 1000, 0},
	{"h2load: HTTP/1.1", []string{"h2load", "--h1", "-c", "COUNT", "-D", "600", "https://" + greedyHost + "/bulk/down?n=1024"}, 100, 20},
	{"h2load: HTTP/2, 100 streams", []string{"h2load", "-c", "COUNT", "-m", "100", "-D", "600", "https://" + greedyHost + "/bulk/down?n=1024"}, 100, 1},
	{"HTTP/2: rapid reset", []string{"rapid reset", greedyHost, "COUNT"}, 100, 0},
	{"HTTP/2: PING", []string{"PING", greedyHost, "COUNT"}, 100, 0},
	{"HTTP/2: SETTINGS", []string{"SETTINGS", greedyHost, "COUNT"}, 100, 0},
	{"HTTP/2: CONTINUATION", []string{"CONTINUATION", greedyHost, "COUNT"}, 100, 0},
	{"HTTP/2: header bombs", []string{"header bomb", greedyHost, "COUNT"}, 100, 0},
	{"HTTP/2: requests that are left", []string{"left requests", greedyHost, "COUNT"}, 100, 0},
	{"HTTP/2: tiny windows", []string{"tiny windows", greedyHost, "COUNT"}, 100, 0},
}

// neighbourRow is what was seen while one bottle was greedy.
type neighbourRow struct {
	way                   string
	seen                  neighbourSeen
	before, during, after int64 // resident bytes of gatewayd; during is the most
}

// TestNeighbours has one bottle take what it can get, in every way, and looks at what another gets: all that it asks for, and
// gatewayd's memory stays within bounds. `make neighbours` gives each way GATEWAYD_TEST_NEIGHBOURS and more connections, and
// writes the table into GATEWAYD_TEST_DOCUMENT.
func TestNeighbours(t *testing.T) {
	var long time.Duration
	if s := os.Getenv("GATEWAYD_TEST_NEIGHBOURS"); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatalf("GATEWAYD_TEST_NEIGHBOURS: %v", err)
		}
	}
	root := os.Getenv("GATEWAYD_TEST_SERVERS")
	for _, program := range []string{"slowhttptest", "h2load"} {
		privileged.Require(t, privileged.Root, privileged.File(filepath.Join(root, "usr/bin", program)))
	}
	b, guest := neighboursBench(t, root)
	b.limit += long
	var rows []neighbourRow
	for _, way := range greedyWays {
		row := neighbourRow{way: way.name}
		count := 20
		if long > 0 {
			count = way.full
			row.way = strings.TrimSuffix(fmt.Sprintf("%s × %d", way.name, count), " × 0")
		} else if way.name == "idle connections" {
			count = 1500 // beyond the budget
		}
		if !t.Run(way.name, func(t *testing.T) { b.neighbour(t, guest, root, way, count, long, &row) }) {
			t.Errorf("with %s: %+v", way.name, row.seen)
		}
		rows = append(rows, row)
	}
	t.Log("\n" + neighbourTable(rows))
	if file := os.Getenv("GATEWAYD_TEST_DOCUMENT"); file != "" && long > 0 && !t.Failed() {
		if err := intoDocument(file, "neighbours", fmt.Sprintf("%d CPUs, which the greedy bottle's own programs share; %s for each row.\n\n%s", runtime.NumCPU(), long, neighbourTable(rows))); err != nil {
			t.Fatal(err)
		}
	}
}

// neighboursBench has an honest bottle, and a greedy one that finds the programs below root.
func neighboursBench(t *testing.T, root string) (*bench, lab.Guest) {
	t.Helper()
	b, _ := streamsBench(t)
	b.serve(&lab.Site{Names: []string{"clear.example.org"}, Plain: true, Handler: streamHandler(), Forgets: true})
	text := strings.NewReplacer("bottle: "+bottleName, "bottle: greedy", b.BottleNetns(bottleName), b.BottleNetns("greedy")).Replace(b.manifest(streamsManifest + "    - { host: clear.example.org, protocol: http }\n"))
	if err := b.Gateway.WriteManifest("greedy", text); err != nil {
		t.Fatal(err)
	}
	g := b.secondBottle("greedy").Guest
	libraries, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu"))
	if err != nil || len(libraries) == 0 {
		t.Fatalf("no libraries below %s: %v", root, err)
	}
	g.Env = append(append([]string{}, g.Env...), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"), clientVariable+"=greedy", limitVariable+"=1h")
	return b, g
}

// neighbour has the guest be greedy in one way while the other bottle makes its requests.
func (b *bench) neighbour(t *testing.T, greedy lab.Guest, root string, way greedyWay, count int, long time.Duration, row *neighbourRow) {
	eventually(t, func() error { // a connection that owes keeps its place after its guest has left
		if n := b.openOf(t, "greedy"); n > 0 {
			return fmt.Errorf("the greedy bottle still has %d connections", n)
		}
		return nil
	})
	var err error
	if row.before, err = b.Gateway.ResidentBytes(); err != nil {
		t.Fatal(err)
	}
	stop := func() {}
	if way.argv != nil {
		stop = b.startGreedy(t, greedy, root, way, count)
		t.Logf("the greedy bottle has %d connections", b.openOf(t, "greedy"))
	}
	defer stop()
	var most atomic.Int64
	watched := watchMemory(b, &most)
	r := b.client("neighbour", "https://"+greedyHost+"/bulk/down?n=1024", "40", long.String())
	watched()
	row.during = most.Load()
	stop()
	if err := json.Unmarshal([]byte(r.Out), &row.seen); err != nil || r.Failed != nil {
		t.Fatal(err, r)
	}
	if row.seen.Good != row.seen.Made {
		t.Errorf("%d of %d requests of the other bottle went well: %s", row.seen.Good, row.seen.Made, row.seen.Failure)
	}
	growth := int64(neighbourGrowth)
	if long > 0 {
		growth = neighbourMost
	}
	if row.during > row.before+growth {
		t.Errorf("memory grew from %d to %d MiB", row.before>>20, row.during>>20)
	}
	if long > 0 {
		time.Sleep(neighbourRest)
	}
	if row.after, err = b.Gateway.ResidentBytes(); err != nil {
		t.Fatal(err)
	}
}

// openOf is how many connections a bottle has.
func (b *bench) openOf(t *testing.T, bottle string) (n int) {
	out, err := b.Gateway.Command(t.Context(), "flows", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var flows []struct{ Bottle string }
	if err := json.Unmarshal(out, &flows); err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		if f.Bottle == bottle {
			n++
		}
	}
	return n
}

// startGreedy starts a greedy guest, again whenever it ends, and waits until it has begun. The function that it returns ends it.
func (b *bench) startGreedy(t *testing.T, g lab.Guest, root string, way greedyWay, count int) (stop func()) {
	t.Helper()
	argv := slices.Clone(way.argv)
	for i := range argv {
		argv[i] = strings.ReplaceAll(argv[i], "COUNT", strconv.Itoa(count))
	}
	program := filepath.Join(root, "usr/bin", argv[0])
	if _, err := os.Stat(program); err == nil {
		argv[0] = program
	} else {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		argv = append([]string{self}, argv...)
	}
	ctx, cancel := context.WithCancel(t.Context())
	began, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 1; ctx.Err() == nil; n++ {
			out := &greedyOutput{began: began}
			p, err := g.Start(ctx, nil, out, out, argv...)
			if err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			if err := p.Wait(); ctx.Err() == nil && n == 1 {
				t.Logf("%s ended by itself (%v) and goes on: %s", way.name, err, tail(out.text(), 3))
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	if way.held > 0 { // what it says may be long in coming
		eventually(t, func() error {
			if n := b.openOf(t, "greedy"); n < way.held {
				return fmt.Errorf("%s has %d connections", way.name, n)
			}
			return nil
		})
		return stop
	}
	select {
	case said := <-began:
		t.Logf("%s says %q", way.name, said)
	case <-time.After(patience):
		t.Errorf("%s has not begun", way.name)
	}
	return stop
}

// greedyOutput is what a greedy guest writes.
type greedyOutput struct {
	began chan string // is told of the first line

	mu  sync.Mutex
	all strings.Builder
}

// Write is [io.Writer].Write.
func (o *greedyOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all.Len() < 1<<20 {
		o.all.Write(p)
	}
	if text := strings.TrimSpace(o.all.String()); text != "" {
		select {
		case o.began <- strings.SplitN(text, "\n", 2)[0]:
		default:
		}
	}
	return len(p), nil
}

func (o *greedyOutput) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// neighbourTable is what `make neighbours` writes.
func neighbourTable(rows []neighbourRow) string {
	var out strings.Builder
	out.WriteString("| what one bottle does | the other's requests | went well | p50, ms | p99, ms | memory before, MiB | most during | after |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	for _, r := range rows {
		fmt.Fprintf(&out, "| %s | %d | %.1f %% | %.1f | %.1f | %d | %d | %d |\n", r.way, r.seen.Made,
			100*float64(r.seen.Good)/float64(max(1, r.seen.Made)), ms(r.seen.P50), ms(r.seen.P99), r.before>>20, r.during>>20, r.after>>20)
	}
	return out.String()
}

// intoDocument puts text between the markers of a document that the name of a target has.
func intoDocument(file, target, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), "<!-- made by make "+target+" -->\n")
	_, after, ok2 := strings.Cut(rest, "<!-- end -->\n")
	if !ok || !ok2 {
		return fmt.Errorf("%s has no markers of %s", file, target)
	}
	return os.WriteFile(file, []byte(before+"<!-- made by make "+target+" -->\n"+text+"<!-- end -->\n"+after), 0o644)
}
