package oci

import (
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

var errName = errors.New("it is no distinguished name")

// canonicalName is the form in which OpenSSL compares names: the sets of a name without the sequence around them, each text
// as UTF8String in lower case, without white space around it and with one space for each run of it. Texts other than those
// of the types below stay as they are.
func canonicalName(raw []byte) ([]byte, error) {
	in := cryptobyte.String(raw)
	var sets cryptobyte.String
	if !in.ReadASN1(&sets, asn1.SEQUENCE) || !in.Empty() {
		return nil, errName
	}
	var b cryptobyte.Builder
	for !sets.Empty() {
		var set cryptobyte.String
		if !sets.ReadASN1(&set, asn1.SET) {
			return nil, errName
		}
		var bad bool
		b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
			for !set.Empty() && !bad {
				bad = !canonicalAttribute(b, &set)
			}
		})
		if bad {
			return nil, errName
		}
	}
	return b.Bytes()
}

// canonicalAttribute copies one attribute.
func canonicalAttribute(b *cryptobyte.Builder, set *cryptobyte.String) bool {
	var attribute, kind, value cryptobyte.String
	var tag asn1.Tag
	if !set.ReadASN1(&attribute, asn1.SEQUENCE) || !attribute.ReadASN1Element(&kind, asn1.OBJECT_IDENTIFIER) ||
		!attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() {
		return false
	}
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(kind)
		switch tag {
		case asn1.UTF8String, asn1.PrintableString, asn1.IA5String:
			if utf8.Valid(value) {
				tag, value = asn1.UTF8String, []byte(lowerASCII(strings.Join(strings.Fields(string(value)), " ")))
			}
		}
		b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(value) })
	})
	return true
}

// lowerASCII lowers letters of ASCII alone, as OpenSSL does.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
