package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/goccy/go-yaml"
)

// Gatewayd is one gatewayd of the world: its files, and its process while it
// runs. Files stay over restarts.
type Gatewayd struct {
	// Binary is the program.
	Binary string
	// Dir holds everything else; it is below World.Dir.
	Dir string
	// Config is the path of the configuration file.
	Config string
	// BottlesDir holds the manifests.
	BottlesDir string
	// AuditFile is where the records go.
	AuditFile string
	// Env is the environment of the process: the host's secrets are here.
	Env []string

	world *World

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// NewGatewayd writes a configuration for a gatewayd in this world. extra are
// further keys of the configuration file, which replace the ones written by
// default. Nothing is started.
func (w *World) NewGatewayd(binary string, extra map[string]any) (*Gatewayd, error) {
	dir := filepath.Join(w.Dir, "gatewayd")
	g := &Gatewayd{
		Binary: binary, Dir: dir, world: w,
		Config:     filepath.Join(dir, "config.yaml"),
		BottlesDir: filepath.Join(dir, "bottles"),
		AuditFile:  filepath.Join(dir, "audit.jsonl"),
		Env:        []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(dir, "home")},
	}
	for _, d := range []string{"", "bottles", "home", "state", "run"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("make directories of gatewayd: %w", err)
		}
	}
	roots := filepath.Join(dir, "internet-ca.pem")
	if err := os.WriteFile(roots, w.Internet.CA.PEM(), 0o644); err != nil {
		return nil, fmt.Errorf("write the internet's CA: %w", err)
	}
	config := map[string]any{
		"bottles_dir":  g.BottlesDir,
		"state_dir":    filepath.Join(dir, "state"),
		"run_dir":      filepath.Join(dir, "run"),
		"bpffs_dir":    w.BPFDir(),
		"uplink":       Uplink,
		"pool":         Bottles.String(),
		"allow_ranges": []string{Public.String()},
		"dns":          map[string]any{"upstreams": []string{Resolver.String()}},
		"tls":          map[string]any{"upstream_roots": []string{roots}},
		"audit":        map[string]any{"file": g.AuditFile},
	}
	for k, v := range extra {
		config[k] = v
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("write configuration of gatewayd: %w", err)
	}
	if err := os.WriteFile(g.Config, text, 0o600); err != nil {
		return nil, fmt.Errorf("write configuration of gatewayd: %w", err)
	}
	w.onClose(g.close)
	return g, nil
}

// Home is the home directory of the host's user, where credential files are.
func (g *Gatewayd) Home() string { return filepath.Join(g.Dir, "home") }

// WriteManifest writes BOTTLE.bottle.yaml by a rename, as an editor does.
func (g *Gatewayd) WriteManifest(bottle, text string) error {
	path := g.ManifestPath(bottle)
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// ManifestPath is where the manifest of a bottle lies.
func (g *Gatewayd) ManifestPath(bottle string) string {
	return filepath.Join(g.BottlesDir, bottle+".bottle.yaml")
}

// Start starts `gatewayd run` in the gateway's namespace. Its output is
// appended to LogFile. It does not wait until anything works.
func (g *Gatewayd) Start() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cmd != nil {
		return errors.New("start gatewayd: it runs already")
	}
	out, err := os.OpenFile(g.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log of gatewayd: %w", err)
	}
	defer out.Close() // the child has its own
	cmd := exec.Command(g.Binary, "run", "--config", g.Config)
	cmd.Env, cmd.Dir = g.Env, g.Dir
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := g.world.Gateway.Do(cmd.Start); err != nil {
		return fmt.Errorf("start gatewayd: %w", err)
	}
	done := make(chan struct{})
	g.cmd, g.done = cmd, done
	go func() {
		err := cmd.Wait()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.cmd, g.err = nil, err
		close(done)
	}()
	return nil
}

// LogFile is where the output of gatewayd goes.
func (g *Gatewayd) LogFile() string { return filepath.Join(g.Dir, "gatewayd.log") }

// Log returns the output of gatewayd so far.
func (g *Gatewayd) Log() string {
	b, err := os.ReadFile(g.LogFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Pid is the id of the running process, or 0.
func (g *Gatewayd) Pid() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cmd == nil {
		return 0
	}
	return g.cmd.Process.Pid
}

// Signal sends a signal to the running process.
func (g *Gatewayd) Signal(s syscall.Signal) error {
	pid := g.Pid()
	if pid == 0 {
		return errors.New("signal gatewayd: it does not run")
	}
	return syscall.Kill(pid, s)
}

// Stop sends a signal and waits for the end of the process or of ctx.
func (g *Gatewayd) Stop(ctx context.Context, s syscall.Signal) error {
	g.mu.Lock()
	cmd, done := g.cmd, g.done
	g.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := syscall.Kill(cmd.Process.Pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop gatewayd: %w", err)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop gatewayd: still running: %w", context.Cause(ctx))
	}
}

func (g *Gatewayd) close() error {
	return g.Stop(context.Background(), syscall.SIGKILL)
}

// Command runs another subcommand of the same binary in the gateway's
// namespace, with --config, and returns its standard output. The error holds
// what it wrote to standard error.
func (g *Gatewayd) Command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, g.Binary, append(args, "--config", g.Config)...)
	cmd.Env, cmd.Dir = g.Env, g.Dir
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := g.world.Gateway.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("run gatewayd %s: %w", args[0], err)
	}
	if err := cmd.Wait(); err != nil {
		return []byte(out.String()), fmt.Errorf("run gatewayd %s: %w: %s", args[0], err, errOut.String())
	}
	return []byte(out.String()), nil
}

// WaitBottle waits until `gatewayd bottles` says that the bottle runs and its
// link is up, or gatewayd ends, or ctx ends. A probe from inside the bottle
// would not do: what it sends too early is dropped, and its kernel then waits
// for a second before it asks for the gateway's address again.
func (g *Gatewayd) WaitBottle(ctx context.Context, bottle string) error {
	g.mu.Lock()
	done := g.done
	g.mu.Unlock()
	if done == nil {
		return errors.New("wait for bottle: gatewayd was not started")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-done:
			cancel(fmt.Errorf("gatewayd has ended:\n%s", g.Log()))
		case <-stop:
		}
	}()
	return Poll(ctx, func() error {
		out, err := g.Command(ctx, "bottles", "-o", "json")
		if err != nil {
			return err
		}
		var list []struct {
			Bottle, State string
			Up            bool
		}
		if err := json.Unmarshal(out, &list); err != nil {
			return fmt.Errorf("read list of bottles: %w", err)
		}
		for _, b := range list {
			if b.Bottle == bottle && b.State == "running" && b.Up {
				return nil
			}
		}
		return fmt.Errorf("bottle %s is not up: %s", bottle, out)
	})
}

// ResidentBytes is the resident memory of the running process
// (VmRSS of proc_pid_status(5)).
func (g *Gatewayd) ResidentBytes() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.Pid()))
	if err != nil {
		return 0, fmt.Errorf("read memory of gatewayd: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read memory of gatewayd: %w", err)
			}
			return kb << 10, nil
		}
	}
	return 0, errors.New("read memory of gatewayd: no VmRSS line")
}
