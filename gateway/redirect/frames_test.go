package redirect

import (
	"cmp"
	"encoding/binary"
	"net"
	"net/netip"
)

// frame is an Ethernet frame under construction: a whole good TCP SYN from the
// bottle, which a test then spoils in one place.
type frame struct {
	dst, src net.HardwareAddr
	tags     []uint16 // TPIDs, outermost first, each with tag 5
	etype    uint16
	payload  []byte // if not nil, instead of the IP packet
	ip       ipHeader
	body     []byte
	cut      int // bytes to cut from the end
	pad      int // bytes to add
}

type ipHeader struct {
	version, ihl byte
	length       int // 0: what it is
	fragment     uint16
	proto        byte
	ttl          byte // 0: 64
	src, dst     netip.Addr
	options      []byte
}

// good returns a SYN of the link's bottle to called:443.
func good(l Link) *frame {
	return &frame{
		dst: hostMAC("stage", l), src: l.MAC, etype: 0x0800,
		ip:   ipHeader{version: 4, ihl: 5, proto: 6, src: l.Guest, dst: called},
		body: tcp(40000, 443, 0x02, nil),
	}
}

func (f *frame) bytes() []byte {
	var b []byte
	b = append(b, f.dst...)
	b = append(b, f.src...)
	for _, tpid := range f.tags {
		b = binary.BigEndian.AppendUint16(b, tpid)
		b = binary.BigEndian.AppendUint16(b, 5)
	}
	b = binary.BigEndian.AppendUint16(b, f.etype)
	if f.payload != nil {
		b = append(b, f.payload...)
	} else {
		b = append(b, f.ip.bytes(len(f.body))...)
		b = append(b, f.body...)
	}
	b = append(b, make([]byte, f.pad)...)
	return b[:len(b)-f.cut]
}

func (h ipHeader) bytes(body int) []byte {
	length := 20 + len(h.options) + body
	if h.length != 0 {
		length = h.length
	}
	b := []byte{h.version<<4 | h.ihl, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, 0x12, 0x34)
	b = binary.BigEndian.AppendUint16(b, h.fragment)
	b = append(b, cmp.Or(h.ttl, 64), h.proto, 0, 0)
	b = append(b, h.src.AsSlice()...)
	b = append(b, h.dst.AsSlice()...)
	b = append(b, h.options...)
	binary.BigEndian.PutUint16(b[10:], checksum(b, 0))
	return b
}

// checksum is RFC 1071 over b, beginning with sum.
func checksum(b []byte, sum uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// tcp returns a header without options and without a checksum.
func tcp(sport, dport uint16, flags byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	b = append(b, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	return append(b, payload...)
}

func udp(sport, dport uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(b, 0, 0)
	return append(b, payload...)
}

// sealed fills in the checksum of a TCP or UDP body.
func sealed(src, dst netip.Addr, proto byte, body []byte) []byte {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = append(pseudo, 0, proto)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(body)))
	at := 16
	if proto == 17 {
		at = 6
	}
	sum := checksum(append(pseudo, body...), 0)
	binary.BigEndian.PutUint16(body[at:], sum)
	return body
}

// arp returns an ARP packet for IPv4 over Ethernet.
func arp(op uint16, sender net.HardwareAddr, senderIP netip.Addr, target net.HardwareAddr, targetIP netip.Addr) []byte {
	b := []byte{0, 1, 0x08, 0, 6, 4}
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(b, sender...)
	b = append(b, senderIP.AsSlice()...)
	b = append(b, target...)
	return append(b, targetIP.AsSlice()...)
}

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	multicast = net.HardwareAddr{0x01, 0, 0x5e, 0, 0, 0xfb}
	otherMAC  = net.HardwareAddr{0x02, 0xee, 0, 0, 0, 0xee}
	nobodyMAC = net.HardwareAddr{0, 0, 0, 0, 0, 0}
)

// rawCase is one frame and the reason under which it must be dropped.
type rawCase struct {
	name   string
	reason gatewayDropReason
	frame  func(l Link) *frame
	// wireOnly is set if a device takes the outer tag off before the program
	// runs, which a program run by itself does not see.
	wireOnly bool
}

