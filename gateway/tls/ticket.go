package tls

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// ticketAge is how long the key of session tickets is used to issue them; as long again they are taken.
const ticketAge = 24 * time.Hour

// ticketKeys derives the keys of session tickets (RFC 8446 section 4.6.1, RFC 5077). Each name has its own, and each authority,
// which is each bottle: crypto/tls resumes a session under whatever name the hello asks for, so a ticket that was issued under
// another must not open. The secret is in memory alone; a restart is the end of all tickets.
type ticketKeys struct{ secret [32]byte }

// newTicketKeys returns keys that nobody else has.
func newTicketKeys() (k ticketKeys) {
	rand.Read(k.secret[:]) //nolint:errcheck // it never fails (crypto/rand.Read)
	return k
}

// of returns the key that tickets under name are issued with at the time now, and that of the time before.
func (k *ticketKeys) of(name string, now time.Time) [][32]byte {
	period := ticketPeriod(now)
	return [][32]byte{k.derive(name, period), k.derive(name, period-1)}
}

// ticketPeriod is the number of the time now, for which there is one key of each name.
func ticketPeriod(now time.Time) uint64 {
	return uint64(now.Unix()) / uint64(ticketAge/time.Second) //nolint:gosec // no clock is before 1970
}

// derive returns the key of one name and period.
func (k *ticketKeys) derive(name string, period uint64) (key [32]byte) {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, period))
	mac.Write([]byte(name))
	mac.Sum(key[:0])
	return key
}
