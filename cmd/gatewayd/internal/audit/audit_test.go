package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gatewayd/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func closeLog(t *testing.T, l *Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Error(err)
	}
}

func ids(t *testing.T, text []byte) (out []string) {
	t.Helper()
	for line := range bytes.Lines(text) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var r struct{ ID string }
		if err := json.Unmarshal(line, &r); err != nil {
			out = append(out, "torn")
			continue
		}
		out = append(out, r.ID)
	}
	return out
}

func TestRecordsAreWrittenInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for run := range 2 {
		l, err := Open(path, quiet)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			l.Record(gateway.Record{ID: fmt.Sprintf("r-%d", run*100+i)})
		}
		closeLog(t, l)
		l.Record(gateway.Record{ID: "late"})
		if l.Written() != 100 || l.Dropped() != 1 {
			t.Errorf("written %d, dropped %d", l.Written(), l.Dropped())
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := ids(t, b)
	if len(got) != 200 || got[0] != "r-0" || got[199] != "r-199" {
		t.Errorf("%d records: %v", len(got), got)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	line, err := Find(path, "r-42")
	if err != nil || !strings.Contains(string(line), `"id":"r-42"`) {
		t.Errorf("found %s, %v", line, err)
	}
	if line, err := Find(path, "r-4"); err != nil || !strings.Contains(string(line), `"id":"r-4"`) {
		t.Errorf("found %s, %v", line, err)
	}
	if line, err := Find(path, "r-999"); err != nil || line != nil {
		t.Errorf("found %s, %v", line, err)
	}
	if tail, err := Tail(path, 3); err != nil || fmt.Sprint(ids(t, bytes.Join(tail, []byte("\n")))) != "[r-197 r-198 r-199]" {
		t.Errorf("tail %s, %v", tail, err)
	}
}

func TestReopenAfterRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := Open(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer closeLog(t, l)
	l.Record(gateway.Record{ID: "old"})
	waitFor(t, func() bool { return l.Written() == 1 })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	l.Reopen()
	waitFor(t, func() bool { return len(l.reopen) == 0 })
	l.Record(gateway.Record{ID: "new"})
	waitFor(t, func() bool { return l.Written() == 2 })
	if b, err := os.ReadFile(path); err != nil || fmt.Sprint(ids(t, b)) != "[new]" {
		t.Errorf("got %s, %v", b, err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("did not happen in 30 s")
		}
		time.Sleep(time.Millisecond) // polling for another goroutine's work, not synchronising by time
	}
}

// disk is a file system that can be full.
type disk struct {
	mu   sync.Mutex
	full bool
	text bytes.Buffer
}

func (d *disk) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		n, _ := d.text.Write(b[:len(b)/2])
		return n, errors.New("no space left on device")
	}
	return d.text.Write(b)
}
func (d *disk) Close() error { return nil }
func (d *disk) setFull(v bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = v
}

// While the disk is full the log is not ready, what finds no room is counted, and when there is room again all that was
// queued is written; a torn line damages no other.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		l, err := open("x", quiet, func(string) (io.WriteCloser, error) { return d, nil })
		if err != nil {
			t.Fatal(err)
		}
		d.setFull(true)
		l.Record(gateway.Record{ID: "first"})
		synctest.Wait()
		if l.Ready() {
			t.Error("ready with a full disk")
		}
		for range queueSize + 5 {
			l.Record(gateway.Record{ID: "more"})
		}
		if l.Dropped() != 5 {
			t.Errorf("dropped %d", l.Dropped())
		}
		d.setFull(false)
		time.Sleep(2 * retryAfter)
		synctest.Wait()
		if !l.Ready() || l.Written() != queueSize+1 {
			t.Errorf("ready %v, written %d", l.Ready(), l.Written())
		}
		closeLog(t, l)
		got := ids(t, d.text.Bytes())
		if got[0] != "torn" || got[1] != "first" || got[len(got)-1] != "more" {
			t.Errorf("%d lines, beginning %v", len(got), got[:3])
		}
	})
}

func TestCloseDoesNotWaitForAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{full: true}
		l, err := open("x", quiet, func(string) (io.WriteCloser, error) { return d, nil })
		if err != nil {
			t.Fatal(err)
		}
		l.Record(gateway.Record{ID: "lost"})
		synctest.Wait()
		closeLog(t, l)
		if l.Dropped() != 1 {
			t.Errorf("dropped %d", l.Dropped())
		}
	})
}

func TestOpenFails(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "no", "audit"), quiet); err == nil {
		t.Error("opened a file in no directory")
	}
}

func TestEachPassesOverWhatIsTooLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, []byte("one\n"+strings.Repeat("x", 3*maxLine)+"\ntwo\nunfinished"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := Each(path, func(b []byte) { got = append(got, string(b)) }); err != nil || fmt.Sprint(got) != "[one two]" {
		t.Errorf("got %v, %v", got, err)
	}
}
