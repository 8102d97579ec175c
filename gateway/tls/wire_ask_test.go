package tls

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// waitArrived waits until something that nobody has read, or an end, has come to conn.
func waitArrived(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		come := false
		if err := raw.Control(func(fd uintptr) {
			_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			come = !errors.Is(err, syscall.EAGAIN)
		}); err != nil {
			t.Fatal(err)
		}
		if come {
			return
		}
	}
	t.Error("nothing arrived")
}

// TestWireAsks has an answer come at every point: before the wait for it begins, so that nothing comes while it waits, and after. Each
// is read, whatever came and was read before.
func TestWireAsks(t *testing.T) {
	near, far := pair(t)
	w := wireOver(t, near, false, nil, nil, nil)
	answer := func(b byte) {
		if _, err := far.Write([]byte{b}); err != nil {
			t.Error(err)
		}
	}
	ways := []func(b byte){
		func(b byte) { answer(b); waitArrived(t, near) },
		func(b byte) { go answer(b) },
		func(b byte) { time.AfterFunc(time.Millisecond, func() { answer(b) }) },
		func(b byte) { answer(b) },
	}
	near.SetReadDeadline(time.Now().Add(20 * time.Second))
	for i := range 400 {
		b, said := byte(i), false
		asked, err := w.Ask(func() error {
			said = true
			ways[i%len(ways)](b)
			return nil
		})
		if !asked || !said || err != nil {
			t.Fatalf("exchange %d: asked %v, said %v, %v", i, asked, said, err)
		}
		var got [2]byte
		if n, err := w.Read(got[:]); n != 1 || got[0] != b || err != nil {
			t.Fatalf("exchange %d: read %q, %v; want %q", i, got[:n], err, b)
		}
	}
}

// TestWireAsksNobodyWhoSpoke shows that nothing is said to a peer that has said something, or has left.
func TestWireAsksNobodyWhoSpoke(t *testing.T) {
	for name, act := range map[string]func(far *net.TCPConn){
		"bytes":       func(far *net.TCPConn) { far.Write([]byte{21}) },
		"end":         func(far *net.TCPConn) { far.Close() },
		"reset":       func(far *net.TCPConn) { far.SetLinger(0); far.Close() },
		"half an end": func(far *net.TCPConn) { far.CloseWrite() },
	} {
		for _, noted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, noted %v", name, noted), func(t *testing.T) {
				near, far := pair(t)
				w := wireOver(t, near, true, nil, nil, nil)
				act(far)
				waitArrived(t, near)
				if noted && w.Quiet() {
					t.Fatal("it is quiet")
				}
				asked, err := w.Ask(func() error { t.Error("it was asked"); return nil })
				if asked {
					t.Errorf("asked, %v", err)
				}
			})
		}
	}
}

// TestWireAskFails shows what is told when no answer comes, or the question does not leave.
func TestWireAskFails(t *testing.T) {
	refused := errors.New("refused")
	for name, tt := range map[string]struct {
		say  func(near, far *net.TCPConn) error
		want error
	}{
		"end":            {func(_, far *net.TCPConn) error { return far.CloseWrite() }, io.EOF},
		"reset":          {func(_, far *net.TCPConn) error { far.SetLinger(0); return far.Close() }, syscall.ECONNRESET},
		"deadline":       {func(near, _ *net.TCPConn) error { return near.SetReadDeadline(time.Now().Add(time.Millisecond)) }, os.ErrDeadlineExceeded},
		"the own end":    {func(near, _ *net.TCPConn) error { go near.Close(); return nil }, net.ErrClosed},
		"not even asked": {func(_, _ *net.TCPConn) error { return refused }, refused},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			w := wireOver(t, near, true, nil, nil, nil)
			asked, err := w.Ask(func() error { return tt.say(near, far) })
			if !asked || !errors.Is(err, tt.want) {
				t.Errorf("asked %v, %v; want %v", asked, err, tt.want)
			}
			if w.buf != nil {
				t.Error("a buffer is held with nothing in it")
			}
		})
	}
}
