package manifests

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watch runs a watcher until the test ends; each look is one value of the channel.
func watch(t *testing.T, dir string, files []string) <-chan struct{} {
	t.Helper()
	w, err := NewWatcher(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.Set(dir, files, false)
	ctx, cancel := context.WithCancel(context.Background())
	looks, done := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx, func() { looks <- struct{}{} })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return looks
}

func wantLook(t *testing.T, looks <-chan struct{}, why string) {
	t.Helper()
	select {
	case <-looks:
	case <-time.After(Rescan / 2):
		t.Fatalf("no look after %s", why)
	}
}

func TestWatch(t *testing.T) {
	dir, cred := t.TempDir(), t.TempDir()
	looks := watch(t, dir, []string{filepath.Join(cred, "auth.json")})
	a := filepath.Join(dir, "a"+Suffix)
	write(t, a, "a v1")
	wantLook(t, looks, "a manifest was made")
	write(t, a, "a v2")
	wantLook(t, looks, "a manifest was written")
	tmp := filepath.Join(dir, "tmp")
	write(t, tmp, "a v3")
	if err := os.Rename(tmp, a); err != nil {
		t.Fatal(err)
	}
	wantLook(t, looks, "a manifest was replaced")
	write(t, filepath.Join(cred, "auth.json"), "{}")
	wantLook(t, looks, "a credential was written")
	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	wantLook(t, looks, "a manifest was deleted")
}

// A burst of changes is one look, and a neighbour that changes all the time is none.
func TestWatchDebounces(t *testing.T) {
	dir, cred := t.TempDir(), t.TempDir()
	looks := watch(t, dir, []string{filepath.Join(cred, "auth.json")})
	for range 50 {
		write(t, filepath.Join(dir, "a"+Suffix), "a v1")
		write(t, filepath.Join(cred, "log"), "x")
	}
	wantLook(t, looks, "a burst")
	write(t, filepath.Join(cred, "log"), "x")
	write(t, filepath.Join(cred, "auth.json"), "{}")
	wantLook(t, looks, "a credential")
	if n := len(looks); n > 0 {
		t.Errorf("%d looks too many", n)
	}
}

func TestConcerns(t *testing.T) {
	w, err := NewWatcher(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.Set("/etc/x/", []string{"/home/u/auth.json"}, true)
	for path, want := range map[string]bool{
		"/etc/x": true, "/etc/x/a.bottle.yaml": true, "/etc/x/notes": false, "/home/u/auth.json": true, "/home/u/log": false,
	} {
		if got := w.concerns(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if w.interval() != Retry {
		t.Errorf("unsettled, looks every %s", w.interval())
	}
}
