package pipelock

import (
	"fmt"
	"hash/crc32"
	"net/http"
	"strings"
	"testing"
)

// githubToken returns a token of GitHub's form with the checksum of body, which has 30 characters, or with a wrong one.
func githubToken(body string, right bool) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := crc32.ChecksumIEEE([]byte(body))
	if !right {
		sum++
	}
	check := make([]byte, 6)
	for i := 5; i >= 0; i-- {
		check[i] = digits[sum%62]
		sum /= 62
	}
	return "gh" + "p_" + body + string(check)
}

// TestNotesHideNothing: however many notes a head makes, what is blocked behind them is found.
func TestNotesHideNothing(t *testing.T) {
	s := formScanner(t)
	wrong, right := githubToken("q7Xv2LmN9bT4sKd8WzR1yHc5JfGp3A", false), githubToken("q7Xv2LmN9bT4sKd8WzR1yHc5JfGp3B", true)
	notes := http.Header{}
	for i := range 2 * maxFindings {
		notes.Set(fmt.Sprintf("X-%02d", i), wrong)
	}
	if got := s.Request(other, "/", notes, nil); len(got) != maxFindings || got[0].Action != Warn {
		t.Fatalf("%d findings: %+v", len(got), got)
	}
	blocks := func(name string, got []Finding, rule string) {
		t.Helper()
		for _, f := range got {
			if f.Action == Block && f.Rule == rule {
				return
			}
		}
		t.Errorf("%s: %+v", name, got)
	}
	for rule, token := range map[string]string{"github-pat": right, "host secret": secret} {
		h := notes.Clone()
		h.Set("X-Zz", token)
		blocks("behind notes in other fields", s.Request(other, "/", h, nil), rule)
		blocks("behind a note in the same field", s.Request(other, "/", http.Header{"X": {wrong + " " + token}}, nil), rule)
		blocks("behind a note in another line of the field", s.Request(other, "/", http.Header{"X": {wrong, token}}, nil), rule)
		blocks("behind a note in a text", s.Scan(other, "x", []byte(wrong+" "+token)), rule)
	}
	loose := scanner().WithFormats(s.formats, s.formats.Policy(nil, true))
	var all strings.Builder
	for _, token := range formTokens() {
		all.WriteString(token + "\n")
	}
	blocks("behind forms that are let go", loose.Request(other, "/", http.Header{"A": {all.String()}, "B": {all.String()}, "C": {secret}}, nil), "host secret")
}
