package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gatewayd/lab/privileged"
)

// monitor is how a virtual machine monitor opens a tap.
type monitor struct {
	name string
	// flags of TUNSETIFF besides IFF_TAP and IFF_NO_PI.
	flags uint16
	// header is what it sets by TUNSETVNETHDRSZ; 0 leaves the kernel's 10 bytes.
	header int
	// offload is what it sets by TUNSETOFFLOAD, negative if it does not.
	offload int
	// queues is how often it opens the tap; 0 is once.
	queues int
	// features says that it asks the kernel first what there is.
	features bool
}

const allOffloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_UFO

// monitors do what these programs' sources do: QEMU net/tap-linux.c, Firecracker
// src/vmm/src/devices/virtio/net/tap.rs, Cloud Hypervisor net_util/src/tap.rs and
// open_tap.rs, libkrun src/devices/src/virtio/net/tap.rs.
var monitors = []monitor{
	{name: "Firecracker", flags: unix.IFF_VNET_HDR, header: 12, offload: allOffloads},
	{name: "Cloud Hypervisor", flags: unix.IFF_VNET_HDR, header: 12, offload: unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6, features: true},
	{name: "Cloud Hypervisor without offload", flags: unix.IFF_VNET_HDR, header: 12, offload: 0, features: true},
	{name: "Cloud Hypervisor, two queue pairs", flags: unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE, header: 12, offload: allOffloads, queues: 2, features: true},
	{name: "libkrun", flags: unix.IFF_VNET_HDR, header: 12, offload: unix.TUN_F_CSUM | unix.TUN_F_TSO4},
	{name: "libkrun without offload", flags: unix.IFF_VNET_HDR, header: 12, offload: 0},
	{name: "QEMU", flags: unix.IFF_VNET_HDR, header: 12, offload: allOffloads, features: true},
	{name: "QEMU without offload", flags: unix.IFF_VNET_HDR, header: 10, offload: 0, features: true},
	{name: "QEMU, vnet_hdr=off", offload: -1, features: true},
	{name: "QEMU, queues=2", flags: unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE, header: 12, offload: allOffloads, queues: 2, features: true},
}

// bootAs opens the link's tap as the monitor does, as the tap's owner. Of several
// queues the machine uses the last; the first ones are read and thrown away.
func (s *stage) bootAs(l Link, v monitor) *machine {
	t := s.t
	t.Helper()
	dev, err := netlink.LinkByName(l.Name)
	must(t, err)
	m := &machine{t: t, link: l, host: dev.Attrs().HardwareAddr}
	for range max(v.queues, 1) {
		fd, err := v.open(l.Name, l.Owner)
		must(t, err)
		m.tap = os.NewFile(uintptr(fd), "tap")
		t.Cleanup(func(f *os.File) func() { return func() { f.Close() } }(m.tap))
	}
	if v.flags&unix.IFF_VNET_HDR != 0 {
		m.header = max(v.header, vnetHeaderLen)
	}
	return m
}

// open does what the monitor does, as the user where it needs no device file.
func (v monitor) open(name string, uid int) (int, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	err = asUser(uid, func() error { return v.set(fd, name) })
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}

func (v monitor) set(fd int, name string) error {
	if v.features {
		have, err := unix.IoctlGetUint32(fd, unix.TUNGETFEATURES)
		if err != nil || uint16(have)&v.flags != v.flags {
			return fmt.Errorf("features %#x: %w", have, err)
		}
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | v.flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("set interface: %w", err)
	}
	if v.header > 0 {
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, v.header); err != nil {
			return fmt.Errorf("set header size: %w", err)
		}
	}
	if v.flags&unix.IFF_VNET_HDR == 0 || v.offload < 0 {
		return nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, v.offload); err != nil {
		return fmt.Errorf("set offloads: %w", err)
	}
	return nil
}

// asUser runs fn on a thread that has the user's identity, and no privilege,
// for good: the thread ends with it.
func asUser(uid int, fn func() error) error {
	if uid <= 0 {
		return fn()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			done <- errno
			return
		}
		done <- fn()
	}()
	return <-done
}