func spoil(change func(*frame)) func(Link) *frame {
	return func(l Link) *frame {
		f := good(l)
		change(f)
		return f
	}
}

func withARP(change func(l Link, f *frame)) func(Link) *frame {
	return func(l Link) *frame {
		f := good(l)
		f.dst, f.etype = broadcast, 0x0806
		f.payload = arp(1, l.MAC, l.Guest, nobodyMAC, l.Gateway)
		change(l, f)
		return f
	}
}

func body(proto byte, b []byte) func(Link) *frame {
	return spoil(func(f *frame) { f.ip.proto, f.body = proto, b })
}

// rawCases is the list of what a bottle may try on the wire.
func rawCases() []rawCase {
	ip := netip.MustParseAddr
	return []rawCase{
		{"802.1Q tag", gatewayDropReasonDROP_VLAN, spoil(func(f *frame) { f.tags = []uint16{0x8100} }), false},
		{"802.1ad tag", gatewayDropReasonDROP_VLAN, spoil(func(f *frame) { f.tags = []uint16{0x88a8} }), false},
		{"QinQ", gatewayDropReasonDROP_QINQ, spoil(func(f *frame) { f.tags = []uint16{0x88a8, 0x8100} }), true},
		{"double 802.1Q", gatewayDropReasonDROP_QINQ, spoil(func(f *frame) { f.tags = []uint16{0x8100, 0x8100} }), true},
		{"LLC/SNAP", gatewayDropReasonDROP_LLC, spoil(func(f *frame) {
			f.payload = append([]byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, append(f.ip.bytes(len(f.body)), f.body...)...)
			f.etype = uint16(len(f.payload))
		}), false},
		{"802.3 length of a whole frame", gatewayDropReasonDROP_LLC, spoil(func(f *frame) { f.etype = 1500 }), false},
		{"raw 802.3", gatewayDropReasonDROP_LLC, spoil(func(f *frame) { f.etype, f.payload = 0x0040, append([]byte{0xff, 0xff}, make([]byte, 62)...) }), false},
		{"IPv6", gatewayDropReasonDROP_IPV6, spoil(func(f *frame) { f.etype, f.payload = 0x86dd, append([]byte{0x60}, make([]byte, 59)...) }), false},
		{"IPv6 to multicast", gatewayDropReasonDROP_IPV6, spoil(func(f *frame) {
			f.dst, f.etype = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 2}, 0x86dd
			f.payload = append([]byte{0x60}, make([]byte, 59)...)
		}), false},
		{"MPLS", gatewayDropReasonDROP_ETHERTYPE, spoil(func(f *frame) { f.etype = 0x8847 }), false},
		{"experimental EtherType", gatewayDropReasonDROP_ETHERTYPE, spoil(func(f *frame) { f.etype = 0x88b7 }), false},
		{"EAPOL", gatewayDropReasonDROP_ETHERTYPE, spoil(func(f *frame) { f.etype, f.dst = 0x888e, net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 3} }), false},
		{"LLDP", gatewayDropReasonDROP_ETHERTYPE, spoil(func(f *frame) { f.etype, f.dst = 0x88cc, net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e} }), false},
		{"source MAC of another", gatewayDropReasonDROP_SOURCE_MAC, spoil(func(f *frame) { f.src = otherMAC }), false},
		{"source MAC of the link", gatewayDropReasonDROP_SOURCE_MAC, spoil(func(f *frame) { f.src = f.dst }), false},
		{"destination MAC of another", gatewayDropReasonDROP_DESTINATION_MAC, spoil(func(f *frame) { f.dst = otherMAC }), false},
		{"destination MAC multicast", gatewayDropReasonDROP_DESTINATION_MAC, spoil(func(f *frame) { f.dst = multicast }), false},
		{"destination MAC broadcast", gatewayDropReasonDROP_DESTINATION_MAC, spoil(func(f *frame) { f.dst = broadcast }), false},
		{"ARP to multicast", gatewayDropReasonDROP_DESTINATION_MAC, withARP(func(_ Link, f *frame) { f.dst = multicast }), false},
		{"ARP cut off", gatewayDropReasonDROP_ARP_SHORT, withARP(func(_ Link, f *frame) { f.cut = 1 }), false},
		{"ARP for another gateway", gatewayDropReasonDROP_ARP_FORM, withARP(func(l Link, f *frame) {
			f.payload = arp(1, l.MAC, l.Guest, nobodyMAC, called)
		}), false},
		{"ARP announcement", gatewayDropReasonDROP_ARP_FORM, withARP(func(l Link, f *frame) {
			f.payload = arp(1, l.MAC, l.Guest, nobodyMAC, l.Guest)
		}), false},
		{"ARP reply", gatewayDropReasonDROP_ARP_FORM, withARP(func(l Link, f *frame) {
			f.payload = arp(2, l.MAC, l.Guest, nobodyMAC, l.Gateway)
		}), false},
		{"ARP for another hardware", gatewayDropReasonDROP_ARP_FORM, withARP(func(_ Link, f *frame) { f.payload[1] = 6 }), false},
		{"ARP with the gateway's address", gatewayDropReasonDROP_ARP_SPOOF, withARP(func(l Link, f *frame) {
			f.payload = arp(1, l.MAC, l.Gateway, nobodyMAC, l.Gateway)
		}), false},
		{"ARP with another's MAC", gatewayDropReasonDROP_ARP_SPOOF, withARP(func(l Link, f *frame) {
			f.payload = arp(1, otherMAC, l.Guest, nobodyMAC, l.Gateway)
		}), false},
		{"ARP reply with the uplink's address", gatewayDropReasonDROP_ARP_SPOOF, withARP(func(l Link, f *frame) {
			f.payload = arp(2, l.MAC, uplinkInternet, nobodyMAC, l.Gateway)
		}), false},
		{"IPv4 header cut off", gatewayDropReasonDROP_IP_SHORT, spoil(func(f *frame) { f.cut = len(f.body) + 1 }), false},
		{"no IPv4 header", gatewayDropReasonDROP_IP_SHORT, spoil(func(f *frame) { f.payload = []byte{0x45} }), false},
		{"version 6 in IPv4", gatewayDropReasonDROP_IP_VERSION, spoil(func(f *frame) { f.ip.version = 6 }), false},
		{"version 0", gatewayDropReasonDROP_IP_VERSION, spoil(func(f *frame) { f.ip.version = 0 }), false},
		{"IP options", gatewayDropReasonDROP_IP_OPTIONS, spoil(func(f *frame) { f.ip.ihl, f.ip.options = 6, []byte{1, 1, 1, 0} }), false},
		{"loose source route", gatewayDropReasonDROP_IP_OPTIONS, spoil(func(f *frame) {
			f.ip.ihl, f.ip.options = 7, []byte{0x83, 7, 4, 198, 19, 0, 2, 0}
		}), false},
		{"header length 4", gatewayDropReasonDROP_IP_OPTIONS, spoil(func(f *frame) { f.ip.ihl = 4 }), false},
		{"length beyond the frame", gatewayDropReasonDROP_IP_LENGTH, spoil(func(f *frame) { f.ip.length = 41 }), false},
		{"length below a header", gatewayDropReasonDROP_IP_LENGTH, spoil(func(f *frame) { f.ip.length = 19 }), false},
		{"first fragment", gatewayDropReasonDROP_FRAGMENT, spoil(func(f *frame) { f.ip.fragment = 0x2000 }), false},
		{"later fragment", gatewayDropReasonDROP_FRAGMENT, spoil(func(f *frame) { f.ip.fragment = 0x0005 }), false},
		{"reserved bit", gatewayDropReasonDROP_FRAGMENT, spoil(func(f *frame) { f.ip.fragment = 0x8000 }), false},
		{"source IP of another", gatewayDropReasonDROP_SOURCE_IP, spoil(func(f *frame) { f.ip.src = ip("198.18.2.2") }), false},
		{"source IP of the gateway", gatewayDropReasonDROP_SOURCE_IP, spoil(func(f *frame) { f.ip.src = ip("198.18.1.1") }), false},
		{"source IP loopback", gatewayDropReasonDROP_SOURCE_IP, spoil(func(f *frame) { f.ip.src = ip("127.0.0.1") }), false},
		{"to loopback", gatewayDropReasonDROP_DESTINATION_IP, spoil(func(f *frame) { f.ip.dst = ip("127.0.0.1") }), false},
		{"to this network", gatewayDropReasonDROP_DESTINATION_IP, spoil(func(f *frame) { f.ip.dst = ip("0.0.0.0") }), false},
		{"to multicast", gatewayDropReasonDROP_DESTINATION_IP, spoil(func(f *frame) { f.ip.dst = ip("224.0.0.251") }), false},
		{"to broadcast", gatewayDropReasonDROP_DESTINATION_IP, spoil(func(f *frame) { f.ip.dst = ip("255.255.255.255") }), false},
		{"ICMP echo", gatewayDropReasonDROP_ICMP, body(1, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}), false},
		{"ICMP redirect", gatewayDropReasonDROP_ICMP, body(1, append([]byte{5, 1, 0, 0, 198, 18, 1, 2}, make([]byte, 28)...)), false},
		{"SCTP", gatewayDropReasonDROP_PROTOCOL, body(132, make([]byte, 32)), false},
		{"GRE", gatewayDropReasonDROP_PROTOCOL, body(47, []byte{0, 0, 8, 0, 0x45, 0, 0, 20}), false},
		{"ESP", gatewayDropReasonDROP_PROTOCOL, body(50, make([]byte, 32)), false},
		{"IP in IP", gatewayDropReasonDROP_PROTOCOL, body(4, make([]byte, 40)), false},
		{"IGMP", gatewayDropReasonDROP_PROTOCOL, body(2, make([]byte, 8)), false},
		{"TCP cut off", gatewayDropReasonDROP_TCP_LENGTH, body(6, tcp(1, 443, 2, nil)[:19]), false},
		{"TCP header length 4", gatewayDropReasonDROP_TCP_LENGTH, spoil(func(f *frame) { f.body[12] = 4 << 4 }), false},
		{"TCP header beyond the packet", gatewayDropReasonDROP_TCP_LENGTH, spoil(func(f *frame) { f.body[12] = 6 << 4; f.pad = 8 }), false},
		{"UDP cut off", gatewayDropReasonDROP_UDP_LENGTH, body(17, udp(1, 53, nil)[:7]), false},
		{"UDP length beyond the packet", gatewayDropReasonDROP_UDP_LENGTH, spoil(func(f *frame) {
			f.ip.proto, f.body, f.pad = 17, udp(1, 53, nil), 8
			f.body[5] = 9
		}), false},
		{"UDP length below a header", gatewayDropReasonDROP_UDP_LENGTH, spoil(func(f *frame) {
			f.ip.proto, f.body = 17, udp(1, 53, nil)
			f.body[5] = 7
		}), false},
		{"NTP", gatewayDropReasonDROP_UDP, body(17, udp(123, 123, make([]byte, 48))), false},
		{"DHCP", gatewayDropReasonDROP_UDP, body(17, udp(68, 67, make([]byte, 300))), false},
		{"DNS over TLS without a listener", gatewayDropReasonDROP_NO_LISTENER, body(6, tcp(1000, 853, 2, nil)), false},
		{"TCP without a listener", gatewayDropReasonDROP_NO_LISTENER, good, false},
		{"TCP ACK without a listener", gatewayDropReasonDROP_NO_LISTENER, body(6, tcp(1000, 443, 0x10, []byte("x"))), false},
		{"DNS over UDP without a resolver", gatewayDropReasonDROP_NO_RESOLVER, body(17, udp(1000, 53, []byte("x"))), false},
		{"DNS over TCP without a resolver", gatewayDropReasonDROP_NO_RESOLVER, body(6, tcp(1000, 53, 2, nil)), false},
	}
}
