package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatewayd/vmimage/control"
)

// Accelerators that a Config may ask for.
const (
	KVM = "kvm"
	TCG = "tcg" // emulation: slow, and works everywhere
)

// Machine types that a Config may ask for. Microvm has no PCI bus and boots fastest.
const (
	Microvm = "microvm"
	Q35     = "q35"
)

// attempt is one way to boot.
type attempt struct {
	machine, accel string
	life           time.Duration // until the kernel's first word on the console
	up             time.Duration // until the init reports
}

// attempts are the ways to boot, best first. A kernel under KVM speaks within a second; one that does not never will,
// which is how KVM inside some virtual machines fails. An emulated microvm may hang where its clock is calibrated.
func attempts(accel, kind string, kvmWorks func() bool) []attempt {
	var list []attempt
	if accel == KVM || accel == "" && kvmWorks() {
		list = append(list, attempt{Microvm, KVM, 4 * time.Second, 20 * time.Second})
	}
	if accel == KVM || kind == Q35 && len(list) > 0 {
		list = append(list, attempt{Q35, KVM, 8 * time.Second, 30 * time.Second})
	}
	if accel != KVM {
		list = append(list, attempt{Microvm, TCG, 15 * time.Second, 40 * time.Second}, attempt{Q35, TCG, 30 * time.Second, 90 * time.Second})
	}
	return slices.DeleteFunc(list, func(a attempt) bool { return kind != "" && a.machine != kind })
}

// arguments is QEMU's command line. The control port is descriptor 3, the console its standard input and output.
func (c Config) arguments(a attempt) []string {
	bus := "pci"
	if a.machine == Microvm {
		bus = "device"
	}
	cpu := "max"
	if a.accel == KVM {
		cpu = "host"
	}
	accel := a.accel
	if accel == TCG {
		// With a thread for each CPU, QEMU before 8.1 translates code that another CPU is writing, and keeps what it read
		// (its commit deba78709a): kernels that patch themselves for a static key then die of a breakpoint that is long gone.
		accel += ",thread=single"
	}
	args := []string{
		"-M", a.machine, "-accel", accel, "-cpu", cpu, "-m", strconv.Itoa(c.MemoryMiB), "-smp", strconv.Itoa(max(1, c.CPUs)),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", c.Kernel.Image, "-initrd", c.Initrd, "-append", c.commandLine(a),
		"-chardev", "stdio,id=console,signal=off,mux=" + onOff(c.Escape), "-serial", "chardev:console",
		"-chardev", "socket,id=control,fd=3", "-device", "virtio-serial-" + bus,
		"-device", "virtserialport,chardev=control,name=" + control.PortName,
	}
	for i, card := range c.Cards {
		id := "net" + strconv.Itoa(i)
		tap := "tap,id=" + id + ",script=no,downscript=no,ifname=" + card.Tap + ",vnet_hdr=" + onOff(card.VnetHdr)
		if card.Queues > 1 {
			tap += ",queues=" + strconv.Itoa(card.Queues)
		}
		args = append(args, "-netdev", tap, "-device", card.device(bus, id))
	}
	return args
}

// device is the card as the guest sees it.
func (c Card) device(bus, id string) string {
	card := "virtio-net-" + bus + ",netdev=" + id + ",mac=" + c.MAC.String()
	if bus == "pci" {
		card += ",romfile=" // nothing boots from the network
	}
	if c.Queues > 1 {
		card += ",mq=on"
	}
	if c.Queues > 1 && bus == "pci" {
		card += ",vectors=" + strconv.Itoa(2*c.Queues+2) // one for each way of each, the control queue's, the configuration's
	}
	if !c.Offload {
		card += ",csum=off,gso=off,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off," +
			"host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,mrg_rxbuf=off"
	}
	return card
}

// commandLine is the kernel's. A restart ends the VM, and triple faults restart every machine. Files of the archive live
// in a ramfs since a tmpfs would be full at half the memory.
func (c Config) commandLine(a attempt) string {
	words := []string{"console=ttyS0", "panic=-1", "reboot=t", "rootfstype=ramfs"}
	if a.accel == TCG {
		// The kernel panics when the timer's interrupts come late, as they do where the emulator waits for a CPU.
		words = append(words, "no_timer_check")
	}
	if a.machine == Microvm && a.accel == TCG {
		// An emulated microvm has nothing to measure its clock by; the emulated clock is the host's.
		words = append(words, "tsc_early_khz="+strconv.Itoa(hostClock("/proc/cpuinfo")))
	}
	words = append(words, "rdinit=/"+c.Init[0], "--")
	return strings.Join(append(words, c.Init[1:]...), " ")
}

// defaultClock is in kHz; a kernel that finds it wrong falls back to counting ticks.
const defaultClock = 2_000_000

// hostClock is the host's clock rate in kHz, as far as it tells.
func hostClock(cpuinfo string) int {
	text, err := os.ReadFile(cpuinfo)
	if err != nil {
		return defaultClock
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) != "cpu MHz" {
			continue
		}
		if mhz, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil && mhz > 100 && mhz < 20_000 {
			return int(mhz * 1000)
		}
	}
	return defaultClock
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// probeDeadline bounds the probe, which takes a tenth of a second.
const probeDeadline = 3 * time.Second

// kvmWorks runs a program of three instructions under KVM, which ends QEMU with a known exit code: a /dev/kvm that can
// be opened may still run nothing.
func kvmWorks(ctx context.Context, program string) bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	dir, err := os.MkdirTemp("", "gatewayd-kvm")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	rom := filepath.Join(dir, "rom")
	if err := os.WriteFile(rom, probeROM(), 0o600); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeDeadline)
	defer cancel()
	err = exec.CommandContext(ctx, program, "-M", Q35, "-accel", KVM, "-m", "16", "-nodefaults", "-no-user-config", "-display", "none",
		"-bios", rom, "-device", "isa-debug-exit,iobase=0xf4,iosize=4").Run()
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == probeValue<<1|1
}

const probeValue = 0x10

// probeROM is 64 KiB of hlt with the program at the reset vector, 16 bytes before the end: mov al, value; out 0xf4, al.
func probeROM() []byte {
	rom := make([]byte, 64<<10)
	for i := 0; i < len(rom); i += 4 {
		binary.LittleEndian.PutUint32(rom[i:], 0xf4f4f4f4)
	}
	copy(rom[len(rom)-16:], []byte{0xb0, probeValue, 0xe6, 0xf4})
	return rom
}

// String is "microvm under tcg".
func (a attempt) String() string { return fmt.Sprintf("%s under %s", a.machine, a.accel) }
