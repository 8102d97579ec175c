package inject

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gatewayd/gateway/routes"
)

// readAgain is how long values that were read from the host are taken to be current by a Keyring.
const readAgain = 100 * time.Millisecond

// maxGone bounds how many secrets of former plans a Keyring has.
const maxGone = 32

// Held is a secret that the host holds for a plan.
type Held struct {
	// Ref says where.
	Ref routes.SecretRef
	// Homes are the canonical hosts to which the guest itself may send it: none, but where it was lent to the guest.
	Homes []string
}

// Value is a value that a secret has, or had not long ago.
type Value struct {
	Ref    routes.SecretRef
	Homes  []string
	Secret Secret
}

// Keyring has the secrets of one plan and knows their values: as soon as one of its sources has given one out, whoever asked,
// and for those that cost little (variables and files) when [Keyring.Refresh] looks. Programs are never run for it. Eight
// former values of each secret count for a day, and so do those of secrets that a plan had before. It may be used by any
// number of goroutines.
type Keyring struct {
	log     *slog.Logger
	now     func() time.Time
	began   time.Time
	keys    []key
	changes *atomic.Uint64 // shared with the keyrings before and after, whose sources are shared as well

	looked  atomic.Int64 // when Refresh last read anything, in nanoseconds since began
	looking sync.Mutex

	mu   sync.Mutex
	gone []goneKey
}

type key struct {
	*remembered
	homes []string
}

type goneKey struct {
	key
	until time.Time
}

// NewKeyring returns the keyring of a plan with these secrets, of which nothing is read yet. One that is named twice has the
// homes of both. before, which may be nil, is the keyring of the plan before: sources and values are taken over. What cannot
// be read is logged, once. The error names a reference that can be none.
func NewKeyring(held []Held, before *Keyring, log *slog.Logger) (*Keyring, error) {
	k := &Keyring{log: log, now: time.Now, changes: new(atomic.Uint64)}
	if before != nil {
		k.now, k.changes = before.now, before.changes
	}
	k.began = k.now()
	k.looked.Store(-int64(readAgain))
	for _, h := range held {
		if i := slices.IndexFunc(k.keys, func(at key) bool { return reflect.DeepEqual(at.source.ref, h.Ref) }); i >= 0 {
			k.keys[i].homes = append(k.keys[i].homes, h.Homes...)
			continue
		}
		r, err := k.remember(h.Ref, before)
		if err != nil {
			return nil, err
		}
		k.keys = append(k.keys, key{r, slices.Clone(h.Homes)})
	}
	k.gone = before.leave(k.keys)
	k.changes.Add(1)
	return k, nil
}

// remember returns what before knows of a secret, or what is known of one that is new.
func (k *Keyring) remember(ref routes.SecretRef, before *Keyring) (*remembered, error) {
	for _, have := range before.all() {
		if reflect.DeepEqual(have.source.ref, ref) {
			return have.remembered, nil
		}
	}
	s, err := sourceOf(ref)
	if err != nil {
		return nil, err
	}
	s.now = k.now
	r := &remembered{source: s, command: len(ref.Command) > 0, changes: k.changes}
	s.seen = r.see
	return r, nil
}

// all returns the keys of the plan, and those of plans before it.
func (k *Keyring) all() []key {
	if k == nil {
		return nil
	}
	out := slices.Clone(k.keys)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range k.gone {
		out = append(out, g.key)
	}
	return out
}

// leave returns the keys that are gone when next are those of the plan: k's own from now on for a while, and those that were
// gone before.
func (k *Keyring) leave(next []key) []goneKey {
	if k == nil {
		return nil
	}
	var out []goneKey
	add := func(g goneKey) {
		still := slices.ContainsFunc(next, func(n key) bool { return n.remembered == g.remembered })
		if !still && len(out) < maxGone && len(g.values()) > 0 {
			out = append(out, g)
		}
	}
	until := k.now().Add(formerTime)
	for _, have := range k.keys {
		add(goneKey{have, until})
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range k.gone {
		add(g)
	}
	return out
}

// Source returns the source of one of the plan's secrets, or nil. What it gives out is known to the keyring before it is
// given out.
func (k *Keyring) Source(ref routes.SecretRef) Source {
	for _, have := range k.keys {
		if reflect.DeepEqual(have.source.ref, ref) {
			return have.source
		}
	}
	return nil
}

// Refresh reads the variables and files again, unless that was done in the last tenth of a second or is being done, and drops
// values whose time is over. It blocks on the host's file system.
func (k *Keyring) Refresh() {
	now := k.now()
	if int64(now.Sub(k.began))-k.looked.Load() < int64(readAgain) || !k.looking.TryLock() {
		return
	}
	defer k.looking.Unlock()
	for _, have := range k.all() {
		have.forget()
	}
	for _, have := range k.keys {
		if have.command {
			continue
		}
		if _, err := have.source.value(context.Background()); err != nil && have.fails(err) {
			k.log.Warn("a secret is not looked for in what leaves, since it cannot be read",
				slog.String("secret", have.source.ref.String()), slog.Any("error", err), slog.String("remedy", remedy(have.source.ref)))
		}
	}
	k.mu.Lock()
	k.gone = slices.DeleteFunc(k.gone, func(g goneKey) bool {
		over := !g.until.After(now)
		if over {
			k.changes.Add(1)
		}
		return over
	})
	k.mu.Unlock()
	k.looked.Store(int64(now.Sub(k.began)))
}

// Generation returns a number that is another whenever Values would return something else.
func (k *Keyring) Generation() uint64 { return k.changes.Load() }

// Values returns the values that are known, of each secret the current one first.
func (k *Keyring) Values() []Value {
	var out []Value
	for _, have := range k.all() {
		for _, v := range have.values() {
			out = append(out, Value{Ref: have.source.ref, Homes: have.homes, Secret: v})
		}
	}
	return out
}
