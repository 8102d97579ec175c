package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var world = map[string][]string{
	"a.example.test.": {"a.example.test. 300 A 192.0.2.1", "a.example.test. 200 A 192.0.2.2", "a.example.test. 300 A 192.0.2.1",
		"a.example.test. 100 AAAA 2001:db8::1"},
	"four.example.test.": {"four.example.test. 300 A 192.0.2.4"},
	"six.example.test.":  {"six.example.test. 300 AAAA 2001:db8::6"},
	"www.example.test.": {"www.example.test. 600 CNAME CDN.example.net.", "cdn.example.net. 60 CNAME edge.example.net.",
		"edge.example.net. 300 A 192.0.2.9", "other.example.net. 300 A 192.0.2.66"},
	"long.example.test.": {"long.example.test. 999999 A 192.0.2.5"},
	"zero.example.test.": {"zero.example.test. 0 A 192.0.2.6"},
	"none.example.test.": {},
}

// resolver makes a resolver with short waits.
func resolver(upstreams ...netip.AddrPort) *Resolver {
	r := NewResolver(upstreams)
	r.try, r.limit = 300*time.Millisecond, 3*time.Second
	return r
}

func TestLookup4(t *testing.T) {
	u := newUpstream(t, zone(world))
	r := resolver(u.addr)
	for name, c := range map[string]struct {
		addrs string
		ttl   time.Duration
	}{
		"a.example.test":    {"[192.0.2.1 192.0.2.2]", 200 * time.Second},
		"www.example.test":  {"[192.0.2.9]", 60 * time.Second},
		"long.example.test": {"[192.0.2.5]", time.Hour},
		"zero.example.test": {"[192.0.2.6]", 0},
	} {
		a, err := r.Lookup4(t.Context(), name)
		if err != nil || fmt.Sprint(a.Addrs) != c.addrs || a.TTL != c.ttl {
			t.Errorf("%s: got %v %v, %v", name, a.Addrs, a.TTL, err)
		}
	}
	for name, kind := range map[string]LookupKind{"six.example.test": NoData, "none.example.test": NoData, "gone.example.test": NXDomain} {
		a, err := r.Lookup4(t.Context(), name)
		var le *LookupError
		if !errors.As(err, &le) || le.Kind != kind || le.Name != name || a.Addrs != nil {
			t.Errorf("%s: got %v, %v", name, a, err)
		}
	}
}

