package vmimage

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
)

// Java reads no PEM, and what it does read has no reader or writer in Go's
// standard library. The older of its two formats is small enough to write here:
// sun.security.provider.JavaKeyStore (OpenJDK), version 2, trusted certificates
// alone. The digest at its end only detects damage; Java checks it when it is
// given a password, and the guest's environment gives none.
const (
	jksMagic    = 0xfeedfeed
	jksVersion  = 2
	jksTrusted  = 2 // tag of an entry that is a trusted certificate
	jksPassword = "changeit"
	jksWhitener = "Mighty Aphrodite"
)

// trustStore returns a Java key store that trusts every certificate of a PEM
// bundle. Equal bundles give equal stores: entries carry no date.
func trustStore(bundle []byte) []byte {
	var entries bytes.Buffer
	count := uint32(0)
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		jksEntry(&entries, fmt.Sprintf("gatewayd-%d", count), block.Bytes)
		count++
	}
	return jksStore(count, entries.Bytes())
}

// jksStore puts entries between the header and the digest.
func jksStore(count uint32, entries []byte) []byte {
	store := binary.BigEndian.AppendUint32(nil, jksMagic)
	store = binary.BigEndian.AppendUint32(store, jksVersion)
	store = binary.BigEndian.AppendUint32(store, count)
	store = append(store, entries...)
	return append(store, jksDigest(store)...)
}

// jksDigest is what stands at the end of a store.
func jksDigest(store []byte) []byte {
	digest := sha1.New()
	for _, c := range []byte(jksPassword) { // UTF-16, big endian
		digest.Write([]byte{0, c})
	}
	digest.Write([]byte(jksWhitener))
	digest.Write(store)
	return digest.Sum(nil)
}

// jksEntry writes a certificate that is trusted.
func jksEntry(b *bytes.Buffer, alias string, der []byte) {
	b.Write(binary.BigEndian.AppendUint32(nil, jksTrusted))
	jksString(b, alias)
	b.Write(make([]byte, 8)) // milliseconds since 1970
	jksString(b, "X.509")
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(der))))
	b.Write(der)
}

// jksString writes an ASCII string as java.io.DataOutput.writeUTF does.
func jksString(b *bytes.Buffer, s string) {
	b.Write(binary.BigEndian.AppendUint16(nil, uint16(len(s))))
	b.WriteString(s)
}
