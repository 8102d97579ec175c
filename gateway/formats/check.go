package formats

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"hash/crc32"
	"math/big"
	"strings"
)

// generic is the id of the rule for whatever is assigned to something called a key.
const generic = "generic-api-key"

// handedOut tells whether the rule is for tokens that servers hand out to whoever asks, to be brought back.
func handedOut(id string) bool { return id == "jwt" }

// advisory tells whether findings of the rule are notes by default.
func advisory(id string) bool { return id == generic }

// verdict says what a text is that has a secret's form. What nobody looked into is genuine.
type verdict uint8

const (
	genuine verdict = iota
	// doubtful texts have the form of one issuer's tokens, and a checksum that is not theirs. They are noted.
	doubtful
	// harmless texts are no secrets, or none that the rule is for.
	harmless
)

// check looks into a secret's structure. before is what is before it.
type check func(before, secret []byte) verdict

// checks are those that a rule can name. A rule of an operator's says check = "luhn"; other programs that read the file
// pass over that.
var checks = map[string]check{
	"luhn":        harmlessUnless(luhn),
	"base58check": harmlessUnless(base58check),
	"jwt":         harmlessUnless(isJWT),
	"github":      func(_, secret []byte) verdict { return checksummed(secret) },
}

// checkWords say what each of them verifies.
var checkWords = map[string]string{
	"luhn":        "its last digit is the check digit of the others",
	"base58check": "its last four bytes are the checksum of the others",
	"jwt":         "its first part is the header of a JSON Web Token",
	"github":      "its last six characters are the checksum of the others",
}

// harmlessUnless makes a check of what a secret must be.
func harmlessUnless(is func([]byte) bool) check {
	return func(_, secret []byte) verdict {
		if is(secret) {
			return genuine
		}
		return harmless
	}
}

// harmlessIf makes a check of what a secret must not be.
func harmlessIf(is func(before, secret []byte) bool) check {
	return func(before, secret []byte) verdict {
		if is(before, secret) {
			return harmless
		}
		return genuine
	}
}

// tune gives a built-in rule a check, where its issuer documents the structure, and returns what that verifies. npm documents a checksum too, but accounts
// differ of what it covers; and refresh tokens of GitHub's are longer than their rule.
func (r *rule) tune() string {
	switch r.id {
	case "github-pat", "github-oauth", "github-app-token":
		r.check = checks["github"]
		return checkWords["github"]
	case "jwt":
		r.check = checks["jwt"]
		return checkWords["jwt"]
	case "aws-access-token":
		r.check = harmlessIf(namesSigner)
		return "it is not where a signed request says who signed"
	case "private-key":
		r.check = harmlessUnless(hasKeyBody)
		return "there is a key between the lines that say so"
	case generic:
		r.check = harmlessIf(isIdentifier)
		return "it is no UUID and no hash"
	}
	return ""
}

