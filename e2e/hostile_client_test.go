package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
)

// hostileWord begins every marker.
const hostileWord = "gatewayd-e2e-hostile:"

func hostileMarker(name string) []byte { return []byte(hostileWord + name + ";") }

// hostileFrames are the frames that a hostile guest sends by a packet socket.
var hostileFrames = []string{
	"plain udp", "other mac", "other address", "vlan", "priority tag", "qinq", "ipv6", "options", "fragment", "later fragment", "gre",
	"broadcast", "lldp", "dns port of another", "short header", "arp of another", "icmp", "multicast",
	"tcp syn", "tcp syn to an allowed address", "tcp in the middle",
}

// ipv6Socket is sent by an ordinary socket.
const ipv6Socket = "ipv6 socket"

// hostileClient is root in a guest with bad intentions: EVIL is where nothing may arrive, ALLOWED an address that works.
func hostileClient(ctx context.Context, args []string) error {
	evil, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	allowed := net.JoinHostPort(args[1], "443")
	if err := hostileDial(ctx, allowed, nil); err != nil {
		return fmt.Errorf("before anything was tried: %w", err)
	}
	good, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	if err := hostileRaw(card, link, evil, good); err != nil {
		return err
	}
	for _, try := range []struct {
		name string
		do   func() error
	}{
		{"another mac", func() error { return hostileMAC(ctx, link, allowed) }},
		{"another address", func() error { return hostileAddress(ctx, link, allowed) }},
		{"a vlan", func() error { return hostileVLAN(ctx, link, evil) }},
		{"ipv6", func() error { return hostileIPv6(link) }},
	} {
		if err := try.do(); err != nil {
			return fmt.Errorf("%s: %w", try.name, err)
		}
	}
	// The host lets go of whatever it held against the guest once the guest is itself again.
	if err := hostileDial(ctx, allowed, nil); err != nil {
		return fmt.Errorf("after all was undone: %w", err)
	}
	fmt.Println("tried all")
	return nil
}

func hostileDial(ctx context.Context, to string, from net.Addr) error {
	d := net.Dialer{Timeout: 4 * time.Second, LocalAddr: from}
	c, err := d.DialContext(ctx, "tcp4", to)
	if err == nil {
		c.Close()
	}
	return err
}

// mustNotConnect is for attempts of which no answer may come back.
func mustNotConnect(ctx context.Context, to string, from net.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	if hostileDial(ctx, to, from) == nil {
		return errors.New("it connected")
	}
	return nil
}

// hostileRaw sends each frame of the list.
func hostileRaw(card *net.Interface, link netlink.Link, evil, good netip.Addr) error {
	own, router, err := neighbours(link)
	if err != nil {
		return err
	}
	c, err := packet.Listen(card, packet.Raw, 0x0003, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, name := range hostileFrames {
		f := hostileFrame(name, card.HardwareAddr, router, own, evil, good)
		for range 3 {
			if _, err := c.WriteTo(f, &packet.Addr{HardwareAddr: router}); err != nil {
				return fmt.Errorf("send %s: %w", name, err)
			}
		}
	}
	return nil
}

// neighbours returns the guest's address and the router's Ethernet address.
func neighbours(link netlink.Link) (own netip.Addr, router net.HardwareAddr, err error) {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) == 0 {
		return own, nil, fmt.Errorf("no own address: %w", err)
	}
	own, _ = netip.AddrFromSlice(addrs[0].IP.To4())
	near, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
	for _, n := range near {
		if len(n.HardwareAddr) == 6 {
			return own, n.HardwareAddr, nil
		}
	}
	return own, nil, fmt.Errorf("no neighbour: %w", err)
}

