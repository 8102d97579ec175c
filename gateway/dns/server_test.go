package dns

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"gatewayd/gateway/routes"
)

var block = netip.MustParseAddr("198.18.0.9")

// plan is a policy of tests: exact names and one wildcard, real addresses from TEST-NET-1 only.
type plan struct{}

func (plan) Resolve(name string) (routes.NameRule, bool) {
	switch name {
	case "a.example.test", "gone.example.test", "none.example.test", "bad.example.test", "mixed.example.test", "special.example.test",
		"big.example.test", "www.example.test", "zero.example.test", "long.example.test", "four.example.test", "in-plan.local":
		return routes.NameRule{Pattern: name}, true
	case "corp.example.test":
		return routes.NameRule{Pattern: name, AllowPrivate: true}, true
	case "answered.example.test":
		return routes.NameRule{Pattern: name, Answered: true}, true
	}
	if strings.HasSuffix(name, ".wild.test") {
		return routes.NameRule{Pattern: "*.wild.test", Wildcard: true}, true
	}
	return routes.NameRule{}, false
}

func (plan) Check(a netip.Addr, allowPrivate bool) error {
	if a.IsPrivate() && allowPrivate || netip.MustParsePrefix("192.0.2.0/24").Contains(a) {
		return nil
	}
	return fmt.Errorf("%s is special", a)
}

// planWorld is what the upstream of the plan knows.
func planWorld(_ string, q *dns.Msg) *dns.Msg {
	records := map[string][]string{
		"bad.example.test.":     nil,
		"mixed.example.test.":   {"mixed.example.test. 60 A 10.0.0.1", "mixed.example.test. 60 A 192.0.2.8", "mixed.example.test. 60 A 169.254.169.254"},
		"special.example.test.": {"special.example.test. 60 A 127.0.0.1", "special.example.test. 60 A 10.0.0.1"},
		"corp.example.test.":    {"corp.example.test. 60 A 10.0.0.1", "corp.example.test. 60 A 127.0.0.1"},
		"in-plan.local.":        {"in-plan.local. 60 A 192.0.2.7"},
	}
	for name, rrs := range world {
		records[name] = rrs
	}
	for i := range 64 {
		records["big.example.test."] = append(records["big.example.test."], fmt.Sprintf("big.example.test. 60 A 192.0.2.%d", i+1))
	}
	name := dns.CanonicalName(q.Question[0].Name)
	if name == "bad.example.test." {
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	if strings.HasSuffix(name, ".wild.test.") {
		records[name] = []string{name + " 60 A 192.0.2.20"}
	}
	return reply(q, records)
}

// told collects events.
type heard struct {
	mu     sync.Mutex
	events []Event
}

func (h *heard) hear(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// take returns "kind name type" of the events since the last call.
func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var s []string
	for _, e := range h.events {
		s = append(s, fmt.Sprintf("%s %s %s", e.Kind, e.Name, e.Type))
	}
	h.events = nil
	return s
}

// newServer makes a server for the plan over the upstream, and its events.
func newServer(u *upstream, set func(*Config)) (*Server, *heard) {
	h := &heard{}
	r, at := resolver(u.addr), time.Now()
	r.now = func() time.Time { return at }
	cfg := Config{
		Bottle: "dev", Policy: func() Policy { return plan{} }, Upstream: r, Pins: NewPins(Limits{}), Block: block, Event: h.hear,
	}
	if set != nil {
		set(&cfg)
	}
	return NewServer(cfg), h
}

// ask makes a guest's question.
func ask(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	return m
}

// exchange hands a message to the server and parses the reply; nil when there is none.
func exchange(t *testing.T, s *Server, m *dns.Msg) *dns.Msg {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, s.Handle(b))
}

func parse(t *testing.T, b []byte) *dns.Msg {
	t.Helper()
	if b == nil {
		return nil
	}
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("reply %x: %v", b, err)
	}
	return m
}

