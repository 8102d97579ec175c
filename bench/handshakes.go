package main

import (
	"context"
	"crypto/tls"
	"errors"
)

// resumedName is the load whose handshakes resume a session.
const resumedName = "h1-resumed"

// resumedTLS makes TLS connections as newTLS does, after one that leaves a session, which all others resume (RFC 8446
// section 2.2). One that is not resumed is an error.
func resumedTLS(ctx context.Context, j *job) (Result, error) {
	config, err := j.tlsConfig()
	if err != nil {
		return Result{}, err
	}
	config.ClientSessionCache = &keptSession{tls.NewLRUClientSessionCache(1)}
	if err := oneTLS(ctx, j, config); err != nil {
		return Result{}, err
	}
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if !s.DidResume {
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
}

// Put implements tls.ClientSessionCache.
func (k *keptSession) Put(key string, s *tls.ClientSessionState) {
	if s != nil {
		k.ClientSessionCache.Put(key, s)
	}
}