func TestLookup(t *testing.T) {
	u := newUpstream(t, zone(world))
	r := resolver(u.addr)
	for name, want := range map[string]string{
		"a.example.test": "[192.0.2.1 192.0.2.2 2001:db8::1]", "four.example.test": "[192.0.2.4]", "six.example.test": "[2001:db8::6]",
	} {
		if a, err := r.Lookup(t.Context(), name); err != nil || fmt.Sprint(a.Addrs) != want {
			t.Errorf("%s: got %v, %v", name, a.Addrs, err)
		}
	}
	if a, err := r.Lookup(t.Context(), "a.example.test"); err != nil || a.TTL > 100*time.Second {
		t.Errorf("TTL %v, %v", a.TTL, err)
	}
	for name, kind := range map[string]LookupKind{"none.example.test": NoData, "gone.example.test": NXDomain} {
		if _, err := r.Lookup(t.Context(), name); kindOf(err) != kind {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// One family failing is no reason to fail, and a failure is not passed off as an absence.
func TestLookupOneFamilyFails(t *testing.T) {
	u := newUpstream(t, func(_ string, q *dns.Msg) *dns.Msg {
		if q.Question[0].Qtype == dns.TypeAAAA {
			return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
		}
		return reply(q, world)
	})
	r := resolver(u.addr)
	if a, err := r.Lookup(t.Context(), "four.example.test"); err != nil || len(a.Addrs) != 1 {
		t.Errorf("got %v, %v", a, err)
	}
	if _, err := r.Lookup(t.Context(), "none.example.test"); kindOf(err) != ServFail || err == nil {
		t.Errorf("got %v", err)
	}
}

func TestLookupAsksNothingForBadNames(t *testing.T) {
	u := newUpstream(t, zone(world))
	r := resolver(u.addr)
	for _, name := range []string{"", "A.example.test", "a.example.test.", "*.example.test", "192.0.2.1", "localhost", "a\x00.test", "a b.test",
		strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 127) + "test"} {
		if _, err := r.Lookup(t.Context(), name); kindOf(err) != BadName {
			t.Errorf("%q: %v", name, err)
		}
	}
	if got := u.questions(); len(got) != 0 {
		t.Errorf("asked %v", got)
	}
}

// What goes upstream is a question of our own: nothing to guess, nothing to carry data in.
func TestQuestionIsOurs(t *testing.T) {
	u := newUpstream(t, zone(map[string][]string{"longer-name.example.test.": {"longer-name.example.test. 0 A 192.0.2.1"}}))
	r := resolver(u.addr)
	for range 32 {
		if _, err := r.Lookup4(t.Context(), "longer-name.example.test"); err != nil {
			t.Fatal(err)
		}
	}
	ids, ports, spellings := map[uint16]bool{}, map[uint16]bool{}, map[string]bool{}
	for _, q := range u.questions() {
		ids[q.msg.Id], ports[q.from.Port()], spellings[q.msg.Question[0].Name] = true, true, true
		opt := q.msg.IsEdns0()
		if q.network != "udp" || len(q.msg.Question) != 1 || len(q.msg.Extra) != 1 || opt == nil || opt.UDPSize() != ednsSize ||
			len(opt.Option) != 0 || opt.Do() || !q.msg.RecursionDesired || q.msg.AuthenticatedData || q.msg.CheckingDisabled ||
			!strings.EqualFold(q.msg.Question[0].Name, "longer-name.example.test.") {
			t.Fatalf("asked %v", q.msg)
		}
	}
	if len(ids) < 30 || len(spellings) < 28 || len(ports) < 25 {
		t.Errorf("32 queries had %d ids, %d ports, %d spellings", len(ids), len(ports), len(spellings))
	}
}

func TestUpstreamsInTurn(t *testing.T) {
	good := newUpstream(t, zone(world))
	failing := newUpstream(t, func(_ string, q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeRefused) })
	silent := newUpstream(t, func(string, *dns.Msg) *dns.Msg { return nil })
	closed := newUpstream(t, zone(world)).addr
	closed = netip.AddrPortFrom(closed.Addr(), freePort(t))
	for what, first := range map[string]netip.AddrPort{"refusing": failing.addr, "silent": silent.addr, "closed": closed} {
		if a, err := resolver(first, good.addr).Lookup4(t.Context(), "a.example.test"); err != nil || len(a.Addrs) != 2 {
			t.Errorf("%s upstream first: %v, %v", what, a, err)
		}
	}
	for what, c := range map[string]struct {
		upstreams []netip.AddrPort
		kind      LookupKind
	}{
		"none": {nil, ServFail}, "refusing": {[]netip.AddrPort{failing.addr}, ServFail}, "silent": {[]netip.AddrPort{silent.addr}, Timeout},
		"closed": {[]netip.AddrPort{closed}, ServFail},
	} {
		_, err := resolver(c.upstreams...).Lookup4(t.Context(), "a.example.test")
		if err == nil || kindOf(err) != c.kind {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := len(silent.questions()); n != 1+rounds {
		t.Errorf("the silent upstream was asked %d times", n)
	}
}

// freePort returns a UDP port of loopback that nobody listens on.
func freePort(t *testing.T) uint16 {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	return pc.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func TestGoesOnOverTCP(t *testing.T) {
	for what, udp := range map[string]func(q *dns.Msg) *dns.Msg{
		"truncated": func(q *dns.Msg) *dns.Msg {
			m := new(dns.Msg).SetReply(q)
			m.Truncated = true
			return m
		},
		"truncated with an answer": func(q *dns.Msg) *dns.Msg {
			m := reply(q, map[string][]string{"a.example.test.": {"a.example.test. 300 A 192.0.2.77"}})
			m.Truncated = true
			return m
		},
		"case lost": func(q *dns.Msg) *dns.Msg {
			m := reply(q, map[string][]string{"a.example.test.": {"a.example.test. 300 A 192.0.2.77"}})
			m.Question[0].Name = "a.example.test."
			if q.Question[0].Name == m.Question[0].Name {
				m.Question[0].Name = "A.example.test."
			}
			return m
		},
	} {
		u := newUpstream(t, func(network string, q *dns.Msg) *dns.Msg {
			if network == "udp" {
				return udp(q)
			}
			return reply(q, world)
		})
		if a, err := resolver(u.addr).Lookup4(t.Context(), "a.example.test"); err != nil || fmt.Sprint(a.Addrs) != "[192.0.2.1 192.0.2.2]" {
			t.Errorf("%s: got %v, %v", what, a, err)
		}
	}
}

func TestWithoutEDNS(t *testing.T) {
	u := newUpstream(t, func(_ string, q *dns.Msg) *dns.Msg {
		if q.IsEdns0() != nil {
			return new(dns.Msg).SetRcodeFormatError(q)
		}
		return reply(q, world)
	})
	if a, err := resolver(u.addr).Lookup4(t.Context(), "a.example.test"); err != nil || len(a.Addrs) != 2 {
		t.Errorf("got %v, %v", a, err)
	}
}

// Datagrams that are not the answer are read over; too many make the query go on over TCP, where nobody can send them.
func TestStrayAnswers(t *testing.T) {
	evil := func(q *dns.Msg, change func(*dns.Msg)) []byte {
		m := reply(q, map[string][]string{dns.CanonicalName(q.Question[0].Name): {"a.example.test. 300 A 192.0.2.66"}})
		change(m)
		b, err := m.Pack()
		if err != nil {
			panic(err)
		}
		return b
	}
	strays := func(q *dns.Msg) [][]byte {
		return [][]byte{
			{}, {0, 1, 2}, make([]byte, 12),
			evil(q, func(m *dns.Msg) { m.Id++ }),
			evil(q, func(m *dns.Msg) { m.Response = false }),
			evil(q, func(m *dns.Msg) { m.Question[0].Name = "b.example.test." }),
			evil(q, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTXT }),
			evil(q, func(m *dns.Msg) { m.Question = nil }),
		}
	}
	for what, c := range map[string]struct {
		repeat, of int
		answer     bool // the right answer comes after the strays
	}{"few": {1, maxStray - 1, true}, "many": {3, maxStray, false}} {
		pc, l := listenBoth(t)
		var wg sync.WaitGroup
		wg.Go(func() {
			buf := make([]byte, 4096)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				q := new(dns.Msg)
				if q.Unpack(buf[:n]) != nil {
					continue
				}
				for range c.repeat {
					for _, s := range strays(q)[:c.of] {
						_, _ = pc.WriteTo(s, from)
					}
				}
				if c.answer {
					b, _ := reply(q, world).Pack()
					_, _ = pc.WriteTo(b, from)
				}
			}
		})
		var overTCP atomic.Int64
		tcp := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			overTCP.Add(1)
			_ = w.WriteMsg(reply(q, world))
		})}
		wg.Go(func() { _ = tcp.ActivateAndServe() })
		r := resolver(pc.LocalAddr().(*net.UDPAddr).AddrPort())
		a, err := r.Lookup4(t.Context(), "a.example.test")
		if err != nil || fmt.Sprint(a.Addrs) != "[192.0.2.1 192.0.2.2]" {
			t.Errorf("%s: got %v, %v", what, a, err)
		}
		if (overTCP.Load() == 0) != c.answer {
			t.Errorf("%s: asked %d times over TCP", what, overTCP.Load())
		}
		pc.Close()
		l.Close()
		wg.Wait()
	}
}

