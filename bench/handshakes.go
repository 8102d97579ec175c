package main

import (
	"context"
	"crypto/tls"
	"errors"
	"sync/atomic"
)

// resumedName is the load whose handshakes resume a session.
const resumedName = "h1-resumed"

// resumedTLS makes TLS connections as newTLS does, after one that leaves a session, which all others resume (RFC 8446
// section 2.2). One that is not resumed is an error, unless the server issues no sessions, as gatewayd: then all handshakes are
// full.
func resumedTLS(ctx context.Context, j *job) (Result, error) {
	config, err := j.tlsConfig()
	if err != nil {
		return Result{}, err
	}
	kept := &keptSession{ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	config.ClientSessionCache = kept
	if err := oneTLS(ctx, j, config); err != nil {
		return Result{}, err
	}
	issued := kept.some.Load()
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if issued && !s.DidResume {
			return errors.New("the server made a new session where it was to resume one")
		}
		return nil
	}
	r, err := manyTLS(ctx, j, config)
	r.Connections++ // the first
	return r, err
}

// keptSession keeps the last session when a connection has taken it: with several connections at once each would
// otherwise have to leave one before the next begins. A ticket used twice is what RFC 8446 appendix C.4 advises against for
// privacy, and all of these servers take it.
type keptSession struct {
	tls.ClientSessionCache
	some atomic.Bool // a session came
}

// Put implements tls.ClientSessionCache.
func (k *keptSession) Put(key string, s *tls.ClientSessionState) {
	if s != nil {
		k.some.Store(true)
		k.ClientSessionCache.Put(key, s)
	}
}
