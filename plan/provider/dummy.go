package provider

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// DummyMark begins every dummy that gatewayd makes up itself, after whatever
// prefix a client insists on, so that people recognise one in a log.
const DummyMark = "gatewayd-dummy-"

// Dummy returns a string of 46 visible characters that stands for `what` in
// the bottle: the same for the same arguments, different otherwise. It is no
// secret and protects nothing; it is unguessable by accident only, so that a
// scanner can take its appearance elsewhere for a leak.
func Dummy(bottle, what string) string {
	sum := derive(bottle, what)
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:20])
	return DummyMark + strings.ToLower(text)[:31]
}

// DummyKey returns the 32-byte key with which the bottle's dummy JWTs are
// signed. Like a dummy, it is no secret: verifying with it only tells that the
// guest presents what it was given, not a token of somebody else's.
func DummyKey(bottle string) []byte {
	sum := derive(bottle, "jwt key")
	return sum[:]
}

// derive hashes the bottle's name and a purpose, unambiguously delimited.
func derive(bottle, what string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, []byte("gatewayd dummy, version 1"))
	mac.Write([]byte(bottle + "\x00" + what))
	return [sha256.Size]byte(mac.Sum(nil))
}