func TestLookupCache(t *testing.T) {
	u := newUpstream(t, zone(world))
	r := resolver(u.addr)
	now := time.Now()
	r.now = func() time.Time { return now }
	look := func(name string, asked int) Answer {
		t.Helper()
		a, _ := r.Lookup4(t.Context(), name)
		if n := len(u.questions()); n != asked {
			t.Fatalf("%s: %d questions went upstream, want %d", name, n, asked)
		}
		return a
	}
	look("a.example.test", 1)
	now = now.Add(150 * time.Second)
	a := look("a.example.test", 1)
	if a.TTL != 50*time.Second || len(a.Addrs) != 2 {
		t.Errorf("from the cache: %v", a)
	}
	a.Addrs[0] = netip.MustParseAddr("192.0.2.66")
	if b := look("a.example.test", 1); b.Addrs[0] == a.Addrs[0] {
		t.Error("a caller changed the cache")
	}
	now = now.Add(50 * time.Second)
	look("a.example.test", 2)
	look("zero.example.test", 3)
	look("zero.example.test", 4)
	look("gone.example.test", 5)
	look("gone.example.test", 5)
	if _, err := r.Lookup4(t.Context(), "gone.example.test"); kindOf(err) != NXDomain {
		t.Errorf("absence from the cache: %v", err)
	}
	now = now.Add(negativeTTL)
	look("gone.example.test", 6)
	look("none.example.test", 7)
	look("none.example.test", 7)
}

