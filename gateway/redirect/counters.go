package redirect

import (
	"fmt"
	"iter"
)

// Reason is why the datapath dropped a frame. Its numbers come from the C enum
// drop_reason and may change with any version; its labels do not.
type Reason uint32

// reasonLabels has one entry per reason; a test compares it with the enum.
var reasonLabels = [gatewayDropReasonDROP_REASONS]string{
	gatewayDropReasonDROP_NONE:            "none",
	gatewayDropReasonDROP_NO_BOTTLE:       "no_bottle",
	gatewayDropReasonDROP_SHUT:            "shut",
	gatewayDropReasonDROP_VLAN:            "vlan",
	gatewayDropReasonDROP_QINQ:            "qinq",
	gatewayDropReasonDROP_RUNT:            "runt",
	gatewayDropReasonDROP_LLC:             "llc",
	gatewayDropReasonDROP_IPV6:            "ipv6",
	gatewayDropReasonDROP_ETHERTYPE:       "ethertype",
	gatewayDropReasonDROP_SOURCE_MAC:      "source_mac",
	gatewayDropReasonDROP_DESTINATION_MAC: "destination_mac",
	gatewayDropReasonDROP_ARP_SHORT:       "arp_short",
	gatewayDropReasonDROP_ARP_FORM:        "arp_form",
	gatewayDropReasonDROP_ARP_SPOOF:       "arp_spoof",
	gatewayDropReasonDROP_IP_SHORT:        "ip_short",
	gatewayDropReasonDROP_IP_VERSION:      "ip_version",
	gatewayDropReasonDROP_IP_OPTIONS:      "ip_options",
	gatewayDropReasonDROP_IP_LENGTH:       "ip_length",
	gatewayDropReasonDROP_FRAGMENT:        "fragment",
	gatewayDropReasonDROP_SOURCE_IP:       "source_ip",
	gatewayDropReasonDROP_DESTINATION_IP:  "destination_ip",
	gatewayDropReasonDROP_ICMP:            "icmp",
	gatewayDropReasonDROP_PROTOCOL:        "protocol",
	gatewayDropReasonDROP_SUM_PLACE:       "sum_place",
	gatewayDropReasonDROP_TCP_LENGTH:      "tcp_length",
	gatewayDropReasonDROP_UDP_LENGTH:      "udp_length",
	gatewayDropReasonDROP_UDP:             "udp",
	gatewayDropReasonDROP_QUIC_PACE:       "quic_pace",
	gatewayDropReasonDROP_REPLY_FAILED:    "reply_failed",
	gatewayDropReasonDROP_FOREIGN_SOCKET:  "foreign_socket",
	gatewayDropReasonDROP_NO_LISTENER:     "no_listener",
	gatewayDropReasonDROP_NO_RESOLVER:     "no_resolver",
	gatewayDropReasonDROP_ASSIGN_FAILED:   "assign_failed",
	gatewayDropReasonDROP_FRAME_PACE:      "frame_pace",
	gatewayDropReasonDROP_DNS_PACE:        "dns_pace",
	gatewayDropReasonDROP_FLOW_PACE:       "flow_pace",
	gatewayDropReasonDROP_SYN_FORM:        "syn_form",
	gatewayDropReasonDROP_FLOW_BUSY:       "flow_busy",
	gatewayDropReasonDROP_FLOW_ORDER:      "flow_order",
	gatewayDropReasonDROP_FLOW_REFUSED:    "flow_refused",
	gatewayDropReasonDROP_FLOW_REVOKED:    "flow_revoked",
	gatewayDropReasonDROP_EVENTS_FULL:     "events_full",
}

// String returns the reason's metric label: lower case letters, digits and '_'.
func (r Reason) String() string {
	if int(r) < len(reasonLabels) {
		return reasonLabels[r]
	}
	return fmt.Sprintf("reason_%d", uint32(r))
}

// Reasons yields every reason for a drop, in the order of the checks.
func Reasons() iter.Seq[Reason] {
	return func(yield func(Reason) bool) {
		for r := gatewayDropReasonDROP_NONE + 1; r < gatewayDropReasonDROP_REASONS; r++ {
			if !yield(Reason(r)) {
				return
			}
		}
	}
}

// Counters are what the datapath counted for one bottle since its link was
// first set up, over restarts of the process. They never decrease, except that
// those of a link that was deleted while no process watched are lost.
type Counters struct {
	// Drops has the reasons that occurred, and no others.
	Drops map[Reason]uint64
	// RxPackets and RxBytes count frames from the bottle with their Ethernet
	// headers, dropped ones included; a frame that the sender left
	// unsegmented (GSO) counts once.
	RxPackets, RxBytes uint64
	// TxPackets and TxBytes count frames to the bottle likewise.
	TxPackets, TxBytes uint64
	// Assigned counts frames given to one of the gateway's sockets, ARP
	// requests for the gateway that were passed, and Refused QUIC datagrams
	// answered with ICMP port unreachable.
	Assigned, ARP, Refused uint64
	// Forwarded counts frames from the bottle that were passed on the fast
	// path, and RSTs that took the place of refused ones.
	Forwarded uint64
	// Redirected counts those of Forwarded that went to the uplink past
	// netfilter and routing.
	Redirected uint64
}

// Dropped returns the sum over all reasons.
func (c Counters) Dropped() uint64 {
	var sum uint64
	for _, n := range c.Drops {
		sum += n
	}
	return sum
}

func (c *Counters) addStats(s *gatewayLinkStats) {
	one := Counters{RxPackets: s.RxPackets, RxBytes: s.RxBytes, TxPackets: s.TxPackets, TxBytes: s.TxBytes,
		Assigned: s.Assigned, ARP: s.Arp, Refused: s.Refused, Forwarded: s.Forwarded, Redirected: s.Redirected, Drops: make(map[Reason]uint64)}
	for r, n := range s.Drops {
		if n > 0 {
			one.Drops[Reason(r)] = n
		}
	}
	c.add(one)
}

func (c *Counters) add(d Counters) {
	c.RxPackets += d.RxPackets
	c.RxBytes += d.RxBytes
	c.TxPackets += d.TxPackets
	c.TxBytes += d.TxBytes
	c.Assigned += d.Assigned
	c.ARP += d.ARP
	c.Refused += d.Refused
	c.Forwarded += d.Forwarded
	c.Redirected += d.Redirected
	if c.Drops == nil {
		c.Drops = make(map[Reason]uint64)
	}
	for r, n := range d.Drops {
		c.Drops[r] += n
	}
}