// checksummed tells whether the token's last six characters are the CRC-32 of the 30 between its prefix and them, in base
// 62 (GitHub, "Behind GitHub's new authentication token formats", 2021). A token of another length has a form that this
// knows nothing of.
func checksummed(token []byte) verdict {
	const random, sum = 30, 6
	_, body, ok := bytes.Cut(token, []byte("_"))
	if !ok || len(body) != random+sum || base62(crc32.ChecksumIEEE(body[:random])) == string(body[random:]) {
		return genuine
	}
	return doubtful
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

// luhn tells whether the digits among b, of which there are 12 to 19, have a check digit as numbers of cards do (ISO/IEC
// 7812-1 annex B).
func luhn(b []byte) bool {
	sum, n := 0, 0
	for i := len(b) - 1; i >= 0; i-- {
		d := int(b[i]) - '0'
		if d < 0 || d > 9 {
			continue
		}
		if n%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
		n++
	}
	return n >= 12 && n <= 19 && sum%10 == 0
}

// base58check tells whether b is base 58 of bytes whose last four are the first of the others' double SHA-256, as
// Bitcoin's private keys are.
func base58check(b []byte) bool {
	const digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	const most = 128 // digits; the work grows with the square
	n := new(big.Int)
	for _, c := range b {
		d := strings.IndexByte(digits, c)
		if d < 0 || len(b) > most {
			return false
		}
		n.Add(n.Mul(n, big.NewInt(int64(len(digits)))), big.NewInt(int64(d)))
	}
	zeros := len(b) - len(bytes.TrimLeft(b, digits[:1]))
	raw := append(make([]byte, zeros), n.Bytes()...)
	if len(raw) <= 4 {
		return false
	}
	payload, sum := raw[:len(raw)-4], raw[len(raw)-4:]
	once := sha256.Sum256(payload)
	twice := sha256.Sum256(once[:])
	return bytes.Equal(twice[:4], sum)
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

// namesSigner tells whether an AWS access key id is where a signed request says whose key signed it: in a signed URL, a form's
// policy or an Authorization field (AWS, "Signature Version 4"). The key itself is not in such a request.
func namesSigner(before, _ []byte) bool {
	const longest, signs = 48, 8
	text := bytes.ToLower(before[max(0, len(before)-longest):])
	end := len(text)
	for end > 0 && len(text)-end < signs && kindOf(text[end-1]) != atWord {
		end--
	}
	if end == len(text) {
		return false
	}
	return endsWithWord(text[:end], "x-amz-credential") ||
		endsWithWord(text[:end], "aws4-hmac-sha256 credential") || endsWithWord(text[:end], "aws4-ecdsa-p256-sha256 credential")
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

// isIdentifier tells whether a value is one of those that look like a key and open nothing: a UUID, or a hash in
// hexadecimal or with a label.
func isIdentifier(before, secret []byte) bool {
	if isUUID(secret) || labelled(before) {
		return true
	}
	if i := bytes.IndexAny(secret, "-:="); i >= 0 && labelled(secret[:i+1]) {
		return true
	}
	switch len(secret) {
	case 32, 40, 56, 64, 96, 128: // MD5, SHA-1, SHA-224, SHA-256, SHA-384, SHA-512
		return isHex(secret)
	}
	return false
}

func isHex(b []byte) bool {
	for _, c := range b {
		if hexValues[c] == notMember {
			return false
		}
	}
	return true
}

// isUUID tells whether b is one (RFC 9562 section 4), with at most one other character on either side.
func isUUID(b []byte) bool {
	const length = 36
	for from := range 2 {
		if rest := len(b) - from - length; rest < 0 || rest > 1 {
			continue
		}
		u := b[from : from+length]
		if u[8] == '-' && u[13] == '-' && u[18] == '-' && u[23] == '-' && isHex(u[:8]) && isHex(u[9:13]) && isHex(u[14:18]) && isHex(u[19:23]) && isHex(u[24:]) {
			return true
		}
	}
	return false
}

// labelled tells whether before ends with what precedes a hash: its algorithm's name, as of Go's modules or subresource
// integrity, or a word for it and up to four signs.
func labelled(before []byte) bool {
	const longest = 16 // of all that is looked at
	text := bytes.ToLower(before[max(0, len(before)-longest):])
	if len(text) == 0 {
		return false
	}
	if c := text[len(text)-1]; c == '-' || c == ':' || c == '=' {
		for _, name := range []string{"sha1", "sha256", "sha384", "sha512", "md5", "h1"} {
			if endsWithWord(text[:len(text)-1], name) && (name != "h1" || c == ':') {
				return true
			}
		}
	}
	signs := 0
	for signs < min(4, len(text)) && kindOf(text[len(text)-1-signs]) != atWord {
		signs++
	}
	text = text[:len(text)-signs]
	return signs > 0 && (endsWithWord(text, "integrity") || bytes.HasSuffix(text, []byte("checksum")))
}

// endsWithWord tells whether text ends with word and no longer one.
func endsWithWord(text []byte, word string) bool {
	at := len(text) - len(word)
	return at >= 0 && string(text[at:]) == word && (at == 0 || kindOf(text[at-1]) != atWord)
}
