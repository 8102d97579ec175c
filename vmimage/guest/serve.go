package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gatewayd/vmimage"
	"gatewayd/vmimage/control"
)

// portDeadline is how long the control port may take to appear.
const portDeadline = 10 * time.Second

// work sets the guest up and serves the control port until the host says off or closes it.
func work() error {
	port, err := openPort("/sys/class/virtio-ports", "/dev")
	if err != nil {
		return err
	}
	defer port.Close()
	s := &session{out: port}
	if err := s.prepare(vmimage.DefaultAt); err != nil {
		return errors.Join(err, s.say(control.Message{Kind: control.Failed, Text: err.Error()}))
	}
	if err := s.say(control.Message{Kind: control.Hello}); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	return s.serve(ctx, control.NewReader(port))
}

// openPort finds the port by its name, since numbers differ between machines.
func openPort(class, dev string) (*os.File, error) {
	name, err := await(portDeadline, func() (string, error) {
		files, err := filepath.Glob(filepath.Join(class, "*", "name"))
		if err != nil {
			return "", err
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err == nil && strings.TrimSpace(string(text)) == control.PortName {
				return filepath.Base(filepath.Dir(f)), nil
			}
		}
		return "", fs.ErrNotExist
	})
	if err != nil {
		return nil, fmt.Errorf("find control port: %w", err)
	}
	return os.OpenFile(filepath.Join(dev, name), os.O_RDWR, 0)
}

// session is the guest's end of the control port.
type session struct {
	env []string

	mu  sync.Mutex // one message at a time
	out io.Writer
}

func (s *session) say(m control.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return control.Write(s.out, m)
}

// prepare sets up the network and reads the environment. A VM that is no bottle has no guest files, and its network is what
// the programs in it make of it.
func (s *session) prepare(dir string) error {
	s.env = []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/root", "LANG=C.UTF-8", "TERM=linux"}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return os.Setenv("PATH", strings.TrimPrefix(s.env[0], "PATH="))
	}
	n, err := readNetwork(dir)
	if err != nil {
		return err
	}
	if err := n.setUp("/etc"); err != nil {
		return err
	}
	env, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(env)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			s.env = append(s.env, line)
		}
	}
	for _, e := range s.env { // programs are looked up with this process's PATH
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			if err := os.Setenv("PATH", path); err != nil {
				return err
			}
		}
	}
	return nil
}

// serve runs programs, each beside the others, until the host has had enough.
func (s *session) serve(ctx context.Context, in *control.Reader) error {
	for {
		m, err := in.Read()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case m.Kind == control.Off:
			return nil
		case m.Kind == control.Run:
			go s.run(ctx, m)
		}
	}
}

// run runs one program and says how it ended.
func (s *session) run(ctx context.Context, m control.Message) {
	end := control.Message{Kind: control.Exit, ID: m.ID}
	if len(m.Argv) == 0 {
		end.Code, end.Text = 127, "no program named"
	} else {
		end.Code, end.Text = s.program(ctx, m)
	}
	_ = s.say(end) // a host that is gone needs no telling
}

func (s *session) program(ctx context.Context, m control.Message) (code int, text string) {
	cmd := exec.CommandContext(ctx, m.Argv[0], m.Argv[1:]...)
	cmd.Env = append(append([]string{}, s.env...), m.Env...)
	cmd.Dir = m.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/root"
	}
	if m.Console {
		console, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0)
		if err != nil {
			return 126, err.Error()
		}
		defer console.Close()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = console, console, console
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	} else {
		cmd.Stdout = &stream{s, control.Stdout, m.ID}
		cmd.Stderr = &stream{s, control.Stderr, m.ID}
	}
	err := cmd.Run()
	if m.Console {
		_ = unix.IoctlSetInt(int(cmd.Stdin.(*os.File).Fd()), unix.TCSBRK, 1) // tcdrain(3): nothing is left to come
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, ""
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), "" // as shells say it
		}
		return exit.ExitCode(), ""
	case errors.Is(err, fs.ErrPermission):
		return 126, err.Error()
	}
	return 127, err.Error()
}

// stream sends what a program writes.
type stream struct {
	s    *session
	kind control.Kind
	id   uint32
}

// Write cuts p into messages.
func (w *stream) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part := p[:min(len(p), control.MaxData)]
		if err := w.s.say(control.Message{Kind: w.kind, ID: w.id, Data: bytes.Clone(part)}); err != nil {
			return n - len(p), err
		}
		p = p[len(part):]
	}
	return n, nil
}
