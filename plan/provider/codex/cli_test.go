package codex

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatewayd/gateway/routes"
	"gatewayd/lab/privileged"
	"gatewayd/plan/provider"
)

// cli returns the real Codex CLI: GATEWAYD_TEST_CODEX is the binary, or the
// directory of an npm installation.
func cli() (string, error) {
	path := os.Getenv("GATEWAYD_TEST_CODEX")
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return path, nil
	}
	for _, inner := range []string{"", "codex/node_modules/@openai/"} {
		found, err := filepath.Glob(filepath.Join(path, "node_modules/@openai", inner, "codex*/vendor/*-linux-musl/bin/codex"))
		if err == nil && len(found) > 0 {
			return found[0], nil
		}
	}
	return "", errors.New("the Codex CLI is missing (npm install @openai/codex, then set GATEWAYD_TEST_CODEX to the directory)")
}

// TestCLITakesGuestFiles: the real CLI, in a namespace without any network,
// takes the files that the guest gets for a signed-in agent's.
func TestCLITakesGuestFiles(t *testing.T) {
	var binary string
	privileged.Require(t, privileged.Root, func() (err error) {
		binary, err = cli()
		return err
	})
	own := func(host string) routes.Route {
		return routes.Route{Host: host, Auth: &routes.Auth{Role: routes.RoleProvider, Dummies: routes.Dummies{Values: []string{"gatewayd-dummy-of-the-route"}}}}
	}
	signed := testHost{content: signedIn(t, expires)}
	cases := []struct {
		name string
		c    provider.Contribution
		want string
	}{
		{"inject", provision(t, provider.Inject, signed), "Logged in using ChatGPT"},
		{"inject, host token expired", provision(t, provider.Inject, testHost{content: signedIn(t, now.Add(-time.Hour))}), "Logged in using ChatGPT"},
		{"inject, no host file", provision(t, provider.Inject, testHost{}), "Logged in using ChatGPT"},
		{"inject, api key", provision(t, provider.Inject, testHost{content: `{"OPENAI_API_KEY":"` + canary + `"}`}), "API key configured - sk-gatew"},
		{"lend", provision(t, provider.Lend, signed), "Logged in using ChatGPT"},
		{"own credential, model host", provision(t, provider.Inject, signed, own(modelHost)), "Logged in using ChatGPT"},
		{"own credential, api host", provision(t, provider.Inject, signed, own(apiHost)), "API key configured - gatewayd"},
		{"the agent signs in", provision(t, provider.SignIn, signed), "Not logged in"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			home := t.TempDir()
			for _, f := range c.c.Files {
				if err := os.WriteFile(filepath.Join(home, filepath.Base(f.Path)), []byte(f.Content), os.FileMode(f.Mode)); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, binary, "login", "status")
			cmd.Env = []string{"HOME=" + home, "CODEX_HOME=" + home, "PATH=/usr/bin:/bin"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if !strings.Contains(string(out), c.want) {
				t.Errorf("the CLI says %q, want %q", out, c.want)
			}
		})
	}
}
