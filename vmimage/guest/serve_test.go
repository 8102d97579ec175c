package guest

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gatewayd/lab/privileged"
	"gatewayd/vmimage/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is the other end of a session's control port.
type host struct {
	t    *testing.T
	conn net.Conn
	in   *control.Reader
	done chan error // what serve returned
}

func newHost(t *testing.T, env ...string) *host {
	t.Helper()
	ours, theirs := net.Pipe()
	h := &host{t: t, conn: ours, in: control.NewReader(ours), done: make(chan error, 1)}
	if err := ours.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &session{out: theirs, env: append([]string{"PATH=" + os.Getenv("PATH")}, env...)}
	go func() { h.done <- s.serve(ctx, control.NewReader(theirs)) }()
	t.Cleanup(func() {
		stop()
		ours.Close()
		theirs.Close()
	})
	return h
}

func (h *host) send(m control.Message) {
	h.t.Helper()
	if err := control.Write(h.conn, m); err != nil {
		h.t.Fatal(err)
	}
}

// ended reads until the program has ended, and returns that message and what it wrote.
func (h *host) ended(id uint32) (end control.Message, out, errOut string) {
	h.t.Helper()
	for {
		m, err := h.in.Read()
		if err != nil {
			h.t.Fatal(err)
		}
		switch {
		case m.ID != id:
			h.t.Fatalf("a message of run %d: %+v", m.ID, m)
		case m.Kind == control.Exit:
			return m, out, errOut
		case m.Kind == control.Stdout:
			out += string(m.Data)
		case m.Kind == control.Stderr:
			errOut += string(m.Data)
		}
	}
}

// TestRun: programs get the bottle's environment and their own, and how they end is told as a shell would.
func TestRun(t *testing.T) {
	privileged.Require(t, privileged.Program("sh"))
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, "BOTTLE=b")
	for i, c := range []struct {
		argv     []string
		env      []string
		code     int
		out, err string
		text     string
	}{
		{[]string{"sh", "-c", "echo $BOTTLE$OWN; pwd"}, []string{"OWN=o"}, 0, "bo\n" + dir + "\n", "", ""},
		{[]string{"sh", "-c", "echo wrong >&2; exit 3"}, nil, 3, "", "wrong\n", ""},
		{[]string{"sh", "-c", "kill -TERM $$"}, nil, 128 + 15, "", "", ""},
		{[]string{"no-such-program"}, nil, 127, "", "", "no-such-program"},
		{[]string{plain}, nil, 126, "", "", "permission denied"},
		{nil, nil, 127, "", "", "no program named"},
	} {
		id := uint32(i + 1)
		h.send(control.Message{Kind: control.Run, ID: id, Argv: c.argv, Env: c.env, Dir: dir})
		end, out, errOut := h.ended(id)
		if end.Code != c.code || out != c.out || errOut != c.err || !strings.Contains(end.Text, c.text) || (end.Text == "") != (c.text == "") {
			t.Errorf("%q: %+v, %q, %q", c.argv, end, out, errOut)
		}
	}
	h.send(control.Message{Kind: control.Off})
	if err := <-h.done; err != nil {
		t.Error(err)
	}
}

// TestRunWritesMuch: what a program writes is cut into messages that fit, and none is lost.
func TestRunWritesMuch(t *testing.T) {
	privileged.Require(t, privileged.Program("sh", "head"))
	h := newHost(t)
	h.send(control.Message{Kind: control.Run, ID: 1, Argv: []string{"sh", "-c", "head -c 300000 /dev/zero"}, Dir: "/"})
	end, out, _ := h.ended(1)
	if end.Code != 0 || out != strings.Repeat("\x00", 300_000) {
		t.Errorf("%+v, %d bytes", end, len(out))
	}
}

// TestHostGone: a host that closes the port ends the guest, and one that says what is no message as well.
func TestHostGone(t *testing.T) {
	h := newHost(t)
	h.conn.Close()
	if err := <-h.done; err != nil {
		t.Errorf("closed: %v", err)
	}
	h = newHost(t)
	if _, err := io.WriteString(h.conn, "no message\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-h.done; err == nil {
		t.Error("what is no message was taken")
	}
}

// TestProgramsEndWithTheGuest: a program that runs on is ended when the guest is.
func TestProgramsEndWithTheGuest(t *testing.T) {
	privileged.Require(t, privileged.Program("sleep"))
	ctx, stop := context.WithCancel(context.Background())
	var wire bytes.Buffer
	s := &session{out: &wire, env: []string{"PATH=" + os.Getenv("PATH")}}
	ended := make(chan struct{})
	go func() {
		s.run(ctx, control.Message{Kind: control.Run, ID: 1, Argv: []string{"sleep", "600"}, Dir: "/"})
		close(ended)
	}()
	stop()
	<-ended
	if m, err := control.NewReader(&wire).Read(); err != nil || m.Kind != control.Exit || m.Code == 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestOpenPort: the port is found by its name among others.
func TestOpenPort(t *testing.T) {
	class, dev := t.TempDir(), t.TempDir()
	for port, name := range map[string]string{"vport0p1": "org.other\n", "vport1p2": control.PortName + "\n"} {
		if err := os.MkdirAll(filepath.Join(class, port), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{filepath.Join(class, port, "name"), filepath.Join(dev, port)} {
			if err := os.WriteFile(f, []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	f, err := openPort(class, dev)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Name() != filepath.Join(dev, "vport1p2") {
		t.Errorf("opened %s", f.Name())
	}
}

// TestLoadModules: no modules are no error, and what is no module is named.
func TestLoadModules(t *testing.T) {
	dir := t.TempDir()
	if err := loadModules(dir); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "000-bad.ko"), []byte("no module"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := loadModules(dir); err == nil || !strings.Contains(err.Error(), "000-bad.ko") {
		t.Errorf("got %v", err)
	}
}

// TestNotAVM: started by hand the init refuses.
func TestNotAVM(t *testing.T) {
	if code := Main([]string{"/gatewayd", "vm-init"}, nil); code != 2 {
		t.Errorf("exit code %d", code)
	}
}
