package codex

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// ask sends one request to the answerer.
func ask(t *testing.T, h testHost, method, path, body string) (*http.Response, refreshed, string) {
	t.Helper()
	var log bytes.Buffer
	handler := NewAnswerer(AnswererConfig{Bottle: "dev", Host: h, Log: slog.New(slog.NewJSONHandler(&log, nil))})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(method, "https://auth.openai.com"+path, strings.NewReader(body)))
	answer, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(answer)+log.String(), canary) {
		t.Errorf("a secret in the answer or the log:\n%s\n%s", answer, log.String())
	}
	var tokens refreshed
	if err := json.Unmarshal(answer, &tokens); err != nil {
		t.Fatalf("answer is no JSON: %s", answer)
	}
	return w.Result(), tokens, log.String()
}

const refreshBody = `{"client_id":"app","grant_type":"refresh_token","refresh_reason":"proactive_expiry","refresh_token":"` + canary + `"}`

// TestRefresh: always 200, with dummies that live as long as the host's token,
// and long enough for the CLI not to ask again at once.
func TestRefresh(t *testing.T) {
	soon := now.Add(minAnswered)
	cases := []struct {
		name string
		host testHost
		want time.Time
	}{
		{"fresh host token", testHost{content: signedIn(t, expires)}, expires},
		{"about to expire", testHost{content: signedIn(t, now.Add(2*time.Minute))}, soon},
		{"expired", testHost{content: signedIn(t, now.Add(-time.Hour))}, soon},
		{"missing", testHost{}, soon},
		{"malformed", testHost{content: "{"}, soon},
		{"api key", testHost{content: `{"OPENAI_API_KEY":"` + canary + `"}`}, soon},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, body := range []string{refreshBody, "", "not JSON", strings.Repeat("x", maxAnswered+1)} {
				resp, tokens, _ := ask(t, c.host, "POST", "/oauth/token", body)
				if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "no-store" {
					t.Fatalf("answer %d, %v", resp.StatusCode, resp.Header)
				}
				for _, token := range []string{tokens.AccessToken, tokens.IDToken} {
					if got := claimsOf(t, token)["exp"]; got != float64(c.want.Unix()) {
						t.Errorf("exp %v, want %d", got, c.want.Unix())
					}
				}
				if tokens.RefreshToken != dummyRefresh("dev") || tokens.ExpiresIn != int64(c.want.Sub(now).Seconds()) {
					t.Errorf("answer %+v", tokens)
				}
			}
		})
	}
}

// TestRefreshFollowsHost: the answer is made from the file as it is now.
func TestRefreshFollowsHost(t *testing.T) {
	h := &testHost{content: signedIn(t, expires)}
	handler := NewAnswerer(AnswererConfig{Bottle: "dev", Host: h})
	exp := func() any {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("POST", "/oauth/token", nil))
		var tokens refreshed
		if err := json.Unmarshal(w.Body.Bytes(), &tokens); err != nil {
			t.Fatal(err)
		}
		return claimsOf(t, tokens.AccessToken)["exp"]
	}
	first := exp()
	h.content = signedIn(t, expires.Add(time.Hour))
	if second := exp(); first != float64(expires.Unix()) || second != float64(expires.Add(time.Hour).Unix()) {
		t.Errorf("exp %v, then %v", first, second)
	}
}

// TestRefreshAgain: who asks again at once has a clock that is ahead, and is given tokens that it can use.
func TestRefreshAgain(t *testing.T) {
	a := NewAnswerer(AnswererConfig{Bottle: "dev", Host: testHost{}}).(*answerer)
	for _, c := range []struct {
		name        string
		after, host time.Duration // since the first refresh
		want        time.Duration
	}{
		{"the first", 0, time.Hour, time.Hour},
		{"at once", time.Second, time.Hour, time.Second + aheadAnswered},
		{"and again", 2 * time.Second, time.Hour, 2*time.Second + aheadAnswered},
		{"with another token of the host", 3 * time.Second, 2 * time.Hour, 2 * time.Hour},
		{"later", 10 * time.Minute, 2 * time.Hour, 2 * time.Hour},
		{"at once, with a token that lives long", 10*time.Minute + time.Second, 30 * 24 * time.Hour, 30 * 24 * time.Hour},
		{"and again with that", 10*time.Minute + 2*time.Second, 30 * 24 * time.Hour, 30 * 24 * time.Hour},
	} {
		if got := a.expiry(now.Add(c.after), now.Add(c.host)); !got.Equal(now.Add(c.want)) {
			t.Errorf("%s: tokens live %s, want %s", c.name, got.Sub(now), c.want)
		}
	}
}

func TestUnusableHostIsLogged(t *testing.T) {
	_, _, log := ask(t, testHost{}, "POST", "/oauth/token", refreshBody)
	if !strings.Contains(log, `"level":"WARN"`) || !strings.Contains(log, "codex login") {
		t.Errorf("log says not what to do:\n%s", log)
	}
}

// TestOtherPaths: revocation goes nowhere; nothing is answered 400 or 401,
// which would bring up the sign-in screen.
func TestOtherPaths(t *testing.T) {
	h := testHost{content: signedIn(t, expires)}
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"POST", "/oauth/revoke", 200},
		{"GET", "/oauth/token", 404},
		{"GET", "/oauth/authorize", 404},
		{"POST", "/api/accounts/deviceauth/usercode", 404},
		{"POST", "/", 404},
		{"DELETE", "/oauth/revoke", 404},
	} {
		resp, tokens, _ := ask(t, h, c.method, c.path, refreshBody)
		if resp.StatusCode != c.status || tokens.AccessToken != "" {
			t.Errorf("%s %s: %d, %+v", c.method, c.path, resp.StatusCode, tokens)
		}
	}
}
