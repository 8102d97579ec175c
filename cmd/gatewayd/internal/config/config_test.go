package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

var testServers = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}

func TestDefaults(t *testing.T) {
	c, err := (&Source{}).Resolve(nil, testServers)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Instance: "gatewayd", BottlesDir: "/etc/gatewayd/bottles", StateDir: "/var/lib/gatewayd", RunDir: "/run/gatewayd",
		BPFFSDir: "/sys/fs/bpf/gatewayd", DNSUpstreams: testServers, Pool: netip.MustParsePrefix("198.19.0.0/16")}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestInstanceNamesDirectories(t *testing.T) {
	s, err := Parse("c.yaml", []byte("instance: two\nrun_dir: /tmp/r/\n"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Resolve(nil, testServers)
	if err != nil {
		t.Fatal(err)
	}
	if c.StateDir != "/var/lib/two" || c.BPFFSDir != "/sys/fs/bpf/two" || c.BottlesDir != "/etc/two/bottles" || c.RunDir != "/tmp/r" {
		t.Errorf("got %+v", c)
	}
}

func TestEveryValueIsRead(t *testing.T) {
	s, err := Load("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Resolve(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v := reflect.ValueOf(c); true {
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("full.yaml leaves %s at its zero value", v.Type().Field(i).Name)
			}
		}
	}
	if want := netip.MustParseAddrPort("192.0.2.1:53"); c.DNSUpstreams[0] != want {
		t.Errorf("upstream without a port is %s, want %s", c.DNSUpstreams[0], want)
	}
}

// Each invalid-*.yaml holds what is refused, and in its first line, after "# ", the message expected.
func TestInvalid(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid-*.yaml")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(b), "\n")
			s, err := Parse("config.yaml", b)
			if err == nil {
				var c Config
				if c, err = s.Resolve(nil, nil); err == nil {
					err = c.CanResolve()
				}
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if want := strings.TrimPrefix(first, "# "); err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
		})
	}
}

func TestEveryKeyHasAFlag(t *testing.T) {
	var names []string
	var walk func(prefix string, ty reflect.Type)
	walk = func(prefix string, ty reflect.Type) {
		for i := range ty.NumField() {
			f := ty.Field(i)
			if f.Type.Kind() == reflect.Struct {
				walk(prefix+f.Tag.Get("yaml")+".", f.Type)
				continue
			}
			names = append(names, prefix+f.Tag.Get("yaml"))
		}
	}
	walk("", reflect.TypeFor[File]())
	if !reflect.DeepEqual(names, Keys()) {
		t.Errorf("fields %v\nflags  %v", names, Keys())
	}
}

func TestFlagsOverrideTheFile(t *testing.T) {
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	f := Bind(fs)
	args := []string{"--dns.upstreams=192.0.2.9", "--run_dir", "/tmp/flag", "--audit-required", "--allow-ranges", "198.51.100.0/24,203.0.113.0/24"}
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	s, err := Load("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	changed := f.Apply(&s.File)
	c, err := s.Resolve(changed, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.RunDir != "/tmp/flag" || len(c.AllowRanges) != 2 || len(c.DNSUpstreams) != 1 || c.StateDir != "/srv/state" {
		t.Errorf("got %+v", c)
	}
	if len(changed) != 4 {
		t.Errorf("changed %v", changed)
	}
}

func TestRefusedFlagIsBlamedOnTheFlag(t *testing.T) {
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	f := Bind(fs)
	if err := fs.Parse([]string{"--dns-denied=maybe"}); err != nil {
		t.Fatal(err)
	}
	s := &Source{Path: "config.yaml", text: []byte("dns: {denied: block}")}
	_, err := s.Resolve(f.Apply(&s.File), testServers)
	if want := `--dns-denied: "maybe" is neither block nor nxdomain; write block or nxdomain`; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestLoadMissing(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was asked for and is not there: %v", err)
	}
}

func TestResolvConf(t *testing.T) {
	got := parseResolvConf([]byte("# c\nsearch example\nnameserver 192.0.2.1\nnameserver\nnameserver nonsense\nnameserver 2001:db8::1 x\n"))
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::1]:53")}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse("config.yaml", b)
		if err != nil {
			return
		}
		c, err := s.Resolve(nil, testServers)
		if err == nil && (!c.Pool.IsValid() || c.CanResolve() != nil || c.RunDir == "") {
			t.Errorf("accepted without a default: %+v", c)
		}
	})
}
