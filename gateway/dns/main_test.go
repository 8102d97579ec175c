package dns

import (
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// asked is a question as the upstream of a test got it.
type asked struct {
	network string
	from    netip.AddrPort
	msg     *dns.Msg
}

// upstream is a name server on loopback, over UDP and TCP on one port, that answers as a test says and remembers what it got.
type upstream struct {
	addr netip.AddrPort

	mu     sync.Mutex
	got    []asked
	answer func(network string, q *dns.Msg) *dns.Msg // nil: no answer
}

// newUpstream starts an upstream that answers by answer, until the test ends.
func newUpstream(t testing.TB, answer func(network string, q *dns.Msg) *dns.Msg) *upstream {
	t.Helper()
	u := &upstream{answer: answer}
	pc, l := listenBoth(t)
	u.addr = pc.LocalAddr().(*net.UDPAddr).AddrPort()
	var up sync.WaitGroup
	for network, s := range map[string]*dns.Server{"udp": {PacketConn: pc}, "tcp": {Listener: l}} {
		s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { u.serve(network, w, q) })
		up.Add(1)
		s.NotifyStartedFunc = up.Done
		done := make(chan error, 1)
		go func() { done <- s.ActivateAndServe() }()
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	up.Wait()
	return u
}

// listenBoth takes a port that is free for UDP and for TCP.
func listenBoth(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal("no port that is free for UDP and TCP")
	return nil, nil
}

func (u *upstream) serve(network string, w dns.ResponseWriter, q *dns.Msg) {
	from, _ := netip.ParseAddrPort(w.RemoteAddr().String())
	u.mu.Lock()
	u.got = append(u.got, asked{network, from, q.Copy()})
	u.mu.Unlock()
	if m := u.answer(network, q); m != nil {
		_ = w.WriteMsg(m)
	}
}

// questions returns what was asked so far.
func (u *upstream) questions() []asked {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]asked(nil), u.got...)
}

// zone answers from records in text form, by name in lower case; a name without records is NXDOMAIN.
func zone(records map[string][]string) func(string, *dns.Msg) *dns.Msg {
	return func(_ string, q *dns.Msg) *dns.Msg { return reply(q, records) }
}

// reply answers one question from records.
func reply(q *dns.Msg, records map[string][]string) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	rrs, ok := records[dns.CanonicalName(q.Question[0].Name)]
	if !ok {
		m.Rcode = dns.RcodeNameError
	}
	for _, text := range rrs {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		if t := rr.Header().Rrtype; t == q.Question[0].Qtype || t == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

// addrs parses addresses.
func addrsOf(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, t := range texts {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}
