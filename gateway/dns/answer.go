package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxChain is how many CNAMEs are followed; recursive resolvers stop at 8 to 16.
	maxChain = 12
	// negativeTTL is how long an absence is kept when the answer does not say (RFC 2308 §5), and the longest that it is.
	negativeTTL, maxNegativeTTL = 5 * time.Second, time.Minute
)

// found is an answer, or with an error of kind NXDomain or NoData how long that is so.
type found struct{ Answer }

// readAnswer takes the addresses of the question out of a message that match let through. It follows the CNAME chain that
// begins at the question and uses the addresses at its end; everything else in the message is nobody's business (RFC 5452 §6).
// An upstream that gives half a chain has no data.
func readAnswer(m *dns.Msg, key cacheKey) (found, error) {
	switch m.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		return found{Answer{TTL: absenceTTL(m)}}, &LookupError{Name: key.name, Kind: NXDomain}
	default:
		return found{}, fmt.Errorf("upstream answers %s", rcodeText(m.Rcode))
	}
	set, err := collect(m.Answer, key.qtype)
	if err != nil {
		return found{}, err
	}
	owner, ttl := key.name+".", maxTTL
	for range maxChain {
		next, ok := set.cnames[owner]
		if !ok {
			break
		}
		owner, ttl = next.target, min(ttl, next.ttl)
	}
	if _, more := set.cnames[owner]; more {
		return found{}, errors.New("upstream answers a chain of names that is too long or a loop")
	}
	addrs := set.addrs[owner]
	if addrs == nil {
		return found{Answer{TTL: absenceTTL(m)}}, &LookupError{Name: key.name, Kind: NoData}
	}
	return found{Answer{Addrs: addrs.list, TTL: min(ttl, addrs.ttl)}}, nil
}

// records are the records of an answer section by owner, in lower case with a trailing dot.
type records struct {
	cnames map[string]cname
	addrs  map[string]*addrs
}

type cname struct {
	target string
	ttl    time.Duration
}

type addrs struct {
	list []netip.Addr
	ttl  time.Duration
}

// collect sorts the CNAMEs, and the addresses of the type asked for, by owner.
func collect(section []dns.RR, qtype uint16) (records, error) {
	set := records{cnames: make(map[string]cname), addrs: make(map[string]*addrs)}
	for _, rr := range section {
		h := rr.Header()
		if h.Class != dns.ClassINET {
			continue
		}
		owner := strings.ToLower(h.Name)
		switch rr := rr.(type) {
		case *dns.CNAME:
			next := cname{strings.ToLower(rr.Target), recordTTL(h)}
			if old, ok := set.cnames[owner]; ok && old.target != next.target {
				return records{}, errors.New("upstream answers two CNAMEs for one name") // RFC 2181 §10.1
			}
			set.cnames[owner] = next
		case *dns.A:
			if a, ok := netip.AddrFromSlice(rr.A.To4()); ok && qtype == dns.TypeA {
				set.addAddr(owner, a, recordTTL(h))
			}
		case *dns.AAAA:
			if a, ok := netip.AddrFromSlice(rr.AAAA.To16()); ok && qtype == dns.TypeAAAA {
				set.addAddr(owner, a, recordTTL(h))
			}
		}
	}
	return set, nil
}

// addAddr adds one address of owner, if it is new and there is room.
func (r records) addAddr(owner string, a netip.Addr, ttl time.Duration) {
	s := r.addrs[owner]
	if s == nil {
		s = &addrs{ttl: maxTTL}
		r.addrs[owner] = s
	}
	s.ttl = min(s.ttl, ttl)
	if len(s.list) < maxAddrs && !slices.Contains(s.list, a) {
		s.list = append(s.list, a)
	}
}

// recordTTL returns a record's TTL; one with the top bit set is zero (RFC 2181 §8).
func recordTTL(h *dns.RR_Header) time.Duration {
	if h.Ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(h.Ttl) * time.Second
}

// absenceTTL returns how long a negative answer holds: the lesser of the SOA's TTL and minimum (RFC 2308 §5).
func absenceTTL(m *dns.Msg) time.Duration {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(maxNegativeTTL, recordTTL(soa.Header()), time.Duration(soa.Minttl)*time.Second)
		}
	}
	return negativeTTL
}

// rcodeText names a response code.
func rcodeText(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", rcode)
}
