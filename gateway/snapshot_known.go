package gateway

import (
	"sync"
	"sync/atomic"

	"gatewayd/gateway/inject"
	"gatewayd/gateway/pipelock"
)

// known is what must not leave by one plan and is known byte for byte: canaries, dummies, and the host's secrets as they are
// now and were not long ago.
type known struct {
	fixed []pipelock.Token
	keys  *inject.Keyring

	made   atomic.Pointer[compiled]
	making sync.Mutex
}

// compiled is what is known at one generation of the secrets.
type compiled struct {
	generation uint64
	all        *pipelock.Known
	names      *pipelock.Known // likewise, as host names can hold it
}

// now returns what is known now. It reads secrets that changed, as [inject.Keyring.Refresh] does.
func (k *known) now() *compiled {
	k.keys.Refresh()
	generation := k.keys.Generation()
	if c := k.made.Load(); c != nil && c.generation == generation {
		return c
	}
	k.making.Lock()
	defer k.making.Unlock()
	generation = k.keys.Generation() // before the values: what changes meanwhile makes another
	if c := k.made.Load(); c != nil && c.generation == generation {
		return c
	}
	tokens := newTokenList(k.fixed)
	for _, v := range k.keys.Values() {
		tokens.add(pipelock.Token{Name: "secret " + v.Ref.String(), Value: v.Secret.Reveal(), Homes: v.Homes})
	}
	c := &compiled{generation, pipelock.NewKnown(tokens.list), pipelock.NewKnown(nameCanaries(tokens.list))}
	k.made.Store(c)
	return c
}

// tokens returns what is known, for scanners.
func (k *known) tokens() *pipelock.Known { return k.now().all }

// inNames returns what is known as host names can hold it, for scanners.
func (k *known) inNames() *pipelock.Known { return k.now().names }

// maxHost is the length in bytes that a host's name has at most (RFC 1035 section 3.1).
const maxHost = 255

// redact takes what is known out of r: a guest may have put it where it is recorded.
func (k *known) redact(r *Record) {
	c := k.now()
	var room [maxHost]byte
	joined := room[:0] // what is longer than a label has dots in it
	for i := range len(r.Host) {
		if r.Host[i] != '.' {
			joined = append(joined, r.Host[i])
		}
	}
	if c.names.Has(joined) {
		r.Host = ""
	}
	for _, field := range [...]*string{&r.Method, &r.Path, &r.Finding, &r.Remedy, &r.Error} {
		*field = c.all.Redact(*field)
	}
}

// held returns the secrets that b has anything to do with.
func held(b Bottle) []inject.Held {
	var out []inject.Held
	for _, r := range b.Table.Routes() {
		if r.Auth != nil {
			out = append(out, inject.Held{Ref: r.Auth.Secret})
		}
	}
	return append(out, b.Secrets...)
}

// tokenList has tokens, each value once: one that is named several times may go to all homes.
type tokenList struct {
	list []pipelock.Token
	at   map[string]int
}

func newTokenList(tokens []pipelock.Token) *tokenList {
	l := &tokenList{at: map[string]int{}}
	for _, t := range tokens {
		l.add(t)
	}
	return l
}

func (l *tokenList) add(t pipelock.Token) {
	if t.Value == "" {
		return
	}
	if i, ok := l.at[t.Value]; ok {
		l.list[i].Homes = append(l.list[i].Homes, t.Homes...)
		return
	}
	t.Homes = append([]string(nil), t.Homes...)
	l.at[t.Value] = len(l.list)
	l.list = append(l.list, t)
}

// canaries returns the tokens that must not leave towards a foreign host and do not change: those the caller named and the
// dummies of every route with auth.
func canaries(b Bottle) []pipelock.Token {
	l := newTokenList(b.CanaryTokens)
	for _, r := range b.Table.Routes() {
		if r.Auth == nil {
			continue
		}
		for _, v := range r.Auth.Dummies.Values {
			l.add(pipelock.Token{Name: "dummy of " + r.Host, Value: v, Homes: []string{r.Host}})
		}
	}
	return l.list
}
