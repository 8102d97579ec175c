package inject

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"gatewayd/gateway/routes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newSource(t *testing.T, ref routes.SecretRef) *source {
	t.Helper()
	s, err := NewSource(ref)
	if err != nil {
		t.Fatal(err)
	}
	if s.Ref().String() != ref.String() {
		t.Errorf("Ref is %s", s.Ref())
	}
	return s.(*source)
}

func want(t *testing.T, s Source, value string) {
	t.Helper()
	got, err := s.Secret(context.Background())
	if err != nil || got.Reveal() != value {
		t.Fatalf("secret %q, %v; want %q", got.Reveal(), err, value)
	}
}

func wantMissing(t *testing.T, s Source, contains string) {
	t.Helper()
	got, err := s.Secret(context.Background())
	var me *MissingError
	if !errors.As(err, &me) || !got.IsZero() {
		t.Fatalf("secret %q, %v; want a MissingError", got.Reveal(), err)
	}
	if !strings.Contains(err.Error(), contains) || !strings.Contains(err.Error(), s.Ref().String()) || me.Remedy() == "" {
		t.Errorf("%v (%s); want %q in it", err, me.Remedy(), contains)
	}
}

// put writes a file at once, with a modification time so far back that the
// source trusts it.
func put(t *testing.T, path, content string, age time.Duration) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestEnvSource(t *testing.T) {
	s := newSource(t, routes.SecretRef{Env: "INJECT_TEST_TOKEN"})
	wantMissing(t, s, "not set")
	t.Setenv("INJECT_TEST_TOKEN", "first-value\n")
	want(t, s, "first-value")
	t.Setenv("INJECT_TEST_TOKEN", "second-value")
	want(t, s, "second-value")
	t.Setenv("INJECT_TEST_TOKEN", "")
	wantMissing(t, s, "empty")
}

func TestUnusableValues(t *testing.T) {
	s := newSource(t, routes.SecretRef{Env: "INJECT_TEST_TOKEN"})
	for value, why := range map[string]string{
		"short":                          "5 bytes",
		"two\nlines-of-it":               "0x0a",
		"carriage\rreturn":               "0x0d",
		"ends in two\n\n":                "0x0a",
		"tab\tinside it":                 "0x09",
		"delete\x7finside":               "0x7f",
		" leading-space":                 "space",
		"trailing-space ":                "space",
		strings.Repeat("a", maxSecret+1): "64 KB",
	} {
		t.Setenv("INJECT_TEST_TOKEN", value)
		wantMissing(t, s, why)
		if _, err := s.Secret(context.Background()); len(value) < 100 && strings.Contains(err.Error(), strings.TrimSpace(value)) {
			t.Errorf("the error shows the value: %v", err)
		}
	}
	if err := usable("nul\x00inside"); err == nil { // the environment cannot hold one
		t.Error("NUL is usable")
	}
	for value, wants := range map[string]string{"with-crlf-end\r\n": "with-crlf-end", "päss wörd": "päss wörd"} {
		t.Setenv("INJECT_TEST_TOKEN", value)
		want(t, s, wants)
	}
}

func TestFileSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	s := newSource(t, routes.SecretRef{File: path, Remedy: "run: sign-in"})
	wantMissing(t, s, "no such file")
	put(t, path, "first-value\n", time.Hour)
	want(t, s, "first-value")
	put(t, path, "other-value\n", time.Hour-time.Second) // same size, other time
	want(t, s, "other-value")
	put(t, path+".new", "third-value\n", time.Hour-time.Second) // same size and time, other inode
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	want(t, s, "third-value")
	now := time.Now() // too young for its time to tell that it has changed
	for _, value := range []string{"young-one-1", "young-one-2"} {
		put(t, path, value, 0)
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
		want(t, s, value)
	}
	put(t, path, "", time.Hour)
	wantMissing(t, s, "empty")
	put(t, path, strings.Repeat("a", maxSecret+1), time.Hour)
	wantMissing(t, s, "64 KB")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, s, "no such file")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, s, "regular")
	_, err := s.Secret(context.Background())
	var me *MissingError
	if !errors.As(err, &me) || me.Remedy() != "run: sign-in" {
		t.Errorf("remedy of %v", err)
	}
}

func TestFileSourceDoesNotBlockOnAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, newSource(t, routes.SecretRef{File: path}), "regular")
}

func TestJSONSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.json")
	for pointer, wants := range map[string]string{
		"/tokens/access_token": "access-value",
		"/a~1b/m~0n":           "escaped-value",
		"/list/1":              "element-value",
		"//":                   "empty-names",
	} {
		put(t, path, `{"tokens":{"access_token":"access-value","n":1},"a/b":{"m~n":"escaped-value"},"list":["x","element-value"],"":{"":"empty-names"}}`, time.Hour)
		want(t, newSource(t, routes.SecretRef{JSON: &routes.JSONRef{Path: path, Pointer: pointer}}), wants)
	}
	for pointer, why := range map[string]string{
		"/tokens/refresh": `no member "refresh"`,
		"/tokens/n":       "no string",
		"/tokens":         "no string",
		"/list/2":         "no element",
		"/list/01":        "no element",
		"/list/-":         "no element",
		"/tokens/n/x":     "no members",
	} {
		wantMissing(t, newSource(t, routes.SecretRef{JSON: &routes.JSONRef{Path: path, Pointer: pointer}}), why)
	}
	for _, pointer := range []string{"", "tokens", "/a~", "/a~2b"} {
		if _, err := NewSource(routes.SecretRef{JSON: &routes.JSONRef{Path: path, Pointer: pointer}}); err == nil {
			t.Errorf("pointer %q is taken", pointer)
		}
	}
}

// TestHalfWrittenFile keeps the last good value while a file is being
// rewritten in place, and no longer.
func TestHalfWrittenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.json")
	s := newSource(t, routes.SecretRef{JSON: &routes.JSONRef{Path: path, Pointer: "/token"}})
	put(t, path, `{"token":"first-value"`, 0)
	wantMissing(t, s, "no valid JSON") // nothing good was there before
	put(t, path, `{"token":"first-value"}`, time.Minute)
	want(t, s, "first-value")
	for _, half := range []string{"", `{"tok`, `{"token":"secon`} {
		put(t, path, half, 0)
		want(t, s, "first-value")
	}
	put(t, path, `{"token":"second-value"}`, 0)
	want(t, s, "second-value")
	put(t, path, `{"token":"thi`, time.Minute) // it stayed like that
	wantMissing(t, s, "no valid JSON")
	put(t, path, `{"token":"thi`, 0) // and what was good is forgotten
	wantMissing(t, s, "no valid JSON")
}

func sign(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	s, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestExpiredToken(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	key := []byte("0123456789abcdef0123456789abcdef")
	s := newSource(t, routes.SecretRef{Env: "INJECT_TEST_TOKEN"})
	s.now = func() time.Time { return now }
	for _, exp := range []any{now.Unix(), now.Unix() - 1, float64(now.Unix()) - 0.5, 1} {
		t.Setenv("INJECT_TEST_TOKEN", sign(t, jwt.SigningMethodHS256, key, jwt.MapClaims{"exp": exp}))
		_, err := s.Secret(context.Background())
		var ee *ExpiredError
		if !errors.As(err, &ee) || ee.At.After(now) || ee.Remedy() == "" || !strings.Contains(err.Error(), "env:INJECT_TEST_TOKEN") {
			t.Errorf("exp %v: %v", exp, err)
		}
	}
	for name, token := range map[string]string{
		"still valid":   sign(t, jwt.SigningMethodHS256, key, jwt.MapClaims{"exp": now.Unix() + 1}),
		"no exp":        sign(t, jwt.SigningMethodHS256, key, jwt.MapClaims{"sub": "x"}),
		"exp no number": sign(t, jwt.SigningMethodHS256, key, jwt.MapClaims{"exp": "soon"}),
		"no JWT":        "part-one.part-two.part-three",
		"opaque":        "opaque-value",
	} {
		t.Setenv("INJECT_TEST_TOKEN", token)
		if got, err := s.Secret(context.Background()); err != nil || got.Reveal() != token {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An algorithm that nobody knows does not hide the claims.
	t.Setenv("INJECT_TEST_TOKEN", "eyJhbGciOiJYWTk5In0.eyJleHAiOjF9.c2ln")
	var ee *ExpiredError
	if _, err := s.Secret(context.Background()); !errors.As(err, &ee) {
		t.Errorf("unknown algorithm: %v", err)
	}
}

func TestCommandSource(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	put(t, path, "first-value\n", 0)
	s := newSource(t, routes.SecretRef{Command: []string{"cat", path}})
	now := time.Now()
	c := newCommand([]string{"cat", path})
	c.now = func() time.Time { return now }
	s.fetch = c.fetch
	want(t, s, "first-value")
	put(t, path, "second-value\n", 0)
	want(t, s, "first-value") // kept
	now = now.Add(commandKeep)
	want(t, s, "second-value")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	now = now.Add(commandKeep)
	wantMissing(t, s, "exit status 1")
	put(t, path, "third-value\n", 0)
	wantMissing(t, s, "exit status 1") // a failure is kept too
	now = now.Add(commandRetry)
	want(t, s, "third-value")
	token := sign(t, jwt.SigningMethodHS256, []byte("0123456789abcdef0123456789abcdef"), jwt.MapClaims{"exp": now.Add(commandKeep + 40*time.Second).Unix()})
	put(t, path, token, 0)
	now = now.Add(commandKeep)
	s.now = c.now
	want(t, s, token) // expires in 40 s
	put(t, path, "fresh-value", 0)
	now = now.Add(9 * time.Second)
	want(t, s, token)
	now = now.Add(2 * time.Second) // less than expirySlack left
	want(t, s, "fresh-value")
}

func TestCommandHasNoShell(t *testing.T) {
	want(t, newSource(t, routes.SecretRef{Command: []string{"printf", "%s", "$HOME;`id`|x"}}), "$HOME;`id`|x")
}

func TestCommandFailures(t *testing.T) {
	for name, c := range map[string]struct {
		argv     []string
		contains string
	}{
		"no program":     {[]string{"no-such-program-here"}, "not found"},
		"status":         {[]string{"sh", "-c", "echo half-a-value; echo complaint >&2; exit 3"}, "exit status 3"},
		"too much":       {[]string{"head", "-c", "100000", "/dev/zero"}, "64 KB"},
		"endless":        {[]string{"cat", "/dev/zero"}, "64 KB"},
		"prints nothing": {[]string{"true"}, "empty"},
		"reads input":    {[]string{"cat"}, "empty"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSource(t, routes.SecretRef{Command: c.argv})
			wantMissing(t, s, c.contains)
			_, err := s.Secret(context.Background())
			if strings.Contains(err.Error(), "half-a-value") || strings.Contains(err.Error(), "complaint") {
				t.Errorf("the error shows output: %v", err)
			}
		})
	}
}

// TestCommandTimeout checks that a command which hangs is killed with its
// children: one of them holds a pipe open as long as it lives.
func TestCommandTimeout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alive")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	alive, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	s := newSource(t, routes.SecretRef{Command: []string{"sh"}})
	c := newCommand([]string{"sh", "-c", "sleep 60 > " + path + " & wait"})
	c.timeout = 300 * time.Millisecond
	s.fetch = c.fetch
	wantMissing(t, s, "longer than 300ms")
	if err := alive.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := alive.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the child lives on: %d, %v", n, err)
	}
}

