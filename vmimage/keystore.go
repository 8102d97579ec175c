package vmimage

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Errors of AddTrusted.
var (
	// ErrStorePassword says that a store is sealed with a password other than Java's usual one, or encrypted.
	ErrStorePassword = errors.New("the key store is encrypted, or sealed with a password of its own")
	// ErrStoreFormat says that bytes are no key store that Java has by default.
	ErrStoreFormat = errors.New("it is neither a JKS nor a PKCS #12 key store")
)

// maxAlias bounds an alias, in bytes.
const maxAlias = 200

// AddTrusted returns a Java key store with one more trusted certificate, called alias (lower-case ASCII, at most 200 bytes);
// all else in it stays. It knows the two formats that JVMs ship their authorities in: JKS under Java's usual password, and
// PKCS #12 without one, as it is since JDK 18. A store that holds the certificate already is returned as it is. The error is
// ErrStorePassword or ErrStoreFormat.
func AddTrusted(store []byte, alias string, der []byte) ([]byte, error) {
	if len(alias) > maxAlias || alias != strings.ToLower(alias) || strings.ContainsFunc(alias, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, errors.New("the alias is not lower-case ASCII")
	}
	if len(store) >= 4 && binary.BigEndian.Uint32(store) == jksMagic {
		return addToJKS(store, alias, der)
	}
	return addToPKCS12(store, alias, der)
}

// jksHead is magic, version and count; jksTail the digest.
const (
	jksHead = 12
	jksTail = 20
)

func addToJKS(store []byte, alias string, der []byte) ([]byte, error) {
	if len(store) < jksHead+jksTail || binary.BigEndian.Uint32(store[4:]) != jksVersion {
		return nil, ErrStoreFormat
	}
	body, digest := store[:len(store)-jksTail], store[len(store)-jksTail:]
	if !bytes.Equal(jksDigest(body), digest) {
		return nil, ErrStorePassword
	}
	count := binary.BigEndian.Uint32(body[8:])
	switch {
	case bytes.Contains(body, der):
		return store, nil
	case count == ^uint32(0):
		return nil, ErrStoreFormat
	}
	entries := bytes.NewBuffer(bytes.Clone(body[jksHead:]))
	jksEntry(entries, alias, der)
	return jksStore(count+1, entries.Bytes()), nil
}

// Object identifiers: data (RFC 2315 §14), certBag and its X.509 certificate (RFC 7292 §4.2.3), friendlyName (RFC 2985
// §5.5.1), Oracle's mark of a certificate that is trusted, and any purpose (RFC 5280 §4.2.1.12).
var (
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidCertBag    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}
	oidX509       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}
	oidFriendly   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
	oidTrusted    = asn1.ObjectIdentifier{2, 16, 840, 1, 113894, 746875, 1, 1}
	oidAnyPurpose = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
)

const (
	pkcs12Version = int64(3)
	tagBMPString  = cbasn1.Tag(30)
	// explicit is the tag [0] around a value.
	explicit = cbasn1.Tag(0 | 0x80 | 0x20)
)

// addToPKCS12 appends one part to the list of a store's parts (AuthenticatedSafe, RFC 7292 §4). A store with a password has
// a digest over that list, which could not be made anew.
func addToPKCS12(store []byte, alias string, der []byte) ([]byte, error) {
	in := cryptobyte.String(store)
	var pfx, content, safe, parts cryptobyte.String
	var kind asn1.ObjectIdentifier
	var version int64
	if !in.ReadASN1(&pfx, cbasn1.SEQUENCE) || !in.Empty() || !pfx.ReadASN1Integer(&version) || version != pkcs12Version ||
		!pfx.ReadASN1(&content, cbasn1.SEQUENCE) || !content.ReadASN1ObjectIdentifier(&kind) || !kind.Equal(oidData) ||
		!content.ReadASN1(&content, explicit) || !content.ReadASN1(&safe, cbasn1.OCTET_STRING) || !safe.ReadASN1(&parts, cbasn1.SEQUENCE) {
		return nil, ErrStoreFormat
	}
	if !pfx.Empty() {
		return nil, ErrStorePassword
	}
	if bytes.Contains(parts, der) {
		return store, nil
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(pkcs12Version)
		addData(b, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddBytes(parts)
				addData(b, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addCertBag(b, alias, der) })
				})
			})
		})
	})
	return b.Bytes()
}

// addData adds a ContentInfo that holds data.
func addData(b *cryptobyte.Builder, content cryptobyte.BuilderContinuation) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidData)
		b.AddASN1(explicit, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.OCTET_STRING, content) })
	})
}

// addCertBag adds a SafeBag with a certificate, its name, and the mark without which Java takes it for no authority.
func addCertBag(b *cryptobyte.Builder, alias string, der []byte) {
	attribute := func(b *cryptobyte.Builder, id asn1.ObjectIdentifier, value cryptobyte.BuilderContinuation) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(id)
			b.AddASN1(cbasn1.SET, value)
		})
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidCertBag)
		b.AddASN1(explicit, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidX509)
				b.AddASN1(explicit, func(b *cryptobyte.Builder) { b.AddASN1OctetString(der) })
			})
		})
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
			attribute(b, oidFriendly, func(b *cryptobyte.Builder) {
				b.AddASN1(tagBMPString, func(b *cryptobyte.Builder) {
					for _, c := range []byte(alias) {
						b.AddUint16(uint16(c))
					}
				})
			})
			attribute(b, oidTrusted, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidAnyPurpose) })
		})
	})
}
