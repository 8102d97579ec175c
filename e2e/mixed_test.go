package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"gatewayd/lab"
)

// What a mixed load may grow by between its second quarter and its last, by the medians of their samples. The first quarter is
// for pools, caches and the heap to find their size.
const (
	growthRSS         = 8 << 20
	growthGoroutines  = 20
	growthDescriptors = 20
)

// growthFrom is the duration from which growth says something.
const growthFrom = time.Minute

// mixedSample is what a running gatewayd holds.
type mixedSample struct {
	at                           time.Duration
	rss, goroutines, descriptors int64
}

// mixedReload is the longest between two changes of the plan.
const mixedReload = 10 * time.Second

// TestMixedLoadStaysFlat runs requests, uploads, events, sockets, gRPC, refusals and resets at once while the plan changes again
// and again, for three seconds, or for as long as GATEWAYD_TEST_MIXED says (`make soak-mixed` says an hour), and from a minute
// on fails if gatewayd grows.
func TestMixedLoadStaysFlat(t *testing.T) {
	d := 3 * time.Second
	if s := os.Getenv("GATEWAYD_TEST_MIXED"); s != "" {
		var err error
		if d, err = time.ParseDuration(s); err != nil {
			t.Fatalf("GATEWAYD_TEST_MIXED: %v", err)
		}
	}
	b, _ := streamsBench(t)
	b.serve(&lab.Site{Names: []string{"other.example.org"}, Handler: streamHandler(), Forgets: true})
	b.limit += d
	samples, reloads := make(chan []mixedSample, 1), make(chan reloaded, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { samples <- sampleUntil(ctx, b, max(100*time.Millisecond, d/40)) }()
	go func() { reloads <- reloadUntil(ctx, b, min(mixedReload, d/4)) }()
	pause := mixedPause
	if d >= growthFrom {
		pause = mixedLongPause
	}
	r := b.client("mixed", d.String(), pause.String())
	stop()
	seen, plans := <-samples, <-reloads
	t.Log(mixedTable(seen))
	t.Logf("the plan changed %d times", plans.times)
	if plans.err != nil || plans.times == 0 {
		t.Errorf("the plan changed %d times: %v", plans.times, plans.err)
	}
	if r.Failed != nil {
		t.Fatal(r)
	}
	t.Logf("done in %s: %s", d, strings.TrimSpace(r.Out))
	var counts map[string]int
	if err := json.Unmarshal([]byte(r.Out), &counts); err != nil || len(counts) != 14 {
		t.Errorf("%d kinds of work were done: %v", len(counts), err)
	}
	if len(seen) < 8 {
		t.Fatalf("%d samples", len(seen))
	}
	if d >= growthFrom {
		checkGrowth(t, seen)
	}
}

// checkGrowth compares the last quarter with the second.
func checkGrowth(t *testing.T, seen []mixedSample) {
	t.Helper()
	n := len(seen)
	for _, what := range []struct {
		name string
		of   func(mixedSample) int64
		most int64
	}{
		{"resident bytes", func(s mixedSample) int64 { return s.rss }, growthRSS},
		{"goroutines", func(s mixedSample) int64 { return s.goroutines }, growthGoroutines},
		{"descriptors", func(s mixedSample) int64 { return s.descriptors }, growthDescriptors},
	} {
		before, after := middleOf(seen[n/4:n/2], what.of), middleOf(seen[n*3/4:], what.of)
		t.Logf("%s: %d in the second quarter, %d in the last; may grow by %d", what.name, before, after, what.most)
		if after > before+what.most {
			t.Errorf("%s grew from %d to %d, by more than %d", what.name, before, after, what.most)
		}
	}
}

func middleOf(seen []mixedSample, of func(mixedSample) int64) int64 {
	var v []int64
	for _, s := range seen {
		v = append(v, of(s))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// sampleUntil samples gatewayd at every step until ctx ends. A sample that cannot be taken is left out.
func sampleUntil(ctx context.Context, b *bench, step time.Duration) []mixedSample {
	var seen []mixedSample
	begin := time.Now()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return seen
		case <-tick.C:
		}
		if s, err := takeSample(ctx, b); err == nil {
			s.at = time.Since(begin)
			seen = append(seen, s)
		}
	}
}

// reloaded is how often the plan changed, and what stopped that.
type reloaded struct {
	times int
	err   error
}

// reloadUntil gives the bottle a route more and takes it away, at every step until ctx ends, and waits each time until the
// plan is in force.
func reloadUntil(ctx context.Context, b *bench, step time.Duration) (r reloaded) {
	before, err := planOf(ctx, b)
	if err != nil {
		return reloaded{err: err}
	}
	tick := time.NewTicker(step)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return r
		case <-tick.C:
		}
		text := streamsManifest
		if r.times%2 == 0 {
			text += "    - host: more.example.org\n"
		}
		if err := b.Gateway.WriteManifest(bottleName, b.manifest(text)); err != nil {
			return reloaded{r.times, err}
		}
		after := before
		err := lab.Poll(ctx, func() error {
			if after, err = planOf(ctx, b); err == nil && after == before {
				err = errors.New("the plan is as it was")
			}
			return err
		})
		switch {
		case ctx.Err() != nil: // the load is over
			return r
		case err != nil:
			return reloaded{r.times, err}
		}
		before = after
		r.times++
	}
	return r
}

// planOf is the digest of the bottle's plan.
func planOf(ctx context.Context, b *bench) (string, error) {
	out, err := b.Gateway.Command(ctx, "bottles", "-o", "json")
	if err != nil {
		return "", err
	}
	var bottles []struct{ Plan string }
	if err := json.Unmarshal(out, &bottles); err != nil || len(bottles) != 1 {
		return "", fmt.Errorf("%d bottles: %w", len(bottles), err)
	}
	return bottles[0].Plan, nil
}

var goroutinesMetric = regexp.MustCompile(`(?m)^go_goroutines (\d+)$`)

// takeSample asks /proc and the metrics on the admin socket.
func takeSample(ctx context.Context, b *bench) (s mixedSample, err error) {
	if s.rss, err = b.Gateway.ResidentBytes(); err != nil {
		return s, err
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.Gateway.Pid()))
	if err != nil {
		return s, err
	}
	s.descriptors = int64(len(open))
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(b.Gateway.Dir, "run", "admin.sock"))
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gatewayd/metrics", nil)
	if err != nil {
		return s, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return s, err
	}
	m := goroutinesMetric.FindSubmatch(text)
	if m == nil {
		return s, errors.New("read metrics: no go_goroutines")
	}
	s.goroutines, err = strconv.ParseInt(string(m[1]), 10, 64)
	return s, err
}

func mixedTable(seen []mixedSample) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nat\tRSS, MiB\tgoroutines\tdescriptors\t")
	for _, s := range seen {
		fmt.Fprintf(w, "%s\t%.1f\t%d\t%d\t\n", s.at.Round(time.Second), float64(s.rss)/(1<<20), s.goroutines, s.descriptors)
	}
	_ = w.Flush() // into memory
	return out.String()
}