func TestCacheBound(t *testing.T) {
	c := newCache(3)
	now := time.Now()
	for i := range 5 {
		c.put(cacheKey{fmt.Sprint(i), 1}, Answer{}, nil, now.Add(time.Minute))
		c.get(cacheKey{"0", 1}, now)
	}
	if len(c.entries) != 3 || c.recent.Len() != 3 {
		t.Errorf("%d entries", len(c.entries))
	}
	if _, _, ok := c.get(cacheKey{"0", 1}, now); !ok {
		t.Error("the entry in use went")
	}
	c.put(cacheKey{"0", 1}, Answer{TTL: 1}, nil, now)
	if _, _, ok := c.get(cacheKey{"0", 1}, now); ok || len(c.entries) != 2 {
		t.Error("an expired entry stayed")
	}
}

func TestLookupsShareTheWork(t *testing.T) {
	var release sync.WaitGroup
	release.Add(1)
	u := newUpstream(t, func(_ string, q *dns.Msg) *dns.Msg {
		release.Wait()
		return reply(q, world)
	})
	r := NewResolver([]netip.AddrPort{u.addr})
	var wg sync.WaitGroup
	var good atomic.Int32
	for range 20 {
		wg.Go(func() {
			if a, err := r.Lookup4(t.Context(), "a.example.test"); err == nil && fmt.Sprint(a.Addrs) == "[192.0.2.1 192.0.2.2]" {
				a.Addrs[0] = netip.Addr{} // each caller owns its slice
				good.Add(1)
			}
		})
	}
	release.Done()
	wg.Wait()
	if n := len(u.questions()); good.Load() != 20 || n > 2 {
		t.Errorf("%d of 20 answered, %d questions", good.Load(), n)
	}
}

// The flight goes on when the one who began it leaves: others may have joined.
func TestLookupOutlivesItsCaller(t *testing.T) {
	arrived, release := make(chan struct{}, 16), make(chan struct{})
	u := newUpstream(t, func(_ string, q *dns.Msg) *dns.Msg {
		arrived <- struct{}{}
		<-release
		return reply(q, world)
	})
	r := NewResolver([]netip.AddrPort{u.addr})
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := r.Lookup4(ctx, "a.example.test")
		left <- err
	}()
	<-arrived
	cancel()
	if err := <-left; kindOf(err) != Timeout || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := r.Lookup4(ctx, "a.example.test"); kindOf(err) != Timeout {
		t.Errorf("with a context that is over: %v", err)
	}
	close(release)
	for give := time.Now().Add(5 * time.Second); ; pause(t.Context(), time.Millisecond) {
		if _, _, ok := r.cache.get(cacheKey{"a.example.test", dns.TypeA}, time.Now()); ok {
			break
		}
		if time.Now().After(give) {
			t.Fatal("the flight ended with its caller")
		}
	}
	if n := len(u.questions()); n != 1 {
		t.Errorf("%d questions", n)
	}
}

