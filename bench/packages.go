package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// packageOf names the programs that the bench does not bring along, and the Debian packages that hold them.
var packageOf = map[string]string{
	"haproxy": "haproxy", "nginx": "nginx", "wrk": "wrk", "nft": "nftables", "ip": "iproute2", "iperf3": "iperf3",
	"squid": "squid-openssl", "mitmdump": "mitmproxy", "h2load": "nghttp2-client",
}

const streamModule = "ngx_stream_module.so"

// packages finds programs on the PATH, or takes them from Debian's packages, unpacked in a directory of the tree's
// cache: installing them would start their services.
type packages struct {
	dir string
	say func(format string, args ...any)
}

// find returns the path of a program, or an error that says why there is none.
func (p *packages) find(ctx context.Context, name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil && name != "nginx" {
		return path, nil
	}
	path := filepath.Join(p.dir, "root/usr/sbin", name)
	if name == "nginx" { // the module must be of the same build
		if installed, err := exec.LookPath(name); err == nil {
			if _, err := os.Stat(filepath.Join("/usr/lib/nginx/modules", streamModule)); err == nil {
				return installed, nil
			}
		}
	}
	if slices.Contains([]string{"wrk", "iperf3", "mitmdump", "h2load"}, name) {
		path = filepath.Join(p.dir, "root/usr/bin", name)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	wanted := []string{packageOf[name]}
	if name == "nginx" {
		wanted = append(wanted, "libnginx-mod-stream")
	}
	if err := p.unpack(ctx, wanted); err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find %s: not in package %s", name, packageOf[name])
	}
	return path, nil
}

// module is the path of nginx's stream module for an nginx that find returned.
func (p *packages) module(nginx string) string {
	if strings.HasPrefix(nginx, p.dir) {
		return filepath.Join(p.dir, "root/usr/lib/nginx/modules", streamModule)
	}
	return filepath.Join("/usr/lib/nginx/modules", streamModule)
}

// env lets an unpacked program find the libraries, of Python too, that were unpacked with it.
func (p *packages) env() []string {
	found, _ := filepath.Glob(filepath.Join(p.dir, "root/usr/lib/*-linux-gnu")) // the pattern is well formed
	if len(found) == 0 {
		return nil
	}
	return []string{
		"LD_LIBRARY_PATH=" + strings.Join(found, ":"), "PYTHONPATH=" + filepath.Join(p.dir, "root/usr/lib/python3/dist-packages"),
	}
}

// unpack downloads packages and what they lack on this machine, and unpacks them below dir. It needs root for apt's lock.
func (p *packages) unpack(ctx context.Context, names []string) error {
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("not installed, and no %s to get the package %s with", tool, strings.Join(names, " "))
		}
	}
	p.say("taking Debian's %s into %s; nothing is installed", strings.Join(names, ", "), p.dir)
	archives := filepath.Join(p.dir, "archives-"+names[0])
	if err := os.MkdirAll(filepath.Join(archives, "partial"), 0o755); err != nil {
		return fmt.Errorf("make cache: %w", err)
	}
	download := append([]string{"apt-get", "install", "-q", "-y", "-d", "--no-install-recommends",
		"-o", "Dir::Cache::archives=" + archives}, names...)
	if err := command(ctx, download...); err != nil {
		errUpdate := command(ctx, "apt-get", "update", "-q")
		if errAgain := command(ctx, download...); errAgain != nil {
			return errors.Join(errAgain, errUpdate)
		}
	}
	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil || len(debs) == 0 {
		return fmt.Errorf("download %s: apt-get left no archive (%w)", strings.Join(names, " "), err)
	}
	for _, deb := range debs {
		if err := command(ctx, "dpkg-deb", "-x", deb, filepath.Join(p.dir, "root")); err != nil {
			return err
		}
	}
	return nil
}

// command runs a program of the system; the error holds the end of what it wrote.
func command(ctx context.Context, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w: %s", strings.Join(argv[:min(2, len(argv))], " "), err, out.String())
	}
	return nil
}
