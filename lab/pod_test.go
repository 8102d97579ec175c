package lab

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gatewayd/vmimage/pod"
)

// attach opens the pod's tap as a VMM does, frames without any header before them.
func attach(t *testing.T, path string) *os.File {
	t.Helper()
	var tap *os.File
	ns, err := OpenNamespace(path)
	if err != nil {
		t.Fatal(err)
	}
	err = ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq(pod.Tap)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return err
		}
		tap = os.NewFile(uintptr(fd), pod.Tap) // after the ioctl: the poller takes a tap only once it has its interface
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tap.Close() })
	return tap
}

// Every frame goes both ways between a VM's tap and the host end of the pod's eth0 as it is, of any protocol and length, and the
// pod's own kernel answers none.
func TestOpenPod(t *testing.T) {
	w := newWorld(t)
	guest := netip.MustParsePrefix("198.18.105.2/24")
	host, err := w.MakePod("dev", guest, netip.MustParseAddr("198.18.105.1"), 1450)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pod.Open(w.BottleNetns("dev"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Guest != guest || p.Gateway.String() != "198.18.105.1" || p.MTU != 1450 {
		t.Errorf("pod %+v", p)
	}
	classifier(t, w, p)
	tap := attach(t, w.BottleNetns("dev"))
	far := listen(t, w, host)
	frames := map[string][]byte{
		"ping to eth0": append(ethernet(p.MAC, 0x0800), 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 198, 18, 105, 1, 198, 18, 105, 2, 8, 0, 0xf7, 0xff, 0, 0, 0, 0),
		"broadcast":    append(ethernet(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 0x0806), make([]byte, 46)...),
		"of full size": append(ethernet(p.MAC, 0x88b5), bytes.Repeat([]byte{0x5a}, 1450)...),
	}
	for name, frame := range frames {
		t.Run(name, func(t *testing.T) {
			if _, err := tap.Write(frame); err != nil {
				t.Fatal(err)
			}
			// A tap that was just opened loses frames until its carrier is seen, so each is sent until it is there.
			meets(t, frame, "the host end", tap.Write, far.read, far.SetReadDeadline)
			meets(t, frame, "the tap", far.write, tap.Read, tap.SetReadDeadline)
		})
	}
	reopened(t, w.BottleNetns("dev"), p, tap)
}

// reopened checks that a pod has one VM at a time, that the next one gets what a dead one left, and that nothing is left in
// the end.
func reopened(t *testing.T, path string, p *pod.Pod, tap *os.File) {
	t.Helper()
	if _, err := pod.Open(path); !errors.Is(err, pod.ErrBusy) {
		t.Errorf("a second VM: %v", err)
	}
	if err := p.Close(); !errors.Is(err, pod.ErrBusy) {
		t.Errorf("closed under the VM: %v", err)
	}
	tap.Close()
	again, err := pod.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, filters := inPod(t, path, pod.Link); len(filters) != 0 || slices.Contains(left, pod.Tap) {
		t.Errorf("left: links %q, filters %v", left, filters)
	}
}

// ethernet is a header from a stranger's address.
func ethernet(to net.HardwareAddr, proto uint16) []byte {
	return append(append(append([]byte{}, to...), 2, 0, 0, 0, 0, 9), byte(proto>>8), byte(proto))
}

// meets sends a frame again and again until it comes out at the other end; what else a kernel sends goes by.
func meets(t *testing.T, frame []byte, where string, write, read func([]byte) (int, error), deadline func(time.Time) error) {
	t.Helper()
	buf := make([]byte, 4096)
	for range 50 {
		if _, err := write(frame); err != nil {
			t.Fatal(err)
		}
		if err := deadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if bytes.Equal(buf[:n], frame) {
				return
			}
			if n > 14 && bytes.Equal(buf[14:n], frame[14:]) {
				t.Errorf("%s got a frame that was changed: %x", where, buf[:14])
			}
		}
	}
	t.Fatalf("%s did not get the frame", where)
}

// farEnd is a socket at the host end.
type farEnd struct{ *packet.Conn }

func (f farEnd) read(p []byte) (int, error) {
	n, _, err := f.ReadFrom(p)
	return n, err
}

func (f farEnd) write(p []byte) (int, error) {
	return f.WriteTo(p, &packet.Addr{HardwareAddr: net.HardwareAddr(p[:6])})
}

func listen(t *testing.T, w *World, link string) farEnd {
	t.Helper()
	var f farEnd
	err := w.Gateway.Do(func() error {
		ifi, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		f.Conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// classifierVariable names the classifier that the kernel is known to have.
const classifierVariable = "GATEWAYD_TEST_CLASSIFIER"

// classifier checks what sends the frames on: matchall, as the runtime of VMs wants it, wherever the kernel takes one.
func classifier(t *testing.T, w *World, p *pod.Pod) {
	t.Helper()
	want := os.Getenv(classifierVariable)
	if want == "" {
		want = "u32"
		if takesMatchall(t, w) {
			want = "matchall"
		}
	}
	t.Logf("the classifier is %s", want)
	if p.Classifier != want {
		t.Errorf("the classifier is said to be %s, want %s", p.Classifier, want)
	}
	for _, name := range []string{pod.Link, pod.Tap} {
		_, filters := inPod(t, w.BottleNetns("dev"), name)
		if len(filters) == 0 || filters[0].Type() != want {
			t.Errorf("%s: filters %v, want %s", name, filters, want)
		}
	}
}

// takesMatchall tries one on a link of its own.
func takesMatchall(t *testing.T, w *World) bool {
	t.Helper()
	var tried error
	err := w.Gateway.Do(func() error {
		l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}, PeerName: "probe1"}
		if err := netlink.LinkAdd(l); err != nil {
			return err
		}
		parent := netlink.MakeHandle(0xffff, 0)
		err := netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Index, Parent: netlink.HANDLE_INGRESS, Handle: parent}})
		if err == nil {
			tried = netlink.FilterAdd(&netlink.MatchAll{FilterAttrs: netlink.FilterAttrs{LinkIndex: l.Index, Parent: parent, Priority: 1, Protocol: unix.ETH_P_ALL}})
		}
		return errors.Join(err, netlink.LinkDel(l))
	})
	if err != nil {
		t.Fatal(err)
	}
	return tried == nil
}

// inPod lists the links of a namespace, and the filters of one of them.
func inPod(t *testing.T, path, name string) (links []string, filters []netlink.Filter) {
	t.Helper()
	ns, err := OpenNamespace(path)
	if err != nil {
		t.Fatal(err)
	}
	err = ns.Do(func() error {
		all, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range all {
			links = append(links, l.Attrs().Name)
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		filters, err = netlink.FilterList(l, netlink.MakeHandle(0xffff, 0))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return links, filters
}