// hostileFrame makes one frame around its marker.
func hostileFrame(name string, mac, router net.HardwareAddr, own, evil, good netip.Addr) []byte {
	src, dst, kind := mac, router, []byte{0x08, 0x00}
	ip := hostileIP{src: own, dst: evil, proto: 17, port: 9999, words: 5}
	switch name {
	case "other mac":
		src = net.HardwareAddr{2, 9, 9, 9, 9, 9}
	case "other address":
		ip.src = netip.MustParseAddr("198.18.77.77")
	case "vlan":
		kind = []byte{0x81, 0x00, 0x00, 0x05, 0x08, 0x00}
	case "priority tag":
		kind = []byte{0x81, 0x00, 0xe0, 0x00, 0x08, 0x00}
	case "qinq":
		kind = []byte{0x88, 0xa8, 0x00, 0x05, 0x81, 0x00, 0x00, 0x06, 0x08, 0x00}
	case "ipv6":
		return slices.Concat(dst, src, []byte{0x86, 0xdd}, hostileIPv6Packet(hostileMarker(name)))
	case "options":
		ip.words = 6
	case "fragment":
		ip.fragment = 0x2000
	case "later fragment":
		ip.fragment = 0x0010
	case "gre":
		ip.proto = 47
	case "broadcast":
		dst = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	case "lldp":
		kind = []byte{0x88, 0xcc}
	case "arp of another": // "evil's address is here" (RFC 826)
		arp := slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 2}, mac, evil.AsSlice(), router, make([]byte, 4))
		return slices.Concat(dst, src, []byte{0x08, 0x06}, arp, hostileMarker(name))
	case "icmp":
		ip.proto = 1
	case "multicast":
		dst, ip.dst, ip.port = net.HardwareAddr{1, 0, 0x5e, 0, 0, 0xfb}, netip.MustParseAddr("224.0.0.251"), 5353
	case "tcp syn":
		ip.proto, ip.port, ip.flags = 6, 443, 0x02
	case "tcp syn to an allowed address": // with data, as only an option for it may have (RFC 7413)
		ip.proto, ip.port, ip.flags, ip.dst = 6, 443, 0x02, good
	case "tcp in the middle":
		ip.proto, ip.port, ip.flags, ip.dst = 6, 443, 0x18, good
	case "dns port of another":
		ip.port, ip.dst, ip.src = 53, evil, netip.MustParseAddr("198.18.77.78")
	case "short header":
		ip.words = 4
	}
	return slices.Concat(dst, src, kind, ip.packet(hostileMarker(name)))
}

// hostileIP is an IPv4 packet with a TCP header, or else a UDP header (RFC 791, RFC 9293, RFC 768).
type hostileIP struct {
	src, dst netip.Addr
	proto    byte
	port     uint16
	words    int // length of the header as it says
	fragment uint16
	flags    byte // TCP's
}

func (p hostileIP) packet(payload []byte) []byte {
	h := make([]byte, max(p.words, 5)*4)
	data := p.udp(payload)
	switch p.proto {
	case 1:
		data = p.echo(payload)
	case 6:
		data = p.tcp(payload)
	}
	h[0], h[8], h[9] = byte(0x40|p.words), 64, p.proto
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(data)))
	binary.BigEndian.PutUint16(h[6:], p.fragment)
	copy(h[12:], p.src.AsSlice())
	copy(h[16:], p.dst.AsSlice())
	if len(h) > 20 {
		copy(h[20:], []byte{1, 1, 1, 0}) // no operation, end of options
	}
	binary.BigEndian.PutUint16(h[10:], ^onesSum(h))
	return slices.Concat(h, data)
}

func (p hostileIP) udp(payload []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 40000)
	udp = binary.BigEndian.AppendUint16(udp, p.port)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	return append(append(udp, 0, 0), payload...)
}

// echo is an ICMP echo request (RFC 792).
func (p hostileIP) echo(payload []byte) []byte {
	icmp := append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, payload...)
	binary.BigEndian.PutUint16(icmp[2:], ^onesSum(append(slices.Clone(icmp), make([]byte, len(icmp)%2)...)))
	return icmp
}

