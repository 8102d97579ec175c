package admin

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/sys/unix"
)

// Peer is who is at the other end of a unix socket, as the kernel noted it at connect(2) (SO_PEERCRED, unix(7)).
type Peer struct {
	PID      int32
	UID, GID uint32
}

// Operator allows root and the user that the daemon itself runs as, uid.
func Operator(uid int) func(Peer) bool {
	return func(p Peer) bool { return p.UID == 0 || p.UID == uint32(uid) }
}

// peerOf asks the kernel who connected c, which must be a unix stream socket.
func peerOf(c net.Conn) (Peer, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return Peer{}, fmt.Errorf("ask for peer credentials: %T is no unix socket", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var optErr error
	if err := raw.Control(func(fd uintptr) { cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return Peer{}, err
	}
	if optErr != nil {
		return Peer{}, fmt.Errorf("ask for peer credentials: %w", optErr)
	}
	return Peer{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid}, nil
}

// verdict is what connContext leaves for guard: the zero value refuses.
type verdict struct {
	allowed bool
	why     string
}

type verdictKey struct{}

// connContext judges each connection once, when it is accepted.
func connContext(allow func(Peer) bool) func(context.Context, net.Conn) context.Context {
	return func(ctx context.Context, c net.Conn) context.Context {
		v := verdict{}
		switch p, err := peerOf(c); {
		case err != nil:
			v.why = err.Error()
		case allow(p):
			v.allowed = true
		default:
			v.why = fmt.Sprintf("uid %d may not use this socket; run the command as root or as the daemon's user", p.UID)
		}
		return context.WithValue(ctx, verdictKey{}, v)
	}
}

// guard answers 403 on connections that were not allowed.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, _ := r.Context().Value(verdictKey{}).(verdict)
		if !v.allowed {
			http.Error(w, v.why, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
