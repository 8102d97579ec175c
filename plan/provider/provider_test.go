package provider

import (
	"encoding/json"
	"regexp"
	"testing"
)

// TestDummy: the same for the same, different for anything else, and plain
// enough for a header, a URL and a shell.
func TestDummy(t *testing.T) {
	form := regexp.MustCompile(`^gatewayd-dummy-[a-z2-7]{31}$`)
	seen := map[string]bool{}
	for _, in := range [][2]string{{"dev", "a"}, {"dev", "b"}, {"dew", "a"}, {"deva", ""}, {"", "deva"}, {"dev", "jwt key"}} {
		d := Dummy(in[0], in[1])
		if d != Dummy(in[0], in[1]) || !form.MatchString(d) || seen[d] {
			t.Errorf("%v: %s", in, d)
		}
		seen[d] = true
	}
	if len(DummyKey("dev")) != 32 || string(DummyKey("dev")) == string(DummyKey("dew")) {
		t.Error("keys of two bottles are not two keys of 32 bytes")
	}
}

func TestPrinted(t *testing.T) {
	out, err := json.Marshal([]any{Lend, Inject, SignIn, Perm(0o600), Perm(0o44)})
	if err != nil || string(out) != `["lend","true","false","0600","0044"]` {
		t.Errorf("%s, %v", out, err)
	}
}

func TestResolve(t *testing.T) {
	for want, e := range map[string]EnvVar{
		"plain":       {Value: "plain"},
		"/at/ca.pem":  {Path: "ca.pem"},
		"-Dx=/at/jks": {Value: "-Dx=", Path: "jks"},
	} {
		if got := e.Resolve("/at"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
