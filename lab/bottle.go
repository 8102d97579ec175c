package lab

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

// DefaultGateway returns the next hop of the default route in the namespace
// at path.
func DefaultGateway(path string) (netip.Addr, error) {
	var gw netip.Addr
	n, err := OpenNamespace(path)
	if err != nil {
		return gw, err
	}
	err = n.Do(func() error {
		routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			ones := 0
			if r.Dst != nil {
				ones, _ = r.Dst.Mask.Size()
			}
			if a, ok := netip.AddrFromSlice(r.Gw.To4()); ok && ones == 0 {
				gw = a
				return nil
			}
		}
		return errors.New("no default route yet")
	})
	if err != nil {
		return gw, fmt.Errorf("find gateway in %s: %w", path, err)
	}
	return gw, nil
}

// Bottle is a bottle of this world with its guest files, ready to run
// programs in.
type Bottle struct {
	// Guest runs programs; its fields may be changed before each start.
	Guest
	// Name is that of the manifest.
	Name string
	// Files is where the guest files lie on the host.
	Files string
	// Home is the guest's home directory, empty at first.
	Home string
	// Gateway is the link's address on the gateway's side.
	Gateway netip.Addr
}

// GuestFiles is the directory for the guest files of a bottle: they are
// written there on the host, and found at the same path in the bottle.
func (w *World) GuestFiles(bottle string) string { return filepath.Join(w.Dir, "guest-"+bottle) }

// NewBottle takes the guest files of a running bottle, which `gatewayd guest`
// has written to GuestFiles, and prepares to run programs with nothing but
// them: the environment is what the files say, a PATH, and an empty home
// directory. The host's side of the world is hidden from them.
func (w *World) NewBottle(name string) (*Bottle, error) {
	b := &Bottle{Name: name, Files: w.GuestFiles(name), Home: filepath.Join(w.Dir, "home-"+name)}
	b.Netns = w.BottleNetns(name)
	gw, err := DefaultGateway(b.Netns)
	if err != nil {
		return nil, err
	}
	b.Gateway, b.Resolver = gw, gw.String()
	if err := os.MkdirAll(b.Home, 0o700); err != nil {
		return nil, fmt.Errorf("make home of bottle %s: %w", name, err)
	}
	env, err := os.ReadFile(filepath.Join(b.Files, "env"))
	if err != nil {
		return nil, fmt.Errorf("read environment of bottle %s: %w", name, err)
	}
	b.Env, err = ParseEnv(env)
	if err != nil {
		return nil, fmt.Errorf("read environment of bottle %s: %w", name, err)
	}
	b.Env = append(b.Env, "PATH="+os.Getenv("PATH"), "HOME="+b.Home, "LANG=C.UTF-8")
	b.Dir = b.Home
	hidden := filepath.Join(w.Dir, "gatewayd")
	if _, err := os.Stat(hidden); err == nil {
		b.Hide = []string{hidden}
	}
	return b, nil
}

// ParseEnv reads KEY=VALUE lines; empty lines and lines that begin with # are
// passed over. Values are taken as they stand, without quoting rules.
func ParseEnv(text []byte) ([]string, error) {
	var env []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if key, _, ok := strings.Cut(line, "="); !ok || key == "" {
			return nil, fmt.Errorf("line %d: %q is not KEY=VALUE", n, line)
		}
		env = append(env, line)
	}
	return env, lines.Err()
}