func TestLookupEndsWithItsContext(t *testing.T) {
	u := newUpstream(t, func(string, *dns.Msg) *dns.Msg { return nil })
	r := resolver(u.addr)
	r.limit = 500 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := r.Lookup4(ctx, "a.example.test"); kindOf(err) != Timeout || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 300*time.Millisecond {
		t.Errorf("took %v", took)
	}
	// The flight goes on without its caller, and ends by its own limit.
	if _, err := r.Lookup4(t.Context(), "a.example.test"); kindOf(err) != Timeout {
		t.Errorf("got %v", err)
	}
}

func TestLookupsAreBounded(t *testing.T) {
	r := resolver()
	r.limit = 20 * time.Millisecond
	r.slots = make(chan struct{}, 1)
	r.slots <- struct{}{}
	if _, err := r.Lookup4(t.Context(), "a.example.test"); kindOf(err) != Timeout || !strings.Contains(err.Error(), "too many lookups") {
		t.Errorf("got %v", err)
	}
}

func TestMixCase(t *testing.T) {
	name := "abcdefgh0-_." + strings.Repeat("z", 241)
	seen := map[string]bool{}
	for range 50 {
		q := newQuery(cacheKey{name, dns.TypeA})
		if strings.ToLower(q.name) != name+"." {
			t.Fatalf("got %q", q.name)
		}
		seen[q.name] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d spellings of 50", len(seen))
	}
	if got := mixCase("ab.c1", []byte{0b10010}); got != "aB.c1" {
		t.Errorf("got %q", got)
	}
}

func TestReadAnswer(t *testing.T) {
	loop := []string{"a.example.test. 1 CNAME b.example.test.", "b.example.test. 1 CNAME a.example.test."}
	var long []string
	for i := range maxChain + 1 {
		from := fmt.Sprintf("n%d.test.", i)
		if i == 0 {
			from = "a.example.test."
		}
		long = append(long, fmt.Sprintf("%s 9 CNAME n%d.test.", from, i+1))
	}
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("a.example.test. 9 A 192.0.2.%d", i))
	}
	soa := func(ttl, minimum int) string {
		return fmt.Sprintf("example.test. %d SOA ns.example.test. h.example.test. 1 2 3 4 %d", ttl, minimum)
	}
	for what, c := range map[string]struct {
		answer, ns []string
		rcode      int
		addrs      string
		count      int
		ttl        time.Duration
		kind       LookupKind
		fails      bool
	}{
		"case does not matter":  {answer: []string{"A.Example.TEST. 7 A 192.0.2.1"}, addrs: "[192.0.2.1]", ttl: 7 * time.Second},
		"chain out of order":    {answer: []string{"c.test. 7 A 192.0.2.1", "b.test. 5 CNAME C.test.", "a.example.test. 9 CNAME B.test."}, addrs: "[192.0.2.1]", ttl: 5 * time.Second},
		"another owner":         {answer: []string{"b.example.test. 7 A 192.0.2.1"}, kind: NoData, fails: true, ttl: negativeTTL},
		"a chain from another":  {answer: []string{"b.example.test. 7 CNAME c.test.", "c.test. 7 A 192.0.2.1"}, kind: NoData, fails: true, ttl: negativeTTL},
		"half a chain":          {answer: []string{"a.example.test. 7 CNAME c.test."}, kind: NoData, fails: true, ttl: negativeTTL},
		"a chain that passes":   {answer: []string{"a.example.test. 7 CNAME c.test.", "a.example.test. 7 A 192.0.2.66", "c.test. 7 A 192.0.2.1"}, addrs: "[192.0.2.1]", ttl: 7 * time.Second},
		"another class":         {answer: []string{"a.example.test. 7 CH A 192.0.2.1"}, kind: NoData, fails: true, ttl: negativeTTL},
		"another type":          {answer: []string{"a.example.test. 7 AAAA 2001:db8::1", "a.example.test. 7 TXT x"}, kind: NoData, fails: true, ttl: negativeTTL},
		"loop":                  {answer: loop, fails: true},
		"long chain":            {answer: long, fails: true},
		"two CNAMEs":            {answer: []string{"a.example.test. 7 CNAME b.test.", "a.example.test. 7 CNAME c.test."}, fails: true},
		"one CNAME twice":       {answer: []string{"a.example.test. 7 CNAME b.test.", "a.example.test. 7 CNAME b.test.", "b.test. 8 A 192.0.2.1"}, addrs: "[192.0.2.1]", ttl: 7 * time.Second},
		"TTL with the top bit":  {answer: []string{"a.example.test. 2147483648 A 192.0.2.1"}, addrs: "[192.0.2.1]"},
		"many":                  {answer: many, count: maxAddrs, ttl: 9 * time.Second},
		"absent":                {rcode: dns.RcodeNameError, ns: []string{soa(30, 20)}, kind: NXDomain, fails: true, ttl: 20 * time.Second},
		"absent for long":       {rcode: dns.RcodeNameError, ns: []string{soa(9999, 9999)}, kind: NXDomain, fails: true, ttl: maxNegativeTTL},
		"empty":                 {ns: []string{soa(10, 20)}, kind: NoData, fails: true, ttl: 10 * time.Second},
		"absent behind a chain": {answer: []string{"a.example.test. 7 CNAME c.test."}, rcode: dns.RcodeNameError, kind: NXDomain, fails: true, ttl: negativeTTL},
		"refused":               {rcode: dns.RcodeRefused, answer: []string{"a.example.test. 7 A 192.0.2.1"}, fails: true},
		"unknown rcode":         {rcode: 3841, fails: true},
	} {
		t.Run(what, func(t *testing.T) {
			m := new(dns.Msg)
			m.Rcode = c.rcode
			for _, text := range c.answer {
				m.Answer = append(m.Answer, mustRR(t, text))
			}
			for _, text := range c.ns {
				m.Ns = append(m.Ns, mustRR(t, text))
			}
			got, err := readAnswer(m, cacheKey{"a.example.test", dns.TypeA})
			if (err != nil) != c.fails || kindOf(err) != c.kind || got.TTL != c.ttl {
				t.Fatalf("got %v, %v", got, err)
			}
			if c.addrs != "" && fmt.Sprint(got.Addrs) != c.addrs || c.count > 0 && len(got.Addrs) != c.count || err != nil && got.Addrs != nil {
				t.Errorf("got %v", got.Addrs)
			}
		})
	}
}

