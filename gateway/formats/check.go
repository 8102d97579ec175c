package formats

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"hash/crc32"
	"regexp"
	"strings"
)

// generic is the id of the rule for whatever is assigned to something called a key.
const generic = "generic-api-key"

// advisory tells whether findings of the rule are notes by default.
func advisory(id string) bool { return id == generic }

// tune gives the rule a check of the secret's structure, where its issuer documents one.
func (r *rule) tune() {
	switch r.id {
	case "github-pat", "github-oauth", "github-app-token", "github-refresh-token":
		r.check = func(_, secret []byte) bool { return checksummed(secret) }
	case "jwt":
		r.check = func(_, secret []byte) bool { return isJWT(secret) }
	case "private-key":
		r.check = func(_, secret []byte) bool { return hasKeyBody(secret) }
	case generic:
		r.check = func(before, secret []byte) bool { return !isIdentifier(before, secret) }
	}
}

// checksummed tells whether the token's last six characters are the CRC-32 of the 30 between its prefix and them, in base
// 62 (GitHub, "Behind GitHub's new authentication token formats", 2021).
func checksummed(token []byte) bool {
	const random, sum = 30, 6
	_, body, ok := bytes.Cut(token, []byte("_"))
	if !ok || len(body) != random+sum {
		return false
	}
	return base62(crc32.ChecksumIEEE(body[:random])) == string(body[random:])
}

// base62 returns n in six digits, of which capitals come second.
func base62(n uint32) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var out [6]byte
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = digits[n%62]
		n /= 62
	}
	return string(out[:])
}

// isJWT tells whether the token's first part is a JOSE header (RFC 7515 section 4).
func isJWT(token []byte) bool {
	head, _, _ := bytes.Cut(token, []byte("."))
	text, err := base64.RawURLEncoding.DecodeString(string(head))
	if err != nil {
		return false
	}
	var header struct {
		Alg string `json:"alg"`
	}
	return json.Unmarshal(text, &header) == nil && header.Alg != ""
}

// hasKeyBody tells whether there is a key between the lines that say so, and not only talk of one: 64 characters of base64
// (RFC 7468 section 2), in pieces of at least 16, however the lines are broken or quoted in source code.
func hasKeyBody(pem []byte) bool {
	const piece, body = 16, 64
	n := 0
	for _, part := range bytes.FieldsFunc(pem, func(r rune) bool { return strings.ContainsRune(" \t\r\n\\\"'`,", r) }) {
		if len(part) >= piece && isBase64(part) {
			n += len(part)
		}
	}
	return n >= body
}

func isBase64(b []byte) bool {
	for _, c := range b {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '/' || c == '=') {
			return false
		}
	}
	return true
}

var (
	uuid = regexp.MustCompile(`(?i)^\W?[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\W?$`)
	// digest is what precedes the value of a hash that has a label: of Go's modules, and of subresource integrity.
	digest = regexp.MustCompile(`(?i)(?:\bh1:|\bsha(?:1|256|384|512)[-:=]|\bintegrity\W{1,4}|\bmd5[-:=]|checksum\W{1,4})$`)
	// label is a hash's label within the value.
	label = regexp.MustCompile(`(?i)^(?:h1:|sha(?:1|256|384|512)[-:=])`)
)

// isIdentifier tells whether a value is one of those that look like a key and open nothing: a UUID, or a hash in
// hexadecimal or with a label.
func isIdentifier(before, secret []byte) bool {
	if uuid.Match(secret) || label.Match(secret) || digest.Match(before) {
		return true
	}
	switch len(secret) {
	case 32, 40, 56, 64, 96, 128: // MD5, SHA-1, SHA-224, SHA-256, SHA-384, SHA-512
		return strings.Trim(strings.ToLower(string(secret)), "0123456789abcdef") == ""
	}
	return false
}