func (p hostileIP) tcp(payload []byte) []byte {
	tcp := binary.BigEndian.AppendUint16(nil, 40001)
	tcp = binary.BigEndian.AppendUint16(tcp, p.port)
	tcp = append(tcp, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, p.flags, 0xff, 0xff, 0, 0, 0, 0)
	tcp = append(tcp, payload...)
	pseudo := slices.Concat(p.src.AsSlice(), p.dst.AsSlice(), []byte{0, p.proto, 0, byte(len(tcp))}, tcp, make([]byte, len(tcp)%2))
	binary.BigEndian.PutUint16(tcp[16:], ^onesSum(pseudo))
	return tcp
}

// onesSum is the sum of RFC 1071.
func onesSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func hostileIPv6Packet(payload []byte) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, 17, 64
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(payload)))
	copy(h[8:], netip.MustParseAddr("fd00::2").AsSlice())
	copy(h[24:], netip.MustParseAddr("fd00::1").AsSlice())
	return slices.Concat(h, []byte{0x9c, 0x40, 0x27, 0x0f, 0, byte(8 + len(payload)), 0, 0}, payload)
}

// hostileMAC changes the card's address and tries to go on.
func hostileMAC(ctx context.Context, link netlink.Link, allowed string) error {
	if err := netlink.LinkSetHardwareAddr(link, net.HardwareAddr{2, 8, 8, 8, 8, 8}); err != nil {
		return err
	}
	return errors.Join(mustNotConnect(ctx, allowed, nil), netlink.LinkSetHardwareAddr(link, link.Attrs().HardwareAddr))
}

// hostileAddress takes a second address and speaks from it.
func hostileAddress(ctx context.Context, link netlink.Link, allowed string) error {
	addr, err := netlink.ParseAddr("198.18.200.9/32")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	return errors.Join(mustNotConnect(ctx, allowed, &net.TCPAddr{IP: addr.IP}), netlink.AddrDel(link, addr))
}

// hostileVLAN makes a tagged interface and sends the evil address's traffic through it.
func hostileVLAN(ctx context.Context, link netlink.Link, evil netip.Addr) error {
	vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "eth0.5", ParentIndex: link.Attrs().Index}, VlanId: 5}
	if err := netlink.LinkAdd(vlan); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr("10.9.9.2/24")
	if err != nil {
		return err
	}
	only := &net.IPNet{IP: evil.AsSlice(), Mask: net.CIDRMask(32, 32)}
	err = errors.Join(netlink.AddrAdd(vlan, addr), netlink.LinkSetUp(vlan))
	if err == nil {
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: vlan.Attrs().Index, Dst: only, Scope: netlink.SCOPE_LINK})
	}
	if err == nil {
		err = mustNotConnect(ctx, net.JoinHostPort(evil.String(), "443"), nil)
	}
	return errors.Join(err, netlink.LinkDel(vlan))
}

// hostileIPv6 turns IPv6 on, and sends to a router that it makes up.
func hostileIPv6(link netlink.Link) error {
	if link.Attrs().MTU < 1280 {
		return nil // no kernel has IPv6 there (RFC 8200, section 5)
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("0"), 0o644); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr("fd00::2/64")
	if err != nil {
		return err
	}
	addr.Flags = 0x02 // IFA_F_NODAD: usable at once
	near := &netlink.Neigh{LinkIndex: link.Attrs().Index, Family: netlink.FAMILY_V6, State: netlink.NUD_PERMANENT,
		IP: net.ParseIP("fd00::1"), HardwareAddr: net.HardwareAddr{2, 1, 1, 1, 1, 1}}
	if err := errors.Join(netlink.AddrAdd(link, addr), netlink.NeighSet(near)); err != nil {
		return err
	}
	c, err := net.Dial("udp6", "[fd00::1]:9999")
	if err != nil {
		return err
	}
	defer c.Close()
	for range 3 {
		if _, err := c.Write(hostileMarker(ipv6Socket)); err != nil {
			return err
		}
	}
	return nil
}