func mustRR(t *testing.T, text string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

// FuzzUpstreamAnswer feeds the parser of upstream answers: whatever comes, the addresses are those of A records, few, and with
// a bounded TTL; and only a message with the right id and question is looked at.
func FuzzUpstreamAnswer(f *testing.F) {
	key := cacheKey{"www.example.test", dns.TypeA}
	q := query{id: 0x1234, name: "wWw.exaMPle.test.", qtype: dns.TypeA, edns: true}
	m := new(dns.Msg)
	m.SetQuestion(q.name, dns.TypeA)
	m.Id = q.id
	for _, r := range []*dns.Msg{
		reply(m, world), reply(m, nil), new(dns.Msg).SetRcode(m, dns.RcodeServerFailure),
		reply(m, map[string][]string{"www.example.test.": {"www.example.test. 1 A 192.0.2.1"}}),
	} {
		for _, compress := range []bool{false, true} {
			r.Compress = compress
			b, err := r.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
			f.Add(b[:len(b)/2])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := q.match(b, true)
		if got == nil || err != nil {
			return
		}
		if len(got.Question) == 0 && got.Rcode == dns.RcodeFormatError {
			return
		}
		if got.Id != q.id || len(got.Question) != 1 || !strings.EqualFold(got.Question[0].Name, q.name) {
			t.Fatalf("matched %v", got)
		}
		a, err := readAnswer(got, key)
		if err != nil && a.Addrs != nil || err == nil && len(a.Addrs) == 0 || len(a.Addrs) > maxAddrs || a.TTL < 0 || a.TTL > maxTTL {
			t.Fatalf("got %v, %v", a, err)
		}
		if slices.ContainsFunc(a.Addrs, func(a netip.Addr) bool { return !a.Is4() }) {
			t.Fatalf("got %v", a.Addrs)
		}
	})
}