// TestMonitors opens the tap as each monitor does and as a user who is nobody
// else, and has 30,000 bytes go each way over a connection: from the guest in
// segments, and unsegmented where the tap has virtio headers; to the guest
// unsegmented only if it said that it takes that.
func TestMonitors(t *testing.T) {
	payload := make([]byte, 30000)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	for i, v := range monitors {
		t.Run(v.name, func(t *testing.T) {
			s := newStage(t)
			l := s.tapLink(1)
			l.MultiQueue = v.queues > 1
			listener, err := ListenTCP(t.Context(), netip.AddrPortFrom(l.Gateway, l.InterceptPort))
			must(t, err)
			defer listener.Close()
			s.set(l)
			m := s.bootAs(l, v)
			m.port = 42000 + uint16(i)
			next, conn := m.connect(listener)

			sent := append([]byte{}, payload...)
			for at := 0; at < len(payload); at += 1460 {
				f := m.segment(firstGuestByte+uint32(at), next, tcpPushAck, payload[at:min(at+1460, len(payload))])
				f.body = sealed(l.Guest, called, 6, f.body)
				m.send(vnetHeader{}, f.bytes())
			}
			if v.flags&unix.IFF_VNET_HDR != 0 {
				big := m.segment(firstGuestByte+uint32(len(payload)), next, tcpPushAck, payload)
				partial(l, big)
				m.send(vnetHeader{flags: vnetNeedsCsum, gso: vnetGSOTCPv4, hdrLen: tcpHeadersLen, gsoSize: 1460, start: 34, offset: 16}, big.bytes())
				sent = append(sent, payload...)
			}
			must(t, conn.SetDeadline(time.Now().Add(patience)))
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("what the guest sent did not arrive: %v", err)
			}
			if _, err := conn.Write(payload[:4000]); err != nil {
				t.Error(err)
			}
			first := m.receive(func(b []byte) bool { return len(b) > tcpHeadersLen+12 && b[23] == 6 })
			const segment = 536 // of a peer that names none (RFC 9293 section 3.7.1)
			if whole := len(first) > tcpHeadersLen+segment; whole != (v.offload > 0) {
				t.Errorf("the guest got a frame of %d bytes", len(first))
			}
			if c := counters(t, s.r, l); c.Assigned == 0 || c.Assigned != c.RxPackets-c.Dropped() {
				t.Errorf("counted %+v", c)
			}
			if v.queues > 1 {
				must(t, s.r.Close())
				var state *StateError
				if removed, err := Uninstall(t.Context(), s.options); !errors.As(err, &state) || len(removed) > 0 {
					t.Errorf("uninstall with the queues open: %q, %v", removed, err)
				}
				s.open()
			}
		})
	}
}

// TestTapIsItsOwners: nobody but the owner and root opens the tap, with as many
// queues as it was made for, and a change of either waits until nobody has it.
func TestTapIsItsOwners(t *testing.T) {
	s := newStage(t)
	l := s.tapLink(1)
	l.Owner = 4711
	s.set(l)
	one := monitor{flags: unix.IFF_VNET_HDR}
	many := monitor{flags: unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE}
	try := func(v monitor, uid int, want error) int {
		t.Helper()
		fd, err := v.open(l.Name, uid)
		if !errors.Is(err, want) {
			t.Fatalf("user %d with flags %#x: %v, want %v", uid, v.flags, err, want)
		}
		return fd
	}
	try(one, 4712, unix.EPERM)
	try(many, 4711, unix.EINVAL)
	fd := try(one, 4711, nil)
	try(one, 4711, unix.EBUSY)
	index := ifindexOf(t, l.Name)
	l.Owner, l.MultiQueue = 4712, true
	s.set(l)
	if ifindexOf(t, l.Name) != index {
		t.Fatal("the tap was made anew under an open descriptor")
	}
	must(t, unix.Close(fd))
	s.set(l)
	if ifindexOf(t, l.Name) == index {
		t.Fatal("the tap is the one of before")
	}
	try(many, 4711, unix.EPERM)
	try(one, 4712, unix.EINVAL)
	for range 2 {
		fd := try(many, 4712, nil)
		defer unix.Close(fd)
	}
	index = ifindexOf(t, l.Name)
	l.MultiQueue = false
	s.set(l)
	if ifindexOf(t, l.Name) != index {
		t.Fatal("the tap was made anew under open queues")
	}
}

func ifindexOf(t *testing.T, name string) int {
	t.Helper()
	dev, err := netlink.LinkByName(name)
	must(t, err)
	return dev.Attrs().Index
}

// TestQEMUAsTheOwner has QEMU itself open the tap, as a user without privilege.
// The device file is one that this user may open, as it is where udev makes it.
func TestQEMUAsTheOwner(t *testing.T) {
	const program = "qemu-system-x86_64"
	privileged.Require(t, privileged.Program(program, "unshare", "setpriv"))
	for queues, name := range map[int]string{1: "one queue", 2: "two queues"} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			l := s.tapLink(1)
			l.Owner, l.MultiQueue = 4711, queues > 1
			s.set(l)
			dir := t.TempDir()
			must(t, os.Chmod(filepath.Dir(dir), 0o755))
			must(t, os.Chmod(dir, 0o755))
			node := filepath.Join(dir, "tun")
			must(t, unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))))
			must(t, os.Chmod(node, 0o666))
			run := func(uid int) string {
				netdev := "tap,id=n0,script=no,downscript=no,vnet_hdr=on,ifname=" + l.Name
				if queues > 1 {
					netdev += ",queues=" + strconv.Itoa(queues)
				}
				cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", `mount --bind "$1" `+tunDevice+` && shift && exec setpriv "$@"`, "sh", node,
					"--reuid="+strconv.Itoa(uid), "--regid="+strconv.Itoa(uid), "--clear-groups", program,
					"-M", "none", "-nodefaults", "-display", "none", "-monitor", "stdio", "-netdev", netdev)
				cmd.Stdin = strings.NewReader("info network\nquit\n")
				out, err := cmd.CombinedOutput()
				return fmt.Sprintf("%s%v", out, err)
			}
			if out := run(4711); !strings.Contains(out, "type=tap") || strings.Contains(out, "ould not") {
				t.Errorf("the owner: %s", out)
			}
			if out := run(4712); !strings.Contains(out, "Operation not permitted") {
				t.Errorf("another user: %s", out)
			}
		})
	}
}
