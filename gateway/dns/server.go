package dns

import (
	"context"
	"fmt"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"gatewayd/gateway/routes"
)

const (
	// minTTL and maxTTL bound what a guest is told. The lower bound keeps a guest from asking on every connection.
	minTTL = 30 * time.Second
	// blockTTL is the TTL of the block address and of NXDOMAIN for names outside the plan: a new plan is to be felt soon.
	blockTTL = 5 * time.Second
	// emptyTTL is the TTL of NODATA for what is never answered.
	emptyTTL = 30 * time.Second
)

// Server is the resolver of one bottle. It answers questions for addresses of names in the plan, after pinning what it
// answers, and nothing else; what a guest writes into a message beside the question goes nowhere. Safe for use by many
// goroutines.
type Server struct {
	cfg     Config
	queries *rate.Limiter
	fresh   *newNames
	events  *events
	counts  counts
}

// NewServer returns a server for cfg. It starts nothing.
func NewServer(cfg Config) *Server {
	cfg = cfg.withDefaults()
	return &Server{
		cfg:     cfg,
		queries: rate.NewLimiter(rate.Limit(cfg.QueriesPerSecond), cfg.Burst),
		fresh:   newNewNames(cfg.NewNamesPerMinute),
		events:  newEvents(),
	}
}

// Handle answers one message as over UDP; nil means that nothing is to be sent. It blocks while a lookup runs, at most some
// seconds. It keeps nothing of msg.
func (s *Server) Handle(msg []byte) (reply []byte) { return s.handle(context.Background(), msg, false) }

