package config

import (
	"strings"

	"github.com/spf13/pflag"
)

// key describes one key of File: its dotted name, its sentence in --help and the manual, and the flag that sets it.
type key struct {
	name, usage string
	bind        func(fs *pflag.FlagSet, f *File)
	copy        func(to, from *File)
}

func text(name, usage string, at func(*File) *string) key {
	return key{name, usage,
		func(fs *pflag.FlagSet, f *File) { fs.StringVar(at(f), FlagName(name), "", usage) },
		func(to, from *File) { *at(to) = *at(from) }}
}

func list(name, usage string, at func(*File) *[]string) key {
	return key{name, usage,
		func(fs *pflag.FlagSet, f *File) { fs.StringSliceVar(at(f), FlagName(name), nil, usage) },
		func(to, from *File) { *at(to) = *at(from) }}
}

func truth(name, usage string, at func(*File) *bool) key {
	return key{name, usage,
		func(fs *pflag.FlagSet, f *File) { fs.BoolVar(at(f), FlagName(name), false, usage) },
		func(to, from *File) { *at(to) = *at(from) }}
}

func number(name, usage string, at func(*File) *int) key {
	return key{name, usage,
		func(fs *pflag.FlagSet, f *File) { fs.IntVar(at(f), FlagName(name), 0, usage) },
		func(to, from *File) { *at(to) = *at(from) }}
}

// keys lists every key of File in the order of its fields; a test compares the two.
func keys() []key {
	return []key{
		text("instance", "name of this gateway among several on one machine (default gatewayd)",
			func(f *File) *string { return &f.Instance }),
		text("bottles_dir", "directory of the manifests (default /etc/INSTANCE/bottles)",
			func(f *File) *string { return &f.BottlesDir }),
		text("state_dir", "directory of certificate authorities and addresses (default /var/lib/INSTANCE)",
			func(f *File) *string { return &f.StateDir }),
		text("run_dir", "directory of the lock and the admin socket (default /run/INSTANCE)",
			func(f *File) *string { return &f.RunDir }),
		text("bpffs_dir", "directory on a BPF file system for pins (default /sys/fs/bpf/INSTANCE)",
			func(f *File) *string { return &f.BPFFSDir }),
		text("uplink", "interface that fast-path traffic leaves by (default: that of the default route)",
			func(f *File) *string { return &f.Uplink }),
		text("fast_lane", "how verified connections go on: redirect (past netfilter, where the kernel can) or forward (default redirect)",
			func(f *File) *string { return &f.FastLane }),
		list("dns.upstreams", "resolvers to ask, ADDRESS[:PORT] (default: those of /etc/resolv.conf)",
			func(f *File) *[]string { return &f.DNS.Upstreams }),
		text("dns.denied", "what a guest hears about a name outside its plan: block or nxdomain (default block)",
			func(f *File) *string { return &f.DNS.Denied }),
		list("tls.upstream_roots", "PEM files of authorities trusted upstream besides the system's",
			func(f *File) *[]string { return &f.TLS.UpstreamRoots }),
		text("audit.file", "file that receives one JSON record a line",
			func(f *File) *string { return &f.Audit.File }),
		truth("audit.required", "deny when records cannot be written",
			func(f *File) *bool { return &f.Audit.Required }),
		text("metrics.listen", "unix:PATH or loopback ADDRESS:PORT for Prometheus",
			func(f *File) *string { return &f.Metrics.Listen }),
		text("pipelock.rules", "file of rules for tokens, in gitleaks' format, besides the built-in ones",
			func(f *File) *string { return &f.Pipelock.Rules }),
		number("pipelock.trip", "requests, connections and names of a bottle blocked for a leak that cut it off (default 0: never)",
			func(f *File) *int { return &f.Pipelock.Trip }),
		text("pool", "IPv4 prefix that guests are numbered from (default "+defaultPool+")",
			func(f *File) *string { return &f.Pool }),
		list("allow_ranges", "CIDRs treated as public although they are special-purpose",
			func(f *File) *[]string { return &f.AllowRanges }),
	}
}

// Keys gives the dotted names of all keys, in the order of File.
func Keys() []string {
	var out []string
	for _, k := range keys() {
		out = append(out, k.name)
	}
	return out
}

// FlagName gives the flag of a dotted key: "dns.upstreams" is --dns-upstreams.
func FlagName(key string) string { return strings.NewReplacer(".", "-", "_", "-").Replace(key) }

// Flags are the flags of the configuration, bound to a command line.
type Flags struct {
	// Path is the value of --config.
	Path string

	set  *pflag.FlagSet
	file File
}

// Normalize lets the key's own spelling (--dns.upstreams, --run_dir) stand for the flag.
func Normalize(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	return pflag.NormalizedName(FlagName(name))
}

// Bind adds --config and one flag for each key to fs, with Normalize.
func Bind(fs *pflag.FlagSet) *Flags {
	f := &Flags{set: fs}
	fs.SetNormalizeFunc(Normalize)
	fs.StringVar(&f.Path, "config", "", "configuration file (default "+DefaultPath+", which may be absent)")
	for _, k := range keys() {
		k.bind(fs, &f.file)
	}
	return f
}

// Apply writes the values of the flags that were given over those of the file and says which keys they were.
func (f *Flags) Apply(to *File) (changed map[string]bool) {
	changed = map[string]bool{}
	for _, k := range keys() {
		if f.set.Changed(FlagName(k.name)) {
			changed[k.name] = true
			k.copy(to, &f.file)
		}
	}
	return changed
}
