package dns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const (
	// headerSize is the length of a message's header (RFC 1035 §4.1.1).
	headerSize = 12
	// minUDPSize is what a client takes that says nothing (RFC 1035 §2.3.4).
	minUDPSize = 512

	// bits of the header's second word (RFC 1035 §4.1.1, RFC 4035 §3).
	flagQR, flagTC, flagRD, flagCD = 1 << 15, 1 << 9, 1 << 8, 1 << 4
)

// question is all that is taken out of a guest's message. Options, records and every other bit of it stay behind.
type question struct {
	id     uint16
	opcode int
	rd, cd bool
	asked  bool   // name, qtype and class are there
	name   string // presentation form with escapes, the guest's case, trailing dot
	qtype  uint16
	class  uint16
	edns   bool
	size   int // the longest reply over UDP
}

// parseQuestion reads a guest's message. ok is false when it cannot be answered at all; otherwise rcode says what is wrong with
// it, RcodeSuccess when nothing is. No record is decoded: a query has none but the OPT record (RFC 6891 §6.1), whose fixed part
// is read and whose options are not looked at.
func parseQuestion(b []byte) (q question, rcode int, ok bool) {
	if len(b) < headerSize {
		return question{}, 0, false
	}
	word := func(i int) uint16 { return binary.BigEndian.Uint16(b[i:]) }
	flags := word(2)
	if flags&flagQR != 0 {
		return question{}, 0, false // answering answers makes loops
	}
	q = question{
		id: word(0), opcode: int(flags >> 11 & 0xf), rd: flags&flagRD != 0, cd: flags&flagCD != 0, size: minUDPSize,
	}
	if q.opcode != dns.OpcodeQuery {
		return q, dns.RcodeNotImplemented, true
	}
	// RFC 9619: a query has one question. Nor has it answers; TC would say that it is not whole.
	if word(4) != 1 || word(6) != 0 || word(8) != 0 || word(10) > 1 || flags&flagTC != 0 {
		return q, dns.RcodeFormatError, true
	}
	off, sound := q.parseName(b)
	if !sound || len(b) < off+4 {
		return q, dns.RcodeFormatError, true
	}
	q.qtype, q.class, q.asked = word(off), word(off+2), true
	rest := b[off+4:]
	if word(10) == 1 {
		return q, q.parseOPT(rest), true
	}
	if len(rest) != 0 {
		return q, dns.RcodeFormatError, true
	}
	return q, dns.RcodeSuccess, true
}

// parseName reads the question's name, which has nothing before it that it could point to (RFC 1035 §4.1.4).
func (q *question) parseName(b []byte) (off int, ok bool) {
	for off = headerSize; off < len(b) && b[off] != 0; off += 1 + int(b[off]) {
		if b[off] > 63 || off-headerSize > 253 {
			return 0, false
		}
	}
	if off >= len(b) {
		return 0, false
	}
	name, off, err := dns.UnpackDomainName(b[:off+1], headerSize)
	if err != nil {
		return 0, false
	}
	q.name = name
	return off, true
}

// parseOPT reads the OPT record that must be the rest of the message (RFC 6891 §6.1.2).
func (q *question) parseOPT(b []byte) (rcode int) {
	const fixed = 11 // root name, type, class, TTL, length
	if len(b) < fixed || b[0] != 0 || binary.BigEndian.Uint16(b[1:]) != dns.TypeOPT ||
		int(binary.BigEndian.Uint16(b[9:])) != len(b)-fixed {
		return dns.RcodeFormatError
	}
	q.edns = true
	q.size = min(max(minUDPSize, int(binary.BigEndian.Uint16(b[3:]))), ednsSize)
	if version := b[6]; version != 0 {
		return dns.RcodeBadVers
	}
	return dns.RcodeSuccess
}

// reply makes the answer to q, with nothing in it of the guest's message but the id, the question and the RD and CD bits.
func (q question) reply(rcode int) *dns.Msg {
	m := new(dns.Msg)
	m.Id, m.Response, m.Opcode, m.Rcode = q.id, true, q.opcode, rcode
	m.RecursionDesired, m.RecursionAvailable, m.CheckingDisabled = q.rd, true, q.cd
	m.Compress = true
	if q.asked {
		m.Question = []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: q.class}}
	}
	if q.edns {
		m.SetEdns0(ednsSize, false)
	}
	return m
}

// packReply writes a reply in at most size bytes, setting TC when records had to go; nil when it cannot be written.
func packReply(m *dns.Msg, size int) []byte {
	m.Truncate(size)
	b, err := m.Pack()
	if err != nil || len(b) > size {
		return nil
	}
	return b
}

// refusedType tells questions that are never answered: what carries free text, what asks for everything, what is no record at
// all (RFC 6895 §3.1).
func refusedType(qtype uint16) bool {
	switch qtype {
	case dns.TypeTXT, dns.TypeNULL, dns.TypeOPT, dns.TypeTKEY, dns.TypeTSIG, dns.TypeIXFR, dns.TypeAXFR, dns.TypeMAILA,
		dns.TypeMAILB, dns.TypeANY, dns.TypeNone:
		return true
	}
	return qtype >= 128 && qtype <= 255 || qtype >= 65280 // meta types and private use
}
