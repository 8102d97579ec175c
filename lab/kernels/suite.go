package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gatewayd/lab/variant"
)

// suite is tests of one package.
type suite struct {
	name string // that of the package if empty
	pkg  string // below the module
	// only is a regular expression of the tests that run; all when empty. why is the reason for which the others do not, if
	// they run in no other suite. not is one of tests that another suite has.
	only, why, not string
}

func (s suite) title() string { return cmp.Or(s.name, s.pkg) }

// suites are the packages whose tests depend on the kernel.
var suites = []suite{
	{name: "programs", pkg: "gateway/redirect", only: "^" + programsTest + "$"},
	{name: "fastpath", pkg: "gateway/redirect", only: "^TestFastPath"},
	{pkg: "gateway/redirect", not: "^TestFastPath|^" + programsTest + "$"},
	{pkg: "gateway", only: "^TestRealLinks$", why: "they use no links"},
	{pkg: "lab"},
	{pkg: "e2e", only: "^Test(FastPath$|FastPathOutlivesKill|RestartsUnderLoad|Killed|Rules|Program|Link|Dead|IPRules|Stopped|TheSiege|DeniedNames|QUIC|AnyResolver|TwoBottles|TwoInstances|Uninstall)",
		why: "they are about bytes within connections, or need curl, OpenSSL, git, Go, Python, Node, the Codex CLI or QEMU, which are not packed"},
}

// tools are the host's programs that tests start, and that set the VM up.
var tools = []string{"nft", "ip", "conntrack", "nsenter", "mount", "/bin/sh", "/bin/sleep", "cat", "env", "ls", "stat",
	"/usr/lib/cni/ptp", "/usr/lib/cni/bridge", "/usr/lib/cni/host-local"}

// built are the programs that run on every kernel: gatewayd, the bench, and by package the tests' binaries.
type built struct {
	dir, root string
	gatewayd  string
	other     string // a gatewayd with other programs
	bench     string
	commit    string
	tests     map[string]string
}

// build compiles everything such that it runs without libraries.
func build(ctx context.Context, dir string) (*built, error) {
	root, err := goTool(ctx, "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	b := &built{dir: dir, root: strings.TrimSpace(root), gatewayd: filepath.Join(dir, "gatewayd"), tests: map[string]string{}}
	b.commit = commitOf(ctx, b.root)
	b.bench, b.other = filepath.Join(dir, "bench"), filepath.Join(dir, "gatewayd-other")
	if err := variant.Build(ctx, dir, b.other); err != nil {
		return nil, err
	}
	for path, pkg := range map[string]string{b.gatewayd: "cmd/gatewayd", b.bench: "bench"} {
		if _, err := goTool(ctx, "build", "-o", path, "gatewayd/"+pkg); err != nil {
			return nil, err
		}
	}
	for _, s := range suites {
		if b.tests[s.pkg] != "" {
			continue
		}
		b.tests[s.pkg] = filepath.Join(dir, strings.ReplaceAll(s.pkg, "/", "-")+".test")
		if _, err := goTool(ctx, "test", "-c", "-o", b.tests[s.pkg], "gatewayd/"+s.pkg); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func goTool(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run go %s: %w: %s", args[0], err, strings.TrimSpace(errOut.String()))
	}
	return string(out), nil
}

// arguments are those of the test's binary. What the kernel lacks is left out.
func (s suite) arguments(o *options, m machine) []string {
	args := []string{"-test.v=test2json", "-test.count=1", "-test.timeout=" + suiteLimit.String()}
	if only := cmp.Or(o.tests, s.only); only != "" {
		args = append(args, "-test.run="+only)
	}
	patterns := slices.Sorted(maps.Keys(m.lacks[s.title()]))
	if s.not != "" {
		patterns = append(patterns, s.not)
	}
	// The testing package looks no further once an alternative matches so far, and a subtest's does with any test.
	slices.SortStableFunc(patterns, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
	if len(patterns) > 0 {
		args = append(args, "-test.skip="+strings.Join(patterns, "|"))
	}
	return args
}

// leftOut are the names of the tests that run on no kernel here.
func (s suite) leftOut(ctx context.Context, b *built) ([]string, error) {
	if s.why == "" {
		return nil, nil
	}
	out, err := exec.CommandContext(ctx, b.tests[s.pkg], "-test.list=^Test").Output()
	if err != nil {
		return nil, fmt.Errorf("list tests of %s: %w", s.pkg, err)
	}
	only, err := regexp.Compile(s.only)
	if err != nil {
		return nil, fmt.Errorf("choose tests of %s: %w", s.pkg, err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), only.MatchString), nil
}