func TestCommandFollowsContext(t *testing.T) {
	c := newCommand([]string{"sleep", "60"})
	s := newSource(t, routes.SecretRef{Command: c.argv})
	s.fetch = c.fetch
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Secret(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("running: %v", err)
	}
	c.turn <- struct{}{} // somebody else is running it
	if _, err := s.Secret(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting: %v", err)
	}
	<-c.turn
	// A guest that went away must not count as a failure of the command.
	c.argv = []string{"echo", "good-value"}
	want(t, s, "good-value")
}

func TestNewSourceRefuses(t *testing.T) {
	for _, ref := range []routes.SecretRef{{}, {Env: "A", File: "b"}, {File: "b", Command: []string{"c"}}} {
		if _, err := NewSource(ref); err == nil {
			t.Errorf("%+v is taken", ref)
		}
	}
}

func TestRemedies(t *testing.T) {
	for ref, contains := range map[*routes.SecretRef]string{
		{Env: "A"}:  "A",
		{File: "f"}: "f",
		{JSON: &routes.JSONRef{Path: "p", Pointer: "/q"}}: "/q of p",
		{Command: []string{"prog", "hidden-argument"}}:    "prog",
		{}: "manifest",
	} {
		got := (&MissingError{Ref: *ref}).Remedy()
		if !strings.Contains(got, contains) || strings.Contains(got, "hidden") {
			t.Errorf("%s: %q", ref, got)
		}
	}
}

// FuzzJSONPointer checks that neither document nor pointer makes the source
// panic, and that a document found inside another gives the same answer.
func FuzzJSONPointer(f *testing.F) {
	f.Add("/a/b", `{"a":{"b":"c"}}`)
	f.Add("/0/~1~0", `[{"/~":"x"}]`)
	f.Add("//", `{"":{"":""}}`)
	f.Fuzz(func(t *testing.T, text, doc string) {
		p, err := parsePointer(text)
		if err != nil || !json.Valid([]byte(doc)) {
			return
		}
		value, err := p.find([]byte(doc))
		inner, errInner := append(pointer{"w", "1"}, p...).find([]byte(`{"w":[0,` + doc + `]}`))
		if value != inner || (err == nil) != (errInner == nil) {
			t.Fatalf("%q in %q: %q, %v; inside another %q, %v", text, doc, value, err, inner, errInner)
		}
	})
}
