package redirect

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"

	"golang.org/x/sys/unix"
)

// wake has a bottle speak on each of its flows whose permission was withdrawn, so that the programs reset both sides at once:
// one that does nothing but read would wait for what never comes. What it answers is a keep-alive probe in the upstream's name
// (RFC 9293 section 3.8.4). A bottle that does not answer learns when it speaks by itself.
func (t *fastTable) wake(ifindex int, l Link, from net.HardwareAddr) error {
	var probes [][]byte
	err := t.eachFlow(func(k gatewayFlowKey, f *gatewayFlow) {
		g := t.grants[t.taken[f.Grant].grantKey]
		if int(k.Ifindex) == ifindex && gatewayFlowState(f.State) == gatewayFlowStateFLOW_VERIFIED && (grant{f.Grant, f.Epoch}) != g {
			probes = append(probes, probe(k, f, l, from))
		}
	})
	if err != nil || len(probes) == 0 {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0 receives nothing (packet(7))
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer unix.Close(fd)
	for i, p := range probes {
		if err := unix.Sendto(fd, p, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: ifindex}); err != nil {
			return fmt.Errorf("send probe %d of %d: %w", i+1, len(probes), err)
		}
	}
	return nil
}

// probe is a frame to the bottle with a segment of the flow's upstream that is empty, and whose number is the one before what
// the bottle expects: each TCP answers such a one with what it does expect.
func probe(k gatewayFlowKey, f *gatewayFlow, l Link, from net.HardwareAddr) []byte {
	upstream, guest := addrOf(k.Daddr).AsSlice(), l.Guest.AsSlice()
	ip := append([]byte{0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0}, slices.Concat(upstream, guest)...) // RFC 791 section 3.1
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(ip))
	tcp := binary.BigEndian.AppendUint16(nil, hostOrder16(k.Dport)) // RFC 9293 section 3.1
	tcp = binary.BigEndian.AppendUint16(tcp, hostOrder16(k.Sport))
	tcp = binary.BigEndian.AppendUint32(tcp, f.Expects-1)
	tcp = binary.BigEndian.AppendUint32(tcp, f.Start)
	tcp = append(tcp, 5<<4, 0x10 /* ACK */, 0xff, 0xff, 0, 0, 0, 0)
	pseudo := slices.Concat(upstream, guest, []byte{0, unix.IPPROTO_TCP, 0, 20})
	binary.BigEndian.PutUint16(tcp[16:], internetChecksum(append(pseudo, tcp...)))
	return slices.Concat(l.MAC, from, []byte{0x08, 0}, ip, tcp)
}

// internetChecksum is that of RFC 1071, of an even number of bytes.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}
