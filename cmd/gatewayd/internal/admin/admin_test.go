package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"gatewayd/lab/privileged"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("ADMIN_TEST_SOCKET"); path != "" { // TestForeignUserIsRefused runs this binary again as nobody
		var out any
		err := Client{Socket: path}.Get(context.Background(), "/x", &out)
		fmt.Println(err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// serve answers with h until the test ends and returns the socket.
func serve(t *testing.T, allow func(Peer) bool, h http.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), SocketName)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, allow, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

var answer = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(r.URL.Path) })

func TestOperatorIsAnswered(t *testing.T) {
	path := serve(t, Operator(os.Getuid()), answer)
	var got string
	if err := (Client{Socket: path}).Get(context.Background(), "/status", &got); err != nil || got != "/status" {
		t.Errorf("got %q, %v", got, err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestPeerIsWhoConnected(t *testing.T) {
	seen := make(chan Peer, 1)
	path := serve(t, func(p Peer) bool { seen <- p; return false }, answer)
	err := Client{Socket: path}.Get(context.Background(), "/status", new(string))
	var refused *StatusError
	if !errors.As(err, &refused) || refused.Code != http.StatusForbidden {
		t.Errorf("got %v, want a 403", err)
	}
	if p := <-seen; p.UID != uint32(os.Getuid()) || p.PID != int32(os.Getpid()) {
		t.Errorf("peer %+v", p)
	}
}

func TestOperator(t *testing.T) {
	for _, c := range []struct {
		uid  uint32
		want bool
	}{{0, true}, {990, true}, {991, false}, {65534, false}} {
		if got := Operator(990)(Peer{UID: c.uid}); got != c.want {
			t.Errorf("uid %d: %v", c.uid, got)
		}
	}
}

// A user who is neither root nor the daemon's gets a 403, even with a socket whose mode would let anybody connect.
func TestForeignUserIsRefused(t *testing.T) {
	privileged.Require(t, privileged.Root) // to become another user
	asked := false
	path := serve(t, Operator(0), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	for dir := filepath.Dir(path); strings.HasPrefix(dir, os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(filepath.Dir(path), "client")
	copyFile(t, self)
	cmd := exec.Command(self)
	cmd.Dir = "/"
	cmd.Env = []string{"ADMIN_TEST_SOCKET=" + path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	if want := "uid 65534 may not use this socket"; !strings.Contains(string(out), want) || asked {
		t.Errorf("got %s (handler asked: %v), want %q", out, asked, want)
	}
}

// copyFile copies the running test binary to where another user may execute it.
func copyFile(t *testing.T, to string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := Listen(stale)
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // leaves the file, as a killed daemon does
	for _, path := range []string{filepath.Join(dir, "none.sock"), stale} {
		err := Client{Socket: path}.Get(context.Background(), "/status", new(string))
		var nr *NotRunningError
		if !errors.As(err, &nr) || !strings.Contains(err.Error(), "gatewayd run") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if l, err = Listen(stale); err != nil {
		t.Fatalf("a stale socket is in the way: %v", err)
	}
	l.Close()
}

func TestStreamEndsWithTheDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketName)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, l, Operator(os.Getuid()), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "one")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}))
	}()
	var lines []string
	err = Client{Socket: path}.Lines(context.Background(), "/log", func(b []byte) error {
		lines = append(lines, string(b))
		cancel() // the daemon ends while a client follows
		return nil
	})
	if err != nil || len(lines) != 1 || lines[0] != "one" {
		t.Errorf("got %q, %v", lines, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