// summary is a reply in one line: rcode, addresses, TTL of the first record, and whether it can be cached as negative.
func summary(m *dns.Msg) string {
	if m == nil {
		return "nothing"
	}
	s := dns.RcodeToString[m.Rcode]
	if m.Rcode == dns.RcodeBadVers { // of one number with BADSIG
		s = "BADVERS"
	}
	for _, rr := range m.Answer {
		a, ok := rr.(*dns.A)
		if !ok {
			return s + " " + rr.String()
		}
		s += " " + a.A.String()
	}
	if len(m.Answer) > 0 {
		s += fmt.Sprint(" ttl ", m.Answer[0].Header().Ttl)
	}
	for _, rr := range m.Ns {
		s += fmt.Sprint(" soa ", rr.(*dns.SOA).Minttl, "/", rr.Header().Ttl)
	}
	return s
}

func TestAnsweredHere(t *testing.T) {
	u := newUpstream(t, func(_ string, q *dns.Msg) *dns.Msg {
		t.Errorf("upstream was asked for %s", q.Question[0].Name)
		return new(dns.Msg).SetRcode(q, dns.RcodeNameError)
	})
	for _, c := range []struct {
		here string
		want string
	}{
		{"198.18.0.10", "NOERROR 198.18.0.10 ttl 30"},
		{"::ffff:198.18.0.10", "NOERROR 198.18.0.10 ttl 30"},
		{"2001:db8::1", "SERVFAIL"},
		{"", "SERVFAIL"},
	} {
		s, _ := newServer(u, func(cfg *Config) {
			if cfg.Block = (netip.Addr{}); c.here != "" {
				cfg.Answered = netip.MustParseAddr(c.here)
			}
		})
		if got := summary(exchange(t, s, ask("Answered.example.test.", dns.TypeA))); got != c.want {
			t.Errorf("with %q: %s, want %s", c.here, got, c.want)
		}
		if got := summary(exchange(t, s, ask("answered.example.test.", dns.TypeAAAA))); got != "NOERROR soa 30/30" {
			t.Errorf("AAAA with %q: %s", c.here, got)
		}
	}
}

