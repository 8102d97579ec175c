package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatewayd/gateway/routes"
	"gatewayd/lab/privileged"
)

func TestRecordJSONNames(t *testing.T) {
	full := Record{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Type: RecordRequest, ID: "r-1", Flow: "f-1", Bottle: "dev", Plan: "p",
		Src: netip.MustParseAddrPort("198.18.1.2:40000"), Dst: netip.MustParseAddrPort("203.0.113.9:443"), Host: "a.test", Port: 443,
		Protocol: routes.HTTPS, Method: "GET", Path: "/x", Status: 200, Decision: routes.Intercept, Lane: LaneIntercept, Rule: "a.test:443",
		Reason: routes.RouteMatched, Remedy: "-", Injected: true, Finding: "-", Upstream: netip.MustParseAddrPort("203.0.113.10:443"),
		TLSVersion: "TLS 1.3", ALPN: "h2", BytesUp: 1, BytesDown: 2, PacketsUp: 5, PacketsDown: 6, DurationMS: 3, Count: 4, Error: "-",
	}
	v := reflect.ValueOf(full)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("field %s is not set: this test no longer covers the whole record", v.Type().Field(i).Name)
		}
	}
	line, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	want := strings.Fields("alpn bottle bytes_down bytes_up count decision dst duration_ms error finding flow host id injected lane method " +
		"packets_down packets_up path plan port protocol reason remedy rule src status time tls_version type upstream")
	var names []string
	for n := range got {
		names = append(names, n)
	}
	slices.Sort(names)
	if !slices.Equal(names, want) {
		t.Errorf("record has %v\nwant %v", names, want)
	}
	if got["decision"] != "intercept" || got["src"] != "198.18.1.2:40000" {
		t.Errorf("decision %v, src %v", got["decision"], got["src"])
	}
	empty, err := json.Marshal(Record{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(empty), "upstream") || !strings.Contains(string(empty), `"decision":"deny"`) {
		t.Errorf("empty record is %s: want no empty addresses, and a denial", empty)
	}
}

// TestRecordFieldsAreDocumented reads the operator's page: every field of a record must be there, as `name`.
func TestRecordFieldsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	typ := reflect.TypeFor[Record]()
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/OPERATIONS.md does not describe the record's field `%s`", name)
		}
	}
}

func TestIDsAreLongAndDifferent(t *testing.T) {
	a, b := newID("f-"), newID("f-")
	if a == b || len(a) != 2+2*idBytes || !strings.HasPrefix(a, "f-") {
		t.Errorf("ids %q and %q", a, b)
	}
}

func TestRing(t *testing.T) {
	r := NewRing(3)
	for i := range 5 {
		r.Record(Record{ID: fmt.Sprint(i)})
	}
	ids := func(rs []Record) (out []string) {
		for _, x := range rs {
			out = append(out, x.ID)
		}
		return out
	}
	if got := ids(r.Recent(10)); !slices.Equal(got, []string{"2", "3", "4"}) {
		t.Errorf("recent 10: %v", got)
	}
	if got := ids(r.Recent(2)); !slices.Equal(got, []string{"3", "4"}) {
		t.Errorf("recent 2: %v", got)
	}
	if got := r.Recent(-1); len(got) != 0 {
		t.Errorf("recent -1: %v", got)
	}
	if _, ok := r.Find("1"); ok {
		t.Error("an overwritten record is still found")
	}
	if got, ok := r.Find("3"); !ok || got.ID != "3" {
		t.Errorf("find 3: %v %v", got, ok)
	}
}

func TestFeedDropsForTheSlowOnly(t *testing.T) {
	f := newFeed()
	slow, quick := f.subscribe(1), f.subscribe(10)
	for i := range 5 {
		f.Record(Record{ID: fmt.Sprint(i)})
	}
	if slow.Dropped() != 4 || quick.Dropped() != 0 {
		t.Errorf("dropped %d and %d; want 4 and 0", slow.Dropped(), quick.Dropped())
	}
	slow.Close()
	slow.Close()
	f.Record(Record{ID: "late"})
	var got []string
	for r := range slow.Records() {
		got = append(got, r.ID)
	}
	if !slices.Equal(got, []string{"0"}) {
		t.Errorf("the slow one got %v", got)
	}
	quick.Close()
}

