// Package config reads the one configuration file of a gatewayd instance and the flags that override it.
//
// It is pure but for reading the named file: nothing is created, opened or asked of the machine, so that `gatewayd plan`
// and `gatewayd check` can use it without touching anything.
package config

import (
	"fmt"
	"net/netip"
)

// DefaultPath is where the configuration file is looked for when no --config is given. It may be absent.
const DefaultPath = "/etc/gatewayd/config.yaml"

// File is the configuration as it is written: the keys of the YAML file, each of which is also a flag of every command.
// The zero value means every default.
type File struct {
	// Instance names this gateway among several on one machine. It is part of the names of the nftables table and of the
	// default directories. One to 15 of a-z, 0-9 and '-', beginning with a letter. Default gatewayd.
	Instance string `yaml:"instance"`
	// BottlesDir holds the manifests, NAME.bottle.yaml. Default /etc/<instance>/bottles.
	BottlesDir string `yaml:"bottles_dir"`
	// StateDir holds what must survive a reboot: each bottle's CA and the address allocations. Default /var/lib/<instance>.
	StateDir string `yaml:"state_dir"`
	// RunDir holds the lock and the admin socket. Default /run/<instance>.
	RunDir string `yaml:"run_dir"`
	// BPFFSDir is the directory on a BPF file system where programs, maps and links are pinned. Default
	// /sys/fs/bpf/<instance>.
	BPFFSDir string `yaml:"bpffs_dir"`
	// Uplink is the interface that fast-path traffic may leave by. Empty means the interface of the default route.
	Uplink string `yaml:"uplink"`
	// FastLane is how connections of the fast path go on once they are verified: "redirect" (the programs translate them
	// and send them to the uplink and back, where the kernel can tell how) or "forward" (the stack does, where netfilter
	// sees all of them). Default redirect.
	FastLane string `yaml:"fast_lane"`
	// DNS says whom the gateway asks, and what the guest hears about names outside its plan.
	DNS DNS `yaml:"dns"`
	// TLS says whom the gateway trusts upstream.
	TLS TLS `yaml:"tls"`
	// Audit says where records go.
	Audit Audit `yaml:"audit"`
	// Metrics says where Prometheus metrics are served, apart from the admin socket, where they always are.
	Metrics Metrics `yaml:"metrics"`
	// Pipelock says what the leak scanner looks for.
	Pipelock Pipelock `yaml:"pipelock"`
	// Pool is the IPv4 prefix that guests without a fixed address are numbered from, a /30 for each. Default
	// 198.19.0.0/16 (benchmarking range, RFC 2544: not routed, and in nobody's LAN).
	Pool string `yaml:"pool"`
	// AllowRanges are CIDRs treated as public although they are special-purpose: laboratories and corporate networks.
	AllowRanges []string `yaml:"allow_ranges"`
}

// Pipelock is the pipelock section of the configuration file.
type Pipelock struct {
	// Rules is a file of rules in gitleaks' format (TOML), besides the built-in ones. Empty: none.
	Rules string `yaml:"rules"`
	// Trip is how many requests, WebSocket connections and names of one bottle may be blocked for a leak before the bottle is cut off. 0: no number is.
	Trip int `yaml:"trip"`
}

// DNS is the dns section of the configuration file.
type DNS struct {
	// Upstreams are the resolvers asked, ADDRESS or ADDRESS:PORT. Default: the nameservers of the host's resolv.conf.
	Upstreams []string `yaml:"upstreams"`
	// Denied is what a guest hears about a name outside its plan: "block" (the link's block address, where a 403 explains
	// the denial) or "nxdomain". Default block. A manifest may override it.
	Denied string `yaml:"denied"`
}

// TLS is the tls section of the configuration file.
type TLS struct {
	// UpstreamRoots are PEM files of certificate authorities trusted for upstreams besides the system's.
	UpstreamRoots []string `yaml:"upstream_roots"`
}

// Audit is the audit section of the configuration file.
type Audit struct {
	// File receives one JSON record a line for each flow and request. Empty: records are kept in memory only.
	File string `yaml:"file"`
	// Required makes an audit trail a condition of service: when records cannot be written, flows are denied.
	Required bool `yaml:"required"`
}

// Metrics is the metrics section of the configuration file.
type Metrics struct {
	// Listen is unix:PATH or a loopback ADDRESS:PORT. Empty: metrics are served on the admin socket only.
	Listen string `yaml:"listen"`
}

// Config is a checked configuration: every default filled in, every value parsed. It is a value; copies are independent
// as long as nobody writes to its slices.
type Config struct {
	// Path is the file read, empty when there was none.
	Path string
	// Instance, BottlesDir, StateDir, RunDir, BPFFSDir and Uplink are as in File; the directories are absolute.
	Instance, BottlesDir, StateDir, RunDir, BPFFSDir, Uplink string
	// FastForward is true for fast_lane: forward.
	FastForward bool
	// DNSUpstreams may be empty; see CanResolve.
	DNSUpstreams []netip.AddrPort
	// DeniedNXDomain is true for dns.denied: nxdomain.
	DeniedNXDomain bool
	// UpstreamRoots are absolute paths of PEM files.
	UpstreamRoots []string
	// AuditFile is an absolute path or empty.
	AuditFile string
	// AuditRequired is as in Audit.
	AuditRequired bool
	// MetricsListen is empty, unix:PATH or a loopback ADDRESS:PORT.
	MetricsListen string
	// PipelockRules is an absolute path or empty, and PipelockTrip 0 or more.
	PipelockRules string
	PipelockTrip  int
	// Pool is masked, IPv4, at most /30.
	Pool netip.Prefix
	// AllowRanges are masked.
	AllowRanges []netip.Prefix
}

// Error is a refusal of a configuration: where it is, what is wrong and what to write instead.
type Error struct {
	// File is the path as given, empty for a flag.
	File string
	// Line is 1-based, 0 when not known.
	Line int
	// Key is the dotted key, "dns.denied", empty when the text is no YAML.
	Key string
	// Problem says what is wrong, Remedy what to write instead.
	Problem, Remedy string
}

// Error gives "FILE:LINE: KEY: PROBLEM; REMEDY", leaving out what is not known.
func (e *Error) Error() string {
	s := e.Problem
	if e.Key != "" {
		s = e.Key + ": " + s
	}
	switch {
	case e.File != "" && e.Line > 0:
		s = fmt.Sprintf("%s:%d: %s", e.File, e.Line, s)
	case e.File != "":
		s = e.File + ": " + s
	}
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}