func TestHandle(t *testing.T) {
	u := newUpstream(t, planWorld)
	s, h := newServer(u, nil)
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
		event string
	}{
		{"a.example.test.", dns.TypeA, "NOERROR 192.0.2.1 192.0.2.2 ttl 200", ""},
		{"A.Example.TEST.", dns.TypeA, "NOERROR 192.0.2.1 192.0.2.2 ttl 200", ""},
		{"www.example.test.", dns.TypeA, "NOERROR 192.0.2.9 ttl 60", ""},
		{"zero.example.test.", dns.TypeA, "NOERROR 192.0.2.6 ttl 30", ""},
		{"long.example.test.", dns.TypeA, "NOERROR 192.0.2.5 ttl 3600", ""},
		{"x.wild.test.", dns.TypeA, "NOERROR 192.0.2.20 ttl 60", ""},
		{"in-plan.local.", dns.TypeA, "NOERROR 192.0.2.7 ttl 60", ""},
		{"gone.example.test.", dns.TypeA, "NXDOMAIN soa 5/5", ""},
		{"none.example.test.", dns.TypeA, "NOERROR soa 5/5", ""},
		{"bad.example.test.", dns.TypeA, "SERVFAIL", "failed bad.example.test A"},
		{"mixed.example.test.", dns.TypeA, "NOERROR 192.0.2.8 ttl 60", "filtered mixed.example.test A"},
		{"special.example.test.", dns.TypeA, "NOERROR 198.18.0.9 ttl 5", "filtered special.example.test A"},
		{"corp.example.test.", dns.TypeA, "NOERROR 10.0.0.1 ttl 60", "filtered corp.example.test A"},
		{"a.example.test.", dns.TypeAAAA, "NOERROR soa 30/30", ""},
		{"a.example.test.", dns.TypeHTTPS, "NOERROR soa 30/30", ""},
		{"a.example.test.", dns.TypeSVCB, "NOERROR soa 30/30", ""},
		{"a.example.test.", dns.TypeMX, "NOERROR soa 30/30", ""},
		{"a.example.test.", dns.TypeCNAME, "NOERROR soa 30/30", ""},
		{"evil.test.", dns.TypeA, "NOERROR 198.18.0.9 ttl 5", "denied evil.test A"},
		{"evil.test.", dns.TypeAAAA, "NOERROR soa 5/5", ""},
		{"evil.test.", dns.TypeHTTPS, "NOERROR soa 5/5", ""},
		{"b.a.example.test.", dns.TypeA, "NOERROR 198.18.0.9 ttl 5", "denied b.a.example.test A"},
		{"wild.test.", dns.TypeA, "NOERROR 198.18.0.9 ttl 5", "denied wild.test A"},
		{"1.2.0.192.in-addr.arpa.", dns.TypePTR, "NXDOMAIN soa 5/5", ""},
		{"printer.local.", dns.TypeA, "NXDOMAIN soa 5/5", ""},
		{"x.localhost.", dns.TypeA, "NXDOMAIN soa 5/5", ""},
		{"localhost.", dns.TypeA, "NXDOMAIN soa 5/5", ""},
		{"db.", dns.TypeA, "NXDOMAIN soa 5/5", ""},
		{".", dns.TypeNS, "NXDOMAIN soa 5/5", ""},
		{"192.0.2.1.", dns.TypeA, "NXDOMAIN soa 5/5", ""},
		{`a\.example.test.`, dns.TypeA, "NXDOMAIN soa 5/5", ""},
		{`a.example.test\000.`, dns.TypeA, "NXDOMAIN soa 5/5", ""},
		{`*.wild.test.`, dns.TypeA, "NXDOMAIN soa 5/5", ""},
		{"a.example.test.", dns.TypeTXT, "REFUSED", "refused a.example.test TXT"},
		{"b.test.", dns.TypeTXT, "REFUSED", "refused b.test TXT"},
		{"c.test.", dns.TypeANY, "REFUSED", "refused c.test ANY"},
		{"d.test.", dns.TypeAXFR, "REFUSED", "refused d.test AXFR"},
		{"e.test.", dns.TypeIXFR, "REFUSED", "refused e.test IXFR"},
		{"f.test.", dns.TypeNULL, "REFUSED", "refused f.test NULL"},
		{"g.test.", 65280, "REFUSED", "refused g.test TYPE65280"},
		{`h\010.test.`, 200, "REFUSED", `refused h\010.test. TYPE200`},
	} {
		m := ask(c.name, c.qtype)
		got := exchange(t, s, m)
		if summary(got) != c.want {
			t.Errorf("%s %d: got %s, want %s", c.name, c.qtype, summary(got), c.want)
		}
		if got == nil || got.Id != m.Id || !got.Response || !got.RecursionAvailable || !got.RecursionDesired || got.Authoritative ||
			len(got.Question) != 1 || got.Question[0] != m.Question[0] || len(got.Extra) != 0 {
			t.Errorf("%s %d: header or question of %v", c.name, c.qtype, got)
		}
		events := strings.Join(slices.Compact(h.take()), ", ")
		if events != c.event {
			t.Errorf("%s %d: events %q, want %q", c.name, c.qtype, events, c.event)
		}
	}
	for _, q := range u.questions() {
		if qq := q.msg.Question[0]; qq.Qtype != dns.TypeA || strings.Contains(strings.ToLower(qq.Name), "evil") {
			t.Errorf("asked upstream: %v", qq)
		}
	}
	got := fmt.Sprint(s.cfg.Pins.byNames())
	want := "map[10.0.0.1:[corp.example.test] 192.0.2.1:[a.example.test] 192.0.2.2:[a.example.test] 192.0.2.5:[long.example.test] " +
		"192.0.2.6:[zero.example.test] 192.0.2.7:[in-plan.local] 192.0.2.8:[mixed.example.test] 192.0.2.9:[www.example.test] 192.0.2.20:[x.wild.test]]"
	if got != want {
		t.Errorf("pins\n%s, want\n%s", got, want)
	}
}

