package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// ednsSize is the UDP payload that both sides of the gateway offer: what passes unfragmented nearly everywhere (DNS flag
	// day 2020, RFC 9715).
	ednsSize = 1232
	// maxDatagram is the longest datagram that is read whole. Upstreams were told ednsSize.
	maxDatagram = 4096
	// maxStray is how many datagrams that are not the answer a query reads over before it turns to TCP: somebody is guessing.
	maxStray = 8
)

// errTruncated and errCase make a query go on over TCP.
var (
	errTruncated = errors.New("answer is truncated")
	errCase      = errors.New("answer does not keep the case of the name")
	errStray     = errors.New("too many datagrams that are not the answer")
)

// query is one question on its way to one upstream.
type query struct {
	id    uint16
	name  string // as sent: mixed case, trailing dot
	qtype uint16
	edns  bool
}

// newQuery makes a question with an id and a spelling that nobody can guess.
func newQuery(key cacheKey) query {
	var b [2 + 32]byte // 253 letters have a bit each
	_, _ = rand.Read(b[:])
	return query{
		id:    binary.BigEndian.Uint16(b[:]),
		name:  mixCase(key.name, b[2:]) + ".",
		qtype: key.qtype,
		edns:  true,
	}
}

// mixCase turns letters of a lower-case name to upper case where bits has a one.
func mixCase(name string, bits []byte) string {
	b := []byte(name)
	for i, c := range b {
		if 'a' <= c && c <= 'z' && bits[i/8%len(bits)]&(1<<(i%8)) != 0 {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// pack writes the question as a message.
func (q query) pack() ([]byte, error) {
	var m dns.Msg
	m.Id = q.id
	m.RecursionDesired = true
	m.Question = []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET}}
	if q.edns {
		m.SetEdns0(ednsSize, false)
	}
	return m.Pack()
}

// ask puts the question to one upstream: over UDP, and over TCP when the answer is too long, has lost the name's case, or
// somebody sends answers that were not asked for.
func (r *Resolver) ask(ctx context.Context, upstream netip.AddrPort, key cacheKey) (found, error) {
	ctx, cancel := context.WithTimeout(ctx, r.try)
	defer cancel()
	q := newQuery(key)
	m, err := askOver(ctx, "udp", upstream, q)
	if err == nil && q.edns && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
		q = newQuery(key)
		q.edns = false // RFC 6891 §7: a resolver from before EDNS
		m, err = askOver(ctx, "udp", upstream, q)
	}
	if errors.Is(err, errTruncated) || errors.Is(err, errCase) || errors.Is(err, errStray) {
		m, err = askOver(ctx, "tcp", upstream, q)
	}
	if err != nil {
		return found{}, fmt.Errorf("ask %s: %w", upstream, err)
	}
	return readAnswer(m, key)
}

// askOver sends the question over a socket of its own and returns the message that answers it.
func askOver(ctx context.Context, network string, upstream netip.AddrPort, q query) (*dns.Msg, error) {
	packed, err := q.pack()
	if err != nil {
		return nil, fmt.Errorf("pack question: %w", err)
	}
	var d net.Dialer // a connected socket: only the upstream's datagrams come in, and the kernel picks a random port
	raw, err := d.DialContext(ctx, network, upstream.String())
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(deadline)
	}
	c := dns.Conn{Conn: raw, UDPSize: maxDatagram} // frames the message over TCP (RFC 1035 §4.2.2)
	if _, err := c.Write(packed); err != nil {
		return nil, fmt.Errorf("send question: %w", err)
	}
	for range maxStray {
		b, err := c.ReadMsgHeader(nil)
		if err != nil && (network == "tcp" || !errors.Is(err, dns.ErrShortRead)) {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		m, err := q.match(b, network == "tcp")
		if m != nil || err != nil {
			return m, err
		}
		if network == "tcp" {
			return nil, errors.New("read answer: it does not answer the question")
		}
	}
	return nil, errStray
}

// match parses b and returns it if it is the answer to q: same id, same question in every letter (RFC 5452 §9.1). nil and no
// error mean that it is something else.
func (q query) match(b []byte, tcp bool) (*dns.Msg, error) {
	m, err := unpack(b)
	if err != nil && m == nil {
		return nil, nil
	}
	if m.Id != q.id || !m.Response || m.Opcode != dns.OpcodeQuery {
		return nil, nil
	}
	if len(m.Question) == 0 && m.Rcode == dns.RcodeFormatError {
		return m, nil // RFC 6891 §7: who knows no EDNS may send its header back and no more; it only makes us ask anew
	}
	if len(m.Question) != 1 {
		return nil, nil
	}
	asked := m.Question[0]
	if asked.Qtype != q.qtype || asked.Qclass != dns.ClassINET || !strings.EqualFold(asked.Name, q.name) {
		return nil, nil
	}
	switch {
	case asked.Name != q.name && !tcp:
		return nil, errCase
	case m.Truncated && !tcp:
		return nil, errTruncated
	case m.Truncated:
		return nil, errors.New("answer over TCP is truncated")
	case err != nil:
		return nil, nil
	}
	return m, nil
}

// unpack parses a message from an upstream. A message whose header and question are sound and whose records are not comes
// with an error beside it: what was cut short is still known as truncated. A panic of the parser is an error.
func unpack(b []byte) (m *dns.Msg, err error) {
	defer func() {
		if p := recover(); p != nil {
			m, err = nil, fmt.Errorf("parse message: %v", p)
		}
	}()
	m = new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		if len(m.Question) != 1 {
			return nil, fmt.Errorf("parse message: %w", err) // no header, or no question
		}
		return m, fmt.Errorf("parse message: %w", err)
	}
	return m, nil
}
