package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"gatewayd/lab"
	"gatewayd/lab/privileged"
	"gatewayd/vmimage/control"
)

// fakeVariable says how the stand-in for QEMU behaves before a program is run: "dead", "failed", or as a VM that is up.
const fakeVariable = "GATEWAYD_FAKE_QEMU"

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
		case "hang":
			if err := os.WriteFile(m.Argv[1], nil, 0o600); err != nil {
				return err
			}
			continue
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

// TestVMRun is vm run as its users meet it, with a stand-in for QEMU and a tap that is none.
func TestVMRun(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.Program("unshare", "ip"))
	testscript.Run(t, testscript.Params{
		Dir: "testdata/vm",
		Setup: func(e *testscript.Env) error {
			return os.Mkdir(filepath.Join(e.WorkDir, "empty"), 0o700)
		},
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"await": await, "exits": exits, "static": static},
		RequireExplicitExec: true,
	})
}
