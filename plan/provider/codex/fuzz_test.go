package codex

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// FuzzParseHostAuth: whatever the file holds, parsing does not panic, times
// have an RFC 3339 form, and dummies made from it verify and hold no token.
func FuzzParseHostAuth(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", `{"OPENAI_API_KEY":"sk-1"}`, `{"auth_mode":"chatgpt","tokens":null}`,
		`{"tokens":{"id_token":"a.b.c","access_token":"e30.e30.e30","account_id":"a b"},"last_refresh":"9999-12-31T23:59:59Z"}`,
		`{"tokens":{"access_token":"eyJhbGciOiJub25lIn0.eyJleHAiOjFlMzB9.eA"}}`,
		`{"tokens":{"access_token":"eyJhbGciOiJYIn0.eyJleHAiOi05ZTE4fQ.eA"}}`,
		`{"personal_access_token":{}}`, `[1]`, `{"tokens":{"access_token":{"a":1}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a := parseHostAuth(data)
		for _, at := range []time.Time{a.Expires, a.LastRefresh} {
			if _, err := at.MarshalJSON(); err != nil {
				t.Fatal(err)
			}
		}
		if a.forwardable() != (a.Detail == "") {
			t.Fatalf("state %d with detail %q", a.State, a.Detail)
		}
		tokens, err := dummyTokens("dev", a, orTime(a.Expires, noExpiry))
		if err != nil {
			t.Fatal(err)
		}
		claimsOf(t, tokens.Access)
		claimsOf(t, tokens.ID)
		var f authFile
		if json.Unmarshal(data, &f) == nil && f.Tokens != nil && len(f.Tokens.AccessToken) > 40 && strings.Contains(tokens.Access+tokens.ID, f.Tokens.AccessToken) {
			t.Fatal("the host's token is in the dummy")
		}
	})
}
