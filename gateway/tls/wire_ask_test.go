package tls

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// asks has w keep what is written, in these pieces.
func asks(t *testing.T, w *Wire, pieces ...[]byte) {
	t.Helper()
	err := w.Ask(func() error {
		for _, p := range pieces {
			if n, err := w.Write(p); n != len(p) || err != nil {
				return errors.Join(io.ErrShortWrite, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWireAsks sends a question with the read of its answer, by Read and by Await: in one piece that there is room for, in more than the
// socket takes, and in more than is kept. The socket is read from once for each answer, and once more if a part was sent before.
func TestWireAsks(t *testing.T) {
	record := append([]byte{23, 3, 3, 0, 6}, "answer"...)
	for name, tt := range map[string]struct {
		pieces [][]byte
		early  bool // something leaves before the read
	}{
		"one piece":                  {[][]byte{[]byte("a question")}, false},
		"many":                       {[][]byte{[]byte("a "), []byte("ques"), []byte("tion")}, false},
		"more than the socket has":   {[][]byte{bytes.Repeat([]byte("q"), wireBuffer)}, false},
		"more than there is to keep": {[][]byte{bytes.Repeat([]byte("q"), wireBuffer-1), []byte("qq")}, true},
		"more than a buffer":         {[][]byte{bytes.Repeat([]byte("q"), 4*wireBuffer)}, true},
	} {
		for how, wait := range map[string]func(w *Wire) error{"Read": func(*Wire) error { return nil }, "Await": (*Wire).Await} {
			t.Run(name+", "+how, func(t *testing.T) {
				near, far := pair(t)
				near.SetWriteBuffer(1) // the kernel's least
				var out atomic.Int64
				w := wireOver(t, near, true, nil, nil, &out)
				var looks int
				take := w.take
				w.take = func(fd uintptr) bool { looks++; return take(fd) }
				question := bytes.Join(tt.pieces, nil)
				heard := make(chan error, 1)
				go func() {
					time.Sleep(10 * time.Millisecond)
					got := make([]byte, len(question))
					_, err := io.ReadFull(far, got)
					if !bytes.Equal(got, question) {
						err = errors.Join(err, errors.New("another question"))
					}
					heard <- err
					far.Write(record)
				}()
				asks(t, w, tt.pieces...)
				if (out.Load() > 0) != tt.early {
					t.Errorf("%d bytes have left before the read", out.Load())
				}
				if w.Quiet() && !tt.early {
					t.Error("a connection with a question to send is quiet")
				}
				looks = 0
				if err := wait(w); err != nil {
					t.Fatal(err)
				}
				answer := make([]byte, 100)
				n, err := w.Read(answer)
				if err != nil || !bytes.Equal(answer[:n], record) {
					t.Fatalf("read %q, %v", answer[:n], err)
				}
				if err := <-heard; err != nil || out.Load() != int64(len(question)) {
					t.Errorf("%d of %d bytes were sent: %v", out.Load(), len(question), err)
				}
				if len(question) < 100 && looks != 1 {
					t.Errorf("the socket was looked at %d times, want once, when something had come", looks)
				}
				if w.buf != nil || w.lent != nil {
					t.Error("a buffer is held with nothing in it")
				}
			})
		}
	}
}

// TestWireAsksInVain asks where the read cannot be what sends or waits.
func TestWireAsksInVain(t *testing.T) {
	heard := func(far io.Reader) string {
		p := make([]byte, 8)
		n, _ := io.ReadFull(far, p)
		return string(p[:n])
	}
	t.Run("the read deadline has passed", func(t *testing.T) {
		near, far := pair(t)
		w := wireOver(t, near, true, nil, nil, nil)
		w.SetReadDeadline(time.Unix(1, 0))
		asks(t, w, []byte("question"))
		if err := w.Await(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if got := heard(far); got != "question" {
			t.Errorf("the other side has heard %q", got)
		}
	})
	t.Run("something is buffered", func(t *testing.T) {
		near, far := pair(t)
		w := wireOver(t, near, true, []byte{23, 3, 3, 0, 1, 'a'}, nil, nil)
		asks(t, w, []byte("question"))
		if err := w.Await(); err != nil {
			t.Error(err)
		}
		if got := heard(far); got != "question" {
			t.Errorf("the other side has heard %q", got)
		}
	})
	t.Run("nobody reads", func(t *testing.T) {
		near, far := pair(t)
		w := wireOver(t, near, true, nil, nil, nil)
		asks(t, w, []byte("ques"))
		asks(t, w, []byte("tion")) // the one before leaves
		if err := errors.Join(w.Flush(), w.Flush()); err != nil {
			t.Error(err)
		}
		if got := heard(far); got != "question" {
			t.Errorf("the other side has heard %q", got)
		}
	})
	t.Run("something has come before", func(t *testing.T) {
		near, far := pair(t)
		w := wireOver(t, near, true, nil, nil, nil)
		far.Write([]byte{23, 3, 3, 0, 1, 'a'})
		for deadline := time.Now().Add(20 * time.Second); w.Quiet() && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		w.release()
		asks(t, w, []byte("question"))
		go func() {
			heard(far)
			far.Write([]byte{23, 3, 3, 0, 1, 'b'})
		}()
		var got []byte
		for p := make([]byte, 100); len(got) < 12; {
			n, err := w.Read(p)
			if err != nil {
				t.Fatalf("after %q: %v", got, err)
			}
			got = append(got, p[:n]...)
		}
	})
	t.Run("the connection has ended", func(t *testing.T) {
		near, far := pair(t)
		w := wireOver(t, near, true, nil, nil, nil)
		far.SetLinger(0)
		far.Close()
		for deadline := time.Now().Add(20 * time.Second); w.Quiet() && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		asks(t, w, []byte("question"))
		if n, err := w.Read(make([]byte, 8)); n > 0 || err == nil {
			t.Errorf("read %d bytes, %v", n, err)
		}
		w.Close()
		asks(t, w, []byte("question"))
		if err := w.Flush(); err == nil {
			t.Error("a question to a closed connection is lost without an error")
		}
	})
	t.Run("what asks fails", func(t *testing.T) {
		near, far := pair(t)
		w := wireOver(t, near, true, nil, nil, nil)
		fault := errors.New("fault")
		err := w.Ask(func() error { _, err := w.Write([]byte("question")); return errors.Join(fault, err) })
		if !errors.Is(err, fault) || w.asking {
			t.Errorf("got %v, and asks: %v", err, w.asking)
		}
		if got := heard(far); got != "question" {
			t.Errorf("the other side has heard %q", got)
		}
	})
}
