// Package e2e runs the real gatewayd binary with real clients in a small
// world of network namespaces. Nothing here reaches beyond that world.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gatewayd/lab/demo"
	"gatewayd/lab/privileged"
)

// clientVariable makes the test binary act as a client in a bottle.
const clientVariable = "GATEWAYD_E2E_CLIENT"

// limitVariable bounds such a client, in the form of time.ParseDuration; clientLimit is used without it.
const (
	limitVariable = "GATEWAYD_E2E_LIMIT"
	clientLimit   = 2 * time.Minute
)

func TestMain(m *testing.M) {
	if name := os.Getenv(clientVariable); name != "" {
		os.Exit(runClient(name, os.Args[1:]))
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

func runClient(name string, args []string) int {
	limit, err := time.ParseDuration(os.Getenv(limitVariable))
	if err != nil {
		limit = clientLimit
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	f, ok := clientByName(name)
	if !ok {
		fmt.Fprintf(os.Stderr, "no client named %q\n", name)
		return 2
	}
	if err := f(ctx, args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// clientByName is what the test binary can be in a bottle.
func clientByName(name string) (func(context.Context, []string) error, bool) {
	f, ok := map[string]func(context.Context, []string) error{
		"get": getClient, "hammer": hammerClient, "banner": bannerClient,
		"sse": sseClient, "socket": socketClient, "grpc": grpcClient,
		"interim": interimClient, "duplex": duplexClient, "bulk": bulkClient,
		"raw": rawClient, "steady": steadyClient, "ping": pingClient, "hostile": hostileClient, "crowd": crowdClient, "batch": batchClient,
		"tunnel": tunnelClient, "clock": clockClient, "shift": shiftClient, "queues": queuesClient, "mixed": mixedClient, "neighbour": neighbourClient, "greedy": greedyClient, "refused": refusedClient,
	}[name]
	return f, ok
}

// getClient is the demo's client: one request, reported as JSON.
func getClient(_ context.Context, args []string) error {
	if code := demo.Client(args, os.Stdout); code != 0 {
		return fmt.Errorf("exit code %d", code)
	}
	return nil
}

// built is the gatewayd under test, built once for all tests.
var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// gatewaydBinary builds cmd/gatewayd, or takes GATEWAYD_TEST_BINARY.
func gatewaydBinary(t testing.TB) string {
	t.Helper()
	privileged.Require(t, privileged.Root, privileged.BTF)
	built.once.Do(func() {
		if built.path = os.Getenv("GATEWAYD_TEST_BINARY"); built.path != "" {
			return
		}
		built.dir, built.err = os.MkdirTemp("", "gatewayd-e2e")
		if built.err != nil {
			return
		}
		built.path = filepath.Join(built.dir, "gatewayd")
		build := exec.Command("go", "build", "-o", built.path, "gatewayd/cmd/gatewayd")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // it runs in VMs too
		out, err := build.CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("build gatewayd: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// errNoCodex says how to get what is missing.
var errNoCodex = errors.New("the Codex CLI is missing (npm install @openai/codex, or set GATEWAYD_TEST_CODEX to its binary or to the directory of the installation)")

// codexBinary finds the Codex CLI: GATEWAYD_TEST_CODEX is the binary or the
// directory of an npm installation; without it one is looked for at and above
// the current directory.
func codexBinary() (string, error) {
	if path := os.Getenv("GATEWAYD_TEST_CODEX"); path != "" {
		fi, err := os.Stat(path)
		switch {
		case err != nil:
			return "", fmt.Errorf("%w: %w", errNoCodex, err)
		case fi.Mode().IsRegular():
			return path, nil
		}
		return codexBelow(path)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if path, err := codexBelow(dir); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errNoCodex
		}
		dir = filepath.Dir(dir)
	}
}

// codexBelow looks where npm puts the package of this platform: beside the one
// asked for, or inside it.
func codexBelow(dir string) (string, error) {
	for _, inner := range []string{"", "codex/node_modules/@openai/"} {
		pattern := filepath.Join(dir, "node_modules/@openai", inner, "codex*/vendor/*-linux-musl/bin/codex")
		if found, _ := filepath.Glob(pattern); len(found) > 0 { // the pattern is well formed
			return found[0], nil
		}
	}
	return "", errNoCodex
}

func requireCodex(t testing.TB) string {
	t.Helper()
	var path string
	privileged.Require(t, privileged.Root, func() (err error) {
		path, err = codexBinary()
		return err
	})
	return path
}