// handle answers one message; over TCP a reply may have any length.
func (s *Server) handle(ctx context.Context, msg []byte, tcp bool) (reply []byte) {
	outcome := Panicked
	defer func() {
		if p := recover(); p != nil {
			reply = nil
			s.cfg.Log.Error("panic while answering a name query", "bottle", s.cfg.Bottle, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
		s.counts[outcome].Add(1)
	}()
	if !s.queries.Allow() {
		outcome = OverBudget
		return nil
	}
	q, rcode, ok := parseQuestion(msg)
	if !ok {
		outcome = Garbage
		return nil
	}
	if tcp {
		q.size = dns.MaxMsgSize
	}
	var m *dns.Msg
	if rcode != dns.RcodeSuccess {
		m, outcome = q.reply(rcode), Broken
	} else {
		m, outcome = s.answer(ctx, q)
	}
	return packReply(m, q.size)
}

// answer decides what a sound question gets.
func (s *Server) answer(ctx context.Context, q question) (*dns.Msg, Outcome) {
	name, err := routes.CanonicalHost(strings.TrimSuffix(q.name, "."))
	if q.class != dns.ClassINET || refusedType(q.qtype) {
		if err != nil {
			name = q.name
		}
		s.tell(Refused, name, q, "questions of this type or class are never answered")
		return q.reply(dns.RcodeRefused), Declined
	}
	if err != nil {
		// Among these are names of one label: no plan can have them, and an explanation could not be served under them.
		return q.absent(blockTTL), Absent
	}
	policy := s.policy()
	rule, planned := routes.NameRule{}, false
	if policy != nil {
		rule, planned = policy.Resolve(name)
	}
	switch {
	case !planned && specialUse(name):
		return q.absent(blockTTL), Absent
	case !planned:
		return s.deny(q, name)
	case q.qtype != dns.TypeA:
		return q.empty(emptyTTL), Empty // no IPv6 in the bottle; no ECH keys, no h3 (RFC 9460)
	}
	if detail, kind := s.inspect(name, rule); kind != 0 {
		s.tell(kind, name, q, detail)
		return q.reply(dns.RcodeRefused), Declined
	}
	if rule.Answered {
		return s.answerHere(q, name)
	}
	return s.resolve(ctx, q, name, policy, rule)
}

// answerHere answers for a name whose requests the gateway answers by itself, wherever they are sent.
func (s *Server) answerHere(q question, name string) (*dns.Msg, Outcome) {
	if !s.cfg.Answered.Is4() {
		s.tell(Failed, name, q, "the gateway has no address for names that it answers for")
		return q.reply(dns.RcodeServerFailure), Unserved
	}
	return q.addresses([]netip.Addr{s.cfg.Answered}, minTTL), Answered
}

// policy returns the current plan, or nil.
func (s *Server) policy() Policy {
	if s.cfg.Policy == nil {
		return nil
	}
	return s.cfg.Policy()
}

// deny answers for a name outside the plan. Only a question for A is an event: clients ask for other types beside it.
func (s *Server) deny(q question, name string) (*dns.Msg, Outcome) {
	if q.qtype == dns.TypeA {
		s.tell(Denied, name, q, "no route of the plan has this name")
	}
	switch {
	case !s.cfg.Block.IsValid():
		return q.absent(blockTTL), Absent
	case q.qtype != dns.TypeA:
		return q.empty(blockTTL), Empty
	}
	return q.addresses([]netip.Addr{s.cfg.Block}, blockTTL), Blocked
}

// inspect looks at the labels that a guest chose itself; kind is 0 when the name may be asked for.
func (s *Server) inspect(name string, rule routes.NameRule) (detail string, kind EventKind) {
	if !rule.Wildcard {
		return "", 0
	}
	suffix, wild := strings.CutPrefix(rule.Pattern, "*")
	labels, fits := strings.CutSuffix(name, suffix)
	if !wild || !strings.HasPrefix(suffix, ".") || !fits || labels == "" {
		return "the name does not match its rule " + rule.Pattern, Encoded
	}
	if s.cfg.Inspect != nil { // before the labels are judged, since a leak is worse than what only looks like one
		if err := s.cfg.Inspect(name, labels); err != nil {
			return err.Error(), Leak
		}
	}
	if err := checkLabels(labels); err != nil {
		return err.Error(), Encoded
	}
	if !s.fresh.allow(name, time.Now()) {
		return fmt.Sprintf("more than %d new names a minute under wildcards", s.cfg.NewNamesPerMinute), NewNames
	}
	return "", 0
}

// resolve asks upstream for a name of the plan, pins what may be told, and then tells it.
func (s *Server) resolve(ctx context.Context, q question, name string, policy Policy, rule routes.NameRule) (*dns.Msg, Outcome) {
	if s.cfg.Upstream == nil || s.cfg.Pins == nil {
		s.tell(Failed, name, q, "the bottle has no upstream resolver or no pins")
		return q.reply(dns.RcodeServerFailure), Unserved
	}
	answer, err := s.cfg.Upstream.Lookup4(ctx, name)
	if err != nil {
		return s.lookupFailed(q, name, err)
	}
	addrs := s.filter(q, name, answer.Addrs, policy, rule)
	if len(addrs) == 0 {
		// The client meets an explanation at the block address: whatever it calls, the gateway decides by name.
		if s.cfg.Block.IsValid() {
			return q.addresses([]netip.Addr{s.cfg.Block}, blockTTL), Blocked
		}
		return q.empty(blockTTL), Empty
	}
	ttl := min(max(answer.TTL, minTTL), maxTTL)
	if err := s.pin(name, addrs, ttl); err != nil {
		s.tell(Failed, name, q, err.Error())
		return q.reply(dns.RcodeServerFailure), Unserved
	}
	return q.addresses(addrs, ttl), Answered
}

// lookupFailed tells the guest, in the terms of DNS, how upstream failed.
func (s *Server) lookupFailed(q question, name string, err error) (*dns.Msg, Outcome) {
	switch kindOf(err) {
	case NXDomain:
		return q.absent(blockTTL), Absent
	case NoData:
		return q.empty(blockTTL), Empty
	}
	s.tell(Failed, name, q, err.Error())
	return q.reply(dns.RcodeServerFailure), Unserved
}

// filter returns the addresses that the guest may be told, no more than can be pinned.
func (s *Server) filter(q question, name string, addrs []netip.Addr, policy Policy, rule routes.NameRule) []netip.Addr {
	kept := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if err := policy.Check(a, rule.AllowPrivate); err != nil {
			s.tell(Filtered, name, q, err.Error())
		} else if a.Is4() && len(kept) < s.cfg.Pins.max.AddrsPerName {
			kept = append(kept, a)
		}
	}
	return kept
}

// pin writes what the guest is about to be told, so that its first packet finds it.
func (s *Server) pin(name string, addrs []netip.Addr, ttl time.Duration) error {
	if err := s.cfg.Pins.Add(name, addrs, ttl); err != nil {
		return err
	}
	if s.cfg.Pinned == nil {
		return nil
	}
	if err := s.cfg.Pinned(name, addrs, ttl); err != nil {
		return fmt.Errorf("pin %q: %w", name, err)
	}
	return nil
}

// tell makes an event of what happened, unless there were too many of late.
func (s *Server) tell(kind EventKind, name string, q question, detail string) {
	now := time.Now()
	if count, ok := s.events.admit(eventKey{kind, name}, now); ok {
		s.cfg.Event(Event{
			Time: now, Bottle: s.cfg.Bottle, Kind: kind, Name: name, Type: dns.Type(q.qtype).String(), Detail: detail, Count: count,
		})
	}
}

// specialUse tells names that no resolver may send on, and at which no explanation would help: RFC 6761, RFC 6762, RFC 7686,
// RFC 9476 and reverse lookups.
func specialUse(name string) bool {
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "localhost", "invalid", "local", "onion", "alt", "arpa":
		return true
	}
	return false
}

// addresses makes a reply with A records.
func (q question) addresses(addrs []netip.Addr, ttl time.Duration) *dns.Msg {
	m := q.reply(dns.RcodeSuccess)
	for _, a := range addrs {
		m.Answer = append(m.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: q.name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: seconds(ttl)}, A: a.AsSlice(),
		})
	}
	return m
}

// empty makes a NODATA reply that may be kept for ttl (RFC 2308 §2.2).
func (q question) empty(ttl time.Duration) *dns.Msg { return q.negative(dns.RcodeSuccess, ttl) }

// absent makes an NXDOMAIN reply that may be kept for ttl (RFC 2308 §2.1).
func (q question) absent(ttl time.Duration) *dns.Msg { return q.negative(dns.RcodeNameError, ttl) }

// negative makes a reply without answers. Its SOA record is what makes it cacheable; it is the name's own, so that nothing is
// said about the zone around it.
func (q question) negative(rcode int, ttl time.Duration) *dns.Msg {
	m := q.reply(rcode)
	m.Ns = []dns.RR{&dns.SOA{
		Hdr: dns.RR_Header{Name: q.name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: seconds(ttl)},
		Ns:  "gatewayd.invalid.", Mbox: "gatewayd.invalid.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: seconds(ttl),
	}}
	return m
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }
