package formats

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
)

// TestChecks holds each check against what must pass and what must not.
func TestChecks(t *testing.T) {
	random := "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ"
	for _, c := range []struct {
		check, secret string
		want          verdict
	}{
		{"luhn", "4539 1488 0343 6467", genuine}, // made up, as all here
		{"luhn", "4539148803436468", harmless},
		{"luhn", "0000", harmless},
		{"luhn", "", harmless},
		{"base58check", "1111111111111111111114oLvT2", genuine}, // twenty-one zeros
		{"base58check", "1111111111111111111114oLvT3", harmless},
		{"base58check", "0OIl", harmless},
		{"base58check", "", harmless},
		{"jwt", "eyJhbGciOiJub25lIn0.e30.", genuine},
		{"jwt", "eyJhbGciOiIifQ.e30.", harmless},
		{"jwt", "eyJ.e30.", harmless},
		{"github", "gh" + "p_" + random + "0mLq17", genuine},
		{"github", "gh" + "p_" + random + checksum62(random), genuine},
		{"github", "gh" + "p_" + random + "0mLq18", doubtful},
		{"github", "gh" + "r_" + random + random, genuine}, // of a length that is not known
	} {
		if got := checks[c.check](nil, []byte(c.secret)); got != c.want {
			t.Errorf("%s of %q: %d, want %d", c.check, c.secret, got, c.want)
		}
	}
}

// TestDoubtfulIsNoted makes sure that a wrong checksum makes a note and hides nothing behind it.
func TestDoubtfulIsNoted(t *testing.T) {
	s := defaultSet(t)
	random := "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ"
	wrong, right := "gh"+"p_"+random+"0mLq18\n", "gh"+"p_"+random+"0mLq17\n"
	var notes []bool
	text := ""
	for range 2 * mostFindings {
		text += wrong
	}
	s.Scan([]byte(text+right), s.Policy(nil, false), func(f Finding) {
		if f.Rule == "github-pat" {
			notes = append(notes, f.Note)
		}
	})
	want := slices.Repeat([]bool{true}, mostFindings)
	if !slices.Equal(notes, append(want, false)) {
		t.Errorf("notes: %v", notes)
	}
}

// TestBuiltInRulesAreChecked has texts with a form and without its structure, which are nothing, and with it.
func TestBuiltInRulesAreChecked(t *testing.T) {
	s := defaultSet(t)
	jwt := func(header string) string {
		part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
		return "token " + part(header) + "." + part(`{"sub":"q7Xv2LmN9bT4","iss":"a.test"}`) + ".zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ-8 "
	}
	pem := func(body string) string {
		return "-----BEGIN RSA PRIVATE KEY-----\n" + body + "\n-----END RSA PRIVATE KEY-----\n"
	}
	for _, c := range []struct {
		rule, with, without string
	}{
		{"jwt", jwt(`{"typ":"JWT","alg":"HS256"}`), jwt(`{"typ":"JWT","alx":"HS256"}`)},
		{"private-key", pem(strings.Repeat("q7Xv2LmN9bT4sKd8WzR1yHc5JfGp3Aab", 4)), pem(strings.Repeat("the key goes here, ", 8))},
		{generic, `api_key = "q7Xv2LmN9bT4sKd8WzR1yHc5"`, `api_key = "0198c3a2-7d41-7c55-9a3b-5f0e6d7c8b9a"`},
	} {
		for text, want := range map[string]bool{c.with: true, c.without: false} {
			got := false
			s.Scan([]byte(text), s.Policy(nil, false), func(f Finding) { got = got || f.Rule == c.rule })
			if got != want {
				t.Errorf("%s in %q: %v", c.rule, text, got)
			}
		}
	}
}

