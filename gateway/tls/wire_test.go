package tls

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// pair returns both ends of a TCP connection.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// wireOver returns a Wire over conn that fails the test if it cannot be made.
func wireOver(t *testing.T, conn *net.TCPConn, records bool, first []byte, in, out *atomic.Int64) *Wire {
	t.Helper()
	w, err := NewWire(conn, new(WireBuffers), records, first, in, out)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestWireGivesOneRecord sends records of all sizes in pieces that are cut anywhere, some of them read beforehand, and looks
// that no Read crosses the end of one and that no byte is lost or counted twice.
func TestWireGivesOneRecord(t *testing.T) {
	near, far := pair(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	ends := map[int]bool{}
	for _, size := range []int{0, 1, 5, 100, 16384, 16640, 65535, 3, 0, 0, 40000, 7} {
		stream = append(stream, 23, 3, 3, byte(size>>8), byte(size))
		for range size {
			stream = append(stream, byte(rnd.Uint32()))
		}
		ends[len(stream)] = true
	}
	const before = 7
	go func() {
		for rest := stream[before:]; len(rest) > 0; {
			n := min(len(rest), 1+int(rnd.Uint32N(9000)))
			far.Write(rest[:n])
			rest = rest[n:]
		}
		far.Close()
	}()
	var in, out atomic.Int64
	w := wireOver(t, near, true, bytes.Clone(stream[:before]), &in, &out)
	var got []byte
	for buf := make([]byte, 20000); ; {
		n, err := w.Read(buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for at := len(got) + 1; at < len(got)+n; at++ {
			if ends[at] {
				t.Fatalf("a read of %d bytes at %d crosses the end of a record at %d", n, len(got), at)
			}
		}
		got = append(got, buf[:n]...)
	}
	if !bytes.Equal(got, stream) || in.Load() != int64(len(stream)) {
		t.Errorf("read %d bytes and counted %d, want %d", len(got), in.Load(), len(stream))
	}
	if w.buf != nil {
		t.Error("a buffer is held with nothing in it")
	}
}

// TestWireQuiet shows what is told of a connection that nobody reads.
func TestWireQuiet(t *testing.T) {
	for name, act := range map[string]func(far *net.TCPConn){
		"bytes": func(far *net.TCPConn) { far.Write([]byte{21}) },
		"end":   func(far *net.TCPConn) { far.Close() },
		"reset": func(far *net.TCPConn) { far.SetLinger(0); far.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			w := wireOver(t, near, true, nil, nil, nil)
			if !w.Quiet() || w.buf != nil {
				t.Fatal("a connection over which nothing came is not quiet, or holds a buffer")
			}
			near.SetReadDeadline(time.Unix(1, 0)) // an old deadline does not matter
			if !w.Quiet() {
				t.Error("it is not quiet once its deadline has passed")
			}
			act(far)
			for end := time.Now().Add(20 * time.Second); w.Quiet(); {
				if time.Now().After(end) {
					t.Fatal("it is still quiet")
				}
			}
		})
	}
}

// TestWireReady shows when a record is said to be there: once all of it came, and for a read that gives it whole.
func TestWireReady(t *testing.T) {
	near, far := pair(t)
	w := wireOver(t, near, true, nil, nil, nil)
	near.SetReadDeadline(time.Unix(1, 0)) // looking does not wait, so that an old deadline does not matter
	first, second := []byte{23, 3, 3, 0, 2, 'a', 'b'}, []byte{23, 3, 3, 0, 1, 'c'}
	if w.Ready() || w.buf != nil {
		t.Fatal("a record is ready where nothing came, or a buffer is held")
	}
	far.Write(first[:6])
	for end := time.Now().Add(20 * time.Second); w.w < 6; w.Ready() {
		if time.Now().After(end) {
			t.Fatal("what came is not seen")
		}
	}
	if w.Ready() {
		t.Error("a part of a record is ready")
	}
	far.Write(append(first[6:], second...))
	for end := time.Now().Add(20 * time.Second); !w.Ready(); {
		if time.Now().After(end) {
			t.Fatal("a whole record is not ready")
		}
	}
	got := make([]byte, 20)
	if n, err := w.Read(got); err != nil || string(got[:n]) != string(first) {
		t.Errorf("%q, %v", got[:n], err)
	}
	far.Close()
	for end := time.Now().Add(20 * time.Second); !w.Ready() || w.w-w.r < len(second); {
		if time.Now().After(end) {
			t.Fatal("the second record is not ready")
		}
	}
	if n, err := w.Read(got); err != nil || string(got[:n]) != string(second) {
		t.Errorf("%q, %v", got[:n], err)
	}
	if w.Ready() {
		t.Error("a record is ready behind the end")
	}
	near.SetReadDeadline(time.Time{})
	if _, err := w.Read(got); err != io.EOF {
		t.Errorf("behind the end: %v", err)
	}
}

// TestWireAwaitsARecord waits for a record that comes in two parts, until a deadline, and at the end.
func TestWireAwaitsARecord(t *testing.T) {
	near, far := pair(t)
	w := wireOver(t, near, true, nil, nil, nil)
	record := []byte{23, 3, 3, 0, 2, 'a', 'b'}
	far.Write(record[:3])
	near.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if err := w.AwaitWhole(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("waiting for the rest of a record ended with %v", err)
	}
	near.SetReadDeadline(time.Time{})
	go func() {
		time.Sleep(10 * time.Millisecond)
		far.Write(record[3:])
	}()
	if err := w.AwaitWhole(); err != nil || !w.Whole() {
		t.Fatalf("%v, whole %v", err, w.Whole())
	}
	if n, err := w.Read(make([]byte, 20)); err != nil || n != len(record) {
		t.Errorf("%d bytes, %v", n, err)
	}
	far.Close()
	if err := w.AwaitWhole(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// TestWireDeadline shows that a deadline ends a Read, which can be tried again, and that waiting holds no buffer.
func TestWireDeadline(t *testing.T) {
	near, far := pair(t)
	w := wireOver(t, near, true, nil, nil, nil)
	w.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := w.Read(make([]byte, 8)); !errors.Is(err, os.ErrDeadlineExceeded) || w.buf != nil {
		t.Fatalf("got %v, buffer held: %v", err, w.buf != nil)
	}
	w.SetReadDeadline(time.Time{})
	far.Write([]byte{23, 3, 3, 0, 1, 'a'})
	if n, err := w.Read(make([]byte, 8)); n != 6 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestWireAwaits shows that waiting ends with the first byte, a deadline or the end, holds no buffer and loses nothing.
func TestWireAwaits(t *testing.T) {
	near, far := pair(t)
	w := wireOver(t, near, true, nil, nil, nil)
	w.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if err := w.Await(); !errors.Is(err, os.ErrDeadlineExceeded) || w.buf != nil {
		t.Fatalf("got %v, buffer held: %v", err, w.buf != nil)
	}
	w.SetReadDeadline(time.Time{})
	far.Write([]byte{23, 3, 3, 0, 1, 'a'})
	for range 2 { // the second time it is there already
		if err := w.Await(); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := w.Read(make([]byte, 8)); n != 6 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	far.Close()
	if err := w.Await(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v at the end", err)
	}
}

// TestWireBeneathTLS carries a megabyte each way.
func TestWireBeneathTLS(t *testing.T) {
	near, far := pair(t)
	ca := openCA(t, t.TempDir())
	config, err := ca.ServerConfig("a.test", nil)
	if err != nil {
		t.Fatal(err)
	}
	server := tls.Server(wireOver(t, far, true, nil, nil, nil), config)
	client := tls.Client(wireOver(t, near, true, nil, nil, nil), &tls.Config{InsecureSkipVerify: true, ServerName: "a.test"})
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		io.Copy(server, io.LimitReader(server, int64(len(content))))
		server.Close()
	}()
	go client.Write(content)
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("read %d bytes of %d, %v", len(got), len(content), err)
	}
}

// TestWireGathers writes TLS records together, with a failure among them and after them.
func TestWireGathers(t *testing.T) {
	near, far := pair(t)
	var out atomic.Int64
	w := wireOver(t, near, true, nil, nil, &out)
	records := [][]byte{bytes.Repeat([]byte("a"), 16406), bytes.Repeat([]byte("b"), 16406), []byte("c"), bytes.Repeat([]byte("d"), 3*wireBuffer), bytes.Repeat([]byte("e"), wireBuffer-1), []byte("fg")}
	fault := errors.New("fault")
	go func() {
		for _, want := range []error{nil, fault} {
			err := w.Gather(func() error {
				for i, r := range records {
					if n, err := w.Write(r); n != len(r) || err != nil {
						t.Errorf("record %d: wrote %d, %v", i, n, err)
					}
				}
				if sent := out.Load(); want == nil && sent != int64(3*wireBuffer+16406*2+1+wireBuffer-1) {
					t.Errorf("%d bytes have left before the end: neither gathered nor as many as there is no room for", sent)
				}
				return want
			})
			if !errors.Is(err, want) {
				t.Errorf("Gather returned %v, want %v", err, want)
			}
		}
		w.Write([]byte("!"))
		w.Close()
	}()
	got, err := io.ReadAll(far)
	once := bytes.Join(records, nil)
	if want := append(append(bytes.Clone(once), once...), '!'); err != nil || !bytes.Equal(got, want) || out.Load() != int64(len(want)) {
		t.Errorf("read %d bytes of %d and counted %d, %v", len(got), len(want), out.Load(), err)
	}
	if err := w.Gather(func() error { _, err := w.Write([]byte("x")); return err }); err == nil {
		t.Error("what is gathered for a closed connection is lost without an error")
	}
}

// TestWireWritesAfterItsDeadline shows that a write deadline that has passed ends what has to wait for room, and nothing else.
func TestWireWritesAfterItsDeadline(t *testing.T) {
	near, far := pair(t)
	var out atomic.Int64
	w := wireOver(t, near, true, nil, nil, &out)
	w.SetWriteDeadline(time.Unix(1, 0))
	if n, err := w.Write([]byte("there is room")); n != 13 || err != nil || out.Load() != 13 {
		t.Errorf("wrote %d bytes of 13 and counted %d, %v", n, out.Load(), err)
	}
	for piece, end := make([]byte, 64<<10), time.Now().Add(20*time.Second); ; {
		n, err := w.Write(piece)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if n == len(piece) {
				t.Error("a write that failed has written everything")
			}
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("wrote without end, %v", err)
		}
	}
	far.Close()
	w.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for range 100 {
		if _, err := w.Write([]byte("nobody is there")); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("writing to a closed connection does not fail")
}
