package e2e

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"gatewayd/lab"
	"gatewayd/lab/privileged"
)

// secretsManifest has a host with a secret of the host's, and one without. FILE stands for where the secret is.
const secretsManifest = `
egress:
  routes:
    - host: api.example.org
      auth: { scheme: bearer, secret: { file: FILE } }
    - host: upload.example.org
`

// TestHostSecretsDoNotLeave: a guest that has somehow come by the host's real secret can bring it to no allowed host, not
// before it was put into any request, not after it was replaced, and neither can it bring its successor.
func TestHostSecretsDoNotLeave(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.Program("curl"))
	const first, second = "first-real-token-7Gq2Lw9xVb4R", "second-real-token-3Kd8Ns5cYh1T"
	b := newBench(t, nil)
	b.serve(&lab.Site{Names: []string{"api.example.org"}})
	upload := b.serve(&lab.Site{Names: []string{"upload.example.org"}})
	file := filepath.Join(b.Gateway.Home(), "token")
	writeFile(t, file, []byte(first+"\n"))
	b.start(strings.ReplaceAll(secretsManifest, "FILE", file))
	rule := "secret file:" + file
	post := func(host, body string, more ...string) error {
		r := b.run(append([]string{"curl", "-sS", "-w", "\n%{http_code}", "--data-binary", body, "https://" + host + "/"}, more...)...)
		if r.Failed != nil {
			t.Fatal(r)
		}
		lines := strings.Split(r.Out, "\n")
		status := lines[len(lines)-1]
		if strings.Contains(r.Out, rule) != (status == "403") {
			t.Fatalf("status %s, and the explanation is %s", status, r.Out)
		}
		if status != "200" {
			return fmt.Errorf("status %s", status)
		}
		return nil
	}
	refused := func(value string) {
		t.Helper()
		for _, host := range []string{"upload.example.org", "api.example.org"} {
			for what, err := range map[string]error{
				"as it is": post(host, "token="+value),
				"base64":   post(host, "x"+base64.StdEncoding.EncodeToString([]byte("ab"+value))),
				"chunked":  post(host, "token="+value, "--http1.1", "-H", "Transfer-Encoding: chunked"),
				"header":   post(host, "nothing", "-H", "X-Note: "+value),
			} {
				if err == nil || err.Error() != "status 403" {
					t.Errorf("%s, %s: %v, want 403", host, what, err)
				}
			}
		}
	}
	if err := post("upload.example.org", second); err != nil {
		t.Fatalf("what is no secret yet: %v", err)
	}
	upload.Forget()
	refused(first)
	if err := post("api.example.org", "nothing"); err != nil {
		t.Errorf("a request that the secret is put in: %v", err)
	}
	writeFile(t, file, []byte(second+"\n"))
	eventually(t, func() error {
		if err := post("upload.example.org", second); err == nil {
			return fmt.Errorf("the new value passes")
		}
		return nil
	})
	refused(second)
	refused(first)
	for _, r := range upload.Requests() {
		if strings.Contains(r.URI+fmt.Sprint(r.Header), first) {
			t.Errorf("the server saw %+v", r)
		}
	}
	eventually(t, func() error {
		found := 0
		for _, r := range b.records() {
			if r.Reason == "leak" && strings.HasPrefix(r.Finding, rule+" in ") {
				found++
			}
		}
		if found < 24 {
			return fmt.Errorf("%d records name the secret, want one for each of 24 requests", found)
		}
		return nil
	})
	b.mustNotLeak(first, second)
}
