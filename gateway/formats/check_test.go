package formats

import (
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
