package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"gatewayd/lab"
	"gatewayd/lab/privileged"
	"gatewayd/vmimage/control"
)

// fakeVariable says how the stand-in for QEMU behaves before a program is run: "dead", "failed", or as a VM that is up.
const fakeVariable = "GATEWAYD_FAKE_QEMU"

// pipeHolds is what fits into a pipe (pipe(7)).
const pipeHolds = 64 << 10

// fakeQEMU stands in for QEMU and a guest that is up: it says what a guest's init says, and takes the command's first word
// for how the program ends.
func fakeQEMU() {
	if err := fakeGuest(); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "fake QEMU:", err)
		os.Exit(1)
	}
}

func fakeGuest() error {
	port, err := net.FileConn(os.NewFile(3, "control"))
	if err != nil {
		return err
	}
	fmt.Println("[    0.000000] Linux version of nobody")
	switch os.Getenv(fakeVariable) {
	case "dead":
		return errors.New("could not open the tap")
	case "failed":
		return control.Write(port, control.Message{Kind: control.Failed, Text: "find network card eth0"})
	}
	if err := control.Write(port, control.Message{Kind: control.Hello}); err != nil {
		return err
	}
	in := control.NewReader(port)
	for {
		m, err := in.Read()
		if err != nil || m.Kind == control.Off {
			return err
		}
		end := control.Message{Kind: control.Exit, ID: m.ID}
		switch m.Argv[0] {
		case "exit":
			if end.Code, err = strconv.Atoi(m.Argv[1]); err != nil {
				return err
			}
		case "say":
			fmt.Printf("on the console: %q\n", m.Argv[1:])
		case "missing":
			end.Code, end.Text = 127, "exec: \"missing\": not found\x1b[31m"
		case "die":
			return errors.New("the guest is gone")
		case "flood": // more than the two pipes to somebody who does not read can hold
			if _, err := os.Stdout.Write(make([]byte, 2*pipeHolds+1)); err != nil {
				return err
			}
			go func() { _, _ = os.Stdout.Write(make([]byte, pipeHolds)) }() // blocks
			fallthrough
		case "hang":
			if err := os.WriteFile(m.Argv[1], nil, 0o600); err != nil {
				return err
			}
			continue
		case "stay": // whatever becomes of the port
			if err := os.WriteFile(m.Argv[1], []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
				return err
			}
			time.Sleep(time.Minute)
			return nil
		}
		if err := control.Write(port, end); err != nil {
			return err
		}
	}
}

// static FILE builds the program such that it can be a VM's init.
func static(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: static FILE")
	}
	build := exec.Command("go", "build", "-o", ts.MkAbs(args[0]), "gatewayd/cmd/gatewayd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		ts.Fatalf("build gatewayd: %v\n%s", err, out)
	}
}

// await FILE waits until the file is there.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await FILE")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ts.Check(lab.Poll(ctx, func() error { _, err := os.Stat(filepath.Clean(ts.MkAbs(args[0]))); return err }))
}

// unread FILE PROGRAM [ARG ...] runs a program whose standard output goes into a pipe that nobody reads, and ends it by SIGTERM
// once the file is there. The program's exit code must be that of an interruption.
func unread(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: unread FILE PROGRAM [ARG ...]")
	}
	r, w, err := os.Pipe()
	ts.Check(err)
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, ts.MkAbs(args[1]), args[2:]...)
	cmd.Dir, cmd.Stdout = ts.MkAbs("."), w
	for _, key := range []string{"PATH", "WORK", "HOME", "TMPDIR"} {
		cmd.Env = append(cmd.Env, key+"="+ts.Getenv(key))
	}
	err = cmd.Start()
	w.Close()
	ts.Check(err)
	await(ts, false, args[:1])
	ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); ctx.Err() != nil || cmd.ProcessState.ExitCode() != exitInterrupted {
		ts.Fatalf("%v, and %v before it was killed", err, ctx.Err())
	}
}

// ends FILE waits until the process whose number the file holds has ended.
func ends(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ends FILE")
	}
	pid := strings.TrimSpace(ts.ReadFile(args[0]))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ts.Check(lab.Poll(ctx, func() error {
		stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		if _, state, _ := strings.Cut(string(stat), ") "); errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(state, "Z") {
			return nil
		}
		return fmt.Errorf("process %s runs: %s", pid, stat)
	}))
}

// TestVMRun is vm run as its users meet it, with a stand-in for QEMU and a tap that is none.
func TestVMRun(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.Program("unshare", "ip"))
	testscript.Run(t, testscript.Params{
		Dir: "testdata/vm",
		Setup: func(e *testscript.Env) error {
			return os.Mkdir(filepath.Join(e.WorkDir, "empty"), 0o700)
		},
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"await": await, "ends": ends, "exits": exits, "static": static, "unread": unread},
		RequireExplicitExec: true,
	})
}
