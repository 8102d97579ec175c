package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatewayd/vmimage/control"
)

func TestWaysToBoot(t *testing.T) {
	yes, no := func() bool { return true }, func() bool { return false }
	for _, c := range []struct {
		accel, kind string
		works       func() bool
		want        string
	}{
		{"", "", yes, "microvm under kvm, microvm under tcg, q35 under tcg"},
		{"", "", no, "microvm under tcg, q35 under tcg"},
		{TCG, "", yes, "microvm under tcg, q35 under tcg"},
		{KVM, "", no, "microvm under kvm, q35 under kvm"},
		{"", Q35, yes, "q35 under kvm, q35 under tcg"},
		{"", Q35, no, "q35 under tcg"},
		{KVM, Q35, no, "q35 under kvm"},
		{TCG, Microvm, yes, "microvm under tcg"},
	} {
		var got []string
		for _, a := range attempts(c.accel, c.kind, c.works) {
			got = append(got, a.String())
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%q, %q: %s", c.accel, c.kind, s)
		}
	}
}

func TestArguments(t *testing.T) {
	c := Config{Cards: []Card{{Tap: "gw-x", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, VnetHdr: true, Offload: true}}, MemoryMiB: 512, Init: []string{"gatewayd", "vm-init"}}
	pci := c.arguments(attempt{machine: Q35, accel: TCG})
	if !slices.Contains(pci, "virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01,romfile=") || !slices.Contains(pci, "tap,id=net0,script=no,downscript=no,ifname=gw-x,vnet_hdr=on") {
		t.Errorf("%q", pci)
	}
	if i := slices.Index(pci, "-append"); strings.Contains(pci[i+1], "tsc_early_khz") || !strings.HasSuffix(pci[i+1], "rdinit=/gatewayd -- vm-init") {
		t.Errorf("%q", pci[i+1])
	}
	c.Cards[0].Offload, c.Cards[0].VnetHdr = false, false
	plain := strings.Join(c.arguments(attempt{machine: Microvm, accel: TCG}), " ")
	for _, want := range []string{"-accel tcg,thread=single ", "virtio-net-device", "guest_tso4=off", "vnet_hdr=off", "tsc_early_khz="} {
		if !strings.Contains(plain, want) {
			t.Errorf("no %s in %s", want, plain)
		}
	}
	c.Cards[0].Queues = 2
	if many := strings.Join(c.arguments(attempt{machine: Q35, accel: TCG}), " "); !strings.Contains(many, ",queues=2 ") || !strings.Contains(many, ",mq=on,vectors=6") {
		t.Errorf("two queues: %s", many)
	}
	c.Cards = nil
	if none := strings.Join(c.arguments(attempt{machine: Microvm, accel: TCG}), " "); strings.Contains(none, "virtio-net") || strings.Contains(none, "-netdev") {
		t.Errorf("a card nobody asked for in %s", none)
	}
}

func TestHostClock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cpuinfo")
	for text, want := range map[string]int{"cpu MHz\t\t: 2300.000\n": 2_300_000, "cpu MHz : no\n": defaultClock, "": defaultClock, "cpu MHz: 1e30\n": defaultClock} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := hostClock(name); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// TestSession plays the guest: output and exit status come through, what was not asked for is passed over, and the end
// of the port ends the programs.
func TestSession(t *testing.T) {
	host, guest := net.Pipe()
	defer guest.Close()
	s := newSession(host)
	go s.read(control.NewReader(host))
	go func() {
		in := control.NewReader(guest)
		for _, m := range []control.Message{{Kind: control.Stdout, ID: 9, Data: []byte("nobody asked")}, {Kind: control.Hello, Text: "x"}} {
			_ = control.Write(guest, m) // the host's end tells
		}
		m, err := in.Read()
		if err != nil {
			return
		}
		for _, m := range []control.Message{
			{Kind: control.Stdout, ID: m.ID, Data: []byte(m.Argv[0])}, {Kind: control.Stderr, ID: m.ID, Data: []byte("e")},
			{Kind: control.Exit, ID: m.ID, Code: 259}, {Kind: control.Exit, ID: m.ID, Code: 0},
		} {
			_ = control.Write(guest, m)
		}
		if _, err := in.Read(); err == nil {
			guest.Close()
		}
	}()
	if text := <-s.hello; text != "" {
		t.Errorf("hello: %q", text)
	}
	var out, errOut bytes.Buffer
	code, err := s.run(t.Context(), Command{Argv: []string{"prog"}}, &out, &errOut)
	if code != 3 || err != nil || out.String() != "prog" || errOut.String() != "e" {
		t.Errorf("%d, %v, %q, %q", code, err, out.String(), errOut.String())
	}
	var lost *lostError
	if code, err := s.run(t.Context(), Command{Argv: []string{"prog"}}, nil, nil); code != 127 || !errors.As(err, &lost) || !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %d, %v", code, err)
	}
	s.done.Wait()
}

func TestRunIsGivenUp(t *testing.T) {
	host, guest := net.Pipe()
	s := newSession(host)
	go s.read(control.NewReader(host))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if _, err := control.NewReader(guest).Read(); err == nil {
			cancel()
		}
	}()
	if code, err := s.run(ctx, Command{Argv: []string{"prog"}}, nil, nil); code != 127 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d, %v", code, err)
	}
	guest.Close()
	s.done.Wait()
}

func TestConsoleKeepsItsEnd(t *testing.T) {
	c := newConsole()
	var shown bytes.Buffer
	for _, text := range []string{strings.Repeat("a", consoleKept), "end"} {
		if n, err := c.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
		c.show(&shown)
	}
	<-c.alive
	if text := c.text(); len(text) != consoleKept || !strings.HasSuffix(text, "aend") || shown.String() != "end" {
		t.Errorf("%d bytes, shown %q", len(text), shown.String())
	}
}

// A screen that takes nothing holds up neither what is kept of the console, nor the VM's end once it is muted.
func TestConsoleThatIsStuck(t *testing.T) {
	c := newConsole()
	screen, far := io.Pipe() // nobody reads
	defer screen.Close()
	c.show(far)
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte("text"))
		wrote <- err
	}()
	<-c.alive
	if c.text() != "text" {
		t.Errorf("kept %q", c.text())
	}
	c.mute()
	c.mute()
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	c.show(far)
	if _, err := c.Write([]byte(" and more")); err != nil || c.text() != "text and more" {
		t.Errorf("%q, %v", c.text(), err)
	}
}
