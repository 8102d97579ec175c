package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
)

// DefaultInstance is the instance name of a machine with one gateway.
const DefaultInstance = "gatewayd"

// defaultPool is half of the benchmarking range 198.18.0.0/15 (RFC 2544 appendix C.2.2).
const defaultPool = "198.19.0.0/16"

// instanceName fits in an nftables table name, a directory name and, with a prefix, an interface name.
var instanceName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)

// CanResolve refuses a configuration without any resolver, which only running needs: the host's resolv.conf may name none
// while a plan is looked at. The error is an *Error.
func (c Config) CanResolve() error {
	if len(c.DNSUpstreams) > 0 {
		return nil
	}
	return &Error{File: c.Path, Key: "dns.upstreams", Problem: "is not set and the host's resolv.conf names no server", Remedy: "write the address of a resolver"}
}

// Resolve checks every value and fills in the defaults. changed names the keys whose values came from flags, so that a
// refusal blames the flag and not a line of the file. nameservers are the host's own resolvers, used when no
// dns.upstreams are given; see HostNameservers. The error is an *Error.
func (s *Source) Resolve(changed map[string]bool, nameservers []netip.AddrPort) (Config, error) {
	r := resolver{src: s, flags: changed}
	f := s.File
	c := Config{Path: s.Path, Uplink: f.Uplink, AuditRequired: f.Audit.Required}
	c.Instance = r.instance(f.Instance)
	c.BottlesDir = r.dir("bottles_dir", f.BottlesDir, "/etc/"+c.Instance+"/bottles")
	c.StateDir = r.dir("state_dir", f.StateDir, "/var/lib/"+c.Instance)
	c.RunDir = r.dir("run_dir", f.RunDir, "/run/"+c.Instance)
	c.BPFFSDir = r.dir("bpffs_dir", f.BPFFSDir, "/sys/fs/bpf/"+c.Instance)
	c.AuditFile = r.dir("audit.file", f.Audit.File, "")
	for i, p := range f.TLS.UpstreamRoots {
		c.UpstreamRoots = append(c.UpstreamRoots, r.dir(fmt.Sprintf("tls.upstream_roots[%d]", i), p, ""))
	}
	if len(f.Uplink) > 15 || strings.ContainsAny(f.Uplink, "/ \t\n") {
		r.refuse("uplink", "is no interface name", "write a name as `ip link` shows it, such as eth0")
	}
	switch f.FastLane {
	case "", "redirect":
	case "forward":
		c.FastForward = true
	default:
		r.refuse("fast_lane", fmt.Sprintf("%q is no way to go on", f.FastLane), "write redirect or forward")
	}
	c.PipelockRules, c.PipelockTrip = r.dir("pipelock.rules", f.Pipelock.Rules, ""), f.Pipelock.Trip
	if c.PipelockTrip < 0 {
		r.refuse("pipelock.trip", fmt.Sprintf("%d is below 0", c.PipelockTrip), "write how many requests may be blocked before the bottle is cut off, or 0 for no end")
	}
	r.dns(&c, f.DNS, nameservers)
	r.metrics(&c, f.Metrics.Listen)
	c.Pool = r.pool(f.Pool)
	for i, a := range f.AllowRanges {
		c.AllowRanges = append(c.AllowRanges, r.prefix(fmt.Sprintf("allow_ranges[%d]", i), a))
	}
	if f.Audit.Required && f.Audit.File == "" {
		r.refuse("audit.required", "is true without an audit.file", "name the file, or leave audit.required out")
	}
	if r.err != nil {
		return Config{}, r.err
	}
	return c, nil
}

// resolver collects the first refusal.
type resolver struct {
	src   *Source
	flags map[string]bool
	err   error
}

func (r *resolver) refuse(key, problem, remedy string) {
	if r.err != nil {
		return
	}
	e := &Error{File: r.src.Path, Key: key, Problem: problem, Remedy: remedy}
	base, _, _ := strings.Cut(key, "[")
	if r.flags[base] {
		e.File, e.Key = "", "--"+FlagName(base)
	} else {
		e.Line = r.src.line(key)
	}
	r.err = e
}

func (r *resolver) instance(s string) string {
	if s == "" {
		return DefaultInstance
	}
	if !instanceName.MatchString(s) {
		r.refuse("instance", fmt.Sprintf("%q is not usable in the names of a table and a directory", s),
			"write 1 to 15 of a-z, 0-9 and '-', beginning with a letter")
	}
	return s
}

func (r *resolver) dir(key, s, def string) string {
	if s == "" {
		if strings.HasSuffix(key, "]") {
			r.refuse(key, "is empty", "write an absolute path, or remove the entry")
		}
		return def
	}
	if !filepath.IsAbs(s) {
		r.refuse(key, fmt.Sprintf("%q is not an absolute path", s), "begin it with '/': a daemon has no useful working directory")
	}
	return filepath.Clean(s)
}

func (r *resolver) dns(c *Config, d DNS, nameservers []netip.AddrPort) {
	switch d.Denied {
	case "", "block":
	case "nxdomain":
		c.DeniedNXDomain = true
	default:
		r.refuse("dns.denied", fmt.Sprintf("%q is neither block nor nxdomain", d.Denied), "write block or nxdomain")
	}
	for i, u := range d.Upstreams {
		ap, err := parseUpstream(u)
		if err != nil {
			r.refuse(fmt.Sprintf("dns.upstreams[%d]", i), fmt.Sprintf("%q is no address", u), "write ADDRESS or ADDRESS:PORT, such as 192.0.2.53")
		}
		c.DNSUpstreams = append(c.DNSUpstreams, ap)
	}
	if len(c.DNSUpstreams) == 0 {
		c.DNSUpstreams = nameservers
	}
}

func (r *resolver) metrics(c *Config, s string) {
	c.MetricsListen = s
	if s == "" {
		return
	}
	const remedy = "write unix:/PATH or a loopback address such as 127.0.0.1:9469"
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !filepath.IsAbs(path) {
			r.refuse("metrics.listen", fmt.Sprintf("%q is not an absolute path", path), remedy)
		}
		return
	}
	ap, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		r.refuse("metrics.listen", fmt.Sprintf("%q is no address and port", s), remedy)
	case !ap.Addr().IsLoopback():
		r.refuse("metrics.listen", fmt.Sprintf("%s is not a loopback address: anybody who reaches it would read whom the bottles talk to", ap.Addr()), remedy)
	}
}

func (r *resolver) pool(s string) netip.Prefix {
	if s == "" {
		s = defaultPool
	}
	p := r.prefix("pool", s)
	if r.err == nil && (!p.Addr().Is4() || p.Bits() > 30 || p.Bits() < 8) {
		r.refuse("pool", fmt.Sprintf("%s is no IPv4 prefix of 8 to 30 bits", p), "write one such as "+defaultPool)
	}
	return p
}

func (r *resolver) prefix(key, s string) netip.Prefix {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		r.refuse(key, fmt.Sprintf("%q is no CIDR", s), "write ADDRESS/BITS, such as 198.51.100.0/24")
		return netip.Prefix{}
	}
	if p != p.Masked() {
		r.refuse(key, fmt.Sprintf("%s has bits set beyond its length", p), "did you mean "+p.Masked().String()+"?")
	}
	return p
}