func TestHandleNXDomainMode(t *testing.T) {
	u := newUpstream(t, planWorld)
	s, _ := newServer(u, func(c *Config) { c.Block = netip.Addr{} })
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"evil.test.", dns.TypeA, "NXDOMAIN soa 5/5"}, {"evil.test.", dns.TypeAAAA, "NXDOMAIN soa 5/5"},
		{"special.example.test.", dns.TypeA, "NOERROR soa 5/5"}, {"a.example.test.", dns.TypeA, "NOERROR 192.0.2.1 192.0.2.2 ttl 200"},
	} {
		if got := summary(exchange(t, s, ask(c.name, c.qtype))); got != c.want {
			t.Errorf("%s %d: got %s, want %s", c.name, c.qtype, got, c.want)
		}
	}
	if v6, _ := newServer(u, func(c *Config) { c.Block = netip.MustParseAddr("2001:db8::1") }); v6.cfg.Block.IsValid() {
		t.Error("an IPv6 block address was taken")
	}
}

// Whatever is missing, nothing is allowed.
func TestHandleFailsClosed(t *testing.T) {
	u := newUpstream(t, planWorld)
	for what, c := range map[string]struct {
		set  func(*Config)
		want string
	}{
		"no policy":   {func(c *Config) { c.Policy = nil }, "NOERROR 198.18.0.9 ttl 5"},
		"no plan":     {func(c *Config) { c.Policy = func() Policy { return nil } }, "NOERROR 198.18.0.9 ttl 5"},
		"panicking":   {func(c *Config) { c.Policy = func() Policy { panic("a bug") } }, "nothing"},
		"no upstream": {func(c *Config) { c.Upstream = nil }, "SERVFAIL"},
		"no pins":     {func(c *Config) { c.Pins = nil }, "SERVFAIL"},
		"full pins": {func(c *Config) {
			c.Pins = NewPins(Limits{Total: 1})
			_ = c.Pins.Add("z.test", addrsOf("192.0.2.99"), time.Hour)
		}, "SERVFAIL"},
		"pin hook fails": {func(c *Config) {
			c.Pinned = func(string, []netip.Addr, time.Duration) error { return errors.New("map is full") }
		}, "SERVFAIL"},
		"pin hook panics": {func(c *Config) {
			c.Pinned = func(string, []netip.Addr, time.Duration) error { panic("a bug") }
		}, "nothing"},
	} {
		t.Run(what, func(t *testing.T) {
			s, _ := newServer(u, c.set)
			if got := summary(exchange(t, s, ask("a.example.test.", dns.TypeA))); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if s.cfg.Pins != nil && what != "pin hook fails" && what != "pin hook panics" && len(s.cfg.Pins.Names(addrsOf("192.0.2.1")[0])) != 0 {
				t.Error("pinned")
			}
		})
	}
}

