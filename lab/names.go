package lab

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Question is one question that reached the internet's DNS server.
type Question struct {
	// Name is as it came, upper and lower case kept, with the final dot.
	Name string
	// Type is the name of the record type, "A" for instance.
	Type string
	// From is who asked.
	From netip.AddrPort
	// Network is "udp" or "tcp".
	Network string
}

// Names is the internet's DNS server. Names that it was not told of do not
// exist (NXDOMAIN); names that it was told of have no data of other types.
type Names struct {
	udp, tcp *dns.Server
	done     sync.WaitGroup

	mu        sync.Mutex
	zone      map[string]nameEntry
	questions []Question
}

type nameEntry struct {
	addrs []netip.Addr
	ttl   uint32
}

func newNames(n *Internet, at netip.AddrPort) (*Names, error) {
	s := &Names{zone: map[string]nameEntry{}}
	pc, err := n.ListenPacket(at)
	if err != nil {
		return nil, fmt.Errorf("start DNS: %w", err)
	}
	l, err := n.Listen(at)
	if err != nil {
		pc.Close()
		return nil, fmt.Errorf("start DNS: %w", err)
	}
	s.udp = &dns.Server{PacketConn: pc, Handler: s}
	s.tcp = &dns.Server{Listener: l, Handler: s}
	for _, srv := range []*dns.Server{s.udp, s.tcp} {
		up := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(up) }
		s.done.Go(func() { _ = srv.ActivateAndServe() }) // ends by Close
		<-up
	}
	return s, nil
}

// Set gives a name these addresses with a TTL of a minute; none at all makes
// the name exist without addresses.
func (s *Names) Set(name string, addrs ...netip.Addr) { s.SetTTL(name, time.Minute, addrs...) }

// SetTTL is Set with a TTL of whole seconds.
func (s *Names) SetTTL(name string, ttl time.Duration, addrs ...netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone[dns.CanonicalName(name)] = nameEntry{slices.Clone(addrs), uint32(ttl / time.Second)}
}

// Questions returns what was asked so far, oldest first.
func (s *Names) Questions() []Question {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.questions)
}

// Asked says whether anybody asked for the name, in whatever case and type.
func (s *Names) Asked(name string) bool {
	return slices.ContainsFunc(s.Questions(), func(q Question) bool {
		return strings.EqualFold(strings.TrimSuffix(q.Name, "."), strings.TrimSuffix(name, "."))
	})
}

// ServeDNS implements dns.Handler.
func (s *Names) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	reply := new(dns.Msg).SetReply(m)
	reply.Authoritative = true
	if len(m.Question) != 1 {
		reply.Rcode = dns.RcodeFormatError
		_ = w.WriteMsg(reply) // the asker retries
		return
	}
	q := m.Question[0]
	from := w.RemoteAddr()
	record := Question{Name: q.Name, Type: dns.TypeToString[q.Qtype], Network: from.Network()}
	switch a := from.(type) {
	case *net.UDPAddr:
		record.From = a.AddrPort()
	case *net.TCPAddr:
		record.From = a.AddrPort()
	}
	s.mu.Lock()
	s.questions = append(s.questions, record)
	entry, ok := s.zone[dns.CanonicalName(q.Name)]
	s.mu.Unlock()
	if !ok {
		reply.Rcode = dns.RcodeNameError
	}
	for _, a := range entry.addrs {
		head := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: entry.ttl}
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			head.Rrtype = dns.TypeA
			reply.Answer = append(reply.Answer, &dns.A{Hdr: head, A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			head.Rrtype = dns.TypeAAAA
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: head, AAAA: a.AsSlice()})
		}
	}
	_ = w.WriteMsg(reply) // the asker retries
}

// Close stops the server and waits for it.
func (s *Names) Close() error {
	errUDP, errTCP := s.udp.Shutdown(), s.tcp.Shutdown()
	s.done.Wait()
	if errUDP != nil {
		return fmt.Errorf("stop DNS on UDP: %w", errUDP)
	}
	if errTCP != nil {
		return fmt.Errorf("stop DNS on TCP: %w", errTCP)
	}
	return nil
}
