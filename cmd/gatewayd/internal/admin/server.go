// Package admin is the daemon's one door for operators: HTTP over a unix socket that only root and the daemon's own user
// may use. There is no TCP form of it.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// SocketName is the socket's name in the run directory.
const SocketName = "admin.sock"

const (
	// headerDeadline ends a client that connects and does not ask.
	headerDeadline = 5 * time.Second
	// drainDeadline is how long running answers may take when the server ends; streams end at once.
	drainDeadline = 2 * time.Second
)

// Listen makes a socket at path with mode 0600, in place of one that a dead daemon left there. The caller holds the
// instance's lock: two living daemons never ask for the same path.
func Listen(path string) (net.Listener, error) {
	// Bound under another name and renamed when its mode is right, so that it is at no moment open to others.
	tmp := filepath.Join(filepath.Dir(path), ".admin.sock.new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// Serve answers on l until ctx ends, then lets running answers finish for a moment and returns nil. Connections of peers
// that allow refuses get 403. It takes over l. Requests' contexts end with ctx.
func Serve(ctx context.Context, l net.Listener, allow func(Peer) bool, h http.Handler) error {
	s := &http.Server{
		Handler:           guard(h),
		ConnContext:       connContext(allow),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerDeadline,
		MaxHeaderBytes:    16 << 10,
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainDeadline)
	defer cancel()
	if err := s.Shutdown(drain); err != nil {
		s.Close()
	}
	<-done
	return nil
}
