// Package tls holds what the gateway knows of TLS: how to read the ClientHello of a connection without losing a byte of it,
// the certificate authority of a bottle and the leaves that it signs, the roots by which upstream servers are verified, and
// what a failed handshake with a guest meant.
//
// Nothing here decides what a guest may reach. Names come out of [Peek] as the client sent them; the caller canonicalises
// them (routes.CanonicalHost) and asks the plan. Import it under another name beside crypto/tls, for instance gwtls.
package tls
