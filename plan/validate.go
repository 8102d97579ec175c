package plan

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"gatewayd/plan/provider"
)

var (
	bottleName = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)
	linkName   = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,15}$`)
	ownerName  = regexp.MustCompile(`^([a-z_][a-z0-9_-]{0,31}|[0-9]{1,9})$`)
)

// maxBottleName bounds a bottle's name in bytes: it becomes part of file names
// and of certificate subjects.
const maxBottleName = 32

// tapPrefix begins the name of every tap, so that the firewall's second layer
// can know it before it exists.
const tapPrefix = "gw-"

// maxRoutes bounds egress.routes.
const maxRoutes = 1000

// maxTrip bounds pipelock.trip.
const maxTrip = 1_000_000

// What pipelock.canaries may hold: what is shorter turns up in ordinary text.
const (
	maxCanaries   = 100
	minCanaryByte = 12
	maxCanaryByte = 512
)

// validate checks what decoding could not: values, and values against each
// other.
func (d *decoder) validate(m *Manifest) {
	d.validateBottle(m.Bottle)
	d.validateLink(&m.Link, m.Bottle)
	d.validateProvider(&m.AgentProvider)
	if denied := m.DNS.Denied; denied != "" && denied != string(DeniedBlock) && denied != string(DeniedNXDOMAIN) {
		d.refuse("dns.denied", quote(denied)+" is no way to answer", "write block (the client meets an explanation) or nxdomain")
	}
	if t := m.Pipelock.Trip; t != nil && (*t < 0 || *t > maxTrip) {
		d.refuse("pipelock.trip", fmt.Sprintf("%d is not between 0 and %d", *t, maxTrip), "write how many requests may be blocked before the bottle is cut off, or 0 for no end")
	}
	d.validateCanaries(m.Pipelock.Canaries)
	if len(m.Egress.Routes) > maxRoutes {
		d.refuse("egress.routes", fmt.Sprintf("%d routes, more than %d", len(m.Egress.Routes), maxRoutes), "use wildcards, or split the bottle")
		return
	}
	for i := range m.Egress.Routes {
		d.validateRoute(fmt.Sprintf("egress.routes[%d]", i), &m.Egress.Routes[i])
	}
	d.validateDuplicates(m.Egress.Routes)
}

func (d *decoder) validateCanaries(list []string) {
	if d.has("pipelock.canaries") && len(list) == 0 || len(list) > maxCanaries {
		d.refuse("pipelock.canaries", fmt.Sprintf("has %d values, not 1 to %d", len(list), maxCanaries), "write some, or remove the key")
		return
	}
	for i, c := range list {
		if n := len(c); n < minCanaryByte || n > maxCanaryByte {
			d.refuse(fmt.Sprintf("pipelock.canaries[%d]", i), fmt.Sprintf("has %d bytes, not %d to %d", n, minCanaryByte, maxCanaryByte), "choose a value that turns up nowhere else")
		}
	}
}

func (d *decoder) validateBottle(name string) {
	switch {
	case !d.has("bottle"):
		d.refuse("bottle", "is missing", "write `bottle: NAME` at the top")
	case len(name) > maxBottleName:
		d.refuse("bottle", fmt.Sprintf("has %d characters, more than %d", len(name), maxBottleName), "choose a shorter name")
	case !bottleName.MatchString(name):
		d.refuse("bottle", quote(name)+" is no bottle name", "write lower-case letters, digits and inner hyphens, beginning with a letter")
	}
}

func (d *decoder) validateLink(l *LinkManifest, bottle string) {
	var set []string
	for _, key := range []string{"tap", "netns", "interface"} {
		if d.has("link." + key) {
			set = append(set, key)
		}
	}
	if len(set) > 1 {
		d.refuse("link."+set[1], "a link has one kind, not both "+set[0]+" and "+set[1], "keep one of tap, netns and interface")
	}
	if len(set) == 0 {
		l.Tap = tapPrefix + bottle
		if len(l.Tap) > 15 {
			d.refuse("link.tap", "is missing, and "+quote(l.Tap)+" is too long for an interface name", "write link: {tap: gw-SHORT}, at most 15 characters")
		}
	}
	if d.has("link.tap") && (!linkName.MatchString(l.Tap) || !strings.HasPrefix(l.Tap, tapPrefix) || l.Tap == tapPrefix) {
		d.refuse("link.tap", quote(l.Tap)+" is no name for a tap of gatewayd", "write gw- and up to 12 letters, digits, _, . or -")
	}
	if d.has("link.interface") && (!linkName.MatchString(l.Interface) || l.Interface == "." || l.Interface == "..") {
		d.refuse("link.interface", quote(l.Interface)+" is no interface name", "write up to 15 letters, digits, _, . or -, as `ip link` shows it")
	}
	if d.has("link.netns") && !absolute(l.Netns) {
		d.refuse("link.netns", quote(l.Netns)+" is no absolute path", "write a path such as /run/netns/"+orWord(bottle, "dev"))
	}
	if d.has("link.owner") {
		switch {
		case !ownerName.MatchString(l.Owner):
			d.refuse("link.owner", quote(l.Owner)+" is no user", "write a user name, or a user number in quotes")
		case l.Tap == "":
			d.refuse("link.owner", "only a tap has an owner", "remove the key, or write link: {tap: gw-NAME, owner: "+l.Owner+"}")
		}
	}
	d.validateAdopt(l)
	if d.has("link.multi_queue") && l.Tap == "" {
		d.refuse("link.multi_queue", "only a tap has queues", "remove the key, or write link: {tap: gw-NAME, multi_queue: true}")
	}
	d.validateLinkAddresses(l)
}

// validateAdopt checks that an adopted namespace is one, and says nothing that
// its eth0 says.
func (d *decoder) validateAdopt(l *LinkManifest) {
	if d.has("link.adopt") && !d.has("link.netns") {
		d.refuse("link.adopt", "only a namespace is adopted", "remove the key, or write link: {netns: /run/netns/NAME, adopt: true}")
	}
	if !l.Adopt {
		return
	}
	for _, key := range []string{"guest", "mac", "mtu"} {
		if d.has("link." + key) {
			d.refuse("link."+key, "is the adopted eth0's to say", "remove the key; eth0's own is taken")
		}
	}
}

func (d *decoder) validateLinkAddresses(l *LinkManifest) {
	if d.has("link.guest") {
		if problem := guestProblem(l.Guest); problem != "" {
			d.refuse("link.guest", quote(l.Guest)+" "+problem, "write the guest's own IPv4 address and the prefix length: 198.18.0.2/30")
		}
	}
	if d.has("link.mac") {
		mac, err := net.ParseMAC(l.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00" {
			d.refuse("link.mac", quote(l.MAC)+" is no unicast MAC address", "write six pairs of hex digits, the first pair even: 02:00:00:00:00:02")
		}
	}
	if d.has("link.mtu") && (l.MTU < 576 || l.MTU > 9000) {
		d.refuse("link.mtu", fmt.Sprintf("%d is out of range", l.MTU), "write 576 to 9000 bytes; 1500 is the default")
	}
}

// guestProblem says why s cannot be the guest's address, or "".
func guestProblem(s string) string {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return "is no address with a prefix length"
	case !p.Addr().Is4():
		return "is not IPv4"
	case p.Bits() < 8 || p.Bits() > 30:
		return "leaves no room for both ends of the link"
	case p.Addr() == p.Masked().Addr() || p.Addr() == lastAddr(p):
		return "is the network's own or broadcast address"
	case p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsLinkLocalUnicast() || p.Addr().IsUnspecified():
		return "is no unicast address of a network"
	}
	return ""
}

// lastAddr returns the broadcast address of IPv4 prefix p.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

func (d *decoder) validateProvider(p *AgentProvider) {
	if !d.has("agent_provider") {
		return
	}
	names := strings.Join(templates(), ", ")
	_, known := builtin(p.Template)
	switch {
	case !d.has("agent_provider.template"):
		d.refuse("agent_provider.template", "is missing", "write one of "+names)
		return
	case !known:
		d.refuse("agent_provider.template", quote(p.Template)+" is no agent provider", suggest(p.Template, templates()))
		return
	}
	forward := provider.Mode(p.ForwardHostCredentials)
	if p.Template == noProvider && (forward != provider.SignIn || d.has("agent_provider.credentials_file")) {
		d.refuse("agent_provider.template", "template none has no credentials to forward", "remove forward_host_credentials and credentials_file, or name the agent")
	}
	if forward == provider.Lend && !lends(p.Template) {
		d.refuse("agent_provider.forward_host_credentials", "template "+p.Template+" cannot lend its credentials", "write true (the gateway injects them) or false (the agent signs in itself)")
	}
	if d.has("agent_provider.credentials_file") && !hostPath(p.CredentialsFile) {
		d.refuse("agent_provider.credentials_file", quote(p.CredentialsFile)+" is no absolute path", "write a path that begins with / or ~/")
	}
}

// absolute tells whether s is a clean absolute path.
func absolute(s string) bool {
	return strings.HasPrefix(s, "/") && s != "/" && !strings.Contains(s, "//") &&
		!strings.HasSuffix(s, "/") && !strings.Contains(s+"/", "/../") && !strings.Contains(s+"/", "/./")
}

// hostPath tells whether s is a clean absolute path or one below the home
// directory.
func hostPath(s string) bool {
	rest, home := strings.CutPrefix(s, "~")
	return absolute(rest) || !home && absolute(s)
}

// quote shows a value of the file in a message.
func quote(s string) string { return fmt.Sprintf("%q", clip(s)) }

func orWord(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