func TestHandleLogsPanics(t *testing.T) {
	var log bytes.Buffer
	s, _ := newServer(newUpstream(t, planWorld), func(c *Config) {
		c.Policy = func() Policy { panic("a bug") }
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	exchange(t, s, ask("a.example.test.", dns.TypeA))
	if !strings.Contains(log.String(), "a bug") || s.Outcomes()[Panicked] != 1 {
		t.Errorf("log %q, outcomes %v", log.String(), s.Outcomes())
	}
}

// The pin is there before the guest has the answer.
func TestPinBeforeAnswer(t *testing.T) {
	var s *Server
	calls := 0
	s, _ = newServer(newUpstream(t, planWorld), func(c *Config) {
		c.Pinned = func(name string, addrs []netip.Addr, ttl time.Duration) error {
			calls++
			if name != "a.example.test" || len(addrs) != 2 || ttl != 200*time.Second || len(s.cfg.Pins.Names(addrs[0])) != 1 {
				t.Errorf("pinned %s %v %v", name, addrs, ttl)
			}
			return nil
		}
	})
	if exchange(t, s, ask("a.example.test.", dns.TypeA)); calls != 1 {
		t.Errorf("%d calls", calls)
	}
	if exchange(t, s, ask("evil.test.", dns.TypeA)); calls != 1 {
		t.Error("the block address was pinned")
	}
}

func TestHandleMalformed(t *testing.T) {
	u := newUpstream(t, planWorld)
	s, _ := newServer(u, nil)
	good, err := ask("a.example.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	set := func(i int, v byte) []byte { return change(func(b []byte) []byte { b[i] = v; return b }) }
	opt := func(b ...byte) []byte { return change(func(m []byte) []byte { m[11] = 1; return append(m, b...) }) }
	for what, c := range map[string]struct {
		msg  []byte
		want string
	}{
		"empty":                  {nil, "nothing"},
		"short":                  {good[:11], "nothing"},
		"a response":             {set(2, 0x81), "nothing"},
		"header alone":           {good[:12], "FORMERR"},
		"name cut":               {good[:20], "FORMERR"},
		"class cut":              {good[:len(good)-1], "FORMERR"},
		"opcode notify":          {set(2, 0x21), "NOTIMP"},
		"opcode update":          {set(2, 0x29), "NOTIMP"},
		"truncated":              {set(2, 0x03), "FORMERR"},
		"no question":            {set(5, 0), "FORMERR"},
		"two questions":          {change(func(b []byte) []byte { b[5] = 2; return append(b, b[12:]...) }), "FORMERR"},
		"an answer":              {set(7, 1), "FORMERR"},
		"an authority":           {set(9, 1), "FORMERR"},
		"two additional":         {set(11, 2), "FORMERR"},
		"bytes behind":           {append(bytes.Clone(good), 0), "FORMERR"},
		"label of 64":            {set(12, 64), "FORMERR"},
		"pointer":                {set(12, 0xc0), "FORMERR"},
		"class CH":               {set(len(good)-1, 3), "REFUSED"},
		"class ANY":              {set(len(good)-1, 255), "REFUSED"},
		"announced OPT missing":  {set(11, 1), "FORMERR"},
		"OPT":                    {opt(0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0), "NOERROR 192.0.2.1 192.0.2.2 ttl 200"},
		"OPT with options":       {opt(0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6, 0, 10, 0, 2, 1, 2), "NOERROR 192.0.2.1 192.0.2.2 ttl 200"},
		"OPT of version 1":       {opt(0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0), "BADVERS"},
		"OPT with a name":        {opt(1, 'a', 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0), "FORMERR"},
		"OPT cut":                {opt(0, 0, 41, 4, 208, 0, 0, 0, 0, 0), "FORMERR"},
		"OPT over the end":       {opt(0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 1), "FORMERR"},
		"bytes behind OPT":       {opt(0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0, 9), "FORMERR"},
		"TSIG in place of OPT":   {opt(0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0), "FORMERR"},
		"name over 255":          {longName(), "FORMERR"},
		"64 KB":                  {append(bytes.Clone(good), make([]byte, 1<<16)...), "FORMERR"},
		"recursion not desired":  {set(2, 0), "NOERROR 192.0.2.1 192.0.2.2 ttl 200"},
		"name without a root":    {good[:len(good)-5], "FORMERR"},
		"zero length everywhere": {make([]byte, 12), "FORMERR"},
	} {
		got := parse(t, s.Handle(c.msg))
		if summary(got) != c.want {
			t.Errorf("%s: got %s, want %s", what, summary(got), c.want)
		}
		if got != nil && (got.Id != uint16(c.msg[0])<<8|uint16(c.msg[1]) || !got.Response || got.RecursionDesired != (c.msg[2]&1 == 1)) {
			t.Errorf("%s: header of %v", what, got)
		}
	}
}

// longName is a question for a name of more than 255 bytes.
func longName() []byte {
	b := []byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for range 5 {
		b = append(append(b, 63), bytes.Repeat([]byte{'a'}, 63)...)
	}
	return append(b, 0, 0, 1, 0, 1)
}

// What a guest puts into its message beside the question is neither echoed nor sent on.
func TestHandleForgetsTheRest(t *testing.T) {
	u := newUpstream(t, planWorld)
	s, _ := newServer(u, nil)
	m := ask("A.example.TEST.", dns.TypeA)
	m.AuthenticatedData, m.Zero, m.CheckingDisabled = true, true, true
	m.SetEdns0(4096, true)
	m.IsEdns0().Option = []dns.EDNS0{
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"},
		&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("smuggled")},
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32, Address: []byte{192, 0, 2, 55}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	reply := s.Handle(b)
	got := parse(t, reply)
	opt := got.IsEdns0()
	if opt == nil || len(got.Extra) != 1 || len(opt.Option) != 0 || opt.UDPSize() != ednsSize || opt.Do() || opt.Version() != 0 {
		t.Errorf("EDNS of the reply: %v", got.Extra)
	}
	if got.AuthenticatedData || got.Zero || !got.CheckingDisabled || got.Question[0].Name != "A.example.TEST." {
		t.Errorf("reply %v", got)
	}
	asked := u.questions()
	if len(asked) != 1 {
		t.Fatalf("asked %v", asked)
	}
	q := asked[0].msg
	if q.Id == m.Id || q.AuthenticatedData || q.Zero || q.CheckingDisabled || q.IsEdns0() == nil || len(q.IsEdns0().Option) != 0 || q.IsEdns0().Do() {
		t.Errorf("asked upstream: %v", q)
	}
}

// realPlan is a plan of the real packages: the table's names and the guard's addresses.
type realPlan struct {
	*routes.Table
	routes.Guard
}

// Rebinding: a name of the plan that resolves to where nobody may go, in every class of address that there is.
func TestHandleRebinding(t *testing.T) {
	table, err := routes.NewTable([]routes.Route{
		{Host: "a.example.test"}, {Host: "corp.example.test", AllowPrivate: true}, {Host: "*.wild.test", TLSPassthrough: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	self := netip.MustParseAddr("8.8.4.4")
	guard := routes.Guard{Self: func(a netip.Addr) bool { return a == self }}
	var answer string
	u := newUpstream(t, func(_ string, q *dns.Msg) *dns.Msg {
		name := dns.CanonicalName(q.Question[0].Name)
		return reply(q, map[string][]string{name: {name + " 0 A " + answer}})
	})
	s, _ := newServer(u, func(c *Config) { c.Policy = func() Policy { return realPlan{table, guard} } })
	for addr, want := range map[string]struct{ public, private bool }{
		"8.8.8.8": {true, true}, "10.1.2.3": {false, true}, "172.16.0.1": {false, true}, "192.168.0.1": {false, true}, "100.64.0.1": {false, true},
		"127.0.0.1": {}, "0.0.0.0": {}, "169.254.169.254": {}, "169.254.0.1": {}, "224.0.0.1": {}, "255.255.255.255": {}, "240.0.0.1": {},
		"8.8.4.4": {},
	} {
		answer = addr
		for name, told := range map[string]bool{"a.example.test.": want.public, "x.wild.test.": want.public, "corp.example.test.": want.private} {
			got := exchange(t, s, ask(name, dns.TypeA))
			if (len(got.Answer) == 1 && got.Answer[0].(*dns.A).A.String() == addr) != told {
				t.Errorf("%s at %s: %s", name, addr, summary(got))
			}
			pinned := slices.Contains(s.cfg.Pins.Names(netip.MustParseAddr(addr)), strings.TrimSuffix(name, "."))
			if pinned != told {
				t.Errorf("%s at %s: pinned %v", name, addr, pinned)
			}
		}
	}
}

func TestHandleSizes(t *testing.T) {
	s, _ := newServer(newUpstream(t, planWorld), nil)
	for size, want := range map[uint16]struct {
		addrs int
		tc    bool
	}{0: {28, true}, 100: {28, true}, 512: {28, true}, 1232: {64, false}, 4096: {64, false}} {
		m := ask("big.example.test.", dns.TypeA)
		if size > 0 {
			m.SetEdns0(size, false)
		}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		reply := s.Handle(b)
		got := parse(t, reply)
		if limit := min(max(int(size), 512), ednsSize); len(reply) > limit {
			t.Errorf("size %d: reply of %d bytes", size, len(reply))
		}
		if n := len(got.Answer); got.Truncated != want.tc || n < want.addrs || n > 64 {
			t.Errorf("size %d: %d addresses, truncated %v", size, n, got.Truncated)
		}
	}
}

func TestWords(t *testing.T) {
	seen := map[string]bool{}
	for o := range outcomes {
		seen[o.String()] = true
	}
	if len(seen) != int(outcomes) || seen[""] || Outcome(99).String() != "unknown" {
		t.Errorf("outcomes %v", seen)
	}
	for k := Denied; k <= Failed; k++ {
		if k.String() == "unknown" {
			t.Errorf("event kind %d has no word", k)
		}
	}
	kinds := map[string]bool{}
	for k := ServFail; k <= BadName; k++ {
		kinds[k.String()] = true
	}
	if len(kinds) != int(BadName)+1 || EventKind(0).String() != "unknown" {
		t.Errorf("lookup kinds %v", kinds)
	}
}

// FuzzHandle: whatever a guest sends, the reply is a well-formed answer to its question, within its size, whose addresses are
// the block address or pinned.
func FuzzHandle(f *testing.F) {
	for _, m := range []*dns.Msg{ask("a.example.test.", dns.TypeA), ask("evil.test.", dns.TypeA), ask("x.wild.test.", dns.TypeAAAA), ask(".", dns.TypeANY)} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		m.SetEdns0(1400, true)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")}}
		if b, err = m.Pack(); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	r := NewResolver(nil)
	r.cache.put(cacheKey{"a.example.test", dns.TypeA}, Answer{Addrs: addrsOf("192.0.2.1", "10.0.0.1")}, nil, time.Now().Add(time.Hour))
	s := NewServer(Config{
		Policy: func() Policy { return plan{} }, Upstream: r, Pins: NewPins(Limits{}), Block: block, QueriesPerSecond: 1e9, Burst: 1e9, NewNamesPerMinute: 1e9,
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		reply := s.Handle(b)
		if n := s.Outcomes()[Panicked]; n != 0 {
			t.Fatalf("%d panics", n)
		}
		if reply == nil {
			if len(b) >= headerSize && b[2]&0x80 == 0 {
				t.Fatalf("no reply to %x", b)
			}
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(reply); err != nil || !m.Response || len(reply) > ednsSize || !bytes.Equal(reply[:2], b[:2]) {
			t.Fatalf("reply %x, %v", reply, err)
		}
		if len(m.Question) == 1 {
			if n := len(reply); n < headerSize || !bytes.HasPrefix(b[headerSize:], questionBytes(reply)) {
				t.Fatalf("another question: %v", m.Question)
			}
		}
		for _, rr := range m.Answer {
			a, _ := netip.AddrFromSlice(rr.(*dns.A).A.To4())
			if a != block && len(s.cfg.Pins.Names(a)) == 0 {
				t.Fatalf("told %v, which is not pinned", a)
			}
		}
	})
}

// questionBytes returns the first question of a message as it is on the wire.
func questionBytes(b []byte) []byte {
	i := headerSize
	for b[i] != 0 {
		i += 1 + int(b[i])
	}
	return b[headerSize : i+5]
}