// closeRecorder closes r or fails the test.
func closeRecorder(t testing.TB, r *FileRecorder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testWait)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Error(err)
	}
}

// lines returns the ids in an audit file, or fails if a line is not one whole record.
func lines(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var ids []string
	for s := bufio.NewScanner(f); s.Scan(); {
		var r struct{ ID string }
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Errorf("line %q: %v", s.Text(), err)
		}
		ids = append(ids, r.ID)
	}
	return ids
}

func TestFileRecorder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte(`{"id":"old"}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := OpenFileRecorder(path, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if !r.Ready() {
		t.Error("a new recorder is not ready")
	}
	for i := range 1000 {
		r.Record(Record{ID: fmt.Sprint(i)})
	}
	closeRecorder(t, r)
	closeRecorder(t, r)
	r.Record(Record{ID: "late"})
	if r.Dropped() != 1 || r.Written() != 1000 || r.Ready() {
		t.Errorf("dropped %d, written %d, ready %v; want 1, 1000, false", r.Dropped(), r.Written(), r.Ready())
	}
	if got := lines(t, path); len(got) != 1001 || got[0] != "old" || got[1000] != "999" {
		t.Errorf("%d lines, from %s to %s", len(got), got[0], got[len(got)-1])
	}
}

func TestFileRecorderReopens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	r, err := OpenFileRecorder(path, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Record(Record{ID: "first"})
	waitFor(t, func() bool { return r.Written() == 1 })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := r.Reopen(); err != nil {
		t.Fatal(err)
	}
	r.Record(Record{ID: "second"})
	closeRecorder(t, r)
	if a, b := lines(t, path+".1"), lines(t, path); !slices.Equal(a, []string{"first"}) || !slices.Equal(b, []string{"second"}) {
		t.Errorf("old file %v, new file %v", a, b)
	}
	if err := r.Reopen(); err == nil {
		t.Error("a closed recorder was reopened")
	}
}

func TestFileRecorderRefusesOddFiles(t *testing.T) {
	dir := t.TempDir()
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := os.Symlink(filepath.Join(dir, "target"), link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, fifo, dir, filepath.Join(dir, "no", "such")} {
		if r, err := OpenFileRecorder(path, 0, nil); err == nil {
			t.Errorf("%s was opened", path)
			closeRecorder(t, r)
		}
	}
}

// TestFileRecorderFullDisk writes to a device that is always full, without waiting for it.
func TestFileRecorderFullDisk(t *testing.T) {
	privileged.Require(t, privileged.File("/dev/full"))
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	r := newFileRecorder(path, 4, nil)
	go r.run(full)
	r.Record(Record{ID: "0"})
	waitFor(t, func() bool { return !r.Ready() })
	for i := range 10 {
		r.Record(Record{ID: fmt.Sprint(i + 1)})
	}
	if r.Dropped() != 6 {
		t.Errorf("dropped %d; want all beyond the queue of 4", r.Dropped())
	}
	// A file that can be written again gets what was kept, in order.
	if err := r.Reopen(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, r.Ready)
	closeRecorder(t, r)
	if got := lines(t, path); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
		t.Errorf("file has %v", got)
	}
}

func TestTornLineIsEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f, err := openAudit(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := newFileRecorder(path, 4, nil)
	w := &auditWriter{r: r, file: f, torn: true, batch: []byte("{\"id\":\"a\"}\n"), held: 1}
	if _, err := f.WriteString(`{"id":"tor`); err != nil {
		t.Fatal(err)
	}
	w.flush()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != "{\"id\":\"tor\n{\"id\":\"a\"}\n" {
		t.Errorf("file is %q, %v", b, err)
	}
}

// waitFor polls until ok, for states that announce themselves to nobody.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(testWait); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come about")
		}
	}
}