// TestKeyIDOfASigner: an AWS access key id says nothing where it says who signed, and much elsewhere.
func TestKeyIDOfASigner(t *testing.T) {
	s := defaultSet(t)
	id := "AK" + "IAQ3EGRZ4T6UXYP2MV"
	const scope = "/20260101/eu-west-1/s3/aws4_request"
	for text, want := range map[string]int{
		"?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + id + "%2F20260101":                                     0,
		"AWS4-HMAC-SHA256 Credential=" + id + scope + ", SignedHeaders=host":                                           0,
		"authorization: aws4-hmac-sha256 credential=" + id + scope:                                                     0,
		"AWS4-ECDSA-P256-SHA256 Credential=" + id + scope:                                                              0,
		"Content-Disposition: form-data; name=\"x-amz-credential\"\r\n\r\n" + id + scope:                               0,
		`{"fields":{"x-amz-credential": "` + id + scope + `"}}`:                                                        0,
		"Credential=" + id + scope:                                                                                     1,
		"x-amz-credentials=" + id:                                                                                      1,
		"my-x-amz-credential" + id:                                                                                     0, // within a word there is none
		"x-amz-credential: none, but " + id:                                                                            1,
		"AWSAccessKeyId=" + id + "\r\nAWSSecretKey=":                                                                   1,
		"[default]\naws_access_key_id = " + id + "\n":                                                                  1,
		"x-amz-credential" + strings.Repeat(" ", 9) + id:                                                               1,
		"X-Amz-Credential=" + id + scope + "\naws_access_key_id = " + strings.Replace(id, "Q3", "R5", 1) + " and more": 1,
	} {
		n := 0
		s.Scan([]byte(text), s.Policy([]string{generic}, false), func(f Finding) { n++ })
		if n != want {
			t.Errorf("%s: %d findings, want %d", text, n, want)
		}
	}
}

// TestOwnCheck compiles a rule of an operator's with a check.
func TestOwnCheck(t *testing.T) {
	const rule = "[[rules]]\nid = \"card\"\nregex = '(?:card|pan)[ =:]+([0-9][0-9 -]{11,22}[0-9])'\nkeywords = [\"card\", \"pan\"]\ncheck = "
	s, err := compileOwn(rule + `"luhn"`)
	if err != nil {
		t.Fatal(err)
	}
	if got := found(s, "card: 4539 1488 0343 6467."); len(got) != 1 {
		t.Errorf("a card: %q", got)
	}
	if got := found(s, "card: 4539 1488 0343 6468."); len(got) != 0 {
		t.Errorf("no card: %q", got)
	}
	if _, err := compileOwn(rule + `"lun"`); err == nil {
		t.Error("an unknown check is taken")
	}
}

// TestIdentifiers has what looks like a key and opens nothing, and what only looks like that.
func TestIdentifiers(t *testing.T) {
	const id, sum = "0198c3a2-7d41-7c55-9a3b-5f0e6d7c8b9a", "q7Xv2LmN9bT4sKd8WzR1yHc5JfGp3A"
	for _, c := range []struct {
		before, secret string
		want           bool
	}{
		{"", id, true},
		{"", strings.ToUpper(id), true},
		{"", "=" + id, true},
		{"", id + "=", true},
		{"", "==" + id, false},
		{"", id[1:], false},
		{"", strings.Replace(id, "-", "a", 1), false},
		{"", strings.Repeat("0a", 20), true},
		{"", strings.Repeat("0a", 21), false},
		{"", strings.Repeat("0g", 20), false},
		{"", "sha512-" + sum, true},
		{"", "SHA256:" + sum, true},
		{"", "h1:" + sum, true},
		{"", "h1=" + sum, false},
		{"", "xsha1-" + sum, false},
		{"example.test/auth v1.0.0 h1:", sum, true},
		{`"integrity": "`, sum, true},
		{`"integrity":    "`, sum, false},
		{"disintegrity: ", sum, false},
		{"key_checksum = ", sum, true},
		{"checksum", sum, false},
		{"key = ", sum, false},
		{"", sum, false},
		{"", "", false},
	} {
		if got := isIdentifier([]byte(c.before), []byte(c.secret)); got != c.want {
			t.Errorf("%q behind %q: %v", c.secret, c.before, got)
		}
	}
}
